# Copyright 2026 The spectral_tokenizer authors. Licensed under the Apache License, Version 2.0.
"""Where a patch is and what it holds, as vectors: wavelength phases exact in float64, flux in units of its noise."""

import math

import torch
from torch import Tensor, nn

from .configuration_spectral_tokenizer import SpectralConfig
from .layers_spectral_tokenizer import input_dtype


# See `noise_scaled`: brings the spread of patch levels, some tenths, to the size of the other inputs together.
LEVEL_GAIN = 16


@torch.no_grad()
def wavelength_code(
    wavelength: Tensor, num_periods: int, min_period: float, max_period: float, average: str = "interval"
) -> Tensor:
    """Sines and cosines of 2 pi wavelength / period, averaged over each patch.

    At 17,000 A and a period of 0.1 A the phase is a million radians, where float32 errs by 0.1 rad. So the phase of
    each patch's middle is taken in float64 and wrapped before it is cast; offsets from the middle, at most half a
    patch, are added in float32 (error about 1e-4 rad for a patch of 44 A at a period of 0.1 A).

    Args:
        wavelength: (patches, patch_size), float64, vacuum Angstrom.
        num_periods: Periods, evenly spaced in log from `max_period` to `min_period` (Angstrom).
        average: `"interval"`: over all wavelengths from the first pixel's lower edge to the last one's upper edge,
            which is sinc(width / period) times the middle's sine and cosine. How finely the patch is sampled is then
            nowhere in its code, where an average over pixels has echoes at periods of one pixel, half a pixel, ...
            `"pixels"` (the paper): over the pixels, 32 times as many sines and cosines.

    Returns:
        (patches, 2 * num_periods) float32: the sines, then the cosines. No parameter, no buffer: nothing that a
        checkpoint, a cast or autocast could change.
    """
    if average == "interval":
        width = (wavelength[:, -1:] - wavelength[:, :1]) * (wavelength.shape[1] / max(wavelength.shape[1] - 1, 1))
        middle = (wavelength[:, -1:] + wavelength[:, :1]) / 2
        cycles, _, frequency = split_phase(middle, num_periods, min_period, max_period)
        phase = cycles * (2 * math.pi)
        return torch.sinc(width.float() * frequency).repeat(1, 2) * torch.cat([phase.sin(), phase.cos()], dim=-1)
    cycles, offset, frequency = split_phase(wavelength, num_periods, min_period, max_period)
    sines, cosines = torch.zeros_like(cycles), torch.zeros_like(cycles)
    # One pixel of every patch at a time: all of them at once would be patches x 32 x hidden numbers.
    for pixel in range(wavelength.shape[1]):
        phase = (cycles + offset[:, pixel, None] * frequency) * (2 * math.pi)
        sines += phase.sin()
        cosines += phase.cos()
    return torch.cat([sines, cosines], dim=-1) / wavelength.shape[1]


@torch.no_grad()
def wavelength_basis(wavelength: Tensor, num_periods: int, min_period: float, max_period: float) -> Tensor:
    """Sines and cosines of 2 pi wavelength / period at every pixel: functions of wavelength itself, not of a pixel's
    place in its patch. Phases as in `wavelength_code`.

    Args:
        wavelength: (patches, patch_size), float64, vacuum Angstrom.
        num_periods, min_period, max_period: As in `wavelength_code`, in Angstrom.

    Returns:
        (patches, patch_size, 2 * num_periods) float32, scaled to unit length over the last dimension.
    """
    cycles, offset, frequency = split_phase(wavelength, num_periods, min_period, max_period)
    phase = (cycles[:, None] + offset[:, :, None] * frequency) * (2 * math.pi)
    return torch.cat([phase.sin(), phase.cos()], dim=-1) * max(num_periods, 1) ** -0.5


def split_phase(wavelength: Tensor, num_periods: int, min_period: float, max_period: float):
    """Wrapped cycles of each patch's middle (patches, num_periods), pixels' offsets from it (patches, patch_size) in
    Angstrom, and frequencies (num_periods,) in cycles per Angstrom: all float32, the first from float64."""
    exponent = torch.linspace(
        math.log(max_period), math.log(min_period), num_periods, dtype=torch.float64, device=wavelength.device
    )
    frequency = (-exponent).exp()
    middle = wavelength[:, wavelength.shape[1] // 2, None]
    cycles = middle * frequency
    return (cycles - cycles.round()).float(), (wavelength - middle).float(), frequency.float()


class SpectralPatchEmbeddings(nn.Module):
    """Flux and error of a patch's pixels -> (total, hidden_size)."""

    def __init__(self, config: SpectralConfig):
        super().__init__()
        self.config = config
        features = {"noise_scaled": 3 * config.patch_size + 2, "flux_and_error": 2 * config.patch_size}
        features["noise_scaled"] += 2 * config.num_pixel_periods
        self.projection = nn.Linear(features[config.patch_inputs], config.hidden_size)

    def forward(self, flux: Tensor, ivar: Tensor, basis: Tensor) -> Tensor:
        if (alpha := getattr(self, "neftune_noise_alpha", None)) is not None:  # Trainer leaves it here
            raise ValueError(
                f"neftune_noise_alpha: expected None, found: {alpha}. Its noise is for sequences of one length, and here "
                "spectra of any length are packed: use hidden_dropout"
            )
        return self.projection(self.features(flux, ivar, basis).to(input_dtype(self.projection)))

    def features(self, flux: Tensor, ivar: Tensor, basis: Tensor) -> Tensor:
        """What the encoder is told of each patch, (total, features) float32."""
        is_usable = ivar > 0
        flux = torch.where(is_usable, flux.float(), 0.0)
        sigma = torch.where(is_usable, ivar.float(), 1.0).rsqrt()
        if self.config.patch_inputs == "flux_and_error":
            return torch.cat([flux.asinh(), torch.where(is_usable, sigma, 0.0)], dim=-1)
        return self.noise_scaled(flux, sigma, is_usable, basis)

    def noise_scaled(self, flux: Tensor, sigma: Tensor, is_usable: Tensor, basis: Tensor) -> Tensor:
        # Fed as plain flux, lines that are 5 % of the continuum vanish behind it. In units of the noise they stand
        # out.
        error = (sigma.square() + self.config.error_floor**2).sqrt()
        weight = is_usable / error.square()
        level = (weight * flux).sum(-1, keepdim=True) / weight.sum(-1, keepdim=True).clamp(min=1e-30)
        residual = torch.where(is_usable, (flux - level) / error, 0.0)
        num_usable = is_usable.sum(-1, keepdim=True).clamp(min=1)
        log_sigma = torch.where(is_usable, sigma.log().clamp(-10, 10), 0.0)
        mean_log_sigma = log_sigma.sum(-1, keepdim=True) / num_usable
        # Each of these on the scale of 1, and the one number of the level not drowned by the 32 of the pixels:
        # weights grow too slowly in training to make up for a badly scaled input.
        residual = residual.asinh() / 2
        return torch.cat(
            [
                residual,
                # The same line on a grid that is shifted by some pixels is another pattern of pixels, but the same
                # amplitudes of functions of wavelength.
                (residual[:, None] @ basis)[:, 0],
                torch.where(is_usable, log_sigma - mean_log_sigma, 0.0),
                (~is_usable).float(),
                LEVEL_GAIN * (level.asinh() - math.asinh(1)),
                mean_log_sigma + 3,
            ],
            dim=-1,
        )
