"""What all measurements share: the machine's description, simulated spectra, fair timing, one printed JSON line."""

import argparse
import json
import platform
import time
from collections.abc import Callable
from pathlib import Path

import datasets
import numpy as np
import torch
import transformers
from transformers import AutoConfig, AutoModelForPreTraining

from spectral_tokenizer import SpectralForPreTraining, SpectralProcessor
from spectral_tokenizer.data import load_survey
from spectral_tokenizer.data.packing import as_arrays, rows_of
from spectral_tokenizer.data.simulation import simulate
from spectral_tokenizer.packing_spectral_tokenizer import selected_lengths
from training.devices import num_cores
from training.recipe import find
from training.throughput import cpu_name


ROOT = Path(__file__).resolve().parent.parent
SURVEYS = ("sdss", "desi", "galah", "apogee")


def parser(description: str) -> argparse.ArgumentParser:
    """Options that every measurement has."""
    options = argparse.ArgumentParser(description=description)
    options.add_argument("--model", default=str(ROOT / "hub_configs" / "base"), help="size or checkpoint")
    options.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    options.add_argument("--repeats", type=int, default=5, help="timings of each variant, interleaved")
    options.add_argument("--spectra", type=int, default=4, help="simulated spectra of each survey in a step")
    return options


def machine(device: str) -> dict:
    """What the figures were measured on."""
    return {
        "device": torch.cuda.get_device_name() if device == "cuda" else cpu_name(),
        "cores": num_cores(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "python": platform.python_version(),
    }


def simulated(count: int, seed: int = 0) -> dict[str, datasets.Dataset]:
    """At least `count` simulated spectra of each survey, written as its own files once and read by its reader."""
    datasets.disable_progress_bars()
    folder = ROOT / "runs" / "benchmarks" / f"simulated-{count}-seed{seed}"
    if not folder.exists():
        simulate(folder, count + 8 + count // 10, seed=seed, progress=True)  # sky fibres are dropped
    return {survey: load_survey(survey, folder / survey) for survey in SURVEYS}


def mixed_rows(count: int) -> list[dict]:
    """`count` simulated spectra of each survey, survey by survey."""
    return [row for each in simulated(count).values() for row in rows_of(as_arrays(each), list(range(count)))]


def build_model(folder: str, device: str, **settings) -> SpectralForPreTraining:
    """A trained model, or a fresh one of a size.

    Raises:
        FileNotFoundError: there is no such folder; a misspelt one is not looked for on the Hub.
    """
    folder = str(find(folder))
    torch.manual_seed(0)
    if any(Path(folder).glob("*.safetensors")):
        return AutoModelForPreTraining.from_pretrained(folder, **settings).to(device)
    return AutoModelForPreTraining.from_config(AutoConfig.from_pretrained(folder, **settings)).to(device)


def drawn_step(model: SpectralForPreTraining, rows: list[dict], seed: int = 0) -> dict:
    """One packed training step on the CPU, hidden and asked patches drawn by the model's objective."""
    inputs = SpectralProcessor(patch_size=model.config.patch_size)(rows, packed=True, return_tensors="pt")
    generator, hidden, asked = np.random.default_rng(seed), [], []
    for wavelength in np.split(inputs["wavelength"][0].numpy(), np.cumsum(inputs["lengths"])[:-1]):
        hidden.append(model.objective.hide(wavelength, generator))
        asked.append(model.objective.ask(hidden[-1], generator))
    masks = {"masked_patches": hidden, "target_patches": asked}
    return {
        **{name: inputs[name] for name in ("flux", "ivar", "wavelength", "lengths")},
        **{name: torch.from_numpy(np.concatenate(parts))[None] for name, parts in masks.items()},
    }


def counts(step: dict) -> tuple[list[int], list[int]]:
    """Visible and asked patches of each spectrum in a step."""
    return tuple(
        selected_lengths(each[0], step["lengths"]) for each in (~step["masked_patches"], step["target_patches"])
    )


def to(step: dict, device: str) -> dict:
    """Pixels to the device; hidden and asked patches stay on the CPU, where lengths are counted."""
    moved = ("flux", "ivar", "wavelength")
    return {name: each.to(device) if name in moved else each for name, each in step.items()}


def seconds_of(
    variants: dict[str, Callable], repeats: int, device: str = "cpu", clock: Callable = time.perf_counter
) -> dict[str, list[float]]:
    """Wall time of each variant, or another clock's, all of them once per turn: what else the machine does meets them
    alike."""
    times = {name: [] for name in variants}
    for turn in range(repeats + 1):
        for name, run in variants.items():
            start = clock()
            run()
            if device == "cuda":
                torch.cuda.synchronize()
            if turn:  # the first warms up
                times[name].append(clock() - start)
    return times


def summary(times: list[float]) -> dict[str, float]:
    return {"best": min(times), "median": float(np.median(times)), "worst": max(times)}


def finish(name: str, figures: dict, device: str) -> None:
    print(json.dumps({"benchmark": name, "machine": machine(device), **figures}))
