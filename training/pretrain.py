"""Pre-train a spectral tokenizer.

    accelerate launch training/pretrain.py --config training/recipes/demo.yaml
    accelerate launch training/pretrain.py --config training/recipes/demo.yaml --data sdss=PATH desi=PATH --resume auto

Survey files (or simulated ones) -> rows -> packed steps -> model, and at the end a folder that AutoModel and
AutoProcessor open: `<output>/model`.
"""

import json
import math
import os
from pathlib import Path


# Before torch: threads that wait sleep after some microseconds, see the Makefile.
os.environ.setdefault("GOMP_SPINCOUNT", "1000")

import checkpoints
import figures
import surveys
import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType, InitProcessGroupKwargs, set_seed
from card import write_card
from devices import PATIENCE, needs_cpu, num_cores, on_device
from journal import Interruption, Journal
from optimisation import SurveyChi2, make_optimizers, schedule, train_step
from probe import probe
from recipe import Recipe, has_weights, model_folder, parse_arguments
from safetensors import SafetensorError
from safetensors.torch import load_file
from throughput import Meter, compile_parts, describe_device, matmul_peak
from transformers import AutoConfig, AutoModelForPreTraining, PreTrainedConfig
from validation import RESIDUAL_CAP, SurveyValidation, measure, table

from spectral_tokenizer import SpectralConfig, SpectralModel, SpectralProcessor


#: What `metrics.json` keeps of each earlier run.
EARLIER = ("recipe", "simulated", "num_spectra", "labels", "compute")


def prepare_model(recipe: Recipe):
    """The model of a checkpoint, or a fresh one, with the recipe's settings, and the processor.

    Raises:
        FileNotFoundError: as `model_folder`.
        ValueError: the model has no such setting, or they contradict each other; or an encoder is to stay as it is that
            nothing was learnt by yet.
    """
    folder = model_folder("model", recipe.model)
    processor = SpectralProcessor.from_pretrained(folder)
    config = AutoConfig.from_pretrained(folder)
    if unknown := sorted(set(recipe.model_options) - set(config.to_dict())):
        raise ValueError(f"model_options: expected settings of SpectralConfig, found: {unknown}")
    for name, value in recipe.model_options.items():
        setattr(config, name, value)
    if not has_weights(folder):
        if recipe.freeze_encoder:
            raise ValueError(f"freeze_encoder: expected a checkpoint to keep the encoder of, found a size: {folder}")
        return AutoModelForPreTraining.from_config(config), processor
    model = AutoModelForPreTraining.from_pretrained(folder, config=config, dtype=torch.float32)
    model.spectral.requires_grad_(not recipe.freeze_encoder)
    return model, processor


def model_settings(config: SpectralConfig) -> dict:
    """All that a configuration says of the model and its objective, as JSON keeps it. A recipe names a size's folder, and what is
    in there may have changed since a run began."""
    of_any_model = {*PreTrainedConfig().to_dict(), "auto_map"}
    settings = {name: value for name, value in config.to_dict().items() if name not in of_any_model}
    return json.loads(json.dumps(settings))


