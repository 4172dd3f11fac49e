"""Spectra to train on and to validate on: survey files, prepared tables, simulated files, or a simulator's endless
stream."""

import hashlib
import itertools
import os
import signal
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from datasets import Dataset, concatenate_datasets
from recipe import SIMULATED, Recipe

from spectral_tokenizer.data import SURVEYS, load_prepared, load_survey, load_table, splits
from spectral_tokenizer.data.packing import MixtureSampler, PackedSteps, count_patches
from spectral_tokenizer.data.prepared import is_prepared
from spectral_tokenizer.data.shards import contents
from spectral_tokenizer.data.table import Table
from spectral_tokenizer.data.tables import to_table
from spectral_tokenizer.labels_spectral_tokenizer import SHOWN_IN, KnownLabels


Parts = dict[str, tuple[Dataset, Dataset]]  # survey -> rows to train on, rows held apart

STREAMED_SPECTRA = 8  # of each part and survey for baselines and probes, for each one that validation looks at
SECONDS_TO_LEAVE = 60  # that processes which feed a run have after SIGTERM
TURN = 3  # of the random numbers, beside those of `spectral_tokenizer.data.packing`


def parts(recipe: Recipe) -> Parts:
    """Rows to train on and rows to validate on, apart by object: a star's visits never stand on both sides, nor what
    several surveys saw of it. Of a stream alone, whose spectra are never repeated, some to measure with.

    Raises:
        ValueError: as `load`, or `weights` names what is no survey.
    """
    check_weights(recipe)
    if recipe.stream and not recipe.data:
        return streamed(recipe)
    return splits.split(load(recipe), recipe.validation_fraction, seed=recipe.split_seed)


def check_weights(recipe: Recipe) -> None:
    """A misspelt name would leave a survey with the weight 1. Those of surveys that a run does not have are fine: a
    recipe serves many."""
    from simulated.stream import DOMAINS

    known = set(DOMAINS) if recipe.stream and not recipe.data else {*SURVEYS, *recipe.data}
    if unknown := sorted(set(recipe.weights) - known):
        raise ValueError(f"weights: expected some of {sorted(known)}, found: {unknown}")


def load(recipe: Recipe) -> dict[str, Dataset]:
    """Rows of every survey in the recipe; simulated ones, written as survey files and read back, where it names none.

    Raises:
        ValueError: `data` names a survey that has no reader, or calls another's rows by its name; or `options` names one
            that is not in `data`.
    """
    data = recipe.data or {name: str(path) for name, path in simulated(recipe).items()}
    beside = {} if recipe.data else labels_beside(data)
    unknown = sorted(survey for survey, files in data.items() if survey not in SURVEYS and not tables_among(files))
    if unknown:
        raise ValueError(f"data: expected some of {sorted(SURVEYS)}, or tables of rows, found: {unknown}")
    if unknown := sorted(set(recipe.options) - set(data)):
        raise ValueError(f"options: expected some of {sorted(data)}, found: {unknown}")
    options = {survey: {**beside.get(survey, {}), **recipe.options.get(survey, {})} for survey in data}
    rows = {survey: read(survey, files, options[survey]) for survey, files in data.items()}
    for survey, each in rows.items():
        check_survey(survey, each, data[survey])
    return rows


def check_survey(survey: str, rows: Dataset, files: str | list[str]) -> None:
    """Raise ValueError where rows under the name of one survey say that they are of another one, as prepared ones do. Of
    a name that is no survey's they may be of any."""
    others = sorted(set(SURVEYS) & set(rows.unique("survey")) - {survey})
    if survey in SURVEYS and others:
        raise ValueError(f"data: {survey}: expected its own rows, found those of {', '.join(others)}: {files}")


def labels_beside(simulated: dict[str, str]) -> dict[str, dict]:
    """Options of readers by which simulated spectra have the labels that stand in no file of theirs: without, half of APOGEE's,
    the apStar files, would be unknown to whatever is taught labels."""
    from spectral_tokenizer.data.simulation import CATALOGUES

    return {
        survey: {"catalogue": str(Path(folder) / CATALOGUES[survey])}
        for survey, folder in simulated.items()
        if survey in CATALOGUES
    }


