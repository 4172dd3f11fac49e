"""Pre-train a spectral tokenizer.

    accelerate launch training/pretrain.py --config training/recipes/demo.yaml
    accelerate launch training/pretrain.py --config training/recipes/demo.yaml --data sdss=PATH desi=PATH --resume auto

Survey files (or simulated ones) -> rows -> packed steps -> model, and at the end a folder that AutoModel and
AutoProcessor open: `<output>/model`.
"""

import json
import math
import os
import signal
import time
from contextlib import nullcontext
from pathlib import Path

import checkpoints
import figures
import surveys
import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from card import write_card
from probe import probe
from recipe import Recipe, find, parse_arguments
from tqdm import tqdm
from transformers import AutoConfig, AutoModelForPreTraining
from validation import SurveyValidation, table

from spectral_tokenizer import SpectralModel, SpectralProcessor
from spectral_tokenizer.data.packing import MixtureSampler, PackedSteps, count_patches


MODEL_INPUTS = ("flux", "ivar", "wavelength", "lengths", "masked_patches", "target_patches")


class Interruption:
    """SIGTERM, as a cluster sends it before it takes a node away: finish the step, write a checkpoint, leave."""

    def __init__(self):
        self.requested = False
        signal.signal(signal.SIGTERM, self.request)

    def request(self, *_):
        self.requested = True


class Log:
    """One JSON object a line; lines of steps after the one resumed from are dropped."""

    def __init__(self, path: Path, step: int):
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = path.read_text().splitlines() if path.exists() and step else []
        kept = [line for line in lines if json.loads(line)["step"] <= step]
        path.write_text("".join(line + "\n" for line in kept))
        self.path = path

    def write(self, **values) -> None:
        with self.path.open("a") as file:
            file.write(json.dumps(values) + "\n")


def learning_rate(recipe: Recipe, step: int) -> float:
    """Linear warm-up, then half a cosine down to zero."""
    if step < recipe.warmup_steps:
        return recipe.learning_rate * (step + 1) / recipe.warmup_steps
    progress = (step - recipe.warmup_steps) / max(recipe.num_steps - recipe.warmup_steps, 1)
    return recipe.learning_rate * 0.5 * (1 + math.cos(math.pi * min(progress, 1)))


