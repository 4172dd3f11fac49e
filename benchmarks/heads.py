"""Are a head's errors of the size of its errors, and does it know when a redshift is wrong?

    python -m benchmarks.heads --model runs/demo/model

A frozen encoder, simulated spectra of the package, and for several splits into objects to train, calibrate and test
on: a redshift head on galaxies and quasars of SDSS and DESI, and stellar labels of APOGEE; where the model's folder
has kept the label head of its pre-training (`label_weight`), that one's redshifts too, calibrated alone. Printed: a
table of what was found on the test objects, mean and standard deviation over the splits; the last line is the same
as JSON.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from datasets import Dataset, concatenate_datasets
from tqdm import tqdm
from transformers import AutoModelForSequenceClassification, AutoProcessor

from spectral_tokenizer.data import load_survey
from spectral_tokenizer.data.embedding import embed
from spectral_tokenizer.data.simulation import simulate
from spectral_tokenizer.heads_spectral_tokenizer import SpectralForSequenceClassification
from spectral_tokenizer.metrics import score_targets


#: |dz| / (1 + z) beyond which a redshift has failed. The same trained head is calibrated for each.
TOLERANCES = (0.0033, 0.05, 0.15)
REDSHIFT = {"distribution": "bins", "transform": "log1p", "range": [-0.01, 4.6], "num_bins": 512}
STELLAR = {"teff": {"transform": "log"}, "logg": {}, "fe_h": {}}
FRACTIONS = (0.4, 0.3, 0.3)  # train, calibrate, test
SHOWN = ("nmad", "mad", "outliers_0.15", "coverage", "failures", "caught", "flag_caught", "flag_false_alarms")
NUM_EPOCHS, BATCH_SIZE, LEARNING_RATE, WEIGHT_DECAY = 40, 32, 1e-3, 0.05


def spectra(folder: Path, surveys: tuple[str, ...], count: int, seed: int) -> Dataset:
    """Rows of simulated spectra, written once."""
    folder = folder / f"heads-seed{seed}-{count}-{'-'.join(surveys)}"
    if not folder.exists():
        simulate(folder, count, surveys=surveys, seed=seed, progress=True)
    return concatenate_datasets([load_survey(survey, folder / survey) for survey in surveys])


def split(rows: Dataset, seed: int) -> list[np.ndarray]:
    """Places of rows to train, calibrate and test on, by object."""
    objects = np.unique(rows["object_id"][:])
    order = np.random.default_rng(seed).permutation(len(objects))
    number = np.searchsorted(np.cumsum(FRACTIONS)[:2], (np.argsort(order) + 0.5) / len(objects))
    part = dict(zip(objects.tolist(), number.tolist()))
    of_row = np.array([part[name] for name in rows["object_id"][:]])
    return [np.flatnonzero(of_row == number) for number in range(3)]


def fit(model, vectors: torch.Tensor, labels: torch.Tensor, seed: int) -> None:
    """Train the head alone: AdamW, a cosine down to zero."""
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(model.head.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, NUM_EPOCHS * -(-len(vectors) // BATCH_SIZE))
    model.train()
    for _ in range(NUM_EPOCHS):
        for chosen in torch.randperm(len(vectors), generator=generator).split(BATCH_SIZE):
            optimizer.zero_grad()
            model(pooler_output=vectors[chosen], labels=labels[chosen]).loss.backward()
            optimizer.step()
            schedule.step()
    model.eval()


@torch.no_grad()
def score(model, vectors: torch.Tensor, labels: torch.Tensor) -> dict[str, float]:
    """Metrics of all targets; `failures` is the fraction beyond the tolerance."""
    output = model(pooler_output=vectors)
    predictions = (output.logits, output.errors, output.intervals, output.confidence, output.is_flagged)
    scores = score_targets(model.config, tuple(each.numpy() for each in predictions), labels.numpy())
    for column, target in enumerate(model.targets.targets):
        known = ~labels[:, column].isnan()
        error = target.transform(output.logits[known, column]) - target.transform(labels[known, column])
        scores[f"{target.name}_failures"] = (error.abs() > target.tolerance).float().mean().item()
    return scores


def fitted(folder: str, names: list[str], targets: dict, part: dict[str, torch.Tensor], seed: int):
    """A head on the frozen encoder, trained on one part."""
    model = AutoModelForSequenceClassification.from_pretrained(
        folder, problem_type="regression", id2label=dict(enumerate(names)), targets=targets,
        num_trainable_layers=0, classifier_dropout=0.1,
    )  # fmt: skip
    model.fit_scales([part])
    fit(model, part["pooler_output"], part["labels"], seed)
    return model


def evaluate(
    folder: str, rows: Dataset, vectors: np.ndarray, variants: list[dict], num_splits: int, label_head: bool = False
) -> list[list[dict]]:
    """Scores of a head, variant by variant and split by split. Variants of the targets' settings differ in what is
    made of the head's answers, not in its training. With `label_head` it is that of pre-training, fitted on nothing."""
    names = list(variants[0])
    labels = torch.tensor(np.stack([np.array(rows[name][:], dtype=np.float32) for name in names], axis=1))
    vectors, found = torch.from_numpy(vectors), [[] for _ in variants]
    for seed in tqdm(range(num_splits), desc=", ".join(names), leave=False):
        torch.manual_seed(seed)
        train, calibration, test = (
            {"pooler_output": vectors[places], "labels": labels[places]} for places in split(rows, seed)
        )
        if label_head:
            model = SpectralForSequenceClassification.from_label_head(folder, names).eval()
        else:
            model = fitted(folder, names, variants[0], train, seed)
        scales = model.config.targets
        for variant, scores in zip(variants, found):
            model.config.targets = {name: {**scales[name], **settings} for name, settings in variant.items()}
            model.calibrate([calibration])
            scores.append(score(model, test["pooler_output"], test["labels"]))
    return found


