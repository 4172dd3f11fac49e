"""Rows -> packed training steps: which rows, in which order, on which process, hidden how.

Everything drawn here follows from a seed and a step's number, never from a process's history: the same run comes out
of one process or of several, and a resumed run goes on with the very batches it would have seen.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from datasets import Dataset
from datasets.utils.logging import get_logger

from .schema import SPECTRUM


logger = get_logger(__name__)

# Independent streams of random numbers under one seed.
ORDER, MIXTURE, HIDING = 0, 1, 2


def count_patches(dataset: Dataset, patch_size: int) -> np.ndarray:
    """Patches of every row, (rows,) int64, from the lengths of its segments: no pixel is read."""
    lengths = pa.concat_arrays(dataset.data.column("segment_lengths").chunks)
    patches = -(-lengths.flatten().to_numpy() // patch_size)
    row = pc.list_parent_indices(lengths).to_numpy()
    counts = np.bincount(row, weights=patches, minlength=len(lengths)).astype(np.int64)
    # Of rows that were chosen among others, as a split does, Datasets would fetch each alone.
    return counts if dataset._indices is None else counts[dataset._indices.column(0).to_numpy()]


def as_arrays(dataset: Dataset, columns: Sequence[str] = ()) -> Dataset:
    """The columns that the processor reads, and some more, as Arrow: the numpy and torch formats would round
    wavelengths to float32."""
    return dataset.select_columns(["object_id", *SPECTRUM, *columns]).with_format("arrow")


def rows_of(dataset: Dataset, rows: list[int]) -> list[dict]:
    """Rows of a dataset `as_arrays`, fetched as one batch: many times faster than one by one."""
    table = dataset[rows]
    columns = {name: arrays_of(table[name]) for name in table.column_names}
    return [dict(zip(columns, row)) for row in zip(*columns.values())]


def arrays_of(column: pa.Array | pa.ChunkedArray) -> list:
    """An Arrow column -> one numpy array per row where it holds lists, else Python values. A list that is null is None,
    which the processor refuses or takes as not given, and a number in a list NaN: no row ends the run of the others."""
    if not pa.types.is_list(column.type):
        return column.to_pylist()
    # Row by row, these are the file's own pages: rows joined to one array would be copied first.
    lists = (row.values for row in column)
    return [None if values is None else values.to_numpy(zero_copy_only=False) for values in lists]


@dataclass
class Step:
    """The rows of one optimisation step over all processes, and the sampler's state after it."""

    number: int
    rows: list[tuple[str, int]]
    state: dict = field(repr=False)


class MixtureSampler:
    """Endless steps drawn from several surveys by weight, each survey in a fresh seeded order every epoch.

    Args:
        num_patches: Patches of every row, (rows,) per survey.
        weights: Relative frequency of each survey's spectra.
        max_spectra: Spectra per step, over all processes.
        max_tokens: Patches per step, over all processes; a step ends before it would pass them. None: no limit.
        seed: Of everything drawn.
    """

    def __init__(
        self,
        num_patches: Mapping[str, np.ndarray],
        weights: Mapping[str, float],
        max_spectra: int,
        max_tokens: int | None = None,
        seed: int = 0,
    ):
        empty = [survey for survey, patches in num_patches.items() if len(patches) == 0]
        if empty or not num_patches:
            raise ValueError(f"expected rows in every survey, found none in: {', '.join(empty) or 'no survey given'}")
        self.num_patches, self.seed = dict(num_patches), seed
        self.surveys = list(num_patches)
        self.weights = np.array([weights.get(survey, 1.0) for survey in self.surveys], dtype=float)
        self.max_spectra, self.max_tokens = max_spectra, max_tokens or np.inf
        self.state = {"step": 0, "drawn": dict.fromkeys(self.surveys, 0)}
        self._order: dict[str, tuple[int, np.ndarray]] = {}

    def load_state_dict(self, state: dict) -> None:
        """Go on after `state`, as a `Step` carried it."""
        if set(state["drawn"]) != set(self.surveys):
            raise ValueError(f"the run was of {sorted(state['drawn'])}, found: {sorted(self.surveys)}")
        self.state = {"step": state["step"], "drawn": dict(state["drawn"])}

    def __iter__(self) -> Iterator[Step]:
        while True:
            yield self.draw()

    def draw(self) -> Step:
        number, drawn = self.state["step"], dict(self.state["drawn"])
        generator = np.random.default_rng([self.seed, MIXTURE, number])
        choices = generator.choice(len(self.surveys), size=self.max_spectra, p=self.weights / self.weights.sum())
        rows, tokens = [], 0
        for choice in choices:
            survey = self.surveys[choice]
            row = self.row(survey, drawn[survey])
            tokens += self.num_patches[survey][row]
            if rows and tokens > self.max_tokens:
                break
            drawn[survey] += 1
            rows.append((survey, row))
        self.state = {"step": number + 1, "drawn": drawn}
        return Step(number, rows, {"step": number + 1, "drawn": dict(drawn)})

    def row(self, survey: str, position: int) -> int:
        """The row that stands at a position of the endless sequence of epochs."""
        epoch, place = divmod(position, len(self.num_patches[survey]))
        if survey not in self._order or self._order[survey][0] != epoch:
            generator = np.random.default_rng([self.seed, ORDER, self.surveys.index(survey), epoch])
            self._order[survey] = (epoch, generator.permutation(len(self.num_patches[survey])))
        return int(self._order[survey][1][place])


