"""What `prepare` leaves, and how it is read back: `load_prepared`."""

import glob
import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq
from datasets import Dataset, load_dataset

from .fits_access import SpectrumFileError
from .schema import FEATURES


PLAN = "_plan.json"  # in a survey's folder: what is prepared from what, and in how many shards
ROWS_NAME = re.compile(r"train-\d{5,}-of-\d{5,}\.parquet")


def shard_name(shard: int, num_shards: int) -> str:
    """The part of a shard's names that tells it from the others."""
    return f"{shard:05d}-of-{num_shards:05d}"


def rows_name(shard: int, num_shards: int) -> str:
    """The file of a shard's rows, as the Hub expects a split's files to be named."""
    return f"train-{shard_name(shard, num_shards)}.parquet"


def is_prepared(folder: str | Path) -> bool:
    """Whether it is a survey's folder that `prepare` wrote."""
    return (Path(folder).expanduser() / PLAN).exists()


def load_prepared(folders: str | Path | Iterable[str | Path]) -> Dataset:
    """The rows that `prepare_survey` wrote and has checked, all of them.

    Args:
        folders: a survey's folder, OUTPUT/SURVEY, or several.

    Raises:
        FileNotFoundError: nothing was prepared there, or a shard is not there: a task of an array that failed would
            leave out its part of the survey unnoticed.
        SpectrumFileError: a shard is damaged.
    """
    files = []
    for folder in [folders] if isinstance(folders, (str, Path)) else folders:
        if not is_prepared(folder):
            raise FileNotFoundError(f"{folder}: expected a survey's folder that prepare wrote, found no {PLAN} in it")
        files += map(str, all_shards(folder))
    if not (files := with_rows(files)):
        return Dataset(FEATURES.arrow_schema.empty_table())
    return load_dataset("parquet", data_files=files, split="train", features=FEATURES)


def with_rows(files: Iterable[str | Path]) -> list[str]:
    """Those of Parquet files that have rows, as Datasets takes them: it reads paths as globs, and `dr[17]` as `dr1`.
    It stops at one that has none, as `prepare` makes of sky fibres, and at a damaged one without naming it.

    Raises:
        SpectrumFileError, OSError: as `read_metadata`.
    """
    return [glob.escape(str(file)) for file in files if read_metadata(file, file).num_rows]


def read_metadata(file: str | Path | BinaryIO, name: str | Path) -> pq.FileMetaData:
    """What stands at the end of a Parquet file.

    Raises:
        SpectrumFileError: the file is damaged, or none of Parquet.
        OSError: the disk or the network does not give it: it may be whole.
    """
    try:
        return pq.read_metadata(file)
    except (pa.ArrowInvalid, OSError) as error:
        # Of a damaged file Arrow's own are plain and have no number; a disk's have one, a network's a class.
        if isinstance(error, OSError) and (type(error) is not OSError or error.errno is not None):
            raise
        raise SpectrumFileError(name, "file", error, "a whole Parquet file") from error


def all_shards(folder: str | Path) -> list[Path]:
    """The files of rows in a survey's folder that `prepare` wrote.

    Raises:
        FileNotFoundError: one of them is not there.
    """
    folder = Path(folder).expanduser()
    number = json.loads((folder / PLAN).read_text())["shards"]
    shards = [folder / rows_name(shard, number) for shard in range(number)]
    if missing := [shard.name for shard in shards if not shard.exists()]:
        raise FileNotFoundError(
            f"{folder}: {len(missing)} of {number} shards are not there, {missing[0]} the first: make them by "
            "spectral-tokenizer prepare"
        )
    return shards


def check_shards(files: Iterable[str | Path]) -> None:
    """Raise as `load_prepared` where some of the files are shards of a survey of which another is missing: a folder or a
    glob finds those that are there."""
    shards = (Path(file) for file in files if ROWS_NAME.fullmatch(Path(file).name))
    for folder in sorted({shard.parent for shard in shards}):
        if is_prepared(folder):
            all_shards(folder)
