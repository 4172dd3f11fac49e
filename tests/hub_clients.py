"""Processes that know the tests' Hub and nothing else: a home and caches of their own, and this package or none."""

import json
import subprocess
import sys
from pathlib import Path

import torch
from hub_server import TOKEN, HubServer
from safetensors.torch import load_file
from test_hub_roundtrip import HIDE


ROOT = Path(__file__).parent.parent
COLUMNS = ("flux", "ivar", "wavelength")


def environment(hub: HubServer, home: Path) -> dict[str, str]:
    """Of a client with empty caches, if `home` is new."""
    return {
        "HF_ENDPOINT": hub.url,
        "HF_TOKEN": TOKEN,
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "DISABLE_SAFETENSORS_CONVERSION": "1",  # Transformers would ask another server to convert a pickle
        "HF_HOME": str(home),
        "HF_MODULES_CACHE": str(home / "modules"),
        "HOME": str(home),
        "PYTHONPATH": str(ROOT),
        "PATH": "",
        # The same number of threads: another one adds up in another order.
        "OMP_NUM_THREADS": str(torch.get_num_threads()),
    }


def run(hub: HubServer, home: Path, script: str, *arguments, is_stranger: bool = False, fails: bool = False) -> str:
    """Run a script, as a stranger without this package, and return what it printed: stderr where it is to fail."""
    home.mkdir(parents=True, exist_ok=True)
    # -I: no folder of the caller, and no PYTHONPATH.
    command = [sys.executable, "-I", "-c", HIDE + script] if is_stranger else [sys.executable, "-c", script]
    return finished([*command, *map(str, arguments)], hub, home, fails)


def finished(command: list[str], hub: HubServer, home: Path, fails: bool = False) -> str:
    home.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(command, cwd=home, env=environment(hub, home), capture_output=True, text=True)
    assert (done.returncode != 0) == fails, done.stdout + done.stderr
    assert "Warnings while validating" not in done.stderr
    return done.stderr if fails else done.stdout


def write_rows(path: Path, rows: list[dict]) -> Path:
    """The processor's columns of rows as JSON, in which doubles are exact."""
    columns = [{name: list(map(float, row[name])) for name in COLUMNS} for row in rows]
    for written, row in zip(columns, rows):
        written["segment_lengths"] = list(map(int, row["segment_lengths"]))
    path.write_text(json.dumps(columns))
    return path


def assert_same(path: Path, expected: dict[str, torch.Tensor]) -> None:
    """Tensors that a client wrote are the expected ones to 1e-6."""
    found = load_file(path)
    assert set(found) == set(expected)
    for name, each in expected.items():
        torch.testing.assert_close(
            found[name], each, rtol=1e-6, atol=1e-6, msg=lambda text, name=name: f"{name}: {text}"
        )
