"""What a run may compute on."""

import os
from datetime import timedelta

import torch


#: How long processes wait for each other, while one reads the files or has most of the work left.
PATIENCE = timedelta(hours=12)


def needs_cpu() -> bool:
    """Whether there is an accelerator that a run cannot use: Apple's has no float64, which wavelengths are in."""
    return torch.accelerator.is_available() and torch.accelerator.current_accelerator().type == "mps"


def num_cores() -> int:
    """Of those that this process may use, where the system tells (Linux), and all of them elsewhere."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
