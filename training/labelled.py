"""Survey files -> labelled rows: to train on, to calibrate on, to test on."""

import hashlib
import math

import numpy as np
import surveys
from datasets import Dataset, concatenate_datasets
from recipe import Recipe

from spectral_tokenizer.data.schema import SPECTRUM


PARTS = ("train", "calibration", "test")
# Positions are compared to 0.001 degrees, some arc seconds: a fibre sees one object.
DECIMALS = 3


def load(settings, output: str) -> dict[str, Dataset]:
    """Rows of all surveys that have one of the labels and the values asked for, shuffled, in three parts.

    Args:
        settings: `data`, `options`, `simulate` and `simulation_seed`, `labels` (columns), `select` (column -> values
            to keep), `calibration_fraction`, `test_fraction`, `split_seed`; see `FineTuningArguments`.
        output: Simulated files are put beside this folder.

    Raises:
        ValueError: an unknown column, or too few rows are left.
    """
    recipe = Recipe(
        data=settings.data, options=settings.options, simulate=settings.simulate, output=output,
        seed=settings.simulation_seed,
    )  # fmt: skip
    rows = concatenate_datasets(list(surveys.load(recipe).values()))
    unknown = sorted({*settings.labels, *settings.select} - set(rows.column_names))
    if unknown:
        raise ValueError(f"labels, select: expected some of {rows.column_names}, found: {unknown}")
    rows = rows.select(np.flatnonzero(is_chosen(rows, settings.labels, settings.select)))
    parts = split(rows, settings.calibration_fraction, settings.test_fraction, settings.split_seed)
    few = {name: len(part) for name, part in parts.items() if len(part) < 2}
    if few:
        raise ValueError(
            f"expected at least 2 spectra with one of {settings.labels} in every part, found: {few} of {len(rows)}"
        )
    columns = list(dict.fromkeys(["object_id", "survey", "class", "snr", *SPECTRUM, *settings.labels]))
    return {name: part.select_columns(columns).shuffle(settings.split_seed) for name, part in parts.items()}


def is_chosen(rows: Dataset, labels: list[str], select: dict[str, list]) -> np.ndarray:
    """(rows,) booleans: a label is known, and columns have the values asked for."""
    chosen = np.zeros(len(rows), dtype=bool)
    for column in labels:
        chosen |= np.array([value is not None and value == value for value in rows[column]], dtype=bool)
    for column, values in select.items():
        chosen &= np.isin(np.array(rows[column], dtype=object).astype(str), [str(value) for value in values])
    return chosen


def split(rows: Dataset, calibration_fraction: float, test_fraction: float, seed: int) -> dict[str, Dataset]:
    """Three parts that share no object. What lies at one place on the sky is one object, whatever survey saw it."""
    places = np.array(
        [place_in_order(*each, seed) for each in zip(rows["ra"], rows["dec"], rows["survey"], rows["object_id"])]
    )
    part = np.digitize(places, [test_fraction, test_fraction + calibration_fraction])
    return {name: rows.select(np.flatnonzero(part == number)) for name, number in zip(PARTS, (2, 1, 0))}


def place_in_order(ra: float, dec: float, survey: str, object_id: str, seed: int) -> float:
    """A number from 0 to 1 that is the same for every spectrum of an object, and different under another seed."""
    key = f"{survey} {object_id}" if math.isnan(ra) else f"{ra:.{DECIMALS}f} {dec:.{DECIMALS}f}"
    digest = hashlib.sha1(f"{seed} {key}".encode()).digest()
    return int.from_bytes(digest[:6], "big") / 2**48
