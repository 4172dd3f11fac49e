"""Training steps as a run makes them, from rows on disk to the optimiser's step, as a part of what the machine can
multiply.

    python -m benchmarks.fed_step [--workers 2] [--steps 20] [--optimizer adamw]

Other processes read, check and pack ahead, pixels travel to the GPU while the step before is computed, and the loss and
the gradients' norm are waited for in each step, as in `training/pretrain.py`, whose parts these are.
"""

import sys

import torch
from accelerate import Accelerator

from benchmarks.budget import SPECTRA as PAPER_SPECTRA
from benchmarks.common import ROOT, SURVEYS, build_model, finish, parser, simulated
from spectral_tokenizer import SpectralProcessor
from spectral_tokenizer.data.packing import MixtureSampler, PackedSteps, count_patches
from training.throughput import Meter, compile_parts, matmul_peak, synchronise


WARM_UP = 5  # steps: compilation, and batches that were ready


def main() -> None:
    options = parser(__doc__.splitlines()[0])
    options.add_argument("--workers", type=int, default=0, help="processes that make batches ahead")
    options.add_argument("--steps", type=int, default=20, help="timed in one go")
    options.add_argument("--micro-batches", type=int, default=1, help="parts of a step")
    options.add_argument("--optimizer", default="adamw", choices=("adamw", "muon"))
    options.add_argument("--rows", type=int, default=200, help="of each survey on disk, drawn again and again")
    options.add_argument("--profile", help="write what the GPU spent its time on, after the timed steps, to this file")
    options = options.parse_args()
    sys.path.insert(0, str(ROOT / "training"))
    import surveys
    from devices import on_device
    from optimisation import SurveyChi2, make_optimizers, train_step
    from recipe import Recipe
    from validation import RESIDUAL_CAP

    is_on_gpu = options.device == "cuda"
    recipe = Recipe(
        optimizer=options.optimizer, num_workers=options.workers, mixed_precision="bf16" if is_on_gpu else "no",
        max_spectra=len(SURVEYS) * options.spectra, num_micro_batches=options.micro_batches,
    )  # fmt: skip
    accelerator = Accelerator(cpu=not is_on_gpu, mixed_precision=recipe.mixed_precision)
    datasets = simulated(options.rows)
    model = build_model(options.model, options.device).train()
    if is_on_gpu:
        compile_parts(model)
    model, *optimizers = accelerator.prepare(model, *make_optimizers(model, recipe))
    processor = SpectralProcessor(patch_size=model.config.patch_size)
    patches = {survey: count_patches(each, processor.patch_size) for survey, each in datasets.items()}
    sampler = MixtureSampler(patches, {}, recipe.max_spectra)
    packed = PackedSteps(datasets, processor, model.objective, num_micro_batches=options.micro_batches)
    steps = surveys.loader(packed, sampler, recipe)
    batches, chi2 = on_device(steps, accelerator.device), SurveyChi2(list(datasets), RESIDUAL_CAP)
    dtype = torch.bfloat16 if is_on_gpu else torch.float32
    meter = Meter(
        model.config, matmul_peak(model.config, accelerator.device, dtype, seconds=2.0), 1, {"seconds": 0, "flops": 0}
    )

    def step() -> None:
        micro_batches = next(batches)["micro_batches"]
        train_step(accelerator, model, optimizers, micro_batches, recipe, chi2)
        meter.count(micro_batches)

    for _ in range(WARM_UP + 2 * options.workers):
        step()
    synchronise(accelerator.device)
    meter.reset()
    for _ in range(options.steps):
        step()
    synchronise(accelerator.device)
    rates = meter.read()
    seconds = recipe.max_spectra / rates["spectra_per_second"]
    figures = {
        "spectra": recipe.max_spectra, "micro_batches": options.micro_batches,
        "seconds_per_step": seconds, "peak_gflops": meter.peak / 1e9,
        "spectra_per_second": rates["spectra_per_second"], "of_peak": rates["mfu"],
        "hours_of_the_papers_budget": PAPER_SPECTRA / rates["spectra_per_second"] / 3600,
    }  # fmt: skip
    print(
        f"{seconds * 1e3:.0f} ms a step of {recipe.max_spectra} spectra: {rates['spectra_per_second']:.0f} spectra/s, "
        f"{rates['mfu']:.1%} of the matmul peak of {meter.peak / 1e9:.0f} GFLOP/s; the paper's budget in "
        f"{figures['hours_of_the_papers_budget']:.1f} hours"
    )
    if options.profile:
        with torch.profiler.profile() as profiler:
            for _ in range(3):
                step()
            synchronise(accelerator.device)
        order = "self_device_time_total" if is_on_gpu else "self_cpu_time_total"
        table = profiler.key_averages().table(sort_by=order, row_limit=60, max_name_column_width=90)
        with open(options.profile, "w") as file:
            file.write(table)
    finish("fed_step", figures, options.device)


if __name__ == "__main__":
    main()
