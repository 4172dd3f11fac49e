"""Rows that a command line gives, and how processes share the work on them: what scripts over many spectra have alike."""

import argparse
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import surveys
import torch
from accelerate import PartialState
from accelerate.utils import parse_flag_from_env
from datasets import Dataset, concatenate_datasets, load_dataset, load_from_disk
from devices import PATIENCE, needs_cpu
from recipe import Recipe, parse_data, parse_options

from spectral_tokenizer.data import load_prepared
from spectral_tokenizer.data.input_files import find_files
from spectral_tokenizer.data.prepared import check_shards, is_prepared, with_rows
from spectral_tokenizer.data.schema import SPECTRUM
from spectral_tokenizer.data.simulation import SURVEYS


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What is read, and how fast."""
    several = {"nargs": "+", "action": "extend", "default": []}
    parser.add_argument("--data", **several, metavar="SURVEY=PATH", help="survey files, folder or glob")
    parser.add_argument(
        "--options", **several, metavar="SURVEY.NAME=VALUE", help="of a survey's reader, as mine.frame=barycentric"
    )
    parser.add_argument("--rows", **several, help="prepared rows: Parquet files, or a folder of save_to_disk")
    parser.add_argument("--shard-rows", type=int, default=8192, help="rows per file (default: %(default)s)")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--num-workers", type=int, default=0, help="processes that prepare batches ahead")
    parser.add_argument(
        "--dtype", choices=["float32", "bfloat16"], default="float32", help="number type of the encoder"
    )


def checked(parser: argparse.ArgumentParser, given: argparse.Namespace) -> argparse.Namespace:
    if given.rows and given.data:
        parser.error("expected --rows or --data, found both")
    if given.options and not given.data:
        parser.error("--options are of the surveys in --data: expected both, found no --data")
    least = {"shard_rows": 1, "batch_size": 1, "num_workers": 0}
    for name, limit in least.items():
        if (found := getattr(given, name)) < limit:
            parser.error(f"--{name.replace('_', '-')}: expected {limit} or more, found {found}")
    return given


def load_rows(arguments: argparse.Namespace) -> Dataset:
    """Rows from survey files or from prepared tables; where neither is given, `simulate` spectra of each survey."""
    if arguments.rows:
        parts = [read_rows(path) for path in arguments.rows]
    else:
        simulated = (
            {} if arguments.data else {"simulate": dict.fromkeys(SURVEYS, arguments.simulate), "seed": arguments.seed}
        )
        options = parse_options(arguments.options)
        recipe = Recipe(data=parse_data(arguments.data), options=options, output=arguments.output, **simulated)
        parts = list(surveys.load(recipe).values())
    return concatenate_datasets(parts)


def read_rows(path: str) -> Dataset:
    """Rows from Parquet files (a file, a glob or a folder of them) or a folder that `save_to_disk` wrote.

    Raises:
        FileNotFoundError: nothing is there, or of shards that `prepare` wrote one is missing.
        ValueError: columns of a spectrum are missing, or a file is damaged (`SpectrumFileError`).
    """
    if (Path(path) / "dataset_info.json").exists():
        rows = load_from_disk(path)
    elif is_prepared(path):
        rows = load_prepared(path)
    else:
        files = find_files(path, ["*.parquet"])
        check_shards(files)
        full = with_rows(files)
        rows = load_dataset("parquet", data_files=full, split="train") if full else Dataset(pq.read_table(files[0]))
    missing = sorted({"object_id", *SPECTRUM} - set(rows.column_names))
    if missing:
        raise ValueError(
            f"{path}: expected rows with the columns of a spectrum, missing: {missing}. A table of one's own, with no more than "
            f"wavelength, flux and ivar, goes in as --data NAME={path} --options NAME.frame=heliocentric (or what it is)"
        )
    return rows


def count(problems: pa.ChunkedArray, lacking: str, folder: Path) -> None:
    """Say of how many rows there is nothing, and of the first one why.

    Raises:
        ValueError: that is all of them.
    """
    reasons = problems.drop_null()
    print(f"{len(problems)} spectra, {len(reasons)} without {lacking}" + (f": {reasons[0]}" if len(reasons) else ""))
    if len(reasons) == len(problems):
        raise ValueError(f"{folder}: expected some spectra that can be read, found {len(reasons)} without {lacking}")


def processes() -> PartialState:
    """This process among those that were launched."""
    # Told that there is no accelerator, or none to be used: else each of several processes takes itself for the only
    # one.
    use_cpu = parse_flag_from_env("ACCELERATE_USE_CPU") or not torch.accelerator.is_available() or needs_cpu()
    return PartialState(cpu=use_cpu, timeout=PATIENCE)


def sharing(arguments: argparse.Namespace, state: PartialState) -> dict:
    """As `write_embeddings` and `write_catalogue` take it: shards, batches, processes."""
    return {
        "shard_rows": arguments.shard_rows, "batch_size": arguments.batch_size, "num_workers": arguments.num_workers,
        "process_index": state.process_index, "num_processes": state.num_processes, "progress": state.is_main_process,
    }  # fmt: skip
