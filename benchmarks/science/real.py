"""Heads that have only seen simulated spectra, on real ones: what simulation is worth to somebody with a telescope."""

import os
from pathlib import Path

import numpy as np
import torch

from spectral_tokenizer import SpectralProcessor
from spectral_tokenizer.data import load_survey
from spectral_tokenizer.data.packing import as_arrays, rows_of
from training.simulated.patches import Spectra
from training.simulated.populations import KINDS

from .bench import BATCH, LABELS, Bench, ProbeSet, joined
from .comparisons import best_constant, scores_elsewhere, task_targets
from .scores import class_scores, mad, redshift_scores, summary
from .tables import row


FOLDER = os.environ.get("SPECTRA_DIR", "../shared/spectra")
COLUMNS = ("class", "redshift", *LABELS, "snr")
TASKS = ("class", "redshift GALAXY", "redshift QSO")


def real(bench: Bench) -> list[dict]:
    """Class and redshift of real SDSS and DESI spectra (files in `SPECTRA_DIR`/SURVEY), Teff, logg and [Fe/H] of real
    GALAH stars that have them: heads fitted on the training spectra of `classes`, `redshift` and `labels`, simulated
    all. The constant is the best one for these very objects, which are no fair sample of a survey."""
    rows = []
    optical = [survey for survey in ("sdss", "desi") if survey in bench.chosen]
    if optical:
        train = joined([bench.probe_set(survey, "train") for survey in optical])
        rows += measured(bench, train, {survey: real_set(bench, survey) for survey in optical}, TASKS)
    if "galah" in bench.chosen:
        rows += measured(bench, bench.probe_set("galah", "train"), {"galah": real_set(bench, "galah")}, ("labels",))
    return rows


def measured(bench: Bench, train: ProbeSet, tests: dict[str, ProbeSet], tasks: tuple[str, ...]) -> list[dict]:
    rows = []
    for survey, test in tests.items():
        for task in tasks:
            _, truth = known_targets(task, test.known)
            if len(truth):
                found = summary([scores(task, best_constant(task, truth), truth)])
                rows.append(row("constant", "-", found, survey=survey, task=task, objects=str(len(truth))))
    for name, fit_on, others in bench.feature_pairs(train, list(tests.values())):
        given = dict(zip(tests, zip(tests.values(), others)))
        for task in tasks:
            for head in bench.heads(name, task):
                found = scores_elsewhere(bench, name, task, head, train, fit_on, given, known_targets, scores)
                for survey, values in found.items():
                    if values:
                        objects = str(len(known_targets(task, tests[survey].known)[0]))
                        rows.append(row(name, head, summary(values), survey=survey, task=task, objects=objects))
    return rows


def known_targets(task: str, known: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """As `task_targets`, without objects of which it is not known."""
    seen, targets = task_targets(task, known)
    is_known = known["kind"][seen] >= 0 if task == "class" else np.isfinite(targets).all(axis=1)
    return seen[is_known], targets[is_known]


def scores(task: str, predicted: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    if task == "class":
        return class_scores(predicted, truth, KINDS)
    if task.startswith("redshift"):
        return redshift_scores(np.expm1(predicted[:, 0]), np.expm1(truth[:, 0]))
    return {f"{name}_mad": mad(predicted[:, column] - truth[:, column]) for column, name in enumerate(LABELS)}


def real_set(bench: Bench, survey: str) -> ProbeSet:
    """Features of a survey's real spectra."""
    dataset = as_arrays(load_survey(survey, Path(FOLDER) / survey), COLUMNS)
    places = range(0, len(dataset), BATCH)
    rows = (rows_of(dataset, list(range(first, min(first + BATCH, len(dataset))))) for first in places)
    return joined([bench.features_of(to_spectra(survey, part)) for part in rows])


def to_spectra(survey: str, rows: list[dict]) -> Spectra:
    """Rows of survey files as the benchmark's packed spectra; the truth is not known, nor some labels."""
    packed = SpectralProcessor()(rows, packed=True, return_tensors="pt")
    labels = {name: torch.tensor([float(each[name]) for each in rows]) for name in ("redshift", *LABELS, "snr")}
    kind = [KINDS.index(each["class"]) if each["class"] in KINDS else -1 for each in rows]
    return Spectra(
        **{name: packed[name] for name in ("flux", "ivar", "wavelength", "lengths", "scale")},
        truth=torch.full_like(packed["flux"], torch.nan),
        survey=[survey] * len(rows),
        index=torch.arange(len(rows)),
        kind=torch.tensor(kind),
        **labels,
    )
