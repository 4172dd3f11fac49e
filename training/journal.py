"""What a run says of itself: a JSON line per logged step, a progress bar, and the trackers that the recipe names."""

import json
import math
import os
import signal
import sys
from pathlib import Path

from tqdm import tqdm


#: The process of `accelerate launch`, which sets this variable and whose end is a run's, or None: a shell's is not, which
#: `nohup` outlives.
LAUNCHER = os.getppid() if "ACCELERATE_DYNAMO_BACKEND" in os.environ else None


class Interruption:
    """SIGTERM, as a cluster sends it before it takes a node away: finish the step, write a checkpoint, leave. So does the
    end of the launcher, which does not pass the signal on to the one process that it started. After `end`, where there is
    no step to finish, SIGTERM ends the process as everywhere."""

    def __init__(self):
        self.is_told = False
        self.before = signal.signal(signal.SIGTERM, self.request)

    def end(self) -> None:
        signal.signal(signal.SIGTERM, self.before)

    def request(self, *_):
        self.is_told = True

    @property
    def requested(self) -> bool:
        return self.is_told or LAUNCHER not in (None, os.getppid())


class Journal:
    """Written by the main process alone; on the others every method does nothing.

    Args:
        accelerator: Its trackers are told the same numbers.
        output: The run's folder; lines go to `log.jsonl` in it.
        num_steps, step: Of the run, and where it goes on: lines of later steps, and a line cut short by a kill, are
            dropped.
    """

    def __init__(self, accelerator, output: Path, num_steps: int, step: int):
        self.accelerator, self.path, self.is_on = accelerator, output / "log.jsonl", accelerator.is_main_process
        # In a file, such as a batch system's log, every redrawn bar is a line: one every half a minute will do.
        self.is_watched = sys.stderr.isatty()
        self.bar = tqdm(
            total=num_steps, initial=step, desc="training", disable=not self.is_on, smoothing=0.05,
            mininterval=0.1 if self.is_watched else 30, maxinterval=60,
        )  # fmt: skip
        if self.is_on:
            output.mkdir(parents=True, exist_ok=True)
            kept = [line for line in lines_of(self.path) if step and line["step"] <= step]
            aside = self.path.with_suffix(".writing")
            aside.write_text("".join(json.dumps(line) + "\n" for line in kept))
            os.replace(aside, self.path)

    def write(self, step: int, **values) -> None:
        if not self.is_on:
            return
        try:
            with self.path.open("a") as file:
                file.write(json.dumps({"step": step, **values}) + "\n")
        except OSError as error:  # a write's error names no file
            raise OSError(f"{self.path}: expected to write the log of step {step}, found: {error}") from error
        self.accelerator.log(dict(flat(values)), step=step)

    def show(self, values: dict) -> None:
        """Beside the progress bar."""
        self.bar.set_postfix(
            loss=f"{values['loss']:.3f}", spectra_s=f"{values['spectra_per_second']:.0f}",
            tok_s=f"{values['tokens_per_second']:.0f}", mfu=f"{values['mfu']:.0%}", refresh=self.is_watched,
            **{f"chi2_{name}": f"{value:.1f}" for name, value in values["chi2_hidden"].items()},
        )  # fmt: skip

    def say(self, text: str) -> None:
        if self.is_on:
            self.bar.write(text)


def lines_of(path: Path) -> list[dict]:
    """The whole lines of a log."""
    lines = []
    for line in path.read_text().splitlines() if path.exists() else []:
        try:
            lines.append(json.loads(line))
        except json.JSONDecodeError:  # cut short by a kill
            break
    return lines


def flat(values: dict, prefix: str = ""):
    """{"chi2": {"sdss": {"block": 2}}} -> ("chi2/sdss/block", 2): what trackers take. Numbers alone."""
    for name, value in values.items():
        if isinstance(value, dict):
            yield from flat(value, f"{prefix}{name}/")
        elif isinstance(value, (int, float)) and math.isfinite(value):
            yield f"{prefix}{name}", value
