# Copyright 2026 The spectral_tokenizer authors. Licensed under the Apache License, Version 2.0.
"""What is hidden from the encoder, what is asked of the decoder, and what a wrong answer costs.

A new objective is one class here with `hide`, `ask` and `loss`, and one line in `OBJECTIVES`.
"""

import numpy as np
import torch
from torch import Tensor


# A jump to the next patch of more than this many patch widths is a gap between arms, not a few bad pixels.
ARM_GAP = 4
# Keeps the log loss finite and stops it from rewarding chi2 far below 1, which is copied noise.
LOG_OFFSET = 0.25


def arm_index(wavelength: np.ndarray) -> np.ndarray:
    """Number the arms, chips or CCDs of one spectrum from its wavelengths alone.

    Args:
        wavelength: (patches, patch_size), vacuum Angstrom, or the first and the last of each patch alone.

    Returns:
        (patches,) integers from 0: a new arm begins where wavelength leaps, or runs back by more than a patch (less is
        the filling of a segment's last patch).
    """
    width = wavelength[:-1, -1] - wavelength[:-1, 0]
    gap = wavelength[1:, 0] - wavelength[:-1, -1]
    return np.concatenate([[0], np.cumsum((gap < -width) | (gap > ARM_GAP * width))])


def hide_random(wavelength: np.ndarray, fraction: float, generator: np.random.Generator) -> np.ndarray:
    """Hide `fraction` of the patches, drawn independently. Returns (patches,) booleans, as all `hide_*` do."""
    is_hidden = np.zeros(len(wavelength), dtype=bool)
    is_hidden[generator.permutation(len(wavelength))[: hidden_count(len(wavelength), fraction)]] = True
    return is_hidden


def hide_block(wavelength: np.ndarray, fraction: float, generator: np.random.Generator) -> np.ndarray:
    """Hide one contiguous run of patches."""
    count = hidden_count(len(wavelength), fraction)
    start = generator.integers(len(wavelength) - count + 1)
    is_hidden = np.zeros(len(wavelength), dtype=bool)
    is_hidden[start : start + count] = True
    return is_hidden


def hide_arms(wavelength: np.ndarray, fraction: float, generator: np.random.Generator) -> np.ndarray:
    """Hide whole arms, about `fraction` of them, at least one and never all; one-armed spectra lose a block."""
    arm = arm_index(wavelength)
    num_arms = int(arm[-1]) + 1
    if num_arms == 1:
        return hide_block(wavelength, fraction, generator)
    count = min(max(round(fraction * num_arms), 1), num_arms - 1)
    is_chosen = np.zeros(num_arms, dtype=bool)
    is_chosen[generator.permutation(num_arms)[:count]] = True
    return is_chosen[arm]


def hidden_count(num_patches: int, fraction: float) -> int:
    """At least one patch is hidden and at least one stays, where there are two."""
    return min(max(round(fraction * num_patches), 1), num_patches - 1)


def joined(parts: list[np.ndarray], lengths: list[int], method: str) -> Tensor:
    """What an objective's `hide` or `ask` says of each spectrum's patches, as (total,) booleans.

    Raises:
        ValueError: of one it says something else. Integers would be counted as eight patches each.
    """
    parts = [np.asarray(part) for part in parts]
    for part, length in zip(parts, lengths):
        if part.dtype != bool or part.shape != (length,):
            raise ValueError(
                f"objective: {method}: expected ({length},) booleans, one for each patch, found: {part.dtype} of shape "
                f"{part.shape}"
            )
    return torch.from_numpy(np.concatenate(parts))


def cost_of(objective, *given) -> tuple[Tensor, Tensor]:
    """What an objective's `loss` makes of its arguments: the sum of the costs and the number of terms, () each.

    Raises:
        ValueError: it is something else.
    """
    found = objective.loss(*given)
    shapes = (
        [getattr(each, "shape", ()) for each in found] if isinstance(found, tuple | list) else type(found).__name__
    )
    if shapes != [(), ()] or not isinstance(found[0], Tensor):
        raise ValueError(
            f"objective: loss: expected the sum of the costs, a tensor of shape (), and the number of terms, found: {shapes}"
        )
    cost, terms = found
    return cost, torch.as_tensor(terms, device=cost.device)


