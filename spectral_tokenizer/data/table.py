"""Spectra that are rows already: tables in Parquet, Arrow or HDF5 with the canonical columns (`schema`).

``wavelength``, ``flux`` and ``ivar`` must be there; ``frame`` and ``survey`` too, or be given for all rows. The other
columns of `schema.FEATURES` are taken as far as they exist, and any others are passed over. What `Dataset.to_parquet`,
`save_to_disk` and ``prepare`` wrote comes back as it was.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .builder import Dropped, SpectraBuilder, SurveyConfig, check_row
from .fits_access import SpectrumFileError, number
from .schema import FEATURES, LABELS
from .table_files import SHARED, read_rows
from .wavelengths import air_to_vacuum


MEDIA = ("vacuum", "air")
PIXELS = ("wavelength", "flux", "ivar", "lsf_sigma")


@dataclass
class TableConfig(SurveyConfig):
    """What a build from tables depends on.

    Args:
        survey: name of the survey of all rows, if they have no column of it.
        frame: one of `schema.FRAMES`, of all rows, if they have no column of it.
        medium: "vacuum", or "air": then wavelengths are converted.
        columns: canonical column and the file's name for it, in pairs.
    """

    survey: str | None = None
    frame: str | None = None
    medium: str = "vacuum"
    columns: tuple[tuple[str, str], ...] = ()

    def __post_init__(self):
        super().__post_init__()
        if self.medium not in MEDIA:
            raise ValueError(f"medium: found {self.medium!r}; expected one of {MEDIA}")
        if unknown := {name for name, _ in self.columns} - set(FEATURES):
            raise ValueError(f"columns: found {sorted(unknown)}; expected some of {list(FEATURES)}")


class Table(SpectraBuilder):
    """Rows of Parquet, Arrow and HDF5 files with the canonical columns. A damaged row is left out by itself."""

    BUILDER_CONFIG_CLASS = TableConfig
    VERSION = "1.0.0"
    FILE_NAMES = ("*.parquet", "*.pq", "*.arrow", "*.feather", "*.hdf5", "*.h5")

    def read(self, files: tuple[str, ...]) -> Iterator[dict | Dropped]:
        (path,) = files
        renamed = dict(self.config.columns)
        names = {name: renamed.get(name, name).lower() for name in FEATURES}
        shared = tuple(names[name] for name in SHARED)
        for index, values in enumerate(read_rows(path, shared)):
            canonical = {name: values.get(key) for name, key in names.items()}
            yield whole_row(f"{Path(path).name}#{index}", self._row, canonical, self.config.strict)

    def _row(self, source: str, values: dict) -> dict:
        values["frame"] = text(values["frame"]) or self.config.frame
        for name in ("wavelength", "flux", "ivar", "frame"):
            if values[name] is None or (name in PIXELS and np.ndim(values[name]) != 1):
                raise SpectrumFileError(
                    source, f"column {name}", values[name], "a value in every row, pixels as a list"
                )
        row = {
            name: text(values[name]) if value.dtype == "string" else number(values[name])
            for name, value in LABELS.items()
        }
        pixels = {name: np.asarray(values[name], dtype=np.float64) for name in PIXELS if values[name] is not None}
        lengths = values["segment_lengths"]
        row |= {
            **pixels,
            "segment_lengths": [len(pixels["flux"])] if lengths is None else [int(length) for length in lengths],
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
        return row


def whole_row(source: str, make: Callable[[str, dict], dict], values: dict, strict: bool) -> dict | Dropped:
    """One row of a table, whole or dropped: the rest of the table is not lost with it.

    Args:
        source: the file's name and the row's number.
        make: (source, values) -> row.
        values: of the table's columns.
        strict: raise instead.

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
        return Dropped(f"damaged row: {error.args[1]}")


def text(value: object) -> str | None:
    """A value of a text column; integers, as identifiers are, exactly."""
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    return None if value is None else str(value).strip() or None
