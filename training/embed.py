"""Embed spectra with a trained encoder: one Parquet row per spectrum, with its metadata and its vector.

    python training/embed.py --model runs/demo/model --output runs/embeddings --data sdss=/data/sdss desi=/data/desi
    accelerate launch --multi_gpu --num_processes 4 training/embed.py --model ... --rows prepared/desi
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
import torch
from given_rows import add_arguments, checked, count, load_rows, processes, sharing
from recipe import find_model
from transformers import AutoModel, AutoProcessor

from spectral_tokenizer.data.embedding import read_embeddings, write_embeddings


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Embed spectra with a trained encoder.")
    parser.add_argument("--model", default="runs/demo/model", help="folder, or OWNER/NAME (default: %(default)s)")
    parser.add_argument("--output", default="runs/embeddings", help="folder to write to (default: %(default)s)")
    add_arguments(parser)
    parser.add_argument("--simulate", type=int, default=300, help="spectra per survey where nothing is given")
    parser.add_argument("--seed", type=int, default=0, help="of simulated spectra and of the map")
    parser.add_argument("--map-rows", type=int, default=20000, help="spectra that the map shows, at most")
    parser.add_argument("--map-only", action="store_true", help="do not embed: read what is there")
    return checked(parser, parser.parse_args(arguments))


def main() -> None:
    arguments = parse_arguments()
    state = processes()
    output = Path(arguments.output)
    if not arguments.map_only:
        folder = find_model("--model", arguments.model)  # before the files of a survey, which are read in hours
        with state.main_process_first():
            rows = load_rows(arguments)
        model = AutoModel.from_pretrained(folder, dtype=getattr(torch, arguments.dtype)).to(state.device)
        write_embeddings(model, AutoProcessor.from_pretrained(folder), rows, output, **sharing(arguments, state))
        state.wait_for_everyone()
    if state.is_main_process:
        finish(output, arguments)


def finish(output: Path, arguments: argparse.Namespace) -> None:
    """Count, compare neighbours, draw."""
    said = read_embeddings(output, ["problem"]).with_format("arrow")[:]["problem"]
    count(said, "an embedding", output)
    chosen = np.random.default_rng(arguments.seed).permutation(len(said))[: arguments.map_rows]
    shown = read_embeddings(output, rows=np.sort(chosen))
    scores = embedding_map.neighbours_agree(shown)
    (output / "neighbours.json").write_text(json.dumps(scores, indent=2) + "\n")
    for name, value in scores.items():
        print(f"{name:<28} {value:10.4g}")
    figure = embedding_map.draw(shown, output / "map.png", arguments.seed)
    print(f"\nembeddings: {output}\nmap: {figure}")


if __name__ == "__main__":
    main()
