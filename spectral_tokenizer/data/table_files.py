"""Rows out of Parquet, Arrow and HDF5 files, whatever their columns: one dict per row, a block of rows at a time.

A column of lists or of two dimensions gives an array per row, another one a value. A struct's fields are columns named
``struct.field``; so are the fields of a list of structs. What booleans ``NAME.mask`` beside ``NAME`` mark, as astropy
writes masks, is masked in arrays and None elsewhere. In HDF5 the first dimension counts rows, and a grid of wavelengths
that all rows share may stand there once.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from astropy import units
from astropy.table.meta import get_header_from_yaml

from .fits_access import SpectrumFileError, raise_if_of_the_machine
from .plain import known_unit


ROWS_PER_BLOCK = 64
SHARED = ("wavelength", "segment_lengths")  # HDF5 datasets that may stand once for all rows
MASK, ASTROPY_META = ".mask", b"table_meta_yaml"  # how astropy writes masks and units into Parquet


def read_rows(path: str | Path, shared: tuple[str, ...] = SHARED) -> Iterator[dict[str, object]]:
    """The rows of a table file, with the columns' names as they are spelled: `find_column`.

    Args:
        path: of a file in Parquet, Arrow's file or stream format (also Feather), or HDF5; its content tells which.
        shared: HDF5 datasets that belong to every row if they have one dimension, in lower case.

    Raises:
        SpectrumFileError: the file is damaged or of another format.
        OSError: the machine or its network is at fault, not the file.
        ImportError: it is HDF5, and h5py is not installed.
    """
    with open(path, "rb") as file:
        start = file.read(8)
    reader = next((reader for magic, reader in READERS.items() if start.startswith(magic)), None)
    if reader is None:
        raise SpectrumFileError(path, "file", f"a file that begins with {start!r}", "Parquet, Arrow or HDF5")
    try:
        for columns in reader(path, shared):
            for values in zip(*columns.values()):
                yield dict(zip(columns, values))
    except (SpectrumFileError, ImportError):
        raise
    # pyarrow's errors are among these; h5py's too
    except (OSError, ValueError, TypeError, KeyError, RuntimeError, MemoryError, NotImplementedError) as error:
        raise_if_of_the_machine(error, path)
        found = f"{type(error).__name__}: {error}"
        raise SpectrumFileError(path, "file", found, "a complete table") from error


def find_column(path: str | Path, name: str, present: Iterable[str]) -> str | None:
    """The column of a name: the one that is spelled so, else one that differs in case; None if there is none.

    Raises:
        SpectrumFileError: several do: the last would stand for all.
    """
    alike = [each for each in present if each.lower() == name.lower()]
    if name in alike:
        return name
    if len(alike) > 1:
        raise SpectrumFileError(path, f"column {name}", f"columns {alike}", "one of them, or one that is spelled so")
    return alike[0] if alike else None


def stated_units(path: str | Path) -> dict[str, units.UnitBase]:
    """The units of columns that astropy wrote into a Parquet file, as far as it knows them; none of another file.

    Raises:
        SpectrumFileError: the file is damaged.
    """
    with open(path, "rb") as file:
        if file.read(4) != b"PAR1":
            return {}
    try:
        header = (pq.read_schema(path).metadata or {}).get(ASTROPY_META)
        columns = [] if header is None else get_header_from_yaml(header.decode().split("\n"))["datatype"]
        known = {column["name"]: known_unit(column.get("unit")) for column in columns}
    except Exception as error:  # of pyarrow and of several kinds of YAML
        raise_if_of_the_machine(error, path)
        raise SpectrumFileError(path, "file", f"{type(error).__name__}: {error}", "a Parquet table") from error
    return {name: unit for name, unit in known.items() if unit is not None}


def read_parquet(path: str | Path, shared: tuple[str, ...]) -> Iterator[dict[str, list]]:
    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(batch_size=ROWS_PER_BLOCK):
            yield batch_columns(batch)


def read_arrow_file(path: str | Path, shared: tuple[str, ...]) -> Iterator[dict[str, list]]:
    with pa.OSFile(str(path)) as source, pa.ipc.open_file(source) as file:
        for index in range(file.num_record_batches):
            yield from split_batch(file.get_batch(index))


def read_arrow_stream(path: str | Path, shared: tuple[str, ...]) -> Iterator[dict[str, list]]:
    with pa.OSFile(str(path)) as source, pa.ipc.open_stream(source) as stream:
        for batch in stream:
            yield from split_batch(batch)


def read_hdf5(path: str | Path, shared: tuple[str, ...]) -> Iterator[dict[str, list]]:
    """Datasets at the top of an HDF5 file, and those of its groups as ``group.dataset``."""
    try:
        import h5py
    except ImportError as error:
        raise ImportError(f"{path} is HDF5: pip install 'spectral-tokenizer[hdf5]'") from error
    with h5py.File(path, "r") as file:
        datasets = {}
        file.visititems(lambda name, item: datasets.update({name.replace("/", "."): item}) if is_table(item) else None)
        numeric = {name for name, item in datasets.items() if item.ndim == 1 and item.dtype.kind in "fiu"}
        once = {name for name in numeric if name.lower() in shared}
        counts = {name: len(item) for name, item in datasets.items() if name not in once}
        if len(set(counts.values())) > 1:
            raise SpectrumFileError(path, "datasets", f"{counts} rows", "as many in each")
        for start in range(0, max(counts.values(), default=0), ROWS_PER_BLOCK):
            stop = min(start + ROWS_PER_BLOCK, max(counts.values()))
            columns = {name: list(datasets[name][start:stop]) for name in counts}
            yield columns | {name: [datasets[name][:]] * (stop - start) for name in once}


def is_table(item: object) -> bool:
    """Whether a thing in an HDF5 file is a dataset that has rows."""
    return getattr(item, "ndim", 0) > 0


READERS = {
    b"PAR1": read_parquet,
    b"ARROW1": read_arrow_file,
    b"\xff\xff\xff\xff": read_arrow_stream,
    b"\x89HDF\r\n\x1a\n": read_hdf5,
}


def split_batch(batch: pa.RecordBatch) -> Iterator[dict[str, list]]:
    """A record batch of any size in blocks of rows."""
    for start in range(0, batch.num_rows, ROWS_PER_BLOCK):
        yield batch_columns(batch.slice(start, ROWS_PER_BLOCK))


def batch_columns(batch: pa.RecordBatch) -> dict[str, list]:
    """The columns of a record batch, structs taken apart: name -> one array or value per row."""
    columns = {}
    for name, array in zip(batch.schema.names, batch.columns):
        columns |= array_columns(name, array)
    for name in [name for name in columns if f"{name}{MASK}" in columns]:
        if pa.types.is_boolean(flat_type(batch.schema, f"{name}{MASK}")):
            columns[name] = list(map(masked, columns[name], columns.pop(f"{name}{MASK}")))
    return columns


def flat_type(schema: pa.Schema, name: str) -> pa.DataType:
    """The type of a column's values, of lists of what they hold; null for what is a struct's field."""
    kind = schema.field(name).type if name in schema.names else pa.null()
    return getattr(kind, "value_type", kind)


def masked(value: object, mask: object) -> object:
    """One row's value or array with its mask, True where it is none."""
    if isinstance(value, np.ndarray) and isinstance(mask, np.ndarray):
        return np.ma.array(value, mask=mask.astype(bool))
    return None if mask is True else value


