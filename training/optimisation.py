"""One optimisation step whose loss is the mean over all micro-batches and processes, exactly."""

import math
from contextlib import nullcontext

import torch
from devices import PIXELS
from muon import Muon
from recipe import Recipe

from spectral_tokenizer.objectives_spectral_tokenizer import residual_chi2


OPTIONAL_INPUTS = ("labels", "target_flux")
MODEL_INPUTS = ("flux", "ivar", "wavelength", "lengths", "masked_patches", "target_patches")


def schedule(recipe: Recipe, step: int) -> float:
    """Part of the peak learning rate at a step: linear warm-up, then half a cosine down to zero."""
    if step < recipe.warmup_steps:
        return (step + 1) / recipe.warmup_steps
    progress = (step - recipe.warmup_steps) / max(recipe.num_steps - recipe.warmup_steps, 1)
    return 0.5 * (1 + math.cos(math.pi * min(progress, 1)))


def make_optimizers(model, recipe: Recipe) -> list[torch.optim.Optimizer]:
    """AdamW; or Muon (Jordan et al. 2024) for the matrices of the layers and AdamW for the rest.

    Matrices decay; biases, norms and the latents' and query's vectors do not.
    """
    named = [(name, each) for name, each in model.named_parameters() if each.requires_grad]
    inner = [name for name, each in named if recipe.optimizer == "muon" and each.ndim == 2 and "layers." in name]
    decays = [name for name, each in named if each.ndim > 1 and "latents" not in name and name not in inner]
    others = [name for name, _ in named if name not in inner and name not in decays]
    weights = dict(named)
    groups = [
        {"params": [weights[name] for name in names], "weight_decay": decay}
        for names, decay in ((decays, recipe.weight_decay), (others, 0.0))
    ]
    optimizers = [torch.optim.AdamW(groups, lr=recipe.learning_rate, fused=True)]
    if inner:
        # Its steps are scaled to AdamW's size, so that the two rates mean about the same.
        optimizers.append(
            Muon(
                [weights[name] for name in inner], lr=recipe.muon_learning_rate, weight_decay=recipe.weight_decay,
                adjust_lr_fn="match_rms_adamw",
            )
        )  # fmt: skip
    for group in (group for optimizer in optimizers for group in optimizer.param_groups):
        group["peak"] = group["lr"]  # what `schedule` is a part of
    return optimizers


def train_step(accelerator, model, optimizers, micro_batches: list[dict], recipe: Recipe, chi2: "SurveyChi2") -> dict:
    """Forward and backward over this process's micro-batches, one step of the optimisers over all processes'.

    A loss or gradient that is not finite changes no weight: the step is skipped, by all processes alike.

    Returns:
        loss, gradient_norm, and whether the step was skipped.
    """
    model.zero_grad()
    totals = torch.zeros(2, dtype=torch.float64, device=accelerator.device)
    for position, batch in enumerate(micro_batches):
        inputs = {name: batch[name] for name in (*MODEL_INPUTS, *OPTIONAL_INPUTS) if name in batch}
        for name in set(PIXELS) & set(inputs):
            inputs[name] = inputs[name].to(accelerator.device, non_blocking=True)
        is_last = position == len(micro_batches) - 1
        with nullcontext() if is_last else accelerator.no_sync(model):
            output = model(**inputs)
            cost = output.loss * output.loss_terms
            accelerator.backward(cost)
        totals += torch.stack([cost.detach().double(), output.loss_terms.double()])
        chi2.add(inputs, output, batch["survey"])
    cost, terms = accelerator.reduce(totals, "sum").tolist()
    # Gradients are sums over micro-batches, averaged over processes: this makes them those of the mean over terms.
    factor = accelerator.num_processes / max(terms, 1)
    torch._foreach_mul_([each.grad for each in model.parameters() if each.grad is not None], factor)
    norm = float(accelerator.clip_grad_norm_(model.parameters(), recipe.max_grad_norm))
    is_finite = math.isfinite(norm) and math.isfinite(cost)
    if is_finite:
        for optimizer in optimizers:
            optimizer.step()
    return {"loss": cost / max(terms, 1), "gradient_norm": norm, "skipped": not is_finite}


class SurveyChi2:
    """chi2 per hidden pixel of each survey, of the steps that are logged.

    Args:
        surveys: Their names, in one order on all processes.
        cap: Residuals count at most this many sigma.
    """

    def __init__(self, surveys: list[str], cap: float):
        self.surveys, self.cap, self.is_on = surveys, cap, False
        self.totals = torch.zeros(len(surveys), 2, dtype=torch.float64)

    @torch.no_grad()
    def add(self, inputs: dict, output, survey_of_spectrum: list[str]) -> None:
        """Only while `is_on`: steps that are not logged need not be measured."""
        if not self.is_on:
            return
        asked = (output.target_patches & output.masked_patches)[..., None] & (inputs["ivar"] > 0)
        values = torch.where(
            asked, residual_chi2(output.reconstruction, inputs["flux"], inputs["ivar"], self.cap), 0.0
        )
        per_patch = torch.stack([values.sum(-1), asked.sum(-1)], dim=-1)[0].double()
        number = torch.tensor([self.surveys.index(each) for each in survey_of_spectrum])
        survey = number.repeat_interleave(torch.tensor(inputs["lengths"]))
        self.totals.index_add_(0, survey, per_patch.cpu())

    def read(self, accelerator) -> dict[str, float]:
        """Mean over all processes, and start again. Surveys of which nothing was seen are left out."""
        totals = accelerator.reduce(self.totals.float().to(accelerator.device), "sum").tolist()
        self.totals.zero_()
        return {name: total / count for name, (total, count) in zip(self.surveys, totals) if count}
