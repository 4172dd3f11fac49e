"""A training step on an equal mix of four surveys: packed, against the same model padded to the longest spectrum, and
as a part of what the machine can multiply.

    python -m benchmarks.training_step [--model hub_configs/base] [--spectra 4] [--compile]

The padded variant is given filler patches as if they were real, so that every spectrum has as many visible and asked
patches as the longest: what a padded implementation computes, without the cost of its attention mask. The peak is the
best over matrix products of the model's own shapes, taken in the same run; a step counts its matrix products alone.
"""

import torch

from benchmarks.common import build_model, counts, drawn_step, finish, mixed_rows, parser, seconds_of, summary, to
from training.throughput import compile_parts, matmul_peak, step_flops


def padded(step: dict) -> dict:
    """The same step with filler: every spectrum has the largest number of visible and of asked patches."""
    lengths, (visible, asked) = step["lengths"], counts(step)
    parts = {name: [] for name in ("flux", "ivar", "wavelength", "masked_patches", "target_patches")}
    split = {name: step[name][0].split(lengths) for name in parts}
    new_lengths = []
    for place, length in enumerate(lengths):
        fill_visible, fill_asked = max(visible) - visible[place], max(asked) - asked[place]
        fill = fill_visible + fill_asked
        is_hidden = torch.arange(fill) >= fill_visible
        filler = {
            "masked_patches": is_hidden,
            "target_patches": is_hidden,
            **{name: split[name][place][:1].repeat(fill, 1) for name in ("flux", "wavelength")},
            "ivar": torch.zeros(fill, step["ivar"].shape[-1]),
        }
        for name in parts:
            parts[name] += [split[name][place], filler[name]]
        new_lengths.append(length + fill)
    return {**{name: torch.cat(each)[None] for name, each in parts.items()}, "lengths": new_lengths}


def trainer(model, step: dict, device: str, optimizer):
    step = to(step, device)

    def run():
        optimizer.zero_grad()
        with torch.autocast(device, dtype=torch.bfloat16, enabled=device == "cuda"):
            loss = model(**step).loss
        loss.backward()
        optimizer.step()

    return run


def main() -> None:
    options = parser(__doc__.splitlines()[0])
    options.add_argument("--compile", action="store_true", help="compile what a recipe's `compile` does (GPU)")
    options = options.parse_args()
    model = build_model(options.model, options.device).train()
    if options.compile:
        compile_parts(model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.0, fused=True)
    packed = drawn_step(model, mixed_rows(options.spectra))
    steps = {"packed": packed, "padded": padded(packed)}
    dtype = torch.bfloat16 if options.device == "cuda" else torch.float32
    peak = matmul_peak(model.config, torch.device(options.device), dtype, seconds=2.0)
    variants = {name: trainer(model, step, options.device, optimizer) for name, step in steps.items()}
    times = seconds_of(variants, options.repeats, options.device)
    peak = max(peak, matmul_peak(model.config, torch.device(options.device), dtype, seconds=2.0))
    num_spectra, needed = len(packed["lengths"]), step_flops(model.config, *counts(packed))
    figures = {"spectra": num_spectra, "patches": sum(packed["lengths"]), "peak_gflops": peak / 1e9}
    for name, each in times.items():
        best = min(each)
        computed = step_flops(model.config, *counts(steps[name]))
        figures[name] = {
            "seconds": summary(each),
            "spectra_per_second": num_spectra / best,
            "of_peak": computed / best / peak,
            "useful_of_peak": needed / best / peak,
        }
        print(
            f"{name:>7}: {num_spectra / best:8.1f} spectra/s, {computed / best / peak:5.1%} of the matmul peak of "
            f"{peak / 1e9:.0f} GFLOP/s ({needed / best / peak:.1%} useful)"
        )
    figures["packed_over_padded"] = min(times["padded"]) / min(times["packed"])
    print(f"packed is {figures['packed_over_padded']:.2f} times as fast as padded")
    finish("training_step", figures, options.device)


if __name__ == "__main__":
    main()
