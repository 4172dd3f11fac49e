"""Rows -> one vector each: in memory (`embed`), or as Parquet in shards (`write_embeddings`).

The model and its processor are handed in: anything whose output has a `pooler_output`.
"""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from datasets import Dataset
from tqdm.auto import tqdm

from .pair_metric import PairMetric
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


NAME, MANIFEST = "embeddings", "embeddings.json"
#: Column of the vector; its numbers are NaN where `PROBLEM` says why there is none.
EMBEDDING = "embedding"


def embed(
    model, processor: Callable, rows: Dataset, batch_size: int = 32, num_workers: int = 0, progress: bool = False
) -> tuple[np.ndarray, list[str | None]]:
    """The model's `pooler_output` of every row.

    Args:
        model: On any device, in any dtype; is in evaluation mode meanwhile.
        processor: The model's.
        rows: With the columns that the processor reads and `object_id`.
        batch_size: Spectra at a time.
        num_workers: Processes that prepare batches ahead.
        progress: Show a bar.

    Returns:
        (rows, size) float32, and per row None or why there is no vector (its numbers are NaN then).
    """
    vectors, problems = [np.zeros((0, vector_size(model, processor)), dtype=np.float32)], []
    with tqdm(total=len(rows), desc="embedding", unit="spectra", disable=not progress, leave=False) as bar:
        for found, said in embedded_batches(model, PackedBatches(rows, processor, batch_size), num_workers):
            vectors.append(found)
            problems += said
            bar.update(len(said))
    return np.concatenate(vectors), problems


@torch.no_grad()
def embedded_batches(model, batches: PackedBatches, num_workers: int) -> Iterator[tuple[np.ndarray, list[str | None]]]:
    """Vectors and problems, batch by batch."""
    loader = torch.utils.data.DataLoader(batches, batch_size=None, num_workers=num_workers)
    was_training, size = model.training, vector_size(model, batches.processor)
    model.eval()
    try:
        for inputs, problems in loader:
            vectors = np.full((len(problems), size), np.nan, dtype=np.float32)
            if inputs is not None:
                vectors[[problem is None for problem in problems]] = pooled(model, inputs)
            yield vectors, problems
    finally:
        model.train(was_training)


def pooled(model, inputs: dict) -> np.ndarray:
    """`pooler_output` of a batch, float32."""
    device = next(model.parameters()).device
    inputs = {name: each.to(device) if hasattr(each, "to") else each for name, each in inputs.items()}
    return model(**inputs).pooler_output.float().cpu().numpy()


@torch.no_grad()
def vector_size(model, processor: Callable) -> int:
    """Length of a vector, whatever the model: found with a flat spectrum."""
    flat = np.ones(256)
    return pooled(model, dict(processor(flat, flat, np.linspace(5000, 5200, 256), return_tensors="pt"))).shape[1]


def write_embeddings(
    model,
    processor: Callable,
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
    """Embed rows into Parquet files: the rows' metadata (all columns but pixels), `embedding` and `problem`; how, says
    `write_answers`.

    Args:
        model: [`SpectralModel`], on its device.
        processor: The model's.
        rows, folder, shard_rows, batch_size, num_workers, process_index, num_processes, progress: As for
            `write_catalogue`.

    Returns:
        Paths of all shards in order, written by whichever process.

    Raises:
        ValueError: there are no rows, they have a column `embedding` or `problem`, or the folder holds embeddings of
            other rows, of another model or in other shards. Names which.
    """
    check_names(rows, (EMBEDDING, PROBLEM))
    size = vector_size(model, processor)
    folder_of_model = getattr(model, "name_or_path", "") or "unknown"
    shards = Shards(
        rows_fingerprint(rows), model_fingerprint(model, processor), len(rows), shard_rows, size, NAME, folder_of_model
    )

    def answers(part: Dataset) -> Iterator[dict[str, pa.Array]]:
        for vectors, problems in embedded_batches(model, PackedBatches(part, processor, batch_size), num_workers):
            flat = pa.array(vectors.ravel(), type=pa.float32())
            yield {
                EMBEDDING: pa.FixedSizeListArray.from_arrays(flat, vectors.shape[1]),
                PROBLEM: pa.array(problems, type=pa.string()),
            }

    return write_answers(rows, folder, shards, answers, process_index, num_processes, progress)


def read_embeddings(
    folder: str | Path, columns: Sequence[str] | None = None, rows: Sequence[int] | None = None
) -> Dataset:
    """All shards of a folder as one dataset with the rows' metadata, `embedding` and `problem`; see `read_answers`."""
    return read_answers(folder, columns, rows, NAME)


def nearest(
    reference: np.ndarray, queries: np.ndarray, count: int = 5, metric: PairMetric | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Which vectors of `reference` lie nearest to each query.

    Directions are compared after every number has been standardised over the reference: raw, a few numbers of large
    spread would decide. A `metric` finds the same object better.

    Args:
        reference, queries: (vectors, size). Rows that are NaN are never found, and find nothing.
        count: Neighbours of each query, itself among them where it is in the reference.
        metric: Fitted on objects that were seen twice; in place of standardising.

    Returns:
        Indices (queries, count) into the reference, -1 for a query that is NaN and where there are fewer than `count`,
        and cosine similarities, nearest first.

    Raises:
        ValueError: no row of the reference is finite.
    """
    from sklearn.neighbors import NearestNeighbors

    is_known, asks = np.isfinite(reference).all(1), np.isfinite(queries).all(1)
    known = reference[is_known].astype(np.float64)
    if not len(known):
        raise ValueError(f"reference: expected vectors, found none that is finite among {len(reference)}")
    mean, spread = known.mean(0), known.std(0)
    spread = np.where(spread > 0, spread, 1.0)
    compared = metric or (lambda vectors: (vectors.astype(np.float64) - mean) / spread)
    index, similarity = np.full((len(queries), count), -1), np.full((len(queries), count), np.nan)
    if asks.any():
        found = min(count, len(known))
        search = NearestNeighbors(n_neighbors=found, metric="cosine").fit(compared(known))
        distance, place = search.kneighbors(compared(queries[asks]))
        index[asks, :found], similarity[asks, :found] = np.flatnonzero(is_known)[place], 1 - distance
    return index, similarity
