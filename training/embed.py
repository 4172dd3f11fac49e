"""Embed spectra with a trained encoder: one Parquet row per spectrum, with its metadata and its vector.

    python training/embed.py --model runs/demo/model --output runs/embeddings --data sdss=/data/sdss desi=/data/desi
    accelerate launch --multi_gpu --num_processes 4 training/embed.py --model ... --rows prepared/*.parquet
    python training/embed.py --output runs/embeddings --map-only      # the picture alone, from what is there

Shards are written aside and renamed: a run that was interrupted goes on where it stopped, started again with the same
arguments, on as many processes as one likes. At the end: how alike neighbours are, and a map (UMAP, or principal
components where umap-learn is not installed).
"""

import argparse
import json
from pathlib import Path

import embedding_map
import numpy as np
import surveys
import torch
from accelerate import PartialState
from accelerate.utils import parse_flag_from_env
from datasets import Dataset, concatenate_datasets, load_dataset, load_from_disk
from devices import PATIENCE, needs_cpu
from recipe import Recipe, find, parse_data
from transformers import AutoModel, AutoProcessor

from spectral_tokenizer.data import load_prepared
from spectral_tokenizer.data.embedding import read_embeddings, write_embeddings
from spectral_tokenizer.data.input_files import find_files
from spectral_tokenizer.data.prepared import check_shards, is_prepared
from spectral_tokenizer.data.schema import SPECTRUM
from spectral_tokenizer.data.simulation import SURVEYS


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Embed spectra with a trained encoder.")
    parser.add_argument("--model", default="runs/demo/model", help="checkpoint (default: %(default)s)")
    parser.add_argument("--output", default="runs/embeddings", help="folder to write to (default: %(default)s)")
    several = {"nargs": "+", "action": "extend", "default": []}
    parser.add_argument("--data", **several, metavar="SURVEY=PATH", help="survey files, folder or glob")
    parser.add_argument("--rows", **several, help="prepared rows: Parquet files, or a folder of save_to_disk")
    parser.add_argument("--simulate", type=int, default=300, help="spectra per survey where nothing is given")
    parser.add_argument("--shard-rows", type=int, default=8192, help="rows per file (default: %(default)s)")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--num-workers", type=int, default=0, help="processes that prepare batches ahead")
    parser.add_argument(
        "--dtype", choices=["float32", "bfloat16"], default="float32", help="number type of the encoder"
    )
    parser.add_argument("--seed", type=int, default=0, help="of simulated spectra and of the map")
    parser.add_argument("--map-rows", type=int, default=20000, help="spectra that the map shows, at most")
    parser.add_argument("--map-only", action="store_true", help="do not embed: read what is there")
    given = parser.parse_args(arguments)
    if given.rows and given.data:
        parser.error("expected --rows or --data, found both")
    return given


def load_rows(arguments: argparse.Namespace) -> Dataset:
    """Rows from survey files, from prepared tables, or of simulated spectra."""
    if arguments.rows:
        parts = [read_rows(path) for path in arguments.rows]
    else:
        recipe = Recipe(
            data=parse_data(arguments.data), simulate=dict.fromkeys(SURVEYS, arguments.simulate),
            output=arguments.output, seed=arguments.seed,
        )  # fmt: skip
        parts = list(surveys.load(recipe).values())
    return concatenate_datasets(parts)


def read_rows(path: str) -> Dataset:
    """Rows from Parquet files (a file, a glob or a folder of them) or a folder that `save_to_disk` wrote.

    Raises:
        FileNotFoundError: nothing is there, or of shards that `prepare` wrote one is missing.
        ValueError: columns of a spectrum are missing.
    """
    if (Path(path) / "dataset_info.json").exists():
        rows = load_from_disk(path)
    elif is_prepared(path):
        rows = load_prepared(path)
    else:
        files = find_files(path, ["*.parquet"])
        check_shards(files)
        rows = load_dataset("parquet", data_files=files, split="train")
    missing = sorted({"object_id", *SPECTRUM} - set(rows.column_names))
    if missing:
        raise ValueError(
            f"{path}: expected rows with the columns of a spectrum, missing: {missing}. A table of one's own, with no more than "
            f"wavelength, flux and ivar, goes in as --data NAME={path}"
        )
    return rows


def main() -> None:
    # Told that there is no accelerator, or none to be used: else each of several processes takes itself for the only
    # one.
    use_cpu = parse_flag_from_env("ACCELERATE_USE_CPU") or not torch.accelerator.is_available() or needs_cpu()
    arguments, state = parse_arguments(), PartialState(cpu=use_cpu, timeout=PATIENCE)
    output = Path(arguments.output)
    if not arguments.map_only:
        with state.main_process_first():
            rows = load_rows(arguments)
        folder = str(find(arguments.model))
        model = AutoModel.from_pretrained(folder, dtype=getattr(torch, arguments.dtype)).to(state.device)
        write_embeddings(
            model, AutoProcessor.from_pretrained(folder), rows, output, shard_rows=arguments.shard_rows,
            batch_size=arguments.batch_size, num_workers=arguments.num_workers, process_index=state.process_index,
            num_processes=state.num_processes, progress=state.is_main_process,
        )  # fmt: skip
        state.wait_for_everyone()
    if state.is_main_process:
        finish(output, arguments)


def finish(output: Path, arguments: argparse.Namespace) -> None:
    """Count, compare neighbours, draw."""
    said = read_embeddings(output, ["problem"])["problem"]
    problems = [each for each in said if each]
    print(f"{len(said)} spectra, {len(problems)} without an embedding" + (f": {problems[0]}" if problems else ""))
    count = min(arguments.map_rows, len(said))
    shown = read_embeddings(output, rows=np.sort(np.random.default_rng(arguments.seed).permutation(len(said))[:count]))
    scores = embedding_map.neighbours_agree(shown)
    (output / "neighbours.json").write_text(json.dumps(scores, indent=2) + "\n")
    for name, value in scores.items():
        print(f"{name:<28} {value:10.4g}")
    figure = embedding_map.draw(shown, output / "map.png", arguments.seed)
    print(f"\nembeddings: {output}\nmap: {figure}")


if __name__ == "__main__":
    main()
