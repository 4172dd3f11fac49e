"""Checkpoints that are there whole or not at all."""

import json
import re
import shutil
from pathlib import Path


STATE = "run.json"


def path_of(folder: Path, step: int) -> Path:
    return folder / f"step-{step:08d}"


def complete(folder: Path) -> list[Path]:
    """Checkpoints from oldest to newest. A folder under its final name is complete: it was renamed last of all."""
    return sorted(each for each in folder.glob("step-*") if re.fullmatch(r"step-\d{8}", each.name))


def save(accelerator, folder: Path, state: dict, keep: int) -> None:
    """Write model, optimiser, random states and `state` aside, then rename. All processes call this."""
    target = path_of(folder, state["step"])
    aside = folder / f".writing-{target.name}"
    if accelerator.is_main_process:
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir(parents=True)
    accelerator.wait_for_everyone()
    accelerator.save_state(str(aside))
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        (aside / STATE).write_text(json.dumps(state))
        shutil.rmtree(target, ignore_errors=True)
        aside.rename(target)
        for old in complete(folder)[:-keep]:
            shutil.rmtree(old)
    accelerator.wait_for_everyone()


def load(accelerator, folder: Path, resume: str) -> dict | None:
    """Go on from a checkpoint: "auto" is the newest, if there is one. Returns its state."""
    if resume == "auto":
        found = complete(folder)
        if not found:
            return None
        checkpoint = found[-1]
    else:
        checkpoint = Path(resume)
        if not (checkpoint / STATE).exists():
            raise FileNotFoundError(f"{checkpoint}: expected a checkpoint with {STATE}, found none")
    accelerator.load_state(str(checkpoint))
    return json.loads((checkpoint / STATE).read_text())