def main() -> None:
    recipe, resume = parse_arguments()
    model_folder("model", recipe.model)  # before the files of a survey, which are read in hours
    accelerator = Accelerator(
        cpu=needs_cpu(),
        mixed_precision=recipe.mixed_precision,
        log_with=recipe.trackers or None,
        project_dir=recipe.output,
        kwargs_handlers=[InitProcessGroupKwargs(timeout=PATIENCE)],
    )
    output, is_main = Path(recipe.output), accelerator.is_main_process
    is_sharded = accelerator.distributed_type == DistributedType.FSDP
    if is_sharded and recipe.optimizer == "muon":
        # Accelerate writes one optimiser per model to a sharded run's checkpoints.
        raise ValueError("optimizer: found muon, expected adamw where weights are sharded (FSDP)")
    if accelerator.device.type == "cpu":
        # `accelerate launch` allows one thread per process unless told otherwise, and leaves the other cores idle.
        torch.set_num_threads(max(1, num_cores() // accelerator.num_processes))
    set_seed(recipe.seed)

    with accelerator.main_process_first():
        parts = surveys.parts(recipe)
        measured = parts | surveys.simulated_parts(recipe)
    train = {survey: each for survey, (each, _) in parts.items()}
    known, held = ({survey: each[side] for survey, each in measured.items()} for side in (0, 1))
    accelerator.print({survey: f"{len(known[survey])} + {len(held[survey])} held" for survey in known})

    model, processor = prepare_model(recipe)
    validations, lock = {}, checkpoints.alone_in(output) if is_main else None
    # Sharded weights are only together when all processes look at them.
    if is_main or is_sharded:
        validations = {
            survey: SurveyValidation(known[survey], held[survey], processor, recipe.validation_spectra, recipe.seed)
            for survey in known
        }
    if recipe.compile and accelerator.device.type == "cuda":
        compile_parts(model)
    elif recipe.compile:
        accelerator.print("compile: left out, as attention on the CPU goes by the lengths of a step")
    model, *optimizers = accelerator.prepare(model, *make_optimizers(model, recipe))
    state = {"step": 0, "sampler": None, "skipped": 0, "best": None, "spent": {"seconds": 0.0, "flops": 0}}
    run = recipe.identity() | {"rows": {survey: len(each) for survey, each in train.items()}}
    run |= model_settings(accelerator.unwrap_model(model).config)
    # A stream alone is not trained on the rows that it is measured with.
    run["objects"] = surveys.objects(train) if recipe.data or not recipe.stream else []
    # What a checkpoint did not write down yet, the next one does.
    state = (checkpoints.load(accelerator, output / "checkpoints", resume, run) or state) | {"run": run}
    state.setdefault("spent", {"seconds": math.nan, "flops": math.nan})  # checkpoints from before it was counted
    if state["step"] > recipe.num_steps:
        raise ValueError(f"num_steps: found {recipe.num_steps}, expected {state['step']} or more: so many are made")
    accelerator.init_trackers(output.name, config={name: str(each) for name, each in recipe.to_dict().items()})
    steps = surveys.steps(recipe, train, processor, accelerator.unwrap_model(model), accelerator, state["sampler"])
    state = train_loop(accelerator, model, optimizers, steps, surveys.names(recipe, train), recipe, state, validations)
    trained = whole(accelerator, model)
    if is_main and state["step"] == recipe.num_steps:
        compute = {**describe_device(accelerator.device, accelerator.num_processes), **state["spent"]}
        counts = surveys.num_trained_on(recipe, train, state["sampler"])
        finish(trained, processor, recipe, validations, (known, held), counts, compute)
    # Before the processes part: gradients' buckets that outlive the process group wait for each other at exit.
    model, *optimizers = accelerator.free_memory(model, *optimizers)
    accelerator.end_training()
    if lock is not None:
        lock.release()


def train_loop(accelerator, model, optimizers, steps, names: list[str], recipe: Recipe, state, validations) -> dict:
    """Step, log, validate, checkpoint. Returns the state after the last step, or where the run was told to leave."""
    interruption, output = Interruption(), Path(recipe.output)
    config = accelerator.unwrap_model(model).config
    journal = Journal(accelerator, output, recipe.num_steps, state["step"])
    dtype = torch.bfloat16 if recipe.mixed_precision == "bf16" else torch.float32
    peak = matmul_peak(config, accelerator.device, dtype)
    meter = Meter(config, peak, accelerator.num_processes, state["spent"], recipe.freeze_encoder)
    chi2 = SurveyChi2(names, RESIDUAL_CAP)
    groups = [group for optimizer in optimizers for group in optimizer.param_groups]
    model.train()
    batches, skipped_in_a_row = on_device(steps, accelerator.device), 0
    while state["step"] < recipe.num_steps:
        batch, step = next(batches), state["step"] + 1
        is_last = step == recipe.num_steps
        is_logged = step % recipe.log_every == 0 or is_last
        chi2.is_on = is_logged
        rate = schedule(recipe, state["step"])
        for group in groups:
            group["lr"] = group["peak"] * rate
        values = train_step(accelerator, model, optimizers, batch["micro_batches"], recipe, chi2)
        skipped_in_a_row = skipped_in_a_row + 1 if values["skipped"] else 0
        meter.count(batch["micro_batches"])
        skipped = state["skipped"] + values["skipped"]
        state = {**state, "step": step, "sampler": batch["state"], "skipped": skipped, "spent": meter.spent()}
        if skipped_in_a_row >= recipe.max_skipped_steps:
            objects = [name for each in batch["micro_batches"] for name in each["object_id"]]
            raise FloatingPointError(
                f"{skipped_in_a_row} steps in a row had a non-finite loss or gradient, the last one on: {objects}"
            )
        if is_logged:
            values |= meter.read() | {"chi2_hidden": chi2.read(accelerator)}
            journal.write(step, learning_rate=groups[0]["lr"], **values, skipped_steps=state["skipped"])
            journal.show(values)
        journal.bar.update()
        scores, is_better = None, False
        if step % recipe.validate_every == 0 and not is_last:
            scores = validate(accelerator.unwrap_model(model), validations)
            is_better, state["best"] = judge(accelerator, scores, state)
        stop = interruption.requested
        if accelerator.num_processes > 1:  # all processes leave together, or none
            stop = bool(accelerator.reduce(torch.tensor(int(stop), device=accelerator.device)))
        if step % recipe.checkpoint_every == 0 or is_last or is_better or stop:
            checkpoints.save(accelerator, output / "checkpoints", state, recipe.keep_checkpoints)
        if scores is not None:
            report(accelerator, model, validations, scores, journal, output, step, recipe.is_simulated)
            meter.reset()
        if stop and not is_last:
            journal.say(f"Interrupted at step {step}: checkpoint written, go on with --resume auto.")
            break
    journal.bar.close()
    interruption.end()
    return state


def validate(model, validations: dict[str, SurveyValidation]) -> dict[str, dict]:
    return {survey: each.evaluate(model) for survey, each in validations.items()}


def judge(accelerator, scores: dict, state: dict) -> tuple[bool, dict]:
    """Whether this is the best step so far, by chi2 on hidden blocks (mean over surveys), and the best step."""
    measured = [each["block"]["mean"] for each in scores.values() if not math.isnan(each["block"]["mean"])]
    mean = sum(measured) / len(measured) if measured else math.inf
    # The main process alone may have validated; all of them have to agree.
    mean = float(accelerator.reduce(torch.tensor(mean if accelerator.is_main_process else 0.0).to(accelerator.device)))
    is_better = math.isfinite(mean) and (state["best"] is None or mean < state["best"]["chi2"])
    return is_better, {"step": state["step"], "chi2": mean} if is_better else state["best"]


def report(
    accelerator, model, validations, scores, journal: Journal, output: Path, step: int, simulated: bool
) -> None:
    """Log a validation and draw what the model reconstructs by now."""
    if accelerator.distributed_type != DistributedType.FSDP and validations:
        path = output / "figures" / f"step-{step:08d}.png"
        figures.reconstructions(accelerator.unwrap_model(model), validations, path, simulated)
        model.train()
    journal.write(step, chi2=scores)
    blocks = ", ".join(f"{survey} {each['block']['mean']:.2f}" for survey, each in scores.items())
    journal.say(f"step {step}: chi2 on hidden blocks: {blocks}")


def whole(accelerator, model):
    """The model with all of its weights. Of sharded ones all processes have to give theirs, and the main one gets a
    model; the others get none."""
    unwrapped = accelerator.unwrap_model(model)
    if accelerator.distributed_type != DistributedType.FSDP:
        return unwrapped
    weights = accelerator.get_state_dict(model)
    if not accelerator.is_main_process:
        return None
    attention = unwrapped.config._attn_implementation
    built = AutoModelForPreTraining.from_config(unwrapped.config, attn_implementation=attention)
    built.load_state_dict(weights)
    return built.to(accelerator.device)


def earlier_runs(recipe: Recipe) -> list[dict]:
    """What is known of the runs that the checkpoint went through before this one, the oldest first."""
    folder = model_folder("model", recipe.model)
    if not has_weights(folder):
        return []
    found = next((path for path in (folder / "metrics.json", folder.parent / "metrics.json") if path.exists()), None)
    metrics = {} if found is None else json.loads(found.read_text())
    return [*metrics.get("earlier", []), {name: metrics.get(name) for name in EARLIER}]


def holds(folder: Path, model) -> bool:
    """Whether a folder holds these very weights: an ended run that is started again saves the same."""
    try:
        saved = load_file(folder / "model.safetensors")
    except (OSError, SafetensorError):  # none yet, or cut short by a kill
        return False
    weights = {name: each.cpu() for name, each in model.state_dict().items()}
    return all(name in weights and torch.equal(each, weights[name]) for name, each in saved.items())


def forget_figures(output: Path) -> None:
    """Remove what was measured of the weights before: a run that is killed while it measures would leave it beside others."""
    for name in ("metrics.json", "evaluation.json", "model/evaluation.json", "model/README.md"):
        path = output / name
        if path.exists():
            print(f"{path}: removed, as it is of the weights before")
            path.unlink()


def finish(model, processor, recipe: Recipe, validations, measured: tuple, counts: dict, compute: dict) -> None:
    """Save the model with its code, validate, draw, probe, and write down what was measured.

    Args:
        measured: Rows of each survey to fit heads on, and rows to score them on.
        counts: Spectra of each survey that were trained on.
    """
    output, (known, held) = Path(recipe.output), measured
    folder, earlier = output / "model", earlier_runs(recipe)
    if not holds(folder, model):
        forget_figures(output)
    model.save_pretrained(folder)  # first: it is safe then, whatever becomes of the rest
    processor.save_pretrained(folder)
    checkpoints.let_read(folder)
    chi2 = measure(model, validations)
    print(f"\nchi2 per pixel on spectra not trained on (residuals capped at {RESIDUAL_CAP:g} sigma; 1 is perfect)")
    print(table(chi2))
    torch.manual_seed(recipe.seed)
    probes = {
        "trained": probe(model.spectral, processor, known, held),
        "untrained": probe(SpectralModel(model.config), processor, known, held),
    }
    print("\nlinear heads on frozen embeddings: trained encoder | the same encoder untrained")
    for name, value in probes["trained"].items():
        print(f"{name:<16} {value:10.4g} | {probes['untrained'][name]:.4g}")
    metrics = {
        "recipe": recipe.to_dict(),
        "simulated": recipe.is_simulated,
        "num_spectra": {survey: {"train": count, "held": len(held[survey])} for survey, count in counts.items()},
        "labels": ["class", *model.config.label_targets] if model.config.label_weight else [],
        "level": model.config.level,
        "chi2": chi2,
        "probe": probes,
        "num_parameters": {
            "encoder": sum(each.numel() for each in model.spectral.parameters()),
            "decoder": sum(each.numel() for each in model.decoder.parameters()),
        },
        "compute": compute,
        "earlier": earlier,
    }
    (output / "metrics.json").write_text(json.dumps(metrics, indent=2) + "\n")
    figure = figures.reconstructions(model, validations, output / "reconstructions.png", recipe.is_simulated)
    write_card(folder, metrics, figure)
    print(f"\nmodel and processor: {folder}\npicture: {figure}\nfigures: {output / 'metrics.json'}")


if __name__ == "__main__":
    main()
