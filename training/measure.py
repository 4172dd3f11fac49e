"""A trained model on further survey files, or on what a run held apart: a tokenizer's chi2, a head's errors.

    python training/measure.py --model runs/mine/model --held-by runs/mine/metrics.json --output runs/mine
    python training/measure.py --model runs/released/model --data sdss=PATH desi=PATH --output runs/released
    python training/measure.py --model runs/z/model --data sdss=PATH --select class=GALAXY,QSO --output runs/z
    python training/measure.py --model runs/z/model --data sdss=PATH --calibrate 0.5 --output runs/z_calibrated

Of a tokenizer, chi2 on hidden pixels beside straight lines and the survey's mean spectrum; of a head, its metrics on
spectra whose labels are known, after it was calibrated on a part of them if that is wanted. Leaves `evaluation.json`,
which `publish.py` puts into the model's card, and `evaluation.png`; of a head for Teff and logg also `stars.png`, where
all spectra stand, known labels or not.
"""

import argparse
import json
from pathlib import Path

import checkpoints
import figures
import finetune
import head_figures
import labelled
import numpy as np
import surveys
import torch
from datasets import Dataset, concatenate_datasets
from devices import needs_cpu
from measured import fingerprint, read
from recipe import Recipe, find_model, parse_data, parse_options, read_yaml
from transformers import (
    AutoConfig,
    AutoModelForPreTraining,
    AutoModelForSequenceClassification,
    AutoProcessor,
    Trainer,
    TrainingArguments,
)
from validation import SurveyValidation, measure, table

from spectral_tokenizer.data.collator import SpectralCollator
from spectral_tokenizer.data.cross_match import cross_match
from spectral_tokenizer.data.splits import split
from spectral_tokenizer.metrics import make_compute_metrics, with_novelty


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Measure a trained tokenizer or head on survey files.")
    parser.add_argument("--model", required=True, help="folder or name of a trained model")
    several = {"nargs": "+", "action": "extend", "default": []}
    parser.add_argument(
        "--data", **several, metavar="SURVEY=PATH", help="survey files, folder or glob, e.g. sdss=/data/sdss"
    )
    parser.add_argument(
        "--options",
        **several,
        metavar="SURVEY.NAME=VALUE",
        help="of a survey's reader, as apogee.catalogue=allStar.fits",
    )
    parser.add_argument(
        "--held-by",
        type=Path,
        metavar="METRICS",
        help="metrics.json of a pre-training run: of its own data, what it held apart alone",
    )
    parser.add_argument(
        "--select",
        **several,
        metavar="COLUMN=VALUE[,VALUE]",
        help="for a head: such spectra alone, e.g. class=GALAXY,QSO",
    )
    parser.add_argument(
        "--label-table",
        default="{}",
        metavar="YAML",
        help="for a head of labels of your own, as in its recipe: '{table: ages.csv, columns: [age], key: sobject_id}'",
    )
    parser.add_argument(
        "--calibrate",
        type=float,
        metavar="FRACTION",
        help="for a head: fit its intervals and its flag on this part of the objects, measure it on the others, and "
        "save it as OUTPUT/model; nothing else of it is trained",
    )
    parser.add_argument(
        "--seed", type=int, default=0, help="of which objects --calibrate takes (default: %(default)s)"
    )
    parser.add_argument("--spectra", type=int, default=2000, help="of each survey, at most (default: %(default)s)")
    parser.add_argument("--output", required=True, type=Path, help="folder for evaluation.json and evaluation.png")
    parser.add_argument("--simulated", action="store_true", help="say in both that the files are simulated")
    given = parser.parse_args(arguments)
    given.label_table = read_yaml(given.label_table, "--label-table")  # here, as argparse hides what an error says
    if not given.data and not given.held_by:
        parser.error("expected --data or --held-by, found neither")
    if given.options and not given.data:
        parser.error("--options are of the surveys in --data: expected both, found no --data")
    if given.held_by and not given.held_by.is_file():
        found = "a folder" if given.held_by.is_dir() else "no such file"
        parser.error(f"--held-by: expected metrics.json of a pre-training run, found {found}: {given.held_by}")
    if given.spectra < 1:
        parser.error(f"--spectra: expected 1 or more, found: {given.spectra}")
    if given.calibrate is not None and not 0 < given.calibrate < 1:
        parser.error(f"--calibrate: expected a part between 0 and 1, found: {given.calibrate}")
    if given.calibrate and (given.output / "model").exists():
        parser.error(f"{given.output / 'model'}: is there already; expected another --output for the calibrated model")
    return given


