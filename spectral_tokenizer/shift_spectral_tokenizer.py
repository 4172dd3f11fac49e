# Copyright 2026 The spectral_tokenizer authors. Licensed under the Apache License, Version 2.0.
"""Redshift read as what it is: a shift of the whole spectrum in ln(wavelength)."""

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
    """

    def __init__(self, config: SpectralConfig, target: ShiftTarget):
        super().__init__()
        settings = target.config
        self.patch_size, self.num_channels = config.patch_size, settings.num_channels
        self.num_shifts, self.step = target.num_bins, target.width
        shortest, longest = map(math.log, settings.wavelengths)
        # Pixels are shared between the two places beside them.
        self.lowest, self.num_places = shortest, math.ceil((longest - shortest) / self.step) + 1
        self.projection = nn.Linear(config.hidden_size, config.patch_size * settings.num_channels)
        self.rest = nn.Parameter(torch.empty(settings.num_channels, self.num_places + self.num_shifts - 1))

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
        return self.compare(grid.unflatten(0, (batch, self.num_places)).transpose(1, 2))

    def compare(self, said: Tensor) -> Tensor:
        """(batch, channels, places) -> (batch, num_bins): the sum over all places for every shift, by Fourier
        transforms, as thousands of shifts of thousands of places would take as long as the encoder."""
        size = 2 ** math.ceil(math.log2(self.rest.shape[1]))
        product = torch.fft.rfft(said, size).conj() * torch.fft.rfft(self.rest, size)
        # At the smallest shift a pixel is furthest to the red of the spectrum at rest.
        return torch.fft.irfft(product.sum(1), size)[:, : self.num_shifts].flip(1)


__all__ = ["SpectralShift"]
