"""Survey files -> labelled rows: to train on, to calibrate on, to test on."""

import math
from collections.abc import Mapping
from decimal import Decimal, InvalidOperation

import numpy as np
import surveys
from datasets import Dataset, Value, concatenate_datasets
from datasets.fingerprint import generate_random_fingerprint
from recipe import Recipe

from spectral_tokenizer.data import splits
from spectral_tokenizer.data.collator import as_label
from spectral_tokenizer.data.cross_match import cross_match
from spectral_tokenizer.data.schema import SPECTRUM


PARTS = ("train", "calibration", "test")
LEAST_SIGNAL = 0.03  # signal-to-noise per pixel at which a spectrum says nothing


def load(settings, output: str) -> dict[str, Dataset]:
    """Rows of all surveys that have one of the labels and the values asked for, shuffled, in three parts.

    Args:
        settings: `data`, `options`, `label_table`, `simulate`, `templates`, `faint_templates`, `faint_snr`,
            `cool_dwarfs` and `simulation_seed`, `labels` (columns), `classes`, `select` (column -> a value to keep, or
            several), `calibration_fraction`, `test_fraction`, `split_seed`; see `FineTuningArguments`.
        output: Simulated files are put beside this folder.

    Raises:
        ValueError: as `chosen`, or too few rows are left.
    """
    templates, files = of_templates(settings), of_files(settings, output)
    found = {name: chosen(part, settings) for name, part in templates.items()}
    if files is not None:
        parts = split(
            chosen(files, settings), settings.calibration_fraction, settings.test_fraction, settings.split_seed
        )
        found |= {name: concatenate_datasets([part, *filter(None, [found.get(name)])]) for name, part in parts.items()}
    few = {name: len(found.get(name, ())) for name in PARTS if len(found.get(name, ())) < 2}
    if few:
        total, given = sum(map(len, found.values())), [*templates.values(), *([] if files is None else [files])]
        raise ValueError(
            f"expected at least 2 spectra with one of {asked(settings.labels, settings.select)} in every part, found: "
            f"{few} of {total}{told_not_shown(given, settings.labels)}"
        )
    return {name: found[name].shuffle(settings.split_seed) for name in PARTS}


def of_files(settings, output: str) -> Dataset | None:
    """Rows of survey files and tables, or of those that are simulated where there are none; None beside templates alone."""
    if asks_for_templates(settings) and not (settings.data or settings.simulate):
        return None
    recipe = Recipe(
        data=settings.data, options=settings.options, simulate=settings.simulate, output=output,
        seed=settings.simulation_seed,
    )  # fmt: skip
    rows = concatenate_datasets(list(surveys.load(recipe).values()))
    return cross_match(rows, **settings.label_table) if settings.label_table else rows


def asks_for_templates(settings) -> bool:
    return bool(settings.templates or settings.faint_templates or settings.cool_dwarfs)


def of_templates(settings) -> dict[str, Dataset]:
    """Rows simulated from published templates, in parts that share neither a template nor a row of labels."""
    if not (settings.faint_snr is None or is_range(settings.faint_snr)):
        raise ValueError(f"faint_snr: expected two ascending numbers above 0, found: {settings.faint_snr}")
    if not asks_for_templates(settings):
        return {}
    from simulated.observing import SIGNAL_TO_NOISE
    from simulated.populations import COOL_DWARFS
    from simulated.stream import DOMAINS

    if settings.data and not settings.data_is_simulated:
        # What is measured in the end would be of both, and neither a real nor a simulated figure.
        found = sorted(settings.data)
        raise ValueError(
            f"templates: expected no data of real spectra beside, found: {found}; `templates={{}}` leaves them out"
        )
    if settings.label_table:
        raise ValueError("templates: expected no label_table beside, in which none of their objects stands")
    if unknown := sorted({*settings.templates, *settings.faint_templates} - set(DOMAINS)):
        raise ValueError(f"templates: expected some of {sorted(DOMAINS)}, found: {unknown}")
    recipe = Recipe(stream="templates", seed=settings.simulation_seed)
    held = {"validation": settings.calibration_fraction, "test": settings.test_fraction}
    fractions = {"train": 1.0 - sum(held.values()), **held}
    drawn = {
        part: [
            surveys.streamed_rows(recipe, survey, of, max(round(fraction * count), 1))
            for survey, count in settings.templates.items()
        ]
        for part, (of, fraction) in zip(PARTS, fractions.items())
    }
    if settings.cool_dwarfs:
        for part, (of, fraction) in zip(PARTS, fractions.items()):
            count = max(round(fraction * settings.cool_dwarfs), 1)
            drawn[part].append(surveys.streamed_rows(recipe, "apogee", of, count, domain=COOL_DWARFS))
    # Not to calibrate on: a flag at 5 % false alarms would then be for spectra like these alone.
    drawn["train"] += [
        surveys.streamed_rows(
            recipe, survey, "train", count, settings.faint_snr or (LEAST_SIGNAL, SIGNAL_TO_NOISE[survey][0])
        )
        for survey, count in settings.faint_templates.items()
    ]
    return {part: concatenate_datasets(each) for part, each in drawn.items() if each}


def is_range(limits) -> bool:
    is_pair = isinstance(limits, list | tuple) and len(limits) == 2 and all(isinstance(x, int | float) for x in limits)
    return is_pair and 0 < limits[0] < limits[1] < math.inf


