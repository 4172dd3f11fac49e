"""Labels from a survey's own catalogue, and what the survey's flags say of labels.

A survey states in its own file how its catalogue is keyed and which columns give which labels (`CatalogueLayout`), and
which of its flags make which labels unreliable (`LabelCut`). Both apply alike to every survey, here.

A flagged label is blank unless asked for (``unreliable_labels=True``): a spectrum is as good to learn from without its
label, and a wrong label teaches wrongly. Nothing is said silently: `label_warnings` in the row names the cuts that
apply, in both cases, the objects that a given catalogue does not hold, and those whose redshift the catalogue's class
took away.
"""

import functools
import logging
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from astropy.io import fits

from .fits_access import SpectrumFileError, describe, find_hdu, open_fits, raise_if_of_the_machine
from .fits_tables import get_columns, text
from .plain import POSSIBLE, SENTINELS, in_label_unit, is_new, known_class, known_unit, possible
from .schema import CLASSES, LABELS
from .table_files import MASK, find_column, stated_units
from .wavelengths import SPEED_OF_LIGHT


logger = logging.getLogger(__name__)

KEY_PART = 10**5  # identifiers of several numbers, as plate, MJD and fibre, have five digits each
NOT_FOUND = "not in catalogue"
OTHER_CLASS = "redshift of another class"
KINDS = {
    "S": "text",
    "b": "booleans",
    "O": "booleans",
    "i": "integers",
    "u": "integers",
    "f": "floats",
}  # of numpy's columns, see `as_numpy`
#: Labels that a catalogue may hold.
JOINED = tuple(name for name in LABELS if name not in ("snr", "label_warnings"))


@dataclass(frozen=True)
class LabelCut:
    """A flag of the survey that makes labels unreliable.

    Args:
        name: as `label_warnings` gives it.
        column: of the flag, upper case.
        labels: that are unreliable where the flag is set.
        bits: of the flag that count; all of them unless given.
        of_file: the spectra's files have the flag, and no catalogue.
    """

    name: str
    column: str
    labels: tuple[str, ...]
    bits: int = -1
    of_file: bool = False


@dataclass(frozen=True)
class CatalogueLayout:
    """How a survey's catalogues are joined.

    Args:
        key: columns that identify an object.
        labels: label of `schema.LABELS` -> columns that may hold it, the first that is there and not blank in all rows
            counts; last of all, a column of the label's own name.
        flags: columns that cuts look at.
        best: of several rows of one object, the one with the highest value in the first of these columns that is there;
            without any they must be alike. Of several that are equally good the first in the file counts, and the log warns.
        hdus: names of the table's HDU; the first table of the file unless one of them is there.
        constants: HDU name -> labels that all its rows have.
        is_text: the key is one text, not one integer or several.
        is_origin_unknown: a position of exactly (0, 0) stands for none.
    """

    key: tuple[str, ...]
    labels: Mapping[str, tuple[str, ...]]
    flags: tuple[str, ...] = ()
    best: tuple[str, ...] = ()
    hdus: tuple[str, ...] = ()
    constants: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    is_text: bool = False
    is_origin_unknown: bool = False

    def columns_of(self, label: str) -> tuple[str, ...]:
        """Columns that may hold a label, the likeliest first."""
        names = self.labels.get(label, ())
        return (*names, *(() if label in {name.lower() for name in names} else (label,)))

    @property
    def optional(self) -> tuple[str, ...]:
        """All columns but the key's."""
        columns = [name for label in JOINED for name in self.columns_of(label)]
        return tuple(dict.fromkeys([*columns, *self.flags, *self.best]))