def load(given: argparse.Namespace) -> tuple[dict[str, Dataset], bool, dict | None]:
    """Rows of each survey, at most so many; whether they are simulated; and of which of them the run of --held-by tells
    that a model with its `split` was not trained on them.

    Raises:
        ValueError: both --data and the run of --held-by have a survey; or as `recipe_of`.
    """
    recipe = Recipe(data=parse_data(given.data), options=parse_options(given.options))
    rows = surveys.load(recipe) if given.data else {}
    is_simulated, held_by = given.simulated, None
    if given.held_by:
        recipe = recipe_of(given.held_by)
        parts = surveys.parts(recipe)
        held = {survey: each for survey, (_, each) in parts.items()}
        apart = [survey for survey, (train, each) in parts.items() if each is not train]  # of one object it is not
        split_as = {name: getattr(recipe, name) for name in ("validation_fraction", "split_seed")}
        held_by = {"surveys": apart, "split": split_as}
        if twice := sorted(set(rows) & set(held)):
            raise ValueError(f"--data: found {twice}, which the run of --held-by has too; expected other surveys")
        rows, is_simulated = rows | held, is_simulated or recipe.is_simulated
    for survey, each in rows.items():  # all are in memory at once
        if len(each) > given.spectra:
            print(f"{survey}: {given.spectra} of {len(each)} spectra, drawn")
            rows[survey] = each.shuffle(seed=0).select(range(given.spectra))
    return rows, is_simulated, held_by


def recipe_of(metrics: Path) -> Recipe:
    """The recipe of a pre-training run, of which it left these metrics.

    Raises:
        ValueError: they are none, or were published, by which the paths of the run's data were left out.
    """
    settings = read(metrics, {"recipe": dict}, "metrics of a pre-training run")["recipe"]
    if blank := sorted(survey for survey, files in (settings.get("data") or {}).items() if not files):
        raise ValueError(
            f"{metrics}: recipe.data: expected paths, found blank ones of {blank}, as in published metrics: give those that "
            "the run itself left"
        )
    return Recipe(**settings)


def measure_tokenizer(folder: str, rows: dict[str, Dataset], figure: Path, is_simulated: bool) -> dict:
    """`chi2` as in `metrics.json`, of which model it is, and a picture of a spectrum per survey."""
    model = AutoModelForPreTraining.from_pretrained(folder).eval()
    processor = AutoProcessor.from_pretrained(folder)
    # The mean spectrum is that of the very spectra it is compared on: there may be few, and it is flattered, not
    # harmed.
    found = {survey: SurveyValidation(each, each, processor, len(each)) for survey, each in rows.items()}
    chi2 = measure(model, found)
    print(table(chi2))
    figures.reconstructions(model, found, figure, is_simulated)
    counts = {survey: len(each) for survey, each in rows.items()}
    return {"model": fingerprint(model), "num_spectra": counts, "chi2": chi2}


