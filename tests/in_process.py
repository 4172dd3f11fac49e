"""Scripts of training/ in the tests' own process, which has imported already what takes longer than their work."""

import contextlib
import sys
from collections.abc import Callable
from io import StringIO
from pathlib import Path
from unittest import mock

import torch
from accelerate.state import AcceleratorState, GradientState


ROOT = Path(__file__).resolve().parent.parent


def in_this_process(main: Callable[[], None], *arguments: str) -> str:
    """What a script prints when it is run with these arguments here. Its errors come as they are."""
    printed, num_threads = StringIO(), torch.get_num_threads()
    forget_accelerator()
    try:
        with (
            mock.patch.object(sys, "argv", ["script", *arguments]), contextlib.chdir(ROOT),
            contextlib.redirect_stdout(printed), torch.random.fork_rng(),
        ):  # fmt: skip
            main()
    finally:
        torch.set_num_threads(num_threads)
        forget_accelerator()
    return printed.getvalue()


def forget_accelerator() -> None:
    """Accelerate's settings are those of the process: the next script or Trainer may have others."""
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()
