# Copyright 2026 The spectral_tokenizer authors. Licensed under the Apache License, Version 2.0.
"""How unlike those that a head was fitted to a spectrum is: what no head says of itself, as it answers to anything."""

import torch
from torch import Tensor, nn

from .configuration_spectral_tokenizer import SpectralConfig


MOST_AXES = 64  # a few dozen numbers describe most of what differs among spectra of one simulator or survey
FEATURES_AN_AXIS = 2  # something must be left that no axis describes
SPECTRA_AN_AXIS = 4  # axes through few spectra would describe their noise


class SpectralNovelty(nn.Module):
    """The part of a spectrum's features that the principal axes of the fitted ones do not describe.

    It is the residual's sum of squares Q of principal component analysis, Jackson and Mudholkar 1979,
    Technometrics 21, 341, over the number of features, each in units of its spread.
    """

    def __init__(self, config: SpectralConfig, size: int):
        super().__init__()
        self.register_buffer("center", torch.zeros(size))
        self.register_buffer("scale", torch.ones(size))
        self.register_buffer("axes", torch.zeros(config.num_novelty_axes, size))

    @staticmethod
    def num_axes(features: Tensor) -> int:
        """How many axes features (spectra, features) can tell."""
        spectra, size = features.shape
        return max(min(MOST_AXES, size // FEATURES_AN_AXIS, spectra // SPECTRA_AN_AXIS), 1)

    @torch.no_grad()
    def fit(self, features: Tensor) -> None:
        """Learn centre, spread and axes of features, (spectra, features)."""
        features = features.double()
        center, spread = features.mean(0), features.std(0)
        # As in the head: a feature that never changes must not become a division by zero.
        scale = torch.where(spread > 1e-6, spread, 1.0)
        axes = torch.linalg.svd((features - center) / scale, full_matrices=False).Vh[: len(self.axes)]
        for buffer, found in ((self.center, center), (self.scale, scale), (self.axes, axes)):
            buffer.copy_(found)

    def forward(self, features: Tensor) -> Tensor:
        """(batch, features) -> (batch,): the mean square of what is left, 0 for what the axes describe."""
        features = (features.float() - self.center.float()) / self.scale.float()
        # Not by the sums of squares' difference, which is lost in rounding where little is left.
        left = features - features @ self.axes.float().T @ self.axes.float()
        return left.square().mean(-1)