def measure_head(
    folder: str,
    rows: dict[str, Dataset],
    select: dict[str, list[str]],
    figure: Path,
    is_simulated: bool,
    label_table: dict | None = None,
    calibrate: float | None = None,
    seed: int = 0,
) -> dict:
    """`test`, `test_by_survey` and `test_by_class` as in a head's `metrics.json`, of which model they are (after it
    was calibrated), and a picture of the predictions. With `calibrate` the model is saved beside the picture, calibrated on this part of the objects; the figures are of the
    others.

    Raises:
        ValueError: as `labelled_rows`, or one object alone is to calibrate and to measure.
    """
    model, processor = (
        AutoModelForSequenceClassification.from_pretrained(folder),
        AutoProcessor.from_pretrained(folder),
    )
    is_class = not model.config.is_regression and model.config.problem_type != "multi_label_classification"
    names = model.config.label_names
    labels, classes = (["class"], names) if is_class else (names, None)
    if is_class:
        select = {"class": names, **select}  # of a class that it does not know there is nothing to say
    rows_of_all, known = labelled_rows(rows, labels, select, label_table)
    arguments = TrainingArguments(
        str(figure.parent), per_device_eval_batch_size=32, remove_unused_columns=False, label_names=["labels"],
        use_cpu=needs_cpu(), report_to="none", dataloader_pin_memory=torch.cuda.is_available(),
    )  # fmt: skip
    collator = SpectralCollator(processor, labels, classes)
    trainer = Trainer(model, arguments, collator, compute_metrics=make_compute_metrics(model.config))
    calibrated = {}
    if calibrate:
        known, others = split({"spectra": known}, calibrate, seed=seed)["spectra"]
        if known is others:
            raise ValueError("--calibrate: expected objects to calibrate on and others to measure on, found one alone")
        before = finetune.strip(trainer.predict(known, with_novelty(model.config)).metrics, "test_")
        model.calibrate(finetune.batches(others, collator, arguments))
        calibrated = {"num_calibrated": len(others), "test_before_calibration": before}
    tested = trainer.predict(known, with_novelty(model.config))
    scores = finetune.strip(tested.metrics, "test_")
    for name, value in scores.items():
        was = f", {before[name]:.4g} before" if calibrate and before[name] != value else ""
        print(f"{name:<28} {value:10.4g}{was}")
    if calibrate:
        # The width itself is one of a sample.
        chance = 0.47 * (1 / len(others) + 1 / len(known)) ** 0.5
        print(
            f"calibrated on {len(others)} spectra, measured on {len(known)}: by chance a coverage errs by {chance:.2f}"
        )
    head_figures.draw(model.config, tested, known, figure, is_simulated)
    if {"teff", "logg"} <= set(names) and not select:
        stars, survey = trainer.predict(rows_of_all).predictions, np.array(rows_of_all["survey"])
        head_figures.draw_stars(model.config, stars, survey, figure.with_name("stars.png"), is_simulated)
    else:
        figure.with_name("stars.png").unlink(
            missing_ok=True
        )  # an earlier model's: it would be published with this one
    counts = {survey: known["survey"][:].count(survey) for survey in dict.fromkeys(known["survey"][:])}
    apart = finetune.told_apart(trainer, known, tested)
    if calibrate:
        for each in (model, processor):
            each.save_pretrained(figure.parent / "model")
        checkpoints.let_read(figure.parent / "model")
    return {"model": fingerprint(model), "num_spectra": counts, **calibrated, "test": scores, **apart}


def labelled_rows(
    rows: dict[str, Dataset], labels: list[str], select: dict[str, list[str]], label_table: dict | None
) -> tuple[Dataset, Dataset]:
    """All rows, and those with a known label and the values asked for.

    Raises:
        ValueError: as `labelled.with_labels`, or there is none.
    """
    found = concatenate_datasets(list(rows.values()))
    if label_table:
        found = cross_match(found, **label_table)
    known = labelled.with_labels(found, labels, select)
    if not len(known):
        raise ValueError(
            f"labels, select: expected spectra with one of {labelled.asked(labels, select)}, found none of {len(found)}"
            f"{labelled.told_not_shown([found], labels)}"
        )
    return found, known


def parse_select(pairs: list[str]) -> dict[str, list[str]]:
    """COLUMN=VALUE,VALUE of the command line -> column -> values; a column that stands twice has the values of both.

    Raises:
        ValueError: a pair has another form.
    """
    select: dict[str, list[str]] = {}
    for pair in pairs:
        column, _, values = (part.strip() for part in pair.partition("="))
        found = [value.strip() for value in values.split(",")]
        if not column or not all(found):
            raise ValueError(f"--select: expected COLUMN=VALUE or COLUMN=VALUE,VALUE, found: {pair!r}")
        select.setdefault(column, []).extend(found)
    return select


def main() -> None:
    given = parse_arguments()
    given.model = find_model("--model", given.model)
    is_head = "SpectralForSequenceClassification" in (AutoConfig.from_pretrained(given.model).architectures or [])
    of_heads = [name for name in ("select", "label_table", "calibrate") if getattr(given, name)]
    if of_heads and not is_head:
        names = ", ".join(f"--{name.replace('_', '-')}" for name in of_heads)
        raise ValueError(f"{names}: {given.model} is a tokenizer; expected a head, fine-tuned for labels")
    select = parse_select(given.select)
    rows, is_simulated, held_by = load(given)
    given.output.mkdir(parents=True, exist_ok=True)
    figure = given.output / "evaluation.png"
    if is_head:
        found = measure_head(
            given.model, rows, select, figure, is_simulated, given.label_table, given.calibrate, given.seed
        )
    else:
        found = measure_tokenizer(given.model, rows, figure, is_simulated)
    evaluation = {"name": "survey files", "simulated": is_simulated, "held_by": held_by, **found}
    (given.output / "evaluation.json").write_text(json.dumps(evaluation, indent=2) + "\n")
    print(f"\nfigures: {given.output / 'evaluation.json'}\npicture: {figure}")


if __name__ == "__main__":
    main()
