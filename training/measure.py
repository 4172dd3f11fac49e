"""chi2 of a trained model on survey files, or on what a run held apart, beside straight lines and the mean spectrum.

    python training/measure.py --model runs/released/model --data sdss=PATH desi=PATH --output runs/released

Leaves `evaluation.json`, which `publish.py` puts into the model's card, and `evaluation.png`, a spectrum per survey.
"""

import argparse
import json
from pathlib import Path

import figures
import surveys
from recipe import Recipe, parse_data
from transformers import AutoModelForPreTraining, AutoProcessor
from validation import SurveyValidation, measure, table


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure a trained tokenizer on survey files.")
    parser.add_argument("--model", required=True, help="folder or name of a trained model")
    parser.add_argument(
        "--data",
        nargs="+",
        default=[],
        metavar="SURVEY=PATH",
        help="survey files, folder or glob, e.g. sdss=/data/sdss",
    )
    parser.add_argument(
        "--held-by",
        type=Path,
        metavar="METRICS",
        help="metrics.json of a run: of its own data, what it held apart alone",
    )
    parser.add_argument("--spectra", type=int, default=2000, help="of each survey, at most (default: %(default)s)")
    parser.add_argument("--output", required=True, type=Path, help="folder for evaluation.json and evaluation.png")
    parser.add_argument("--simulated", action="store_true", help="say in both that the files are simulated")
    given = parser.parse_args()
    if not given.data and not given.held_by:
        parser.error("expected --data or --held-by, found neither")
    model = AutoModelForPreTraining.from_pretrained(given.model).eval()
    processor = AutoProcessor.from_pretrained(given.model)
    rows = surveys.load(Recipe(data=parse_data(given.data))) if given.data else {}
    is_simulated = given.simulated
    if given.held_by:
        recipe = Recipe(**json.loads(given.held_by.read_text())["recipe"])
        held = {survey: each for survey, (_, each) in surveys.parts(recipe).items()}
        if twice := sorted(set(rows) & set(held)):
            parser.error(f"expected surveys in --data that the run of --held-by did not have, found: {twice}")
        rows, is_simulated = rows | held, is_simulated or recipe.is_simulated
    for survey, each in rows.items():  # all are in memory at once
        if len(each) > given.spectra:
            print(f"{survey}: {given.spectra} of {len(each)} spectra, drawn")
            rows[survey] = each.shuffle(seed=0).select(range(given.spectra))
    # The mean spectrum is that of the very spectra it is compared on: there may be few, and it is flattered, not harmed.
    found = {survey: SurveyValidation(each, each, processor, len(each)) for survey, each in rows.items()}
    chi2 = measure(model, found)
    print(table(chi2))
    counts = {survey: len(each) for survey, each in rows.items()}
    evaluation = {"name": "survey files", "simulated": is_simulated, "num_spectra": counts, "chi2": chi2}
    given.output.mkdir(parents=True, exist_ok=True)
    (given.output / "evaluation.json").write_text(json.dumps(evaluation, indent=2) + "\n")
    figure = figures.reconstructions(model, found, given.output / "evaluation.png", is_simulated)
    print(f"\nfigures: {given.output / 'evaluation.json'}\npicture: {figure}")


if __name__ == "__main__":
    main()
