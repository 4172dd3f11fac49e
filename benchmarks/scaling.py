"""How cost grows: reading against the number of spectra, a training step against their length.

    python -m benchmarks.scaling [--counts 1000 10000 100000]

A count is of all surveys together, simulated as for training on a stream: their rows are written as Arrow once and
kept in runs/benchmarks, 200 kB each.
"""

import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from datasets import Dataset
from tqdm import tqdm

from benchmarks.common import ROOT, SURVEYS, build_model, drawn_step, finish, parser, seconds_of
from benchmarks.training_step import trainer
from spectral_tokenizer import SpectralProcessor
from spectral_tokenizer.data.packing import MixtureSampler, PackedSteps, count_patches
from spectral_tokenizer.data.schema import FEATURES
from spectral_tokenizer.data.tables import to_table
from training.simulated.patches import rows
from training.simulated.stream import observations


def written(survey: str, count: int) -> Path:
    """An Arrow file of so many rows of a survey; written now if it is not there."""
    file = ROOT / "runs" / "benchmarks" / f"rows-{count}" / f"{survey}.arrow"
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        unfinished = file.with_suffix(".unfinished")
        with (
            pa.OSFile(str(unfinished), "wb") as sink,
            pa.ipc.new_stream(sink, FEATURES.arrow_schema) as writer,
            tqdm(total=count, desc=survey, unit="spectra") as bar,
        ):
            for seen in observations(survey, "train", count):
                writer.write_table(to_table(rows(seen)))
                bar.update(len(seen.objects))
        unfinished.replace(file)
    return file


def reading(count: int, model, num_steps: int = 20) -> dict:
    """Seconds to open `count` spectra and begin, and spectra per second of shuffled steps from them."""
    files = {survey: written(survey, count // len(SURVEYS)) for survey in SURVEYS}
    start = time.perf_counter()
    datasets = {survey: Dataset.from_file(str(file)) for survey, file in files.items()}
    opened = time.perf_counter()
    patches = {survey: count_patches(each, model.config.patch_size) for survey, each in datasets.items()}
    sampler = MixtureSampler(patches, {}, 16)
    steps = PackedSteps(datasets, SpectralProcessor(patch_size=model.config.patch_size), model.objective)
    steps[sampler.draw()]
    begun = time.perf_counter()
    for _ in range(num_steps):
        steps[sampler.draw()]
    return {
        "spectra": sum(len(each) for each in datasets.values()),
        "seconds_to_open": opened - start,
        "seconds_to_first_step": begun - opened,
        "spectra_per_second": 16 * num_steps / (time.perf_counter() - begun),
    }


def spectrum_of(num_patches: int) -> dict:
    wavelength = 4000 + 0.5 * np.arange(32 * num_patches)
    return {"flux": np.ones_like(wavelength), "ivar": np.full_like(wavelength, 100.0), "wavelength": wavelength}


def main() -> None:
    options = parser(__doc__.splitlines()[0])
    options.add_argument("--counts", type=int, nargs="+", default=[1000, 10_000])
    options.add_argument("--lengths", type=int, nargs="+", default=[64, 128, 256, 512, 1024])
    options = options.parse_args()
    model = build_model(options.model, options.device).train()
    by_count = [reading(count, model) for count in options.counts]
    for each in by_count:
        print(
            f"{each['spectra']:>8} spectra: opened in {each['seconds_to_open']:.2f} s, first step after "
            f"{each['seconds_to_first_step']:.2f} s, then {each['spectra_per_second']:.0f} spectra/s"
        )
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.0, fused=True)
    # As many patches in each step, so that the machine is equally busy.
    steps = {
        length: drawn_step(model, [spectrum_of(length)] * (max(options.lengths) // length))
        for length in options.lengths
    }
    runs = {length: trainer(model, step, options.device, optimizer) for length, step in steps.items()}
    times = seconds_of(runs, options.repeats, options.device)
    by_length = {length: min(each) / max(options.lengths) * 1e6 for length, each in times.items()}
    for length, microseconds in by_length.items():
        print(f"{length:>8} patches a spectrum: {microseconds:8.1f} us a patch")
    finish("scaling", {"by_count": by_count, "microseconds_per_patch_by_length": by_length}, options.device)


if __name__ == "__main__":
    main()
