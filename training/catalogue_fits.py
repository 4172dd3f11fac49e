"""A catalogue as a FITS table, for TOPCAT and astropy."""

from pathlib import Path

import numpy as np
import pyarrow as pa
from astropy.table import MaskedColumn, Table
from fsspec.implementations.local import LocalFileSystem

from spectral_tokenizer.data.catalogue import PREDICTED
from spectral_tokenizer.data.schema import UNITS
from spectral_tokenizer.data.storage import sweep, write_aside


IN_UNIT_OF_LABEL = ("_error", "_low", "_high")


def write_fits(table: pa.Table, path: Path) -> Path:
    """One binary table of all rows; it is held in memory."""
    columns = Table({name: fits_column(table[name]) for name in table.column_names}, copy=False)
    for name in columns.colnames:
        columns[name].unit = UNITS.get(label_of(name))
    with write_aside(LocalFileSystem(), str(path), or_theirs=True) as unfinished:
        columns.write(unfinished, format="fits", overwrite=True)
    sweep(LocalFileSystem(), str(path))
    return path


def label_of(name: str) -> str:
    """The label that a column is of, or its name: `predicted_teff_low` is of `teff`."""
    if not name.startswith(PREDICTED):
        return name
    ending = next((each for each in IN_UNIT_OF_LABEL if name.endswith(each)), "")
    return name.removeprefix(PREDICTED).removesuffix(ending)


def fits_column(column: pa.ChunkedArray) -> np.ndarray:
    """A column as FITS has them. Not by way of pandas, which makes floats of integers of which some are unknown: an
    identifier above 2^53 would be another one.

    Returns:
        Numbers in their own type, NaN or masked where unknown; lists of numbers of one length as rows of an array; all
        else as ASCII, empty where unknown, with other letters escaped.
    """
    kind = column.type
    if pa.types.is_boolean(kind) and column.null_count:
        return fits_column(column.cast(pa.int16()))  # FITS has no mask for truth, and int8 means truth to it
    if pa.types.is_floating(kind) or (pa.types.is_integer(kind) and not column.null_count):
        return column.to_numpy()
    if pa.types.is_integer(kind):
        unknown, unused = column.is_null().to_numpy(), np.iinfo(kind.to_pandas_dtype()).max
        return MaskedColumn(column.fill_null(unused).to_numpy(), mask=unknown, fill_value=unused)
    if pa.types.is_boolean(kind):
        return column.to_numpy()
    if is_array(column):
        return np.stack(column.to_numpy())
    return np.concatenate([np.array([as_ascii(each) for each in chunk.to_pylist()], "S") for chunk in column.chunks])


def is_array(column: pa.ChunkedArray) -> bool:
    """Whether a column is of lists of numbers, all of one length and known."""
    kind = column.type
    is_list = pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    if (
        not is_list
        or column.null_count
        or not (pa.types.is_floating(kind.value_type) or pa.types.is_integer(kind.value_type))
    ):
        return False
    lengths = {len(each) for each in column.to_numpy()}
    return len(lengths) == 1 and lengths != {0} and not column.combine_chunks().flatten().null_count


def as_ascii(value) -> bytes:
    return b"" if value is None else str(value).encode("ascii", "backslashreplace")
