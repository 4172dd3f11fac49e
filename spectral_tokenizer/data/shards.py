"""What a model says of rows, as Parquet in shards that are there whole or not at all.

What it says comes batch by batch from a function that is handed in: vectors (`embedding`), a catalogue's columns
(`catalogue`).
"""

import hashlib
import json
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from datasets import Dataset
from fsspec.implementations.local import LocalFileSystem
from tqdm.auto import tqdm

from .fits_access import SpectrumFileError
from .packing import as_arrays, rows_of
from .prepared import read_metadata
from .schema import RESOLUTION, SPECTRUM
from .storage import sweep, write_aside, write_first


logger = logging.getLogger(__name__)

#: Column that is null, or says why there is no answer of this row.
PROBLEM = "problem"
#: Settings of a model that change with who saved it where, and nothing that it computes.
BOOKKEEPING = ("transformers_version", "architectures", "auto_map", "dtype", "_name_or_path")
SAMPLE = 1000  # rows of which pixels are looked at
FARTHEST = 20  # times as many rows as are taken, that those taken at once may lie among
BLOCK = 100_000  # rows whose labels are looked at together: of twenty million they would not fit


@dataclass(frozen=True)
class Shards:
    """What a folder holds. It stands in `NAME.json` there, so that a run that goes on with other rows or another model is
    refused instead of mixed in.

    Args:
        rows: Fingerprint of the rows: which objects of which files, in which order, with which labels and pixels.
        model: Fingerprint of the weights and settings.
        num_rows, shard_rows: Rows in all, and in each shard but the last.
        size: Numbers that are said of each row, or 0.
        name: Of the files.
        models: Where the weights were loaded from, for whoever is refused; they may have been moved.
    """

    rows: str
    model: str
    num_rows: int
    shard_rows: int
    size: int = 0
    name: str = "embeddings"
    models: str = "unknown"

    def __len__(self) -> int:
        return -(-self.num_rows // self.shard_rows)

    def path(self, folder: Path, number: int) -> Path:
        return folder / f"{self.name}-{number:05d}-of-{len(self):05d}.parquet"


class PackedBatches(torch.utils.data.Dataset):
    """Packed batches of consecutive rows, prepared ahead by a loader's workers. A row that the processor refuses is
    left out, and what it said is kept: one bad spectrum in a million must not end the run."""

    def __init__(self, rows: Dataset, processor: Callable, batch_size: int):
        self.rows, self.processor, self.batch_size = as_arrays(rows), processor, batch_size

    def __len__(self) -> int:
        return -(-len(self.rows) // self.batch_size)

    def __getitem__(self, number: int) -> tuple[dict | None, list[str | None]]:
        if not 0 <= number < len(self):
            raise IndexError(number)
        start = number * self.batch_size
        spectra = rows_of(self.rows, list(range(start, min(start + self.batch_size, len(self.rows)))))
        problems: list[str | None] = [None] * len(spectra)
        try:
            return dict(self.processor(spectra, packed=True, return_tensors="pt")), problems
        except ValueError:
            for position, spectrum in enumerate(spectra):
                try:
                    self.processor([spectrum], packed=True)
                except ValueError as error:
                    problems[position] = str(error)
        good = [spectrum for spectrum, problem in zip(spectra, problems) if problem is None]
        return dict(self.processor(good, packed=True, return_tensors="pt")) if good else None, problems


def write_answers(
    rows: Dataset,
    folder: str | Path,
    shards: Shards,
    answers: Callable[[Dataset], Iterable[dict[str, pa.Array]]],
    process_index: int = 0,
    num_processes: int = 1,
    progress: bool = True,
) -> list[Path]:
    """Write what is said of rows into Parquet files, behind the rows' metadata (all columns but pixels).

    Shards that are there are left as they are, so that an interrupted run goes on where it stopped; those that are cut off
    are made anew. A shard is written aside and renamed. Process `process_index` of `num_processes` writes every `num_processes`-th shard.

    Args:
        rows: All of them, on every process.
        folder: Made where there is none.
        shards: What the folder will hold.
        answers: Rows -> batch by batch, in order, the same columns, `problem` among them.

    Returns:
        Paths of all shards in order, written by whichever process.

    Raises:
        ValueError: the folder holds what was said of other rows, by another model or in other shards. Names which.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    claim(folder, shards)
    mine = [number for number in range(len(shards)) if number % num_processes == process_index]
    size = shards.shard_rows
    ranges = {number: range(number * size, min((number + 1) * size, len(rows))) for number in mine}
    missing = [number for number in mine if not is_written(shards.path(folder, number), len(ranges[number]))]
    total, done = (sum(len(ranges[number]) for number in numbers) for numbers in (mine, set(mine) - set(missing)))
    with tqdm(total=total, initial=done, desc=shards.name, unit="spectra", disable=not progress) as bar:
        for number in missing:
            part, found = rows.select(ranges[number]), []
            for columns in answers(part):
                found.append(pa.table(columns))
                bar.update(len(found[-1]))
            write_shard(part, pa.concat_tables(found), shards.path(folder, number))
    claim(folder, shards)  # again: see `write_first`
    return [shards.path(folder, number) for number in range(len(shards))]


def check_names(rows: Dataset, names: Iterable[str]) -> None:
    """Before the folder is claimed and anything computed.

    Raises:
        ValueError: what will be said of the rows has the name of a column that they have. Names which.
    """
    if twice := sorted(set(rows.column_names) & set(names)):
        raise ValueError(f"rows: expected no column of the names {twice}, which are those of what is said of them")


def is_written(path: Path, num_rows: int) -> bool:
    """Whether a shard is there with all of its rows. One that is cut off, as a full disk or a broken copy leaves it, is
    none: then the log names it."""
    try:
        if (found := read_metadata(path, path).num_rows) == num_rows:
            return True
        raise SpectrumFileError(path, "rows", found, str(num_rows))
    except FileNotFoundError:
        return False
    except SpectrumFileError as error:
        logger.warning("%s: it is made anew", error)
        return False


def write_shard(rows: Dataset, found: pa.Table, path: Path) -> None:
    """One Parquet file, under its name only when it is whole."""
    pixels = [name for name in rows.column_names if name in SPECTRUM or name in RESOLUTION]
    table = rows.remove_columns(pixels).with_format("arrow")[:]
    for name, column in zip(found.column_names, found.columns):
        table = table.append_column(name, column)
    with write_aside(LocalFileSystem(), str(path), or_theirs=True) as unfinished:  # another job may write the same
        pq.write_table(table.replace_schema_metadata(None), unfinished)
    sweep(LocalFileSystem(), str(path))


def read_answers(
    folder: str | Path,
    columns: Sequence[str] | None = None,
    rows: Sequence[int] | None = None,
    name: str = "embeddings",
) -> Dataset:
    """All shards of a folder as one dataset: the rows' metadata, and what was said of them.

    Args:
        folder: Of the shards.
        columns: Those alone are read, and held in memory.
        rows: Numbers of the rows to read, ascending, or booleans (all rows,), true for those to read; no more than these and
            one shard are in memory. None: all.
        name: Of the files.

    Raises:
        FileNotFoundError: the folder holds none, or not all shards yet. Names the first that is missing.
        ValueError: rows or columns that are not there, or rows that do not ascend.
    """
    folder = Path(folder)
    manifest = folder / f"{name}.json"
    if not manifest.exists():
        raise FileNotFoundError(f"{folder}: expected a folder of {name} with {manifest.name}, found none")
    shards = Shards(**json.loads(manifest.read_text()))
    paths = [shards.path(folder, number) for number in range(len(shards))]
    missing = [path.name for path in paths if not path.exists()]
    if missing:
        raise FileNotFoundError(f"{folder}: {len(missing)} of {len(shards)} shards are not written yet: {missing[0]}")
    check_columns(columns, paths[0])
    tables, chosen = [], None if rows is None else ascending(rows, shards.num_rows)
    for number, path in enumerate(paths):
        first = number * shards.shard_rows
        if chosen is None:
            tables.append(pq.read_table(path, columns=columns))
        elif len(mine := chosen[(first <= chosen) & (chosen < first + shards.shard_rows)]):
            tables.append(pq.read_table(path, columns=columns).take(mine - first))
    return Dataset(pa.concat_tables(tables or [pq.read_table(paths[0], columns=columns).slice(0, 0)]))


def check_columns(columns: Sequence[str] | None, path: Path) -> None:
    """Raise ValueError where columns are asked for that a shard does not have, or one by its name alone."""
    there = pq.read_schema(path).names
    if isinstance(columns, str) or not set(columns or ()) <= set(there):
        raise ValueError(f"columns: expected a list of names among {there}, found: {columns!r} ({path})")


def ascending(rows: Sequence[int] | np.ndarray, num_rows: int) -> np.ndarray:
    """Numbers of rows as they are asked for, or those that booleans (num_rows,) are true of.

    Raises:
        ValueError: they are none of the rows, or do not ascend: answers would be of other rows than those asked for.
    """
    chosen = np.asarray(rows)
    if chosen.dtype == bool and chosen.shape == (num_rows,):
        return np.flatnonzero(chosen)
    whole = chosen.ndim == 1 and (chosen.dtype.kind in "iu" or not len(chosen))
    if not whole or (chosen < 0).any() or (chosen >= num_rows).any() or (np.diff(chosen) < 0).any():
        raise ValueError(
            f"rows: expected ascending numbers from 0 to {num_rows - 1}, or {num_rows} booleans, found: {chosen}"
        )
    return chosen.astype(np.int64)


def claim(folder: Path, shards: Shards) -> None:
    """Say in the folder what it will hold, or check that it is this.

    Raises:
        ValueError: it is something else. Names what.
    """
    ours = json.dumps(asdict(shards), indent=2) + "\n"
    found = Shards(**json.loads(write_first(LocalFileSystem(), str(folder / f"{shards.name}.json"), ours.encode())))
    different = [name for name, value in asdict(shards).items() if getattr(found, name) != value]
    if set(different) - {"models"}:
        told = ", ".join(
            f"{name}: found {getattr(found, name)}, expected {getattr(shards, name)}" for name in different
        )
        raise ValueError(f"{folder}: holds other {shards.name} ({told}). Take another folder, or remove this one")


def rows_fingerprint(rows: Dataset) -> str:
    """Changes with the objects, their files, their order, their labels, `snr`, and with pixels of a thousand rows, as
    another calibration changes; but not with where or when the rows were read.

    Raises:
        ValueError: there are no rows.
    """
    if not len(rows):
        raise ValueError("rows: expected spectra, found none: no row was read")
    names = sorted(name for name, feature in rows.features.items() if getattr(feature, "dtype", "list") != "list")
    digest = hashlib.sha256(json.dumps(names).encode())
    for content in contents(rows, names):
        digest.update(content)
    sample = np.unique(np.linspace(0, len(rows) - 1, SAMPLE).astype(int))
    for spectrum in rows_of(as_arrays(rows), sample.tolist()):
        for name in SPECTRUM:
            if spectrum[name] is not None:
                digest.update(np.ascontiguousarray(spectrum[name]))
    return digest.hexdigest()[:16]


def contents(rows: Dataset, names: Sequence[str]) -> Iterator[bytes]:
    """What columns hold, in blocks of rows. Of rows that were chosen among others, as a split does, Datasets would fetch
    each alone: here a block is taken at once out of where it lies."""
    of_them = rows.select_columns(names).with_format("arrow")
    table, chosen = of_them.data.table, rows._indices
    # Texts of a column may be more than the 2 GiB that Arrow's ordinary ones can be together.
    wide = [pa.large_string() if pa.types.is_string(each) else each for each in table.schema.types]
    for start in range(0, len(rows), BLOCK):
        if chosen is None:
            block = table.slice(start, BLOCK)
        elif np.ptp(places := chosen.column(0).slice(start, BLOCK).to_numpy().astype(np.int64)) > FARTHEST * BLOCK:
            block = of_them[start : start + BLOCK]
        else:
            lies = table.slice(places.min(), np.ptp(places) + 1).cast(pa.schema(zip(names, wide)))
            block = lies.take(places - places.min())
        for column in block.columns:
            yield content_of(column.to_numpy())


def content_of(values: np.ndarray) -> bytes:
    """The same whichever bits a NaN has."""
    if values.dtype == object:  # texts, or there are nulls among booleans
        return json.dumps(values.tolist(), default=str).encode()
    return np.where(np.isnan(values), np.nan, values).tobytes() if values.dtype.kind == "f" else values.tobytes()


def model_fingerprint(model, processor=None, leaving_out: Sequence[str] = ()) -> str:
    """Changes with any weight, with the model's settings (some may be left out), and with those of its processor."""
    given = [each.to_dict() for each in (model.config, processor) if each is not None]
    left_out = {*BOOKKEEPING, *leaving_out}
    settings = [{name: value for name, value in each.items() if name not in left_out} for each in given]
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True, default=str).encode())
    for name, weight in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(weight.detach().float().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]