class PackedSteps(torch.utils.data.Dataset):
    """A `Step` -> this process's packed micro-batches of it.

    Args:
        datasets: Rows per survey.
        processor: Called with a list of rows and `packed=True`.
        objective: Its `hide` and `ask` choose hidden and target patches of each spectrum.
        seed, rank, num_processes: The process takes every `num_processes`-th row, from `rank`.
        num_micro_batches: Parts that a process accumulates gradients over.
        labels: Columns -> the model's `labels`, see `KnownLabels`; None: steps have none.

    Raises:
        ValueError: rows lack a column of the labels.
    """

    def __init__(
        self,
        datasets: Mapping[str, Dataset],
        processor: Callable,
        objective,
        seed: int = 0,
        rank: int = 0,
        num_processes: int = 1,
        num_micro_batches: int = 1,
        labels: Callable | None = None,
    ):
        self.labels = labels
        for each in datasets.values() if labels is not None else ():
            labels.check(each.column_names)
        columns = [] if labels is None else labels.columns
        self.datasets = {name: as_arrays(each, columns) for name, each in datasets.items()}
        self.processor, self.objective, self.seed = processor, objective, seed
        self.rank, self.num_processes, self.num_micro_batches = rank, num_processes, num_micro_batches

    def __getitem__(self, step: Step) -> dict:
        num_parts = self.num_processes * self.num_micro_batches
        if len(step.rows) < num_parts:
            # Seen by every process alike, so none is left waiting for the others.
            raise ValueError(
                f"step {step.number} has {len(step.rows)} spectra, expected at least one for each of {num_parts} parts "
                f"({self.num_processes} processes x {self.num_micro_batches} micro-batches): raise max_tokens"
            )
        places = range(self.rank, len(step.rows), self.num_processes)
        parts = [places[part :: self.num_micro_batches] for part in range(self.num_micro_batches)]
        return {"state": step.state, "micro_batches": [self.micro_batch(step, part) for part in parts]}

    def micro_batch(self, step: Step, places: range) -> dict:
        """Packed input of the rows that stand at `places` of a step, survey by survey (runs of like lengths)."""
        places = sorted(places, key=lambda place: step.rows[place][0])
        spectra = []
        for survey in dict.fromkeys(step.rows[place][0] for place in places):
            rows = [step.rows[place][1] for place in places if step.rows[place][0] == survey]
            spectra += rows_of(self.datasets[survey], rows)
        batch = self.processor(spectra, packed=True, return_tensors="pt")
        hidden, asked = [], []
        wavelengths = np.split(batch["wavelength"][0].numpy(), np.cumsum(batch["lengths"])[:-1])
        for place, wavelength in zip(places, wavelengths):
            generator = np.random.default_rng([self.seed, HIDING, step.number, place])
            hidden.append(self.objective.hide(wavelength, generator))
            asked.append(self.objective.ask(hidden[-1], generator))
        known = {}
        if self.labels is not None:
            columns = {name: [spectrum[name] for spectrum in spectra] for name in self.labels.columns}
            known["labels"] = self.labels(columns)
        return {
            **{name: batch[name] for name in ("flux", "ivar", "wavelength", "lengths")},
            **known,
            "masked_patches": torch.from_numpy(np.concatenate(hidden))[None],
            "target_patches": torch.from_numpy(np.concatenate(asked))[None],
            "object_id": [spectrum["object_id"] for spectrum in spectra],
            "survey": [step.rows[place][0] for place in places],
        }
