"""Ask trained heads of spectra: a catalogue of class, redshift, labels, one Parquet row per spectrum.

    python training/predict.py --heads hub_configs/released_class hub_configs/released_redshift --data desi=/data/desi
    accelerate launch --multi_gpu --num_processes 4 training/predict.py --heads ... --rows prepared/desi
    python training/predict.py --heads ... --data sdss=/data/sdss --fits    # and catalogue.fits

Each row has the spectrum's metadata, the survey's own labels among them, and behind them what the heads say with its
68 % interval, its confidence, its flag and its novelty. Heads on the same encoder let it read each spectrum once. Shards
are written aside and renamed: a run that was interrupted goes on where it stopped, started again with the same arguments.
At the end: how many are flagged, and a picture.
"""

import argparse
from pathlib import Path

import catalogue_figures
import pyarrow as pa
import torch
from catalogue_fits import write_fits
from given_rows import add_arguments, checked, count, load_rows, processes, sharing
from recipe import find_model
from transformers import AutoModelForSequenceClassification, AutoProcessor

from spectral_tokenizer.data.catalogue import PREDICTED, check_labels, read_catalogue, write_catalogue
from spectral_tokenizer.data.shards import PROBLEM


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Ask trained heads of spectra: a catalogue.")
    parser.add_argument(
        "--heads",
        nargs="+",
        required=True,
        metavar="FOLDER|OWNER/NAME",
        help="trained heads, with labels of their own each",
    )
    parser.add_argument("--output", default="runs/catalogue", help="folder to write to (default: %(default)s)")
    parser.add_argument("--fits", action="store_true", help="write all of it as catalogue.fits, too")
    add_arguments(parser)
    given = checked(parser, parser.parse_args(arguments))
    if not (given.data or given.rows):
        parser.error("expected --data or --rows, found neither")
    return given


def load_heads(folders: list[str], dtype: torch.dtype, device) -> tuple[list, object]:
    """Heads, and the processor of all of them.

    Raises:
        FileNotFoundError: one of them is no model's folder, nor named as one on the Hub is.
        ValueError: one of them is no trained head, two answer the same, or they were saved with unlike processors.
    """
    heads, processors = [], []
    for folder in [find_model("--heads", each) for each in folders]:
        model, loading = AutoModelForSequenceClassification.from_pretrained(
            folder, dtype=torch.float32, output_loading_info=True
        )
        if missing := sorted(
            loading["missing_keys"]
        ):  # Transformers draws them at random, and a catalogue of that looks fine
            raise ValueError(
                f"--heads: {folder}: expected a trained head ({type(model).__name__}), found "
                f"{model.config.architectures} without {', '.join(missing)}"
            )
        if not model.head.is_trained:
            raise ValueError(f"--heads: {folder}: expected a trained head, found a fresh one, which answers all alike")
        model.spectral.to(dtype)  # of the head's own numbers none may be rounded
        heads.append(model.to(device))
        processors.append(AutoProcessor.from_pretrained(folder))
        if processors[-1].to_dict() != processors[0].to_dict():
            raise ValueError(
                f"--heads: expected heads with the same processor, found others in {folders[0]} and {folder}: "
                "ask them in two runs"
            )
    check_labels(heads)
    return heads, processors[0]


def main() -> None:
    arguments = parse_arguments()
    state = processes()
    output = Path(arguments.output)
    # First, as they are read in seconds, and the files of a survey in hours.
    heads, processor = load_heads(arguments.heads, getattr(torch, arguments.dtype), state.device)
    with state.main_process_first():
        rows = load_rows(arguments)
    write_catalogue(heads, processor, rows, output, **sharing(arguments, state))
    state.wait_for_everyone()
    if state.is_main_process:
        finish(output, arguments)


def finish(output: Path, arguments: argparse.Namespace) -> None:
    """Count, draw, and copy to FITS if that is wanted."""
    columns = read_catalogue(output, rows=[0]).column_names
    if not arguments.fits:  # then of millions of spectra no more is read than is counted and drawn
        columns = [name for name in columns if name.startswith(PREDICTED) or name == PROBLEM]
    table = read_catalogue(output, columns).with_format("arrow")[:]
    count(table[PROBLEM], "an answer", output)
    for name, (answers, flagged, novel) in told(table).items():
        unlike = "novelty is not known" if novel is None else f"{novel:8} unlike what the head was fitted to"
        print(f"{name:<28} {answers:8} answers, {flagged:8} flagged, {unlike}")
    if arguments.fits:
        print(f"\nFITS: {write_fits(table, output / 'catalogue.fits')}")
    print(f"\ncatalogue: {output}")
    if catalogue_figures.labels(table):
        print(f"picture: {catalogue_figures.draw(table, output / 'catalogue.png')}")


def told(table: pa.Table) -> dict[str, tuple[int, int, int | None]]:
    """Label -> answers, flagged ones, those with a novelty above 1: None of a head without."""
    found = {}
    for name in catalogue_figures.labels(table):
        is_known = ~table[f"{PREDICTED}{name}"].is_null(nan_is_null=True).to_numpy()
        columns = {what: f"{PREDICTED}{name}{what}" for what in ("_is_flagged", "_novelty")}
        given = {what: table[column].to_numpy() for what, column in columns.items() if column in table.column_names}
        flagged, novelty = given.get("_is_flagged", 0), given.get("_novelty")
        novel = None if novelty is None else int((is_known & (novelty > 1)).sum())
        found[name] = int(is_known.sum()), int((is_known & (flagged > 0)).sum()), novel
    return found


if __name__ == "__main__":
    main()
