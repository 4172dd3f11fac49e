"""Survey files -> labelled rows: to train on, to calibrate on, to test on."""

import numpy as np
import surveys
from datasets import Dataset, concatenate_datasets
from recipe import Recipe

from spectral_tokenizer.data import splits
from spectral_tokenizer.data.cross_match import cross_match
from spectral_tokenizer.data.schema import SPECTRUM


PARTS = ("train", "calibration", "test")


def load(settings, output: str) -> dict[str, Dataset]:
    """Rows of all surveys that have one of the labels and the values asked for, shuffled, in three parts.

    Args:
        settings: `data`, `options`, `label_table`, `simulate` and `simulation_seed`, `labels` (columns), `classes`,
            `select` (column -> values to keep), `calibration_fraction`, `test_fraction`, `split_seed`; see
            `FineTuningArguments`.
        output: Simulated files are put beside this folder.

    Raises:
        ValueError: an unknown column, a class that is none of `classes`, or too few rows are left.
    """
    recipe = Recipe(
        data=settings.data, options=settings.options, simulate=settings.simulate, output=output,
        seed=settings.simulation_seed,
    )  # fmt: skip
    rows = concatenate_datasets(list(surveys.load(recipe).values()))
    if settings.label_table:
        rows = cross_match(rows, **settings.label_table)
    unknown = sorted({*settings.labels, *settings.select} - set(rows.column_names))
    if unknown:
        raise ValueError(f"labels, select: expected some of {rows.column_names}, found: {unknown}")
    rows = rows.select(np.flatnonzero(is_chosen(rows, settings.labels, settings.select)))
    if settings.classes and (others := sorted({*rows.unique(settings.labels[0])} - {*settings.classes, None})):
        # The collator would say so too, once an encoder has read all spectra.
        kept = f"select: {{{settings.labels[0]}: {settings.classes}}}"
        raise ValueError(
            f"{settings.labels[0]}: expected one of {settings.classes}, found: {others}; `{kept}` leaves them out"
        )
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
    """Three parts that share no object, as `splits.split` knows objects."""
    numbered = rows.select_columns(["survey", "object_id", "ra", "dec"]).add_column("row", np.arange(len(rows)))
    # One draw, cut at two places: what the first cut holds back, the second does too.
    test, held = (
        set(splits.split({"": numbered}, fraction, seed=seed)[""][1]["row"])
        for fraction in (test_fraction, test_fraction + calibration_fraction)
    )
    places = {"train": set(range(len(rows))) - held - test, "calibration": held - test, "test": test}
    return {name: rows.select(sorted(places[name])) for name in PARTS}
