"""Rows -> a catalogue: class, redshift, labels of each spectrum as heads say them, with their errors and doubts.

Heads that stand on the same encoder let it read each spectrum once.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from datasets import Dataset

from .shards import (
    PROBLEM,
    PackedBatches,
    Shards,
    check_names,
    model_fingerprint,
    read_answers,
    rows_fingerprint,
    write_answers,
)


NAME = "catalogue"
#: By kind of number: what is said of a spectrum that the processor refused.
MISSING = {"f": np.nan, "b": True, "O": None}
PREDICTED = "predicted_"  # before a label's name: the survey's own label has its name as a column


def write_catalogue(
    models: Sequence,
    processor,
    rows: Dataset,
    folder: str | Path,
    *,
    shard_rows: int = 8192,
    batch_size: int = 32,
    num_workers: int = 0,
    process_index: int = 0,
    num_processes: int = 1,
    progress: bool = True,
) -> list[Path]:
    """Ask heads of all rows, into Parquet files: the rows' metadata (all columns but pixels), the columns of `columns_of`
    for each head, and `problem`; how, says `write_answers`.

    Args:
        models: [`SpectralForSequenceClassification`], each on its device, with labels of its own.
        processor: Of all of them.
        rows: With the columns that the processor reads and `object_id`; all of them, on every process.
        folder: Made where there is none; what an interrupted run left there is gone on with.
        shard_rows: Rows of each file but the last.
        batch_size: Spectra at a time.
        num_workers: Processes that prepare batches ahead.
        process_index, num_processes: Which shards are this process's.
        progress: Show a bar.

    Returns:
        Paths of all shards in order, written by whichever process.

    Raises:
        ValueError: two heads answer the same, the rows have a column of such a name, or as `write_answers`.
    """
    check_labels(models)
    fingerprint = "-".join(model_fingerprint(each, processor) for each in models)
    folders = ", ".join(each.name_or_path or "unknown" for each in models)
    shards = Shards(rows_fingerprint(rows), fingerprint, len(rows), shard_rows, name=NAME, models=folders)
    families = by_encoder(models)
    flat = np.ones(256)
    # The columns' names and types, for batches of which nothing can be read.
    example = asked(families, processor(flat, flat, np.linspace(5000, 5200, 256), packed=True, return_tensors="pt"))
    check_names(rows, (*example, PROBLEM))

    def answers(part: Dataset) -> Iterator[dict[str, pa.Array]]:
        batches = PackedBatches(part, processor, batch_size)
        for inputs, problems in torch.utils.data.DataLoader(batches, batch_size=None, num_workers=num_workers):
            is_read = np.array([problem is None for problem in problems])
            found = {} if inputs is None else asked(families, inputs)
            yield placed(found, example, is_read) | {PROBLEM: pa.array(problems, type=pa.string())}

    return write_answers(rows, folder, shards, answers, process_index, num_processes, progress)


def read_catalogue(
    folder: str | Path, columns: Sequence[str] | None = None, rows: Sequence[int] | None = None
) -> Dataset:
    """All shards of a folder as one dataset; see `read_answers`."""
    return read_answers(folder, columns, rows, NAME)


def check_labels(models: Sequence) -> None:
    names = [name for model in models for name in labels_of(model)]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"heads: expected each label of one head alone, found several for {twice}")


def labels_of(model) -> list[str]:
    """What a head's columns are named after: its targets, or "class"."""
    return model.config.label_names if model.config.is_regression else ["class"]


def by_encoder(models: Sequence) -> list[list]:
    """The models in groups that have the same encoder."""
    groups: dict[tuple, list] = {}
    for model in models:
        encoder = model_fingerprint(model.spectral, leaving_out=model.config.settings_of_heads)
        groups.setdefault((encoder, str(model.device)), []).append(model)
    return list(groups.values())


@torch.no_grad()
def asked(families: Sequence[Sequence], inputs: Mapping) -> dict[str, np.ndarray]:
    """Columns of packed spectra."""
    columns = {}
    for first, *others in families:
        first.eval()
        given = {name: each.to(first.device) if torch.is_tensor(each) else each for name, each in inputs.items()}
        encoded = first.encode(**given)
        for model in (first, *others):
            columns |= columns_of(model.eval(), model.answer(encoded, model.outputs(encoded, **given)))
    return columns


def columns_of(model, answer) -> dict[str, np.ndarray]:
    """What a head says of a batch, as columns.

    Of a class: `predicted_class`, `probability_NAME` of each, calibrated, and `predicted_class_novelty`. Of each number:
    `predicted_NAME` in its own unit, `_low` and `_high` of its 68 % interval, `_error` (half of its width),
    `_confidence`, `_is_flagged`, `_novelty`; see [`SpectralClassifierOutput`]. Novelty is there where it was fitted.
    """
    names, columns = model.config.label_names, {}
    if model.config.is_regression:
        for number, name in enumerate(names):
            parts = {
                "": answer.logits, "_error": answer.errors, "_low": answer.intervals[..., 0],
                "_high": answer.intervals[..., 1], "_confidence": answer.confidence, "_is_flagged": answer.is_flagged,
            }  # fmt: skip
            columns |= {f"{PREDICTED}{name}{what}": part[:, number] for what, part in parts.items()}
    else:
        is_single = model.config.problem_type != "multi_label_classification"
        shares = answer.logits.softmax(-1) if is_single else answer.logits.sigmoid()
        if is_single:
            best = np.array(names, dtype=object)[shares.nan_to_num().argmax(-1).cpu().numpy()]
            columns[f"{PREDICTED}class"] = np.where(shares.isnan().any(-1).cpu().numpy(), None, best)
        columns |= {f"probability_{name}": shares[:, number] for number, name in enumerate(names)}
    if answer.novelty is not None:
        columns |= {f"{PREDICTED}{name}_novelty": answer.novelty for name in labels_of(model)}
    return {name: each.cpu().numpy() if torch.is_tensor(each) else each for name, each in columns.items()}


def placed(
    found: Mapping[str, np.ndarray], example: Mapping[str, np.ndarray], is_read: np.ndarray
) -> dict[str, pa.Array]:
    """Columns of those spectra that were read, among all of a batch."""
    columns = {}
    for name, like in example.items():
        values = np.full(len(is_read), MISSING[like.dtype.kind], dtype=like.dtype)
        if found:
            values[is_read] = found[name]
        columns[name] = pa.array(values, type=pa.string() if like.dtype.kind == "O" else None)
    return columns
