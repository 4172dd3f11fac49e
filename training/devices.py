"""What a run may compute on."""

import os
from collections.abc import Iterable, Iterator
from datetime import timedelta

import torch


PIXELS = ("flux", "ivar", "wavelength", "target_flux")
#: How long processes wait for each other, while one reads the files or has most of the work left.
PATIENCE = timedelta(hours=12)


def needs_cpu() -> bool:
    """Whether there is an accelerator that a run cannot use: Apple's has no float64, which wavelengths are in."""
    return torch.accelerator.is_available() and torch.accelerator.current_accelerator().type == "mps"


def num_cores() -> int:
    """Of those that this process may use, where the system tells (Linux), and all of them elsewhere."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def on_device(steps: Iterable[dict], device: torch.device) -> Iterator[dict]:
    """The steps, with pixels where the model is. To a GPU those of a step travel while the one before it is computed."""
    if device.type != "cuda":
        yield from steps
        return
    travel = torch.cuda.Stream(device)
    waiting = None
    for step in steps:
        with torch.cuda.stream(travel):
            sent = sent_to(step, device), travel.record_event()
        if waiting is not None:
            yield arrived(*waiting)
        waiting = sent
    if waiting is not None:
        yield arrived(*waiting)


def sent_to(step: dict, device: torch.device) -> dict:
    """A step whose pixels are on their way."""
    sent = [
        {name: each.to(device, non_blocking=True) if name in PIXELS else each for name, each in batch.items()}
        for batch in step["micro_batches"]
    ]
    return {**step, "micro_batches": sent}


def arrived(step: dict, event: torch.cuda.Event) -> dict:
    """The step once its pixels are there, which are kept from being overwritten while they are worked on."""
    stream = torch.cuda.current_stream()
    stream.wait_event(event)
    for each in (batch[name] for batch in step["micro_batches"] for name in PIXELS if name in batch):
        each.record_stream(stream)
    return step