class Catalogue:
    """A survey's catalogue in memory: its key and the columns that hold labels or flags, some 50 bytes a row.

    Args:
        path: a FITS table, or a Parquet file with the same columns.
        layout: the survey's.

    Raises:
        SpectrumFileError: the file is damaged, has no column of the key or none of a label but blank ones, or holds
            integers of the key as floats, which are not exact beyond 2^53, or as text that is none; or flags that are
            no integers, labels of the layout that are no numbers, or a class of it that is no text; or an object twice
            with unlike values, and no column that tells which is best.
    """

    def __init__(self, path: str | Path, layout: CatalogueLayout):
        self.path, self.layout = path, layout
        columns, self.constants, stated = read_table(path, layout)
        keys = pack_key(path, [columns.pop(name) for name in layout.key], layout)
        columns = self._of_one_value_a_row(columns)
        self.names = self._names_of_labels(columns)
        best = next(filter(columns.__contains__, layout.best), None)
        self._check_kinds(columns, best)
        self._check_labels(columns)
        for label, name in self.names.items():
            if label in POSSIBLE:
                columns[name] = in_label_unit(path, name, label, columns[name], stated.get(name))
                self._warn_of_impossible(label, name, columns[name])
        goodness = np.zeros(len(keys)) if best is None else columns[best].astype(np.float64)
        goodness[np.isnan(goodness)] = -np.inf
        order = np.lexsort((-goodness, keys))  # which leaves equal ones in the file's order
        for name in set(layout.flags) & set(columns):
            if columns[name].dtype.kind not in "iub":
                # As of Parquet's nulls: what is not known of an object is not known to be good.
                raise SpectrumFileError(path, f"column {name}", columns[name].dtype, "integers, in every row")
        self.keys = keys[order]
        wanted = {*self.names.values(), *layout.flags} & set(columns)
        self.columns = {name: columns[name][order] for name in columns if name in wanted}
        self._check_repetitions(goodness[order], best)

    def _names_of_labels(self, columns: Mapping[str, np.ndarray]) -> dict[str, str]:
        """Label -> the first of its columns that has something in any row."""
        filled = [name for name, column in columns.items() if not is_blank(column)]
        likeliest = {label: next(filter(filled.__contains__, self.layout.columns_of(label)), None) for label in JOINED}
        return {label: name for label, name in likeliest.items() if name is not None}

    def _check_labels(self, columns: Mapping[str, np.ndarray]) -> None:
        """Raise `SpectrumFileError` for a catalogue that gives no label at all."""
        if not (self.names or self.constants):
            known = sorted({name for label in JOINED for name in self.layout.columns_of(label)})
            there = [name for name in known if name in columns]
            blank = [name for name in there if is_blank(columns[name])]
            found = (
                f"{there}, of another kind" if there != blank else f"{blank}, blank in all rows" if blank else "none"
            )
            raise SpectrumFileError(self.path, "columns of labels", found, f"some of {known}")

    def _of_one_value_a_row(self, columns: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Columns without those of several values in each row, which give no label.

        Raises:
            SpectrumFileError: one of them is a flag, which would be passed over.
        """
        for name, column in columns.items():
            if column.ndim > 1:
                found = f"{column.shape[1:]} values in each row"
                error = SpectrumFileError(self.path, f"column {name}", found, "one, or it is no label")
                if name in (*self.layout.flags, *self.layout.best):
                    raise error
                if is_new("shape", str(self.path), name):
                    logger.warning("%s", error)
        return {name: column for name, column in columns.items() if column.ndim == 1}

    def _check_kinds(self, columns: Mapping[str, np.ndarray], best: str | None) -> None:
        """Raise `SpectrumFileError` for columns of another kind than their labels: as numbers, text would be NaN and true a
        temperature of 1 K. One that the layout does not list, as ``ra`` in hours as text, is no label."""
        numbers, classes = ("iuf", "numbers"), ("S", f"text, {', '.join(CLASSES[:-1])} or {CLASSES[-1]}")
        expected = [
            (label, name, *(classes if LABELS[label].dtype == "string" else numbers))
            for label, name in self.names.items()
        ]
        if best is not None:
            expected.append((None, best, "Obiuf", "numbers or booleans"))
        for label, name, kinds, words in expected:
            if (kind := columns[name].dtype.kind) in kinds:
                continue
            error = SpectrumFileError(self.path, f"column {name}", KINDS.get(kind, columns[name].dtype), words)
            if label is None or name in self.layout.labels.get(label, ()):
                raise error
            del self.names[label]
            if is_new("kind", str(self.path), name):
                logger.warning("%s: it gives no label", error)

    def _warn_of_impossible(self, label: str, name: str, values: np.ndarray) -> None:
        """`find` gives none of a column's values that the label cannot have: the log has one of them and their number."""
        low, high = POSSIBLE[label]
        wrong = values[((values < low) | (values > high)) & ~np.isin(values, SENTINELS)]
        if len(wrong) and is_new("impossible", str(self.path), name):
            found, expected = f"{wrong[0]} and the like in {len(wrong)} rows", f"{low:g} to {high:g}, or NaN"
            logger.warning("%s", SpectrumFileError(self.path, f"column {name}", found, expected))

    def _check_repetitions(self, goodness: np.ndarray, best: str | None) -> None:
        """Rows of one object that are equally good and differ: the first one in the file counts. Without a column that tells
        which is best that is a `SpectrumFileError`, else the log tells of one object."""
        is_again = self.keys[1:] == self.keys[:-1]
        first = np.maximum.accumulate(
            np.where(np.append(True, ~is_again)[: len(self.keys)], np.arange(len(self.keys)), 0)
        )
        (again,) = np.nonzero(is_again & (goodness[1:] == goodness[first[1:]]))
        if self.layout.is_text:
            again = again[self.keys[again] != b""]  # objects without a name, which nobody asks for
        is_unlike = np.zeros(len(again), dtype=bool)
        for values in self.columns.values():
            one, next_one = values[again], values[again + 1]
            is_unlike |= (one != next_one) & ((one == one) | (next_one == next_one))  # two NaN are alike
        if not is_unlike.any():
            return
        place = again[is_unlike][0]
        key = self.keys[place].item()
        key = key.decode("utf-8", "replace") if isinstance(key, bytes) else key
        found = {each: column[place : place + 2].tolist() for each, column in self.columns.items()}
        error = SpectrumFileError(self.path, f"object {key}", found, "one row, or the same in all")
        if best is None:
            raise error
        if not is_new("ties", str(self.path), best):
            return
        count = len(np.unique(self.keys[again[is_unlike]]))
        logger.warning("%s, or one that is best by %s: the first counts, as for %d objects", error, best, count)

    def find(self, key: int | tuple[int, ...] | str) -> tuple[dict, dict] | None:
        """Labels that are known and flags of one object, or None if it is not there."""
        if isinstance(key, tuple):
            if not all(0 <= part < KEY_PART for part in key):
                return None
            key = functools.reduce(lambda packed, part: packed * KEY_PART + part, key)
        if isinstance(key, str):
            key = key.encode()
        place = int(np.searchsorted(self.keys, np.array(key, dtype=self.keys.dtype)))
        if place == len(self.keys) or self.keys[place] != key:
            return None
        labels = dict(self.constants)
        for label in JOINED:
            if name := self.names.get(label):
                value = self.columns[name][place]
                # A class that has no name here, such as a star's type, takes no other's place.
                value = known_class(text(value.item())) if LABELS[label].dtype == "string" else possible(label, value)
                if value is not None and value == value:
                    labels[label] = value
        if self.layout.is_origin_unknown:
            labels = without_origin(labels)
        flags = {name: int(self.columns[name][place]) for name in self.layout.flags if name in self.columns}
        return labels, flags


def join_labels(
    labels: dict,
    flags: Mapping[str, int],
    cuts: Iterable[LabelCut],
    catalogue: Catalogue | None,
    key: int | tuple[int, ...] | str | None,
    keep_unreliable: bool,
    own: Iterable[str] = (),
    is_beside: bool = False,
) -> dict:
    """An object's labels: those of its own file, those of the catalogue in their place, and the cuts. A flag of the
    file says nothing of the labels of a catalogue that somebody named, as they may have looked again. For those of the
    one that the survey puts beside its files it counts: they are the same reduction's. One of a catalogue counts for both.

    Args:
        labels: from the object's own file.
        flags: from there too, column -> value.
        cuts: the survey's.
        catalogue: of the survey, if one was given.
        key: the object's.
        keep_unreliable: labels that a cut calls unreliable stay.
        own: labels of this spectrum rather than of its object, such as a visit's velocity: no catalogue's takes their
            place.
        is_beside: the catalogue is the one beside the file, and nobody named it.

    Returns:
        `labels` and ``label_warnings``, without the file's redshift where the catalogue has another class and no
        redshift: it was fitted as that of a galaxy, say, and the object is a star. A star's redshift is its radial
        velocity too, unless that is given.
    """
    warnings, found, found_flags = [], {}, {}
    if catalogue is not None:
        there = None if key is None else catalogue.find(key)
        if there is None:
            warnings.append(NOT_FOUND)
        else:
            found, found_flags = {name: value for name, value in there[0].items() if name not in own}, there[1]
    if is_of_another_class(labels, found):
        warnings.append(OTHER_CLASS)
        labels = {name: value for name, value in labels.items() if name != "redshift"}
    of_the_file = set(labels) - set(found)
    labels, flags = {**labels, **found}, {**flags, **found_flags}
    blanked = set()
    for cut in cuts:
        unreliable = set(cut.labels)
        if cut.column in found_flags:
            unreliable -= set(own)  # of which the catalogue says nothing
        if found and cut.column not in found_flags and not is_beside:
            unreliable &= of_the_file
        if unreliable and int(flags.get(cut.column, 0)) & cut.bits:
            warnings.append(cut.name)
            blanked |= unreliable
    blanked = () if keep_unreliable else blanked
    labels = {name: value for name, value in labels.items() if name not in blanked}
    labels["class"] = known_class(labels.get("class"))
    if labels["class"] == "STAR" and math.isnan(labels.get("radial_velocity", math.nan)):
        labels["radial_velocity"] = labels.get("redshift", math.nan) * SPEED_OF_LIGHT
    return {**labels, "label_warnings": ", ".join(warnings) or None}


def without_origin(labels: dict) -> dict:
    """Labels without a position that is exactly (0, 0): nobody measured it."""
    if labels.get("ra") == 0 and labels.get("dec") == 0:
        return {name: value for name, value in labels.items() if name not in ("ra", "dec")}
    return labels


def is_of_another_class(labels: Mapping, found: Mapping) -> bool:
    """Whether a file's redshift is the fit of another class than the one that a catalogue found, without a redshift."""
    if "class" not in found or "redshift" in found or math.isnan(labels.get("redshift", math.nan)):
        return False
    return bool(labels.get("class")) and known_class(labels["class"]) != found["class"]


def read_table(path: str | Path, layout: CatalogueLayout) -> tuple[dict[str, np.ndarray], Mapping[str, str], dict]:
    """A catalogue's columns, as far as the layout names them, of rows without a null in their key; the labels that
    all its rows share; and the units that the file states of columns."""
    if str(path).endswith((".parquet", ".pq")):
        columns, stated = read_parquet(path, layout.key, layout.optional), stated_units(path)
        present = pq.read_schema(path).names
        return columns, {}, {name: stated.get(find_column(path, name, present)) for name in columns}
    with open_fits(path) as hdus:
        table = next((hdu for name in layout.hdus if (hdu := find_hdu(hdus, name)) is not None), None)
        if table is None:
            table = next((hdu for hdu in hdus if isinstance(hdu, fits.BinTableHDU)), None)
        if table is None:
            raise SpectrumFileError(path, "file", describe(hdus), f"a table with the columns {layout.key}")
        columns = get_columns(path, table, layout.key, layout.optional, masked=True)
        is_known = ~np.any([np.ma.getmaskarray(columns[name]) for name in layout.key], axis=0)
        columns = {name: nulls_as_nan(values[is_known]) for name, values in columns.items()}
        stated = {}
        for card, name in table.header["TTYPE*"].items():  # of several that differ in case the first is read
            stated.setdefault(str(name).strip().upper(), table.header.get(f"TUNIT{card[5:]}"))
        units = {name: known_unit(stated[name.upper()]) for name in columns}
        return columns, layout.constants.get(table.name, {}), units


def read_parquet(path: str | Path, names: Iterable[str], optional: Iterable[str]) -> dict[str, np.ndarray]:
    """Columns of a Parquet file, whichever case their names have, of the rows without a null in `names`."""
    try:
        present = pq.read_schema(path).names
        found = {name: find_column(path, name, present) for name in (*names, *optional)}
        if missing := [name for name in names if found[name] is None]:
            raise SpectrumFileError(path, f"columns {missing}", f"columns {present}", "those as well")
        wanted = {name: column for name, column in found.items() if column is not None}
        masks = {column: f"{column}{MASK}" for column in wanted.values() if f"{column}{MASK}" in present}
        table = pq.read_table(path, columns=list(dict.fromkeys([*wanted.values(), *masks.values()])))
        for column, mask in masks.items():
            if pa.types.is_boolean(table[mask].type):
                place = table.schema.get_field_index(column)
                table = table.set_column(place, column, pc.if_else(table[mask], None, table[column]))
        for name in names:
            table = table.filter(table[wanted[name]].is_valid())
        return {name: as_numpy(table[column]) for name, column in wanted.items()}
    except SpectrumFileError:
        raise
    except (OSError, ValueError) as error:  # pyarrow's own errors are both
        raise_if_of_the_machine(error, path)
        found = f"{type(error).__name__}: {error}"
        raise SpectrumFileError(path, "file", found, "a Parquet table") from error


def nulls_as_nan(values: np.ndarray) -> np.ndarray:
    """A column as Parquet's come: integers as floats where some are null."""
    return np.ma.filled(values.astype(np.float64), np.nan) if np.ma.is_masked(values) else np.ma.getdata(values)


def is_blank(column: np.ndarray) -> bool:
    """Whether there are rows, and nothing in any of them."""
    return len(column) > 0 and bool((column == b"").all() if column.dtype.kind == "S" else pd.isna(column).all())


def as_numpy(column: pa.ChunkedArray) -> np.ndarray:
    """Text as FITS has it, in UTF-8, what is null in all rows as NaN, decimals as numbers, other columns as they are:
    booleans beside a null are objects."""
    if pa.types.is_null(column.type) or column.null_count == len(column) > 0:
        return np.full(len(column), np.nan)
    if pa.types.is_decimal(column.type):
        column = column.cast(pa.int64() if column.type.scale == 0 else pa.float64())  # identifiers stay exact
    values = column.to_numpy()
    if values.dtype.kind not in "OU" or pa.types.is_boolean(column.type):
        return values
    return np.array([each if isinstance(each, bytes) else str(each).encode() for each in values], dtype="S")


def pack_key(path: str | Path, columns: list[np.ndarray], layout: CatalogueLayout) -> np.ndarray:
    """One sortable key per row: text as it is, integers (also written as text) as int64, several integers as one."""
    if layout.is_text:
        if columns[0].dtype.kind != "S":
            raise SpectrumFileError(path, f"column {layout.key[0]}", columns[0].dtype, "text")
        return np.char.strip(columns[0])
    key = np.zeros(len(columns[0]), dtype=np.int64)
    for name, column in zip(layout.key, columns):
        column = integers(column)
        if column is None:
            found = columns[layout.key.index(name)].dtype
            raise SpectrumFileError(path, f"column {name}", found, "64-bit integers, which floats do not hold")
        if len(columns) > 1 and ((column < 0) | (column >= KEY_PART)).any():
            raise SpectrumFileError(
                path, f"column {name}", f"up to {column.max()}", f"numbers from 0 to {KEY_PART - 1}"
            )
        key = key * KEY_PART + column if len(columns) > 1 else column.astype(np.int64)
    return key


def integers(column: np.ndarray) -> np.ndarray | None:
    """A column of integers, as such or as text; None for anything else."""
    if column.dtype.kind in "iu":
        return column
    try:
        return column.astype(np.int64) if column.dtype.kind == "S" else None
    except ValueError:
        return None