def chosen(rows: Dataset, settings) -> Dataset:
    """Rows as `with_labels`, and of them the columns that are needed.

    Raises:
        ValueError: as there; a class that is none of `classes`, or a label that is no number where there are none.
    """
    rows = with_labels(rows, settings.labels, settings.select)
    # The collator would say the same, once an encoder has read all spectra.
    if not settings.classes:
        for column in settings.labels:
            for value, name in zip(rows[column][:], rows["object_id"][:]):
                as_label(value, column, name)
    elif others := sorted({*rows[settings.labels[0]][:]} - {*settings.classes, None}):
        kept = f"select: {{{settings.labels[0]}: {settings.classes}}}"
        raise ValueError(
            f"{settings.labels[0]}: expected one of {settings.classes}, found: {others}; `{kept}` leaves them out"
        )
    columns = dict.fromkeys(["object_id", "survey", "class", "snr", "ra", "dec", *SPECTRUM, *settings.labels])
    return rows.select_columns(list(columns))


def with_labels(rows: Dataset, labels: list[str], select: Mapping) -> Dataset:
    """Those rows that have one of the labels and the values asked for, maybe none; a label that a spectrum does not show in its
    frame (`surveys.not_shown`) is unknown, and printed is of how many.

    Args:
        rows: as of `surveys.load`.
        labels: columns, of which one at least is known in a row that is taken.
        select: column -> a value or several, of which the row has one: what a recipe says, or the command line in text.

    Raises:
        ValueError: rows have no such column, or it has no such values.
    """
    if unknown := sorted({*labels, *select} - set(rows.column_names)):
        raise ValueError(
            f"labels, select: expected some of {rows.column_names}, found: {unknown}; label_table (--label-table) brings your own"
        )
    is_chosen = np.zeros(len(rows), dtype=bool)
    for column in labels:
        if (hidden := surveys.not_shown(rows, column)).any():
            print(surveys.left_out(rows, column, hidden))
            rows = unknown_where(rows, column, hidden)
        is_chosen |= np.array([value is not None and value == value for value in rows[column][:]], dtype=bool)
    for column, values in select.items():
        is_chosen &= is_any_of(rows, column, values)
    return rows.select(np.flatnonzero(is_chosen))


def unknown_where(rows: Dataset, column: str, hidden: np.ndarray) -> Dataset:
    """Rows with NaN in a column where it is hidden. Pixels stay where they are: of rows that were chosen among others Datasets
    would copy them to add a column, so it is added to the table that they were chosen from."""
    places, values = surveys.places(rows), np.full(rows.data.num_rows, np.nan)
    values[places] = np.where(hidden, np.nan, np.array(rows[column][:], dtype=float))
    # Without fingerprints Datasets would pickle the whole table to find them.
    whole = Dataset(rows.data, rows.info, fingerprint=generate_random_fingerprint()).remove_columns(column)
    feature = rows.features[column] if "float" in rows.features[column].dtype else Value("float64")
    new = generate_random_fingerprint()
    return whole.add_column(column, values, feature=feature, new_fingerprint=new).select(places)


def asked(labels: list[str], select: Mapping) -> str:
    return f"{labels}{f' and {dict(select)}' if select else ''}"


def told_not_shown(given: list[Dataset], labels: list[str]) -> str:
    """How many of the rows do not show a label, in words for an error's end."""
    counts = {label: sum(int(surveys.not_shown(rows, label).sum()) for rows in given) for label in labels}
    return "".join(f"; {count} do not show {label} in their frame" for label, count in counts.items() if count)


def is_any_of(rows: Dataset, column: str, asked) -> np.ndarray:
    """(rows,) booleans: the column has the value asked for, or one of several. Text stands for numbers where the column has
    them: 0 is 0.0.

    Raises:
        ValueError: the column has numbers, and something else is asked for; or arrays.
    """
    kind = str(getattr(rows.features[column], "dtype", "arrays"))
    asked = list(asked) if isinstance(asked, list | tuple) else [asked]
    try:
        if kind.startswith(("int", "uint")):
            wanted = {Decimal(str(each)) for each in asked}  # exact, and equal to integers
        elif kind.startswith("float"):
            wanted = {float(np.array(each, dtype=kind)) for each in asked}  # as the column rounds it
            if any(map(math.isnan, wanted)):
                raise ValueError(kind)  # no number is equal to it, and null would be it
        elif kind == "bool":
            wanted = {{"true": True, "false": False}[str(each).lower()] for each in asked}
        elif kind != "arrays":  # text, and what is told by it, as a night
            return np.isin(np.array([str(each) for each in rows[column][:]]), [str(each) for each in asked])
        else:
            raise ValueError(kind)
    except (TypeError, ValueError, KeyError, InvalidOperation) as error:
        raise ValueError(f"select: {column}: expected values of {kind}, found: {asked}") from error
    return np.array([value in wanted for value in rows[column][:]], dtype=bool)


def split(rows: Dataset, calibration_fraction: float, test_fraction: float, seed: int) -> dict[str, Dataset]:
    """Three parts that share no object, as `splits.split` knows objects."""
    if not len(rows):
        return dict.fromkeys(PARTS, rows)
    numbered = rows.select_columns(["survey", "object_id", "ra", "dec"]).add_column("row", np.arange(len(rows)))
    # One draw, cut at two places: what the first cut holds back, the second does too.
    test, held = (
        set(splits.split({"": numbered}, fraction, seed=seed)[""][1]["row"])
        for fraction in (test_fraction, test_fraction + calibration_fraction)
    )
    places = {"train": set(range(len(rows))) - held - test, "calibration": held - test, "test": test}
    return {name: rows.select(sorted(places[name])) for name in PARTS}
