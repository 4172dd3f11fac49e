"""Whole networks trained on the labels alone, on as many of the same spectra as heads are fitted to.

    python -m benchmarks.science supervised --encoder scratch:tiny tuned:runs/mine/model

`scratch:SIZE` is this project's own encoder from random weights, what pre-training must beat; `tuned:FOLDER` starts
from a pre-trained one. Both are open from the first layer to the last, with a linear head on `pooler_output`; for
redshifts also with one that gives a probability in each bin.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from transformers import AutoModel

from training.simulated.patches import Spectra
from training.simulated.populations import KINDS

from .bench import Bench
from .features import untrained
from .heads import BINS, bins_over
from .scores import redshift_scores, summary
from .tables import LABELS, by_class_scores, label_scores, row


EPOCHS = {"tiny": 1, "small": 4, "full": 12}
BATCH_SIZE = 16
LEARNING_RATE = {"scratch": 1e-3, "tuned": 3e-4}


@dataclass
class Task:
    """What a network is trained for: surveys, targets of packed spectra, and how answers are scored."""

    surveys: tuple[str, ...]
    num_outputs: int
    targets: Callable
    is_wanted: Callable
    scores: Callable


def labels_of(spectra: Spectra) -> torch.Tensor:
    return torch.stack([getattr(spectra, name) for name in LABELS], dim=1).float()


def tasks(bench: Bench) -> dict[str, Task]:
    found = {}
    optical = tuple(each for each in ("sdss", "desi") if each in bench.chosen)
    if optical:
        found["class"] = Task(
            optical, len(KINDS), lambda spectra: spectra.kind, lambda spectra: spectra.kind >= 0,
            lambda answer, truth, band: by_class_scores(answer.argmax(1), truth, band),
        )  # fmt: skip
        for number, kind in enumerate(KINDS[:2]):
            found[f"redshift {kind}"] = Task(
                optical, 1,
                lambda spectra: torch.log1p(spectra.redshift)[:, None].float(),
                lambda spectra, number=number: spectra.kind == number,
                lambda answer, truth, band: redshift_scores(np.expm1(answer[:, 0]), np.expm1(truth[:, 0])),
            )  # fmt: skip
    for survey in ("apogee", "galah"):
        if survey in bench.chosen:
            found[f"labels {survey}"] = Task(
                (survey,), len(LABELS), labels_of, lambda spectra: spectra.kind >= 0,
                lambda answer, truth, band: label_scores(answer - truth, band),
            )  # fmt: skip
    return found


def supervised(bench: Bench) -> list[dict]:
    """Networks trained end to end on the labels, scored as the heads are."""
    rows = []
    for name, (kind, start) in networks(bench).items():
        for task_name, task in tasks(bench).items():
            train = [each for survey in task.surveys for each in wanted(bench, task, survey, "train")]
            for bins in ("", BINS) if task_name.startswith("redshift") else ("",):
                network = fit(bench, start(), task, train, LEARNING_RATE[kind], bool(bins))
                for survey in task.surveys:
                    test = wanted(bench, task, survey, "test")
                    answer, truth = (np.concatenate(each) for each in zip(*(network(each) for each in test)))
                    band = np.concatenate([each.band.numpy() for each in test])
                    scores = summary([task.scores(answer, truth, band)])
                    rows.append(row(name, "all of it" + bins, scores, survey=survey, task=task_name))
    return rows


def networks(bench: Bench) -> dict:
    """name -> (kind, function that makes the encoder)."""
    found = {}
    for name, given in bench.given.items():
        kind, _, what = str(given).partition(":")
        if kind == "scratch":
            found[name] = kind, lambda what=what: untrained(what or "tiny", bench.seed)
        elif kind == "tuned":
            found[name] = kind, lambda what=what: AutoModel.from_pretrained(what)
    if not found:
        raise ValueError("supervised: expected encoders scratch:SIZE or tuned:FOLDER, found none")
    return found


def wanted(bench: Bench, task: Task, survey: str, split: str) -> list[Spectra]:
    """A survey's spectra whose answers are known: to train on, four fifths, which is as many labels as a head has."""
    size = (bench.budget.train * 4 // 5 if split == "train" else bench.budget.test) // (1 + (survey == "galah"))
    return [part for each in bench.batches(survey, split, size) if len(part := each.choose(task.is_wanted(each)))]


def answers_of(task: Task, train: list[Spectra], has_bins: bool) -> tuple[int, Callable, Callable]:
    """How many numbers a head gives for a task, what they cost beside the targets, and what they say of these."""
    everything = torch.cat([task.targets(each) for each in train])
    if has_bins:
        target = bins_over(everything.numpy())
        return (
            target.num_outputs,
            lambda outputs, known: target.negative_log_likelihood(outputs, known[:, 0]).mean(),
            lambda outputs: target.predict(outputs).value[:, None],
        )
    if everything.ndim == 1:
        return task.num_outputs, nn.CrossEntropyLoss(), lambda outputs: outputs
    center, width = everything.mean(0), everything.std(0).clamp_min(1e-6)
    cost = nn.SmoothL1Loss(beta=0.5)
    return (
        task.num_outputs,
        lambda outputs, known: cost(outputs, (known - center.to(known.device)) / width.to(known.device)),
        lambda outputs: outputs * width + center,
    )


def fit(bench: Bench, encoder: nn.Module, task: Task, train: list[Spectra], learning_rate: float, has_bins: bool):
    """Train encoder and head; returns a function: packed spectra -> answers and truth in the targets' units."""
    torch.manual_seed(bench.seed)
    num_outputs, cost, said = answers_of(task, train, has_bins)
    with torch.no_grad():
        size = encoder(**train[0].choose(torch.arange(len(train[0])) < 1).inputs()).pooler_output.shape[1]
    head = nn.Sequential(nn.LayerNorm(size), nn.Linear(size, num_outputs))
    model = nn.ModuleList([encoder, head]).to(bench.device)
    parts = [part for each in train for part in each.split(BATCH_SIZE)]
    total = EPOCHS.get(bench.budget.name, 4) * len(parts)
    steps = torch.optim.AdamW(model.parameters(), lr=learning_rate, weight_decay=0.05)
    rate = torch.optim.lr_scheduler.OneCycleLR(steps, learning_rate, total_steps=total + 1, pct_start=0.1)
    generator = np.random.default_rng([bench.seed, 23])
    model.train()
    for _ in range(EPOCHS.get(bench.budget.name, 4)):
        for place in generator.permutation(len(parts)):
            part = parts[place]
            steps.zero_grad()
            outputs = head(pooled(encoder, part, bench.device))
            cost(outputs, task.targets(part).to(outputs.device)).backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            steps.step()
            rate.step()
    model.eval()

    @torch.no_grad()
    def predict(spectra: Spectra) -> tuple[np.ndarray, np.ndarray]:
        outputs = torch.cat([head(pooled(encoder, part, bench.device)).cpu() for part in spectra.split(BATCH_SIZE)])
        return said(outputs).numpy(), task.targets(spectra).numpy()

    return predict


def pooled(encoder: nn.Module, spectra: Spectra, device) -> torch.Tensor:
    tensors = {name: getattr(spectra, name).to(device) for name in ("flux", "ivar", "wavelength")}
    return encoder(**tensors, lengths=spectra.lengths).pooler_output
