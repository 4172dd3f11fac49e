"""Checkpoints that are there whole or not at all."""

import json
import re
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from filelock import FileLock, Timeout
from recipe import BEFORE


STATE = "run.json"
ASIDE = ".writing-"
LOCK = ".running"


def path_of(folder: Path, step: int) -> Path:
    return folder / f"step-{step:08d}"


def complete(folder: Path) -> list[Path]:
    """Checkpoints from oldest to newest. A folder under its final name is complete: it was renamed last of all."""
    return sorted(each for each in folder.glob("step-*") if re.fullmatch(r"step-\d{8}", each.name))


def alone_in(output: Path, patience: float = 60.0) -> FileLock:
    """A lock on the folder of a run, held until it is released or the process ends, however it does.

    Args:
        patience: In seconds. The workers of a run that was killed live on for some.

    Raises:
        RuntimeError: another run writes to the folder.
    """
    output.mkdir(parents=True, exist_ok=True)
    lock = FileLock(output / LOCK)
    try:
        lock.acquire(timeout=patience)
    except Timeout as error:
        raise RuntimeError(
            f"{output}: another run writes there (it holds {LOCK}), expected none: take another --output, or wait for its end"
        ) from error
    except NotImplementedError:
        pass  # a file system without locks
    return lock


def let_read(folder: Path) -> None:
    """Weights for whoever may read their folder: safetensors writes them for their owner alone, whatever the umask."""
    for path in folder.glob("*.safetensors"):
        with suppress(OSError):  # of file systems without modes
            path.chmod(folder.stat().st_mode & 0o666)


def save(accelerator, folder: Path, state: dict, keep: int) -> None:
    """Write model, optimiser, random states and `state` aside, then rename. All processes call this.

    The last `keep` are kept, and the one that `state["best"]` names.

    Raises:
        OSError: it could not be written (disk full, folder read-only). Earlier checkpoints are untouched.
    """
    target = path_of(folder, state["step"])
    aside = folder / f"{ASIDE}{target.name}"
    try:
        if accelerator.is_main_process:
            for left_over in folder.glob(f"{ASIDE}*"):  # by a kill
                shutil.rmtree(left_over)
            aside.mkdir(parents=True)
        accelerator.wait_for_everyone()
        accelerator.save_state(str(aside))
        accelerator.wait_for_everyone()
        if accelerator.is_main_process:
            let_read(aside)
            (aside / STATE).write_text(json.dumps(state))
            aside.rename(target)
    except Exception as error:
        # Whatever library wrote: safetensors and torch have errors of their own for a full disk.
        shutil.rmtree(aside, ignore_errors=True)
        last = [each.name for each in complete(folder)[-1:]]
        raise OSError(
            f"{target}: expected to write a checkpoint, found: {error}. The last complete one: "
            f"{last[0] if last else 'none'}; go on from it with --resume auto once there is room"
        ) from error
    if accelerator.is_main_process:
        best = state.get("best") or {}
        for old in complete(folder)[:-keep]:
            if old != path_of(folder, best.get("step", -1)):
                shutil.rmtree(old)
    accelerator.wait_for_everyone()


def choose(folder: Path, last: Path | None, resume: str | None, state: str) -> Path | None:
    """The checkpoint to go on from: "auto" is the last one, if there is any. None: the run begins.

    Args:
        folder: Of the run's checkpoints.
        last: Of the complete ones in it.
        resume: "auto", a folder, or None to begin.
        state: The file that a complete one has.

    Raises:
        FileNotFoundError: `resume` names something that is no complete checkpoint.
        ValueError: checkpoints in `folder` would be mixed with others.
    """
    if last and not resume:
        raise ValueError(
            f"{folder}: found {last.name} of an earlier run, expected none: --resume auto goes on from it; for another run "
            "take another --output, or remove this folder"
        )
    checkpoint = last if resume == "auto" else Path(resume).expanduser() if resume else None
    if checkpoint and not (checkpoint / state).exists():
        raise FileNotFoundError(f"{checkpoint}: expected a checkpoint with {state}, found none")
    if last and checkpoint.resolve() != last.resolve():
        raise ValueError(
            f"{checkpoint}: found {last}, which would win later: remove what comes after it, or take another --output"
        )
    return checkpoint


def load(accelerator, folder: Path, resume: str | None, run: dict) -> dict | None:
    """Go on from a checkpoint. Returns its state; None: the run begins.

    Args:
        resume: As for `choose`.
        run: what the order of the rest follows from, and must be as it was.

    Raises:
        FileNotFoundError: as `choose`.
        ValueError: as `choose`, or the run is another one now. Names what differs.
    """
    found = complete(folder)
    checkpoint = choose(folder, found[-1] if found else None, resume, STATE)
    if checkpoint is None:
        return None
    state = read_whole(checkpoint, found, lambda: json.loads((checkpoint / STATE).read_text()))
    # Checkpoints from before a setting was written down do not know it; but from before there was one, it was not used.
    then = run | BEFORE | state.get("run", {})
    if differing := sorted(name for name in run if then[name] != run[name]):
        was, now = ({name: each[name] for name in differing} for each in (then, run))
        raise ValueError(
            f"{checkpoint}: the run was of {was}, found: {now}. With others start a new one from its --model"
        )
    read_whole(checkpoint, found, lambda: accelerator.load_state(str(checkpoint)))
    return state


def read_whole(checkpoint: Path, found: list[Path], read: Callable):
    """What `read` reads of a checkpoint; raises ValueError where it is damaged, with what to go on from instead."""
    try:
        return read()
    except Exception as error:
        # Whatever library read: json, safetensors and torch have errors of their own.
        earlier = [each.name for each in found if each.name < checkpoint.name]
        advice = f"without it --resume auto goes on from {earlier[-1]}" if earlier else "there is no earlier one"
        raise ValueError(
            f"{checkpoint}: expected a whole checkpoint of this model and these optimisers, found: {error}; {advice}"
        ) from error
