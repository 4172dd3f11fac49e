"""Spectra that a stream simulates in a second: where the model is, and ahead in other processes.

    python -m benchmarks.stream [--workers 0 1 2] [--spectra 64]

On a GPU this bounds a run of a small model before its arithmetic does.
"""

import itertools
import sys
import time

from benchmarks.common import ROOT, SURVEYS, build_model, finish, parser


def seconds_per_step(stream, num_workers: int, repeats: int, device: str) -> float:
    """Mean over `repeats` steps, after those that were made ahead while the processes started."""
    import surveys
    import torch
    from recipe import Recipe

    is_on_cpu = num_workers > 0 or device == "cpu"
    steps = iter(surveys.loader(stream, itertools.count(), Recipe(num_workers=num_workers), is_on_cpu))
    for _ in range(1 + 2 * num_workers):
        next(steps)
    start = time.perf_counter()
    for _ in range(repeats):
        next(steps)
    if device == "cuda":
        torch.cuda.synchronize()
    return (time.perf_counter() - start) / repeats


def main() -> None:
    options = parser(__doc__.splitlines()[0])
    options.add_argument("--workers", type=int, nargs="+", default=[0, 1, 2], help="0: where the model is")
    options.add_argument("--templates", help="folder of published templates, or none (default: those found)")
    options = options.parse_args()
    sys.path.insert(0, str(ROOT / "training"))
    from simulated.stream import SimulatedStream

    objective, figures = build_model(str(ROOT / "hub_configs" / "tiny"), "cpu").objective, {}
    count = options.spectra * len(SURVEYS)
    for workers in options.workers:
        device = "cpu" if workers else options.device
        stream = SimulatedStream(
            objective, spectra_per_step=count, templates=options.templates, device=device, is_noiseless=True
        )
        name = f"{workers} processes" if workers else f"on {device}"
        figures[name] = count / seconds_per_step(stream, workers, options.repeats + 2 * workers, device)
        print(f"{name:>14}: {figures[name]:8.1f} spectra/s")
    finish("stream", {"spectra": count, "spectra_per_second": figures}, options.device)


if __name__ == "__main__":
    main()
