"""Rows -> one vector each: in memory (`embed`), or as Parquet in shards that are there whole or not at all.

The model and its processor are handed in: anything whose output has a `pooler_output`.
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from datasets import Dataset
from fsspec.implementations.local import LocalFileSystem
from tqdm.auto import tqdm

from .packing import as_arrays, rows_of
from .pair_metric import PairMetric
from .schema import RESOLUTION, SPECTRUM
from .storage import sweep, write_aside


MANIFEST = "embeddings.json"
#: Columns of a table of embeddings besides the rows' own metadata: the vector, and null or why there is none (its
#: numbers are NaN then).
EMBEDDING, PROBLEM = "embedding", "problem"
#: Settings of a model that change with who saved it where, and nothing that it computes.
BOOKKEEPING = ("transformers_version", "architectures", "auto_map", "dtype", "_name_or_path")
SAMPLE = 1000  # rows of which pixels are looked at


@dataclass(frozen=True)
class Shards:
    """What a folder of embeddings holds. It stands in `embeddings.json`, so that a run that goes on with other rows or
    another model is refused instead of mixed in.

    Args:
        rows: Fingerprint of the rows: which objects of which files, in which order, with which labels and pixels.
        model: Fingerprint of the weights and settings.
        num_rows, shard_rows: Rows in all, and in each shard but the last.
        size: Length of a vector.
    """

    rows: str
    model: str
    num_rows: int
    shard_rows: int
    size: int

    def __len__(self) -> int:
        return -(-self.num_rows // self.shard_rows)

    def path(self, folder: Path, number: int) -> Path:
        return folder / f"embeddings-{number:05d}-of-{len(self):05d}.parquet"


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
    """Embed rows into Parquet files: the rows' metadata (all columns but pixels), `embedding` and `problem`.

    Shards that are there are left as they are, so that an interrupted run goes on where it stopped. A shard is written
    aside and renamed. Process `process_index` of `num_processes` writes every `num_processes`-th shard.

    Returns:
        Paths of all shards in order, written by whichever process.

    Raises:
        ValueError: there are no rows, or the folder holds embeddings of other rows, of another model or in other
            shards. Names which.
    """
    if not len(rows):
        raise ValueError(f"{folder}: expected spectra to embed, found none: no row was read")
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    size = vector_size(model, processor)
    shards = Shards(rows_fingerprint(rows), model_fingerprint(model, processor), len(rows), shard_rows, size)
    claim(folder, shards)
    mine = [number for number in range(len(shards)) if number % num_processes == process_index]
    missing = [number for number in mine if not shards.path(folder, number).exists()]
    ranges = {number: range(number * shard_rows, min((number + 1) * shard_rows, len(rows))) for number in mine}
    total, done = (sum(len(ranges[number]) for number in numbers) for numbers in (mine, set(mine) - set(missing)))
    with tqdm(total=total, initial=done, desc="embedding", unit="spectra", disable=not progress) as bar:
        for number in missing:
            part, vectors, problems = rows.select(ranges[number]), [], []
            for found, said in embedded_batches(model, PackedBatches(part, processor, batch_size), num_workers):
                vectors.append(found)
                problems += said
                bar.update(len(said))
            write_shard(part, np.concatenate(vectors), problems, shards.path(folder, number))
    return [shards.path(folder, number) for number in range(len(shards))]


def write_shard(rows: Dataset, vectors: np.ndarray, problems: list[str | None], path: Path) -> None:
    """One Parquet file, under its name only when it is whole."""
    pixels = [name for name in rows.column_names if name in SPECTRUM or name in RESOLUTION]
    table = rows.remove_columns(pixels).with_format("arrow")[:]
    flat = pa.array(vectors.ravel(), type=pa.float32())
    table = table.append_column(EMBEDDING, pa.FixedSizeListArray.from_arrays(flat, vectors.shape[1]))
    table = table.append_column(PROBLEM, pa.array(problems, type=pa.string()))
    with write_aside(
        LocalFileSystem(), str(path)
    ) as unfinished:  # by a name of its own: another job may write the same
        pq.write_table(table.replace_schema_metadata(None), unfinished)
    sweep(LocalFileSystem(), str(path))


def read_embeddings(
    folder: str | Path, columns: Sequence[str] | None = None, rows: Sequence[int] | None = None
) -> Dataset:
    """All shards of a folder as one dataset with the rows' metadata, `embedding` and `problem`.

    Args:
        folder: Of the embeddings.
        columns: Those alone.
        rows: Numbers of the rows to read, ascending; no more than these and one shard are in memory. None: all.

    Raises:
        FileNotFoundError: the folder holds no embeddings, or not all shards yet. Names the first that is missing.
    """
    folder = Path(folder)
    if not (folder / MANIFEST).exists():
        raise FileNotFoundError(f"{folder}: expected a folder of embeddings with {MANIFEST}, found none")
    shards = Shards(**json.loads((folder / MANIFEST).read_text()))
    paths = [shards.path(folder, number) for number in range(len(shards))]
    missing = [path.name for path in paths if not path.exists()]
    if missing:
        raise FileNotFoundError(f"{folder}: {len(missing)} of {len(shards)} shards are not written yet: {missing[0]}")
    tables, chosen = [], None if rows is None else np.asarray(rows, dtype=np.int64)
    for number, path in enumerate(paths):
        first = number * shards.shard_rows
        if chosen is None:
            tables.append(pq.read_table(path, columns=columns))
        elif len(mine := chosen[(first <= chosen) & (chosen < first + shards.shard_rows)]):
            tables.append(pq.read_table(path, columns=columns).take(mine - first))
    return Dataset(pa.concat_tables(tables))


def claim(folder: Path, shards: Shards) -> None:
    """Say in the folder what it will hold, or check that it is this."""
    path = folder / MANIFEST
    if path.exists():
        found = Shards(**json.loads(path.read_text()))
        different = [name for name, value in asdict(shards).items() if getattr(found, name) != value]
        if different:
            told = ", ".join(
                f"{name}: found {getattr(found, name)}, expected {getattr(shards, name)}" for name in different
            )
            raise ValueError(f"{folder}: holds other embeddings ({told}). Take another folder, or remove this one")
        return
    with write_aside(LocalFileSystem(), str(path)) as unfinished:
        Path(unfinished).write_text(json.dumps(asdict(shards), indent=2) + "\n")


def rows_fingerprint(rows: Dataset) -> str:
    """Changes with the objects, their files, their order, their labels, `snr`, and with pixels of a thousand rows, as
    another calibration changes; but not with where or when the rows were read."""
    digest = hashlib.sha256()
    names = [name for name, feature in rows.features.items() if getattr(feature, "dtype", "list") != "list"]
    table = rows.select_columns(sorted(names)).with_format("arrow")[:]
    for name, column in zip(table.column_names, table.columns):
        is_text = pa.types.is_string(column.type) or pa.types.is_large_string(column.type)
        values = column.to_pylist() if is_text else column.to_numpy().tolist()
        digest.update(json.dumps([name, values]).encode())
    sample = np.unique(np.linspace(0, len(rows) - 1, SAMPLE).astype(int))
    for spectrum in rows_of(as_arrays(rows), sample.tolist()):
        for name in SPECTRUM:
            digest.update(np.ascontiguousarray(spectrum[name]))
    return digest.hexdigest()[:16]


def model_fingerprint(model, processor=None) -> str:
    """Changes with any weight, with the model's settings, and with those of its processor."""
    given = [each.to_dict() for each in (model.config, processor) if each is not None]
    settings = [{name: value for name, value in each.items() if name not in BOOKKEEPING} for each in given]
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True, default=str).encode())
    for name, weight in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(weight.detach().float().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


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