def residual_chi2(prediction: Tensor, flux: Tensor, ivar: Tensor, cap: float | None) -> Tensor:
    """Squared residual in sigma of every pixel, at most cap^2; 0 where ivar is 0. For reports, not for gradients."""
    chi2 = (prediction.float() - flux).square() * ivar
    chi2 = chi2 if cap is None else chi2.clamp(max=cap**2)
    return torch.where(ivar > 0, chi2, 0.0)


def mean_chi2(chi2: Tensor, ivar: Tensor, is_counted: Tensor) -> Tensor:
    """Mean over usable pixels of the patches (total,) that count, NaN where there is none."""
    is_counted = is_counted[:, None] & (ivar > 0)
    return torch.where(is_counted, chi2, 0.0).sum() / is_counted.sum()


class Autoencoding:
    """The paper's objective: the encoder sees every patch and the decoder gives every patch back."""

    def __init__(self, config):
        self.config = config

    def hide(self, wavelength: np.ndarray, generator: np.random.Generator) -> np.ndarray:
        """Which patches of one spectrum the encoder does not see.

        Args:
            wavelength: (patches, patch_size), vacuum Angstrom. No more may be read than the first and the last of each
                patch: streams that are simulated hand over these alone, (patches, 2).

        Returns:
            (patches,) booleans.
        """
        return np.zeros(len(wavelength), dtype=bool)

    def ask(self, is_hidden: np.ndarray, generator: np.random.Generator) -> np.ndarray:
        """Which patches of one spectrum the decoder is asked for: (patches,) -> (patches,) booleans."""
        return np.ones_like(is_hidden)

    def loss(self, prediction: Tensor, flux: Tensor, ivar: Tensor, spectrum: Tensor, num_spectra: int):
        """Cost of a prediction.

        Args:
            prediction, flux, ivar: (targets, patch_size).
            spectrum: (targets,) index of the spectrum that each target patch belongs to.
            num_spectra: Of the batch, with those that nothing is asked of.

        Returns:
            The sum of the costs and the number of terms in it. They are kept apart so that a mean over micro-batches
            and processes can be exact.
        """
        is_usable = ivar > 0
        # Where, not times zero: unusable pixels may hold anything, in ivar too, whose root has a gradient.
        weight = torch.where(is_usable, ivar, 0.0).sqrt()
        residual = torch.where(is_usable, (prediction.float() - flux) * weight, 0.0)
        cap = self.config.residual_cap
        # hypot, not the root of a sum of squares: a pixel of 1e20 sigma would overflow.
        one = residual.new_ones(())
        cost = residual.square() if cap is None else 2 * cap**2 * (torch.hypot(residual / cap, one) - 1)
        if self.config.spectrum_loss == "gaussian":
            return cost.sum(), is_usable.sum()
        per_spectrum = cost.new_zeros(num_spectra).index_add(0, spectrum, cost.sum(-1))
        pixels = cost.new_zeros(num_spectra).index_add(0, spectrum, is_usable.sum(-1).to(cost.dtype))
        terms = torch.where(pixels > 0, (LOG_OFFSET + per_spectrum / pixels.clamp(min=1)).log(), 0.0)
        return terms.sum(), (pixels > 0).sum()


class MaskedModelling(Autoencoding):
    """Patches are hidden at random, as a block or as whole arms, and asked for together with some visible ones."""

    def hide(self, wavelength: np.ndarray, generator: np.random.Generator) -> np.ndarray:
        if len(wavelength) < 2:
            return np.zeros(len(wavelength), dtype=bool)
        # What `generator.choice` draws, without its checks of the weights, which take longer than the draw.
        chances = np.cumsum(self.config.hiding_weights)
        how = np.searchsorted(chances / chances[-1], generator.random(), side="right")
        fraction = generator.uniform(*self.config.hidden_fraction)
        return list(HIDING.values())[how](wavelength, fraction, generator)

    def ask(self, is_hidden: np.ndarray, generator: np.random.Generator) -> np.ndarray:
        config = self.config
        fraction = np.where(is_hidden, config.hidden_target_fraction, config.visible_target_fraction)
        is_asked = generator.random(len(is_hidden)) < fraction
        return is_asked if is_asked.any() else np.ones_like(is_hidden)


HIDING = {"random": hide_random, "block": hide_block, "arm": hide_arms}
OBJECTIVES = {"masked": MaskedModelling, "autoencoding": Autoencoding}
