"""What each size in `hub_configs` costs: parameters, operations, memory and speed, as a table of Markdown.

    python -m benchmarks.sizes [--sizes tiny small base paper large] [--spectra 4]

A spectrum is the mean of simulated ones, as many of each survey. Operations are those of the matrix products, counted
by `training.throughput`; a training step is forward and backward with patches hidden and asked for as the size's
objective draws them. Memory is float32 weights, and by how much embedding all spectra at once raises the process's
peak. Speed is in spectra per second on a GPU, and on the CPU per second of one core's time, which other programs do
not lengthen much.
"""

import multiprocessing
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import torch

from benchmarks.common import (
    ROOT,
    SURVEYS,
    build_model,
    counts,
    drawn_step,
    finish,
    machine,
    mixed_rows,
    parser,
    seconds_of,
    summary,
)  # fmt: skip
from benchmarks.encode import encoder
from training.throughput import encoding_flops, step_flops


SIZES = ("tiny", "small", "base", "paper", "large")
DRAWS = 16  # of hidden patches, whose part of a spectrum differs from draw to draw
COLUMNS = (
    "size", "encoder + decoder, million parameters", "embedding, GFLOP", "training step, GFLOP", "weights, MB",
    "embedding {spectra} spectra, MB", "spectra per {second}",
)  # fmt: skip


def counted(size: str, num_spectra: int) -> dict[str, float]:
    """What needs no clock: numbers per spectrum."""
    model, rows = build_model(str(ROOT / "hub_configs" / size), "cpu"), mixed_rows(num_spectra)
    steps = [drawn_step(model, rows, seed) for seed in range(DRAWS)]
    encoder_size, decoder_size = (
        sum(each.numel() for each in part.parameters()) for part in (model.spectral, model.decoder)
    )
    return {
        "encoder_parameters": encoder_size,
        "decoder_parameters": decoder_size,
        "weight_bytes": sum(each.numel() * each.element_size() for each in model.parameters()),
        "patches": sum(steps[0]["lengths"]) / len(rows),
        "embedding_flops": encoding_flops(model.config, steps[0]["lengths"]) / len(rows),
        "training_flops": sum(step_flops(model.config, *counts(step)) for step in steps) / DRAWS / len(rows),
    }


def peak_memory(size: str, num_spectra: int, device: str) -> int | None:
    """Bytes by which embedding raises the peak: of the device, or of this process, which should be a fresh one. None
    where the system does not tell."""
    model = build_model(str(ROOT / "hub_configs" / size), device).eval()
    run = encoder(model, mixed_rows(num_spectra), device, from_rows=False)
    if device == "cuda":
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        run()
        return torch.cuda.max_memory_allocated() - before
    status, reset = Path("/proc/self/status"), Path("/proc/self/clear_refs")
    if not reset.exists():
        return None
    before = kilobytes(status, "VmRSS")
    reset.write_text("5")  # the peak begins anew
    run()
    return 1024 * (kilobytes(status, "VmHWM") - before)


def kilobytes(status: Path, name: str) -> int:
    return next(int(line.split()[1]) for line in status.read_text().splitlines() if line.startswith(name))


def row(size: str, figures: dict) -> list[str]:
    """A line of the table; what is None was not measured."""
    memory, speed = figures["embedding_bytes"], figures["spectra_per_second"]
    return [
        size,
        f"{figures['encoder_parameters'] / 1e6:.1f} + {figures['decoder_parameters'] / 1e6:.1f}",
        f"{figures['embedding_flops'] / 1e9:.2f}",
        f"{figures['training_flops'] / 1e9:.2f}",
        f"{figures['weight_bytes'] / 1e6:.0f}",
        "not measured" if memory is None else f"{memory / 1e6:.0f}",
        "not measured" if speed is None else f"{speed:.1f}",
    ]


def table(figures: dict[str, dict], num_spectra: int, second: str) -> str:
    header = [name.format(spectra=num_spectra, second=second) for name in COLUMNS]
    lines = [header, ["---"] * len(header), *(row(size, each) for size, each in figures.items())]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def main() -> None:
    options = parser(__doc__.splitlines()[0])
    options.add_argument("--sizes", nargs="+", default=list(SIZES))
    options.add_argument("--untimed", nargs="*", default=[], help="sizes that are counted, not timed")
    options = options.parse_args()
    rows = mixed_rows(options.spectra)
    figures = {size: counted(size, options.spectra) for size in options.sizes}
    context = multiprocessing.get_context("spawn")
    for size in figures:
        with ProcessPoolExecutor(1, mp_context=context) as pool:
            memory = pool.submit(peak_memory, size, options.spectra, options.device).result()
        figures[size]["embedding_bytes"] = memory
    timed = {
        size: encoder(
            build_model(str(ROOT / "hub_configs" / size), options.device).eval(), rows, options.device, False
        )
        for size in figures
        if size not in options.untimed
    }
    is_cpu = options.device == "cpu"
    clock = time.process_time if is_cpu else time.perf_counter
    times = seconds_of(timed, options.repeats, options.device, clock)
    for size in figures:
        best = min(times[size]) if size in times else None
        figures[size]["spectra_per_second"] = len(rows) / best if best else None
        figures[size]["seconds"] = summary(times[size]) if best else None
    about = machine(options.device)
    print(table(figures, len(rows), "core-second" if is_cpu else "second"))
    print(
        f"\nA spectrum is the mean of {options.spectra} simulated ones each of {', '.join(SURVEYS)}: "
        f"{figures[options.sizes[0]]['patches']:.0f} patches. Timed on {about['device']}, {about['threads']} thread(s) of "
        f"{about['cores']} core(s), best of {options.repeats}, torch {about['torch']}."
    )
    finish("sizes", figures, options.device)


if __name__ == "__main__":
    main()