def make_optimizer(model, recipe: Recipe) -> torch.optim.AdamW:
    """Matrices decay; biases, norms and the latents' and query's vectors do not."""
    named = list(model.named_parameters())
    decays = [each for name, each in named if each.ndim > 1 and "latents" not in name]
    others = [each for name, each in named if not (each.ndim > 1 and "latents" not in name)]
    groups = [{"params": decays, "weight_decay": recipe.weight_decay}, {"params": others, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=recipe.learning_rate)


def train_step(accelerator, model, optimizer, micro_batches: list[dict], recipe: Recipe) -> dict:
    """One optimisation step whose loss is the mean over all micro-batches and processes, exactly."""
    optimizer.zero_grad()
    totals = torch.zeros(2, dtype=torch.float64, device=accelerator.device)
    for position, batch in enumerate(micro_batches):
        inputs = {name: batch[name] for name in MODEL_INPUTS}
        for name in ("flux", "ivar", "wavelength"):
            inputs[name] = inputs[name].to(accelerator.device, non_blocking=True)
        is_last = position == len(micro_batches) - 1
        with nullcontext() if is_last else accelerator.no_sync(model):
            output = model(**inputs)
            cost = output.loss * output.loss_terms
            accelerator.backward(cost)
        totals += torch.stack([cost.detach().double(), output.loss_terms.double()])
    cost, terms = accelerator.reduce(totals, "sum").tolist()
    # Gradients are sums over micro-batches, averaged over processes: this makes them those of the mean over terms.
    for parameter in model.parameters():
        if parameter.grad is not None:
            parameter.grad.mul_(accelerator.num_processes / max(terms, 1))
    norm = float(accelerator.clip_grad_norm_(model.parameters(), recipe.max_grad_norm))
    is_finite = math.isfinite(norm) and math.isfinite(cost)
    if is_finite:
        optimizer.step()
    return {"loss": cost / max(terms, 1), "gradient_norm": norm, "skipped": not is_finite}


def prepare_model(recipe: Recipe):
    folder = str(find(recipe.model))
    processor = SpectralProcessor.from_pretrained(folder)
    if any(find(recipe.model).glob("*.safetensors")):
        return AutoModelForPreTraining.from_pretrained(folder, dtype=torch.float32), processor
    return AutoModelForPreTraining.from_config(AutoConfig.from_pretrained(folder)), processor


def validate(model, validations: dict[str, SurveyValidation]) -> dict[str, dict]:
    return {survey: each.evaluate(model) for survey, each in validations.items()}


def main() -> None:
    recipe, resume = parse_arguments()
    accelerator = Accelerator(mixed_precision=recipe.mixed_precision)
    output, is_main = Path(recipe.output), accelerator.is_main_process
    if accelerator.device.type == "cpu":
        # `accelerate launch` allows one thread per process unless told otherwise, and leaves the other cores idle.
        torch.set_num_threads(max(1, len(os.sched_getaffinity(0)) // accelerator.num_processes))
    set_seed(recipe.seed)

    with accelerator.main_process_first():
        rows = surveys.load(recipe)
    parts = surveys.split(rows, recipe.validation_fraction, recipe.seed)
    train, held = ({survey: each[side] for survey, each in parts.items()} for side in (0, 1))
    accelerator.print({survey: f"{len(train[survey])} + {len(held[survey])} held" for survey in rows})

    model, processor = prepare_model(recipe)
    patch_size, objective, cap = model.config.patch_size, model.objective, model.config.residual_cap or 10.0
    validations = {}
    if is_main:
        validations = {
            survey: SurveyValidation(
                train[survey], held[survey], processor, recipe.validation_spectra, cap, recipe.seed
            )
            for survey in rows
        }
    sampler = MixtureSampler(
        {survey: count_patches(each, patch_size) for survey, each in train.items()},
        recipe.weights,
        recipe.max_spectra,
        recipe.max_tokens,
        recipe.seed,
    )
    model, optimizer = accelerator.prepare(model, make_optimizer(model, recipe))
    state = {"step": 0, "sampler": sampler.state, "skipped": 0}
    if resume:
        state = checkpoints.load(accelerator, output / "checkpoints", resume) or state
        sampler.load_state_dict(state["sampler"])
    # The packed loader is not `prepare`d: that would splice batches across processes. Each process takes its rows.
    steps = PackedSteps(
        train, processor, objective, recipe.seed, accelerator.process_index, accelerator.num_processes,
        recipe.num_micro_batches,
    )  # fmt: skip
    loader = torch.utils.data.DataLoader(
        steps, sampler=sampler, batch_size=None, num_workers=recipe.num_workers, pin_memory=torch.cuda.is_available()
    )
    log = Log(output / "log.jsonl", state["step"]) if is_main else None
    train_loop(accelerator, model, optimizer, loader, recipe, state, validations, log)
    if is_main:
        finish(accelerator.unwrap_model(model), processor, recipe, validations, train, held)
    accelerator.end_training()


def train_loop(accelerator, model, optimizer, loader, recipe: Recipe, state: dict, validations, log) -> None:
    interruption, is_main, folder = Interruption(), accelerator.is_main_process, Path(recipe.output) / "checkpoints"
    bar = tqdm(total=recipe.num_steps, initial=state["step"], desc="training", disable=not is_main, smoothing=0.05)
    model.train()
    batches, skipped_in_a_row = iter(loader), 0
    spectra, tokens, since = 0, 0, time.perf_counter()
    while state["step"] < recipe.num_steps:
        batch = next(batches)
        rate = learning_rate(recipe, state["step"])
        for group in optimizer.param_groups:
            group["lr"] = rate
        values = train_step(accelerator, model, optimizer, batch["micro_batches"], recipe)
        skipped_in_a_row = skipped_in_a_row + 1 if values["skipped"] else 0
        state = {
            "step": state["step"] + 1, "sampler": batch["state"], "skipped": state["skipped"] + values["skipped"]
        }  # fmt: skip
        if skipped_in_a_row >= recipe.max_skipped_steps:
            names = [name for each in batch["micro_batches"] for name in each["object_id"]]
            raise FloatingPointError(
                f"{skipped_in_a_row} steps in a row had a non-finite loss or gradient, the last one on: {names}"
            )
        spectra += sum(len(each["lengths"]) for each in batch["micro_batches"]) * accelerator.num_processes
        tokens += sum(sum(each["lengths"]) for each in batch["micro_batches"]) * accelerator.num_processes
        is_last = state["step"] == recipe.num_steps
        if is_main and (state["step"] % recipe.log_every == 0 or is_last):
            seconds = time.perf_counter() - since
            speed = {"spectra_per_second": spectra / seconds, "tokens_per_second": tokens / seconds}
            log.write(step=state["step"], learning_rate=rate, **values, **speed, skipped_steps=state["skipped"])
            bar.set_postfix(loss=f"{values['loss']:.3f}", spectra_s=f"{speed['spectra_per_second']:.0f}")
            spectra, tokens, since = 0, 0, time.perf_counter()
        bar.update()
        if validations and (state["step"] % recipe.validate_every == 0 and not is_last):
            scores = validate(accelerator.unwrap_model(model), validations)
            log.write(step=state["step"], chi2=scores)
            blocks = ", ".join(f"{survey} {each['block']['mean']:.2f}" for survey, each in scores.items())
            bar.write(f"step {state['step']}: chi2 on hidden blocks: {blocks}")
            since = time.perf_counter()
        stop = interruption.requested
        if accelerator.num_processes > 1:  # all processes leave together, or none
            stop = bool(accelerator.reduce(torch.tensor(int(stop), device=accelerator.device)))
        if state["step"] % recipe.checkpoint_every == 0 or is_last or stop:
            checkpoints.save(accelerator, folder, state, recipe.keep_checkpoints)
        if stop and not is_last:
            bar.close()
            accelerator.print(f"Interrupted at step {state['step']}: checkpoint written, go on with --resume auto.")
            accelerator.end_training()
            raise SystemExit(0)
    bar.close()


def finish(model, processor, recipe: Recipe, validations, train, held) -> None:
    """Validate, save the model with its code, draw, probe, and write down what was measured."""
    output = Path(recipe.output)
    scores = validate(model, validations)
    baselines = {survey: each.baselines for survey, each in validations.items()}
    print("\nchi2 per pixel on spectra not trained on (residuals capped at 10 sigma; 1 is perfect)")
    print(table(scores, baselines))
    torch.manual_seed(recipe.seed)
    probes = {
        "trained": probe(model.spectral, processor, train, held),
        "untrained": probe(SpectralModel(model.config), processor, train, held),
    }
    print("\nlinear heads on frozen embeddings: trained encoder | the same encoder untrained")
    for name, value in probes["trained"].items():
        print(f"{name:<16} {value:10.4g} | {probes['untrained'][name]:.4g}")
    metrics = {
        "recipe": recipe.to_dict(),
        "simulated": not recipe.data,
        "num_spectra": {survey: {"train": len(train[survey]), "held": len(held[survey])} for survey in train},
        "chi2": {
            "model": scores,
            **{name: {s: each[name] for s, each in baselines.items()} for name in ("interpolation", "mean spectrum")},
        },
        "probe": probes,
    }
    (output / "metrics.json").write_text(json.dumps(metrics, indent=2) + "\n")
    figure = figures.reconstructions(model, validations, output / "reconstructions.png", simulated=not recipe.data)
    folder = output / "model"
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    write_card(folder, metrics, figure)
    print(f"\nmodel and processor: {folder}\npicture: {figure}\nfigures: {output / 'metrics.json'}")


if __name__ == "__main__":
    main()
