"""Spectra that are rows already: tables in Parquet, Arrow or HDF5 with the canonical columns (`schema`).

``wavelength``, ``flux`` and ``ivar`` must be there; ``frame`` and ``survey`` too, or be given for all rows. The other
columns of `schema.FEATURES` are taken as far as they exist, and any others are passed over. What `Dataset.to_parquet`,
`save_to_disk` and ``prepare`` wrote comes back as it was.
"""

import logging
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from astropy import units
from astropy.utils.masked import Masked

from .builder import Dropped, SpectraBuilder, SurveyConfig, check_angstrom, check_row
from .fits_access import SpectrumFileError, number
from .plain import POSSIBLE, in_label_unit, plain_pixels, refuse_booleans
from .prepared import check_shards
from .schema import FEATURES, FRAMES, LABELS
from .table_files import SHARED, find_column, read_rows, stated_units
from .wavelengths import air_to_vacuum, arm_lengths


logger = logging.getLogger(__name__)

MEDIA = ("vacuum", "air")
NEEDED = ("wavelength", "flux", "ivar")
PIXELS = (*NEEDED, "lsf_sigma")


@dataclass
class TableConfig(SurveyConfig):
    """What a build from tables depends on.

    Args:
        survey: name of the survey of all rows, if they have no column of it.
        frame: one of `schema.FRAMES`, of all rows, if they have no column of it.
        medium: "vacuum", or "air": then wavelengths are converted.
        columns: canonical column and the file's name for it, in pairs.

    Raises:
        ValueError: an unknown medium, frame or canonical column.
        FileNotFoundError: files are shards that ``prepare`` wrote, and another of them is missing.
    """

    survey: str | None = None
    frame: str | None = None
    medium: str = "vacuum"
    columns: tuple[tuple[str, str], ...] = ()

    def __post_init__(self):
        super().__post_init__()
        if self.medium not in MEDIA:
            raise ValueError(f"medium: found {self.medium!r}; expected one of {MEDIA}")
        if self.frame is not None and self.frame not in FRAMES:
            raise ValueError(f"frame: found {self.frame!r}; expected one of {FRAMES}")
        if unknown := {name for name, _ in self.columns} - set(FEATURES):
            raise ValueError(f"columns: found {sorted(unknown)}; expected some of {list(FEATURES)}")
        check_shards(self.files)


class Table(SpectraBuilder):
    """Rows of Parquet, Arrow and HDF5 files with the canonical columns. A damaged row is left out by itself."""

    BUILDER_CONFIG_CLASS = TableConfig
    VERSION = "1.6.0"
    FILE_NAMES = ("*.parquet", "*.pq", "*.arrow", "*.feather", "*.hdf5", "*.h5")

    def read(self, files: tuple[str, ...]) -> Iterator[dict | Dropped]:
        (path,) = files
        name, told = self.source_name(path), set()
        shared = tuple(dict(self.config.columns).get(column, column).lower() for column in SHARED)
        for index, values in enumerate(read_rows(path, shared)):
            if index == 0:
                spelled = self._find_columns(path, list(values))
                stated = stated_units(path)
                self._units = {column: stated[key] for column, key in spelled.items() if key in stated}
            canonical = {column: values.get(key) for column, key in spelled.items()}
            yield whole_row(f"{name}#{index}", self._row, canonical, self.config.strict, told)

    def _find_columns(self, path: str, present: list[str]) -> dict[str, str | None]:
        """What a file calls the canonical columns, None where it has none of them.

        Raises:
            SpectrumFileError: all rows lack the same thing: pixels, a frame, or what the option `columns` names; or
                columns differ in nothing but case.
        """
        renamed = dict(self.config.columns)
        found = {name: find_column(path, renamed.get(name, name), present) for name in FEATURES}
        missing = [renamed.get(name, name) for name in (*NEEDED, *renamed) if found[name] is None]
        if missing:
            expected = f"{list(dict.fromkeys(missing))} too, or `columns` that says what the file calls them"
            raise SpectrumFileError(path, "columns", sorted(present), expected)
        if found["frame"] is None and self.config.frame is None:
            raise SpectrumFileError(path, "column frame", "none", f"one, or the argument `frame`: one of {FRAMES}")
        return found

    def _row(self, source: str, values: dict) -> dict:
        values["frame"] = text(values["frame"]) or self.config.frame
        for name in (*NEEDED, "frame"):
            if values[name] is None or (name in PIXELS and np.ndim(values[name]) != 1):
                raise SpectrumFileError(
                    source, f"column {name}", values[name], "a value in every row, pixels as a list"
                )
        row = {name: text(values[name]) if value.dtype == "string" else values[name] for name, value in LABELS.items()}
        for name in POSSIBLE.keys() & self._units.keys():
            # What is no number, as true is none, stays as it is, for `plain_labels` to tell of.
            is_number = not isinstance(row[name], bool | np.bool_) and math.isfinite(number(row[name]))
            if is_number and not np.ndim(row[name]):
                row[name] = in_label_unit(source, name, name, number(row[name]), self._units[name])
        refuse_booleans(source, np.asarray(values["ivar"]))
        if isinstance(values["object_id"], float | np.floating):  # two of them may have become one
            expected = "text or integers, which floats are not beyond 2^53"
            raise SpectrumFileError(source, "column object_id", repr(values["object_id"]), expected)
        pixels = {name: np.asanyarray(values[name], dtype=np.float64) for name in PIXELS if values[name] is not None}
        for name in self._units.keys() & pixels.keys():
            pixels[name] = units.Quantity(Masked(pixels[name]), self._units[name])
        pixels = plain_pixels({"source": source, **pixels})
        lengths = values["segment_lengths"]
        lengths = arm_lengths(pixels["wavelength"]) if lengths is None else lengths
        row |= {
            **pixels,
            "segment_lengths": [int(length) for length in lengths],
            "object_id": text(values["object_id"]) or source,
            "survey": text(values["survey"]) or self.config.survey or self.name,
            "source": text(values["source"]) or source,
            "frame": values["frame"],
        }
        if not len(row.get("lsf_sigma", ())):
            row["lsf_sigma"] = None
        else:
            row["lsf_kind"] = text(values["lsf_kind"]) or "measured"
        if self.config.medium == "air":
            row["wavelength"] = air_to_vacuum(row["wavelength"])
        check_angstrom(source, row["wavelength"])
        return row


def whole_row(
    source: str, make: Callable[[str, dict], dict], values: dict, strict: bool, told: set[str]
) -> dict | Dropped:
    """One row of a table, whole or dropped: the rest of the table is not lost with it.

    Args:
        source: the file's name and the row's number.
        make: (source, values) -> row.
        values: of the table's columns.
        strict: raise instead.
        told: fields of which the log has an example already; a million rows may lack the same.

    Raises:
        SpectrumFileError: the row is damaged, if `strict`.
    """
    try:
        row = make(source, values)
        check_row({"lsf_sigma": None, "lsf_kind": None, **row})
        return row
    except (TypeError, ValueError, ArithmeticError, LookupError) as error:
        if not isinstance(error, SpectrumFileError):
            error = SpectrumFileError(source, "values", f"{type(error).__name__}: {error}", "those of a spectrum")
        if strict:
            raise error from None
        if error.args[1] not in told:
            logger.warning("%s", error)
            told.add(error.args[1])
        return Dropped(f"damaged row: {error.args[1]}")


def text(value: object) -> str | None:
    """A value of a text column; integers, as identifiers are, exactly."""
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    return None if value is None else str(value).strip() or None