def array_columns(name: str, array: pa.Array) -> dict[str, list]:
    """One column, or the columns of a struct or of a list of structs."""
    if isinstance(array, pa.ExtensionArray):
        array = array.storage
    if pa.types.is_fixed_size_list(array.type):
        array = array.cast(pa.list_(array.type.value_type))
    if pa.types.is_struct(array.type):
        fields = (array_columns(f"{name}.{field.name}", child) for field, child in zip(array.type, array.flatten()))
        return {key: values for columns in fields for key, values in columns.items()}
    if not (pa.types.is_list(array.type) or pa.types.is_large_list(array.type)):
        return {name: array.to_pylist()}
    content = array.flatten()
    if pa.types.is_struct(content.type):
        return {
            f"{name}.{field.name}": split_lists(array, child) for field, child in zip(content.type, content.flatten())
        }
    return {name: split_lists(array, content)}


def split_lists(lists: pa.ListArray, content: pa.Array) -> list[np.ndarray | None]:
    """An array per row out of the flat content of lists, None for a null list."""
    lengths = lists.value_lengths().fill_null(0).to_numpy()
    rows = np.split(content.to_numpy(zero_copy_only=False), np.cumsum(lengths)[:-1])
    if not lists.null_count:
        return rows
    return [None if is_null else row for row, is_null in zip(rows, lists.is_null().to_pylist())]