def summary(found: list[dict], name: str, case: str, num_test: int) -> dict:
    """Mean and standard deviation over splits of one target's scores."""
    scores = {}
    for key in SHOWN:
        values = [each[f"{name}_{key}"] for each in found if f"{name}_{key}" in each]
        if values:
            scores[key] = [float(np.mean(values)), float(np.std(values))]
    return {"case": case, "test_spectra": num_test, **scores}


def table(cases: list[dict]) -> str:
    lines = ["| " + " | ".join(("", "test", *SHOWN)) + " |", "|" + "---|" * (len(SHOWN) + 2)]
    for case in cases:
        cells = [f"{case[key][0]:.4g} ± {case[key][1]:.2g}" if key in case else "" for key in SHOWN]
        lines.append(f"| {case['case']} | {case['test_spectra']} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def labelled_spectra(given: argparse.Namespace, surveys: tuple[str, ...], names: list[str]) -> Dataset:
    """Rows of which at least one label is known; of redshifts, those of galaxies and quasars."""
    rows = spectra(Path(given.folder), surveys, given.spectra, given.seed)
    is_chosen = np.isfinite(np.array([rows[name][:] for name in names], dtype=float)).any(0)
    if "redshift" in names:
        is_chosen &= np.array(rows["class"][:]) != "STAR"
    return rows.select(np.flatnonzero(is_chosen))


def redshift_cases(folder: str, rows: Dataset, vectors: np.ndarray, num_splits: int, label_head: bool) -> list[dict]:
    settings = {} if label_head else REDSHIFT
    variants = [{"redshift": {**settings, "tolerance": tolerance}} for tolerance in TOLERANCES]
    found = evaluate(folder, rows, vectors, variants, num_splits, label_head)
    name, num_test = "redshift by the label head" if label_head else "redshift", len(split(rows, 0)[2])
    return [
        summary(each, "redshift", f"{name}, tolerance {tolerance:g}", num_test)
        for tolerance, each in zip(TOLERANCES, found)
    ]


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="benchmarks.heads", description=__doc__.split("\n")[0])
    parser.add_argument("--model", default="runs/demo/model", help="encoder (default: %(default)s)")
    parser.add_argument("--spectra", type=int, default=1500, help="simulated per survey (default: %(default)s)")
    parser.add_argument("--splits", type=int, default=5)
    parser.add_argument("--seed", type=int, default=5, help="of the simulation (default: %(default)s)")
    parser.add_argument("--folder", default="runs/simulated", help="where simulated files are put")
    given = parser.parse_args(arguments)
    processor = AutoProcessor.from_pretrained(given.model)
    encoder = AutoModelForSequenceClassification.from_pretrained(given.model).spectral
    was_told = encoder.config.label_weight > 0 and "redshift" in encoder.config.label_targets
    cases = []
    for surveys, names in ((("sdss", "desi"), ["redshift"]), (("apogee",), list(STELLAR))):
        rows = labelled_spectra(given, surveys, names)
        vectors, _ = embed(encoder, processor, rows, progress=True)
        if "redshift" in names:
            for label_head in (False, True)[: 1 + was_told]:
                cases += redshift_cases(given.model, rows, vectors, given.splits, label_head)
        else:
            (found,) = evaluate(given.model, rows, vectors, [STELLAR], given.splits)
            cases += [summary(found, name, name, len(split(rows, 0)[2])) for name in STELLAR]
    print(f"Simulated spectra, frozen {given.model}; mean ± standard deviation of {given.splits} splits\n")
    print(table(cases))
    print(json.dumps({"model": given.model, "simulated": True, "cases": cases}))


if __name__ == "__main__":
    main()