def read(survey: str, files: str | list[str], options: dict) -> Dataset:
    """One survey's rows, from its own files, or from tables of rows such as `spectral-tokenizer prepare` writes."""
    tables = tables_among(files)
    if not tables:
        return load_survey(survey, files, **options)
    if all(map(is_prepared, entries_of(files))):
        if options:
            raise TypeError(f"options: found {sorted(options)} of {survey}; expected none, as its files are prepared")
        return load_prepared(tables)
    if len(tables) < len(entries_of(files)):
        raise ValueError(f"{survey}: found tables beside other files: {files}; expected tables alone, or none")
    return load_table(tables, **{"survey": survey, **options})


def entries_of(files: str | list[str]) -> list[str]:
    return [str(entry) for entry in ([files] if isinstance(files, (str, int, Path)) else files)]


def tables_among(files: str | list[str]) -> list[str]:
    """Those entries that are a table's file, a glob of some, or a survey's folder that `prepare` wrote."""
    endings = tuple(pattern.removeprefix("*") for pattern in Table.FILE_NAMES)
    return [each for each in entries_of(files) if each.endswith(endings) or is_prepared(each)]


def simulated(recipe: Recipe) -> dict[str, Path]:
    """Folders of simulated survey files, written once per setting. They are named after what they hold, and by whom."""
    from spectral_tokenizer.data.simulation import VERSION, simulate

    if not recipe.simulate:
        raise ValueError("the recipe names neither data nor a number of spectra to simulate")
    counts = "-".join(f"{survey}{count}" for survey, count in recipe.simulate.items())
    folder = Path(recipe.output).parent / "simulated" / f"v{VERSION}-seed{recipe.seed}-{counts}"
    if folder.exists():
        return {survey: folder / survey for survey in recipe.simulate}
    return simulate(folder, recipe.simulate, surveys=tuple(recipe.simulate), seed=recipe.seed)


def simulated_parts(recipe: Recipe) -> Parts:
    """What a run of both data and a stream is also measured on, so that it shows what it forgets."""
    if not recipe.is_mixed:
        return {}
    return {SIMULATED + survey: both for survey, both in streamed(recipe).items()}


def streamed(recipe: Recipe) -> Parts:
    """Rows out of the simulator's archetypes for training, and out of those for validation."""
    count = STREAMED_SPECTRA * recipe.validation_spectra
    return {
        survey: tuple(streamed_rows(recipe, survey, split, count) for split in ("train", "validation"))
        for survey in stream_weights(recipe)
    }


def streamed_rows(
    recipe: Recipe,
    survey: str,
    split: str,
    count: int,
    faint: Sequence[float] | None = None,
    domain: str | None = None,
) -> Dataset:
    """Spectra of a stream as rows: `count` objects out of one split of the archetypes ("train", "validation", "test"),
    of the survey's own `domain` where no other is named. With `faint`, those are its limits of signal-to-noise per
    pixel, and spectra of which a survey leaves less than half of the pixels are left out."""
    from simulated.patches import rows
    from simulated.stream import observations

    # Other objects than those that are not faint.
    seed = recipe.seed + (faint is not None)
    seen = observations(survey, split, count, templates(recipe), seed, limits=faint, domain=domain)
    parts = [[row for row in rows(each) if not faint or has_pixels(row)] for each in seen]
    return concatenate_datasets([Dataset(to_table(part)) for part in parts if part])


def has_pixels(row: dict) -> bool:
    """Whether most of a row's pixels are usable: GALAH's rule leaves none of a star that is lost in noise."""
    return 2 * np.count_nonzero(row["ivar"]) > len(row["ivar"])


def objects(train: dict[str, Dataset]) -> list[list[str]]:
    """What rows are told from others of the same number by: the surveys in order, each with a hash of its rows' objects in
    order. Not of pixels, of which simulated ones differ in their last bits with the number of threads."""
    found = []
    for survey, rows in train.items():
        digest = hashlib.sha256()
        for content in contents(rows, ["survey", "object_id"]):
            digest.update(content)
        found.append([survey, digest.hexdigest()[:16]])
    return found


