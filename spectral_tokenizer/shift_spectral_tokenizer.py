# Copyright 2026 The spectral_tokenizer authors. Licensed under the Apache License, Version 2.0.
"""Redshift read as what it is: a shift of the whole spectrum in ln(wavelength)."""

import itertools
import math

import torch
from torch import Tensor, nn

from .configuration_spectral_tokenizer import SpectralConfig
from .targets_spectral_tokenizer import ShiftTarget


class SpectralShift(nn.Module):
    """Tokens of a spectrum -> for each of many shifts, how well it agrees with spectra at rest that are learnt.

    Each token says a few numbers (channels) of each of its pixels, by one linear layer. They are compared with the same
    channels of a spectrum at rest, at the place that the pixel has there if the shift is u = ln(1 + z):

        logit(u) = sum over usable pixels and channels of  said(pixel) * rest(ln wavelength - u)

    which is the cross-correlation of Tonry & Davis (1979, AJ 84, 1511), with both sides of it learnt. All shifts share
    the spectrum at rest, so that what was learnt of a line at one redshift is known at all others; and pixels are placed
    by their wavelengths, so that the answer is as fine as the grid they came on, whatever survey's that is.

    Stars, galaxies and quasars have little in common at rest. With `num_kinds` there are as many such spectra, and the
    answer is a mixture, its shares read from the mean token of the spectrum:

        logit(u) = ln sum over kinds of  share(kind) * exp(logit(u) of that kind's spectrum at rest)

    Nobody says which object is of which kind; the mixture finds what helps.
    """

    def __init__(self, config: SpectralConfig, target: ShiftTarget):
        super().__init__()
        settings = target.config
        self.patch_size, self.num_channels = config.patch_size, settings.num_channels
        self.num_shifts, self.step, self.num_kinds = target.num_bins, target.width, settings.num_kinds
        shortest, longest = map(math.log, settings.wavelengths)
        # Pixels are shared between the two places beside them.
        self.lowest, self.num_places = shortest, math.ceil((longest - shortest) / self.step) + 1
        self.projection = nn.Linear(config.hidden_size, config.patch_size * settings.num_channels)
        num_at_rest = self.num_places + self.num_shifts - 1
        self.rest = nn.Parameter(torch.empty(self.num_kinds * settings.num_channels, num_at_rest))
        self.size_of_transforms = fast_size(num_at_rest)
        if self.num_kinds > 1:
            self.kind_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
            self.kind = nn.Linear(config.hidden_size, self.num_kinds)

    def forward(self, tokens: Tensor, wavelength: Tensor, is_usable: Tensor) -> Tensor:
        """
        Args:
            tokens: (batch, patches, hidden_size), of the encoder. What stands where there is no patch is not looked at.
            wavelength: (batch, patches, patch_size) float64, vacuum Angstrom.
            is_usable: (batch, patches, patch_size) booleans.

        Returns:
            (batch, num_bins) logits, by ascending shift. Zeros of spectra without a usable pixel among `wavelengths`.
        """
        place = (torch.where(is_usable, wavelength, 1.0).log() - self.lowest) / self.step
        is_inside = is_usable & (place >= 0) & (place < self.num_places - 1)
        place = torch.where(is_inside, place, 0.0)
        left = place.long()
        share = (place - left).to(tokens.dtype)[..., None]
        said = self.projection(tokens).unflatten(-1, (self.patch_size, self.num_channels))
        said = torch.where(is_inside[..., None], said, 0.0)
        batch = tokens.shape[0]
        index = (left + self.num_places * torch.arange(batch, device=left.device)[:, None, None]).flatten()
        grid = said.new_zeros(batch * self.num_places, self.num_channels)
        grid = grid.index_add(0, index, (said * (1 - share)).flatten(0, 2))
        grid = grid.index_add(0, index + 1, (said * share).flatten(0, 2))
        agreement = self.compare(grid.unflatten(0, (batch, self.num_places)).transpose(1, 2))
        if self.num_kinds == 1:
            return agreement[:, 0]
        has_pixel = is_inside.any(-1)
        mixture = (agreement + self.log_shares(tokens, has_pixel)[..., None]).logsumexp(1)
        return torch.where(has_pixel.any(1, keepdim=True), mixture, 0.0)  # shares add up to 1 but for rounding

    def log_shares(self, tokens: Tensor, has_pixel: Tensor) -> Tensor:
        """Tokens, and (batch, patches) booleans that say which are looked at -> (batch, num_kinds), of sum 1 in exp."""
        tokens, count = torch.where(has_pixel[..., None], tokens, 0.0), has_pixel.sum(1, keepdim=True)
        return self.kind(self.kind_norm(tokens.sum(1) / count.clamp(min=1))).log_softmax(-1)

    def compare(self, said: Tensor) -> Tensor:
        """(batch, channels, places) -> (batch, num_kinds, num_bins): the sum over all places for every shift, by Fourier
        transforms, as thousands of shifts of thousands of places would take as long as the encoder."""
        size = self.size_of_transforms
        # Not in half precision, which Fourier transforms do not know.
        dtype = torch.promote_types(said.dtype, torch.float32)
        said, rest = torch.fft.rfft(said.to(dtype), size).conj(), torch.fft.rfft(self.rest.to(dtype), size)
        # Kind by kind: one product of matrices for every frequency took three times as long.
        product = torch.stack([(said * each).sum(1) for each in rest.chunk(self.num_kinds)], dim=1)
        # At the smallest shift a pixel is furthest to the red of the spectrum at rest.
        return torch.fft.irfft(product, size)[..., : self.num_shifts].flip(-1)


def fast_size(count: int) -> int:
    """The least number from `count` on without a prime factor above 5: Fourier transforms of that size are fast, and the
    next power of two may be almost twice as long."""
    return next(size for size in itertools.count(count) if 30 ** size.bit_length() % size == 0)


__all__ = ["SpectralShift"]
