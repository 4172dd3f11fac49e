"""What `prepare` leaves, and how it is read back: `load_prepared`."""

import json
from collections.abc import Iterable
from pathlib import Path

from datasets import Dataset, load_dataset

from .schema import FEATURES


PLAN = "_plan.json"  # in a survey's folder: what is prepared from what, and in how many shards


def shard_name(shard: int, num_shards: int) -> str:
    """The part of a shard's names that tells it from the others."""
    return f"{shard:05d}-of-{num_shards:05d}"


def rows_name(shard: int, num_shards: int) -> str:
    """The file of a shard's rows, as the Hub expects a split's files to be named."""
    return f"train-{shard_name(shard, num_shards)}.parquet"


def is_prepared(folder: str | Path) -> bool:
    """Whether it is a survey's folder that `prepare` wrote."""
    return (Path(folder) / PLAN).exists()


def load_prepared(folders: str | Path | Iterable[str | Path]) -> Dataset:
    """The rows that `prepare_survey` wrote and has checked, all of them.

    Args:
        folders: a survey's folder, OUTPUT/SURVEY, or several.

    Raises:
        FileNotFoundError: nothing was prepared there, or a shard is not there: a task of an array that failed would
            leave out its part of the survey unnoticed.
    """
    files = []
    for folder in [folders] if isinstance(folders, (str, Path)) else folders:
        if not is_prepared(folder):
            raise FileNotFoundError(f"{folder}: expected a survey's folder that prepare wrote, found no {PLAN} in it")
        number = json.loads((Path(folder) / PLAN).read_text())["shards"]
        shards = [Path(folder) / rows_name(shard, number) for shard in range(number)]
        if missing := [shard.name for shard in shards if not shard.exists()]:
            raise FileNotFoundError(
                f"{folder}: {len(missing)} of {number} shards are not there, {missing[0]} the first: make them by "
                "spectral-tokenizer prepare"
            )
        files += map(str, shards)
    return load_dataset("parquet", data_files=files, split="train", features=FEATURES)