def num_trained_on(recipe: Recipe, train: dict[str, Dataset], state: dict) -> dict[str, int]:
    """Different spectra of each survey that a run trained on; of a stream, what the steps hold of it on average.

    Args:
        train: Rows of each survey.
        state: As the last step carried it.
    """
    counts = {}
    if recipe.data or not recipe.stream:
        drawn = ((state.get("data") or {}) if recipe.is_mixed else state).get("drawn", {})
        counts = {survey: min(drawn.get(survey, 0), len(each)) for survey, each in train.items()}
    if not recipe.stream:
        return counts
    from simulated.stream import DOMAINS

    weights, steps = stream_weights(recipe), recipe.num_steps * (1.0 - recipe.data_share * recipe.is_mixed)
    every = steps * (recipe.max_spectra // recipe.views) / sum(weights.values())
    # Of a pair there is one spectrum of each survey, whatever their weights.
    halves = dict.fromkeys(DOMAINS.values(), 0.0)
    for survey, weight in weights.items():
        halves[DOMAINS[survey]] += 0.5 * weight
    shares = {name: (1 - recipe.pairs) * each + recipe.pairs * halves[DOMAINS[name]] for name, each in weights.items()}
    prefix = SIMULATED if recipe.is_mixed else ""
    return counts | {prefix + survey: round(every * share) for survey, share in shares.items()}


def names(recipe: Recipe, train: dict[str, Dataset]) -> list[str]:
    """What the spectra of the steps may be called: surveys and, with `pairs`, two of them."""
    if not recipe.stream:
        return list(train)
    from simulated.populations import SURVEYS

    pairs = ["+".join(both) for both in SURVEYS.values()] if recipe.pairs else []
    return [*dict.fromkeys([*train, *stream_weights(recipe)]), *pairs]


def stream_weights(recipe: Recipe) -> dict[str, float]:
    """Relative frequency of the surveys in a stream: those of the recipe, without `data` of other names."""
    from simulated.stream import DOMAINS

    found = {name: each for name, each in recipe.weights.items() if not (recipe.is_mixed and name not in DOMAINS)}
    return found or dict.fromkeys(DOMAINS, 1.0)


def templates(recipe: Recipe) -> Path | str:
    """What the stream is made from, as `SimulatedStream` takes it.

    Raises:
        FileNotFoundError: it should be published templates, and there are none.
    """
    from simulated.template_files import DEFAULT_FOLDER, FOLDER_VARIABLE, templates_folder

    if recipe.stream == "physics":
        return "none"
    found = templates_folder(None if recipe.stream == "templates" else recipe.stream)
    if found is None:
        raise FileNotFoundError(
            f"stream: {recipe.stream}: expected published templates at {DEFAULT_FOLDER} or where {FOLDER_VARIABLE} says, "
            "found none; `stream: physics` needs no files"
        )
    return found


def not_shown(rows: Dataset, label: str) -> np.ndarray:
    """(rows,) booleans: the label is known of the object, but its spectrum does not show it in the frame that it is in, as a
    velocity where it is shifted to rest."""
    table = rows.data.table  # of rows that were chosen among others, as a split does, Datasets would fetch each alone
    if label not in SHOWN_IN or not is_numbers(table[label].type):  # text is told of where labels are read
        return np.zeros(len(rows), dtype=bool)
    is_known = pc.is_finite(pc.fill_null(table[label].cast(pa.float64()), np.nan)).to_numpy()
    is_shown = pc.is_in(table["frame"], value_set=pa.array(SHOWN_IN[label])).to_numpy()
    return (is_known & ~is_shown)[places(rows)]


def is_numbers(kind: pa.DataType) -> bool:
    return pa.types.is_floating(kind) or pa.types.is_integer(kind)


def places(rows: Dataset) -> np.ndarray:
    """(rows,) where they stand in the table that they were chosen from."""
    return np.arange(len(rows)) if rows._indices is None else rows._indices.column(0).to_numpy()


def left_out(rows: Dataset, label: str, hidden: np.ndarray) -> str:
    """Of how many rows a label is left out by `not_shown`, in words."""
    names = ", ".join(dict.fromkeys(np.array(rows["survey"][:])[hidden]))
    return (
        f"{label}: left out for {hidden.sum()} of {len(rows)} spectra ({names}) which do not show it, as frame says: "
        f"expected {' or '.join(SHOWN_IN[label])}"
    )


def steps(recipe: Recipe, train: dict[str, Dataset], processor, model, accelerator, state: dict | None) -> Iterable:
    """Packed training steps without end, from the one after `state` (as a step carries it) on.

    They are not given to `accelerator.prepare`: that would splice batches across processes. Each process takes its
    own spectra.
    """
    objective, labels = model.objective, KnownLabels(model.config) if model.config.label_weight else None
    if labels is not None and accelerator.process_index == 0:
        for each, label in itertools.product(train.values() if recipe.data or not recipe.stream else (), SHOWN_IN):
            if label in labels.names and (hidden := not_shown(each, label)).any():
                print(left_out(each, label, hidden))
    place = {
        "seed": recipe.seed,
        "rank": accelerator.process_index,
        "num_processes": accelerator.num_processes,
        "num_micro_batches": recipe.num_micro_batches,
    }
    start, stream = state["step"] if state and recipe.stream else 0, None
    if recipe.stream:
        from simulated.stream import SimulatedStream

        made = SimulatedStream(
            objective, stream_weights(recipe), recipe.max_spectra, templates(recipe),
            "cpu" if recipe.num_workers else accelerator.device,
            patch_size=processor.patch_size, pairs=recipe.pairs, labels=labels, is_noiseless=recipe.noiseless, views=recipe.views,
            cool_dwarfs=recipe.cool_dwarfs, **place,
        )  # fmt: skip
        stream = loader(made, numbers_of_stream(recipe, start), recipe, is_on_cpu=made.device == "cpu")
        if not recipe.data:
            return stream
    patches = {survey: count_patches(each, processor.patch_size) for survey, each in train.items()}
    sampler = MixtureSampler(patches, recipe.weights, recipe.max_spectra, recipe.max_tokens, recipe.seed)
    if drawn := state.get("data") if state and recipe.stream else state:
        sampler.load_state_dict(drawn)
    of_data = loader(PackedSteps(train, processor, objective, labels=labels, **place), sampler, recipe)
    return of_data if stream is None else mixed(stream, of_data, recipe, start, drawn)


def loader(dataset, sampler: Iterable, recipe: Recipe, is_on_cpu: bool = True) -> torch.utils.data.DataLoader:
    """Whole steps in the sampler's order, made ahead by other processes where the recipe has some."""
    return torch.utils.data.DataLoader(
        dataset, sampler=sampler, batch_size=None, num_workers=recipe.num_workers,
        pin_memory=is_on_cpu and torch.cuda.is_available(), worker_init_fn=outlive_interruption,
    )  # fmt: skip


def outlive_interruption(_: int) -> None:
    """Slurm sends SIGTERM to all processes of a job. The main one finishes its step and writes a checkpoint; were
    those that feed it gone at once, it would die of that."""
    if hasattr(signal, "SIGALRM"):  # not on Windows
        signal.signal(signal.SIGALRM, lambda *_: os._exit(0))
        signal.signal(signal.SIGTERM, lambda *_: signal.alarm(SECONDS_TO_LEAVE))


def is_of_data(recipe: Recipe, number: int) -> bool:
    """Whether a step is of rows and not of the stream: it follows from the seed and the step's number."""
    draw = np.random.default_rng([recipe.seed, TURN, number]).random() if recipe.is_mixed else 1.0
    return draw < recipe.data_share


def numbers_of_stream(recipe: Recipe, start: int) -> Iterator[int]:
    """Those steps from `start` on that are of the stream."""
    return (number for number in itertools.count(start) if not is_of_data(recipe, number))


def mixed(stream: Iterable, of_data: Iterable, recipe: Recipe, number: int, drawn: dict | None) -> Iterator[dict]:
    """Whole steps of rows and of a stream in turns, from a number on; `drawn` is the rows' state before it."""
    of_data, stream = iter(of_data), iter(stream)
    while True:
        if is_of_data(recipe, number):
            step = next(of_data)
            drawn = step["state"]
        else:
            step = next(stream)
        number += 1
        yield {**step, "state": {"step": number, "data": drawn}}
