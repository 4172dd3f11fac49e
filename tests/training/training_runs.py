"""Starting the training scripts, as users start them or in the tests' own process, and reading what they leave."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pretrain
import torch
from in_process import in_this_process
from recipe import ROOT
from safetensors.torch import load_file


# More of them: TEST_STEPS=50 python -m pytest tests/training/test_pretrain.py
STEPS = int(os.environ.get("TEST_STEPS", "8"))
SURVEYS = ("sdss", "desi", "galah", "apogee")


def environment(**variables):
    return {**os.environ, "OMP_NUM_THREADS": "1", "TQDM_DISABLE": "1", **variables}


PRETRAIN = ROOT / "training" / "pretrain.py"


def command(
    recipe: Path, output: Path, *arguments: str, launch: tuple[str, ...] = (), script: Path = PRETRAIN
) -> list[str]:
    launcher = [sys.executable, "-m", "accelerate.commands.launch", *launch]
    return [*launcher, str(script), "--config", str(recipe), "--output", str(output), *arguments]


def run(*arguments, **keywords) -> str:
    variables = keywords.pop("variables", {})
    done = subprocess.run(
        command(*arguments, **keywords), env=environment(**variables), cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return done.stdout


def run_here(recipe: Path, output: Path, *arguments: str) -> str:
    """As `run`, but without a process of its own, which imports for longer than the steps of these recipes take. For tests
    of what a run learns and leaves; how it starts and ends, signals and all, is for `run`."""
    return in_this_process(pretrain.main, "--config", str(recipe), "--output", str(output), *arguments)


def modes(folder: Path) -> set[int]:
    """What the files of weights may be, and who may read them."""
    return {path.stat().st_mode & 0o777 for path in folder.glob("*.safetensors")}


def losses(output: Path) -> dict[int, float]:
    lines = [json.loads(line) for line in (output / "log.jsonl").read_text().splitlines()]
    return {line["step"]: line["loss"] for line in lines if "loss" in line}


def weights(output: Path) -> dict[str, torch.Tensor]:
    return load_file(output / "model" / "model.safetensors")
