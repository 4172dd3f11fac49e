"""From Arrow on disk to packed tensors: spectra and bytes per second, against plain rows and the step that is fed.

    python -m benchmarks.data_path

Plain rows: Datasets' torch format, one row at a time through the processor, padded by default collation. Rows as
lists: the same without a format, which gives Python lists.
"""

import torch

from benchmarks.common import SURVEYS, build_model, finish, parser, seconds_of, simulated, summary
from benchmarks.training_step import trainer
from spectral_tokenizer import SpectralProcessor
from spectral_tokenizer.data.packing import MixtureSampler, PackedSteps, count_patches


BYTES_PER_PIXEL = 16  # float32 flux and ivar, float64 wavelength


def plain_rows(datasets: dict, processor, steps: list, form: str | None):
    """What one writes first."""
    datasets = {name: each.with_format(form) for name, each in datasets.items()}

    def fetch(survey: str, row: int) -> dict:
        row = datasets[survey][row]
        one = processor(row["flux"], row["ivar"], row["wavelength"], row["segment_lengths"], return_tensors="pt")
        return {name: each[0] for name, each in one.items()}

    def run():
        for step in steps:
            parts = [fetch(survey, row) for survey, row in step.rows]
            longest = max(len(part["flux"]) for part in parts)
            torch.utils.data.default_collate([padded(part, longest) for part in parts])

    return run


def padded(part: dict, longest: int) -> dict:
    result = {}
    for name, each in part.items():
        result[name] = each if each.ndim == 0 else each.new_zeros(longest, *each.shape[1:])
        if each.ndim:
            result[name][: len(each)] = each
    return result


def main() -> None:
    options = parser(__doc__.splitlines()[0])
    options.add_argument("--steps", type=int, default=8, help="steps per timing")
    options = options.parse_args()
    datasets = simulated(200)
    model = build_model(options.model, options.device).train()
    processor = SpectralProcessor(patch_size=model.config.patch_size)
    patches = {survey: count_patches(each, model.config.patch_size) for survey, each in datasets.items()}
    sampler = MixtureSampler(patches, {}, len(SURVEYS) * options.spectra)
    steps = [sampler.draw() for _ in range(options.steps)]
    packed = PackedSteps(datasets, processor, model.objective)
    batch = packed[steps[0]]["micro_batches"][0]
    inputs = {name: batch[name] for name in batch if name not in ("object_id", "survey")}
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.0, fused=True)
    variants = {
        "packed": lambda: [packed[step] for step in steps],
        "plain_rows": plain_rows(datasets, processor, steps, "torch"),
        "rows_as_lists": plain_rows(datasets, processor, steps, None),
        "training_step": trainer(model, inputs, options.device, optimizer),
    }
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as in a loader's worker
    loaders = ("packed", "plain_rows", "rows_as_lists")
    times = seconds_of({name: variants[name] for name in loaders}, options.repeats)
    torch.set_num_threads(threads)
    times |= seconds_of({"training_step": variants["training_step"]}, options.repeats, options.device)
    spectra = sum(len(step.rows) for step in steps)
    pixels = sum(len(datasets[survey][row]["flux"]) for step in steps for survey, row in step.rows)
    rates = {name: spectra / min(times[name]) for name in loaders}
    rates["training_step"] = len(steps[0].rows) / min(times["training_step"])
    figures = {
        "spectra_per_second": rates,
        "gigabytes_per_second": pixels * BYTES_PER_PIXEL / min(times["packed"]) / 1e9,
        "packed_over_plain_rows": rates["packed"] / rates["plain_rows"],
        "packed_over_rows_as_lists": rates["packed"] / rates["rows_as_lists"],
        "packed_over_training_step": rates["packed"] / rates["training_step"],
        "seconds": {name: summary(each) for name, each in times.items()},
    }
    for name, rate in rates.items():
        print(f"{name:>14}: {rate:10.1f} spectra/s")
    print(
        f"one worker's packed path: {figures['packed_over_plain_rows']:.1f} times plain rows, "
        f"{figures['packed_over_rows_as_lists']:.1f} times rows as lists, "
        f"{figures['packed_over_training_step']:.0f} times the training step of all threads"
    )
    finish("data_path", figures, options.device)


if __name__ == "__main__":
    main()
