"""Seeded random numbers on any device."""

import numpy as np
import torch
from torch import Tensor


class Random:
    """Draws float32 tensors on a device. The same seeds give the same numbers on the same kind of device.

    `numpy` is a generator of its own under the same seeds, for the parts of the package's simulator that take one.
    """

    def __init__(self, *seeds: int, device: str | torch.device = "cpu"):
        self.device = torch.device(device)
        self.numpy = np.random.default_rng([abs(int(seed)) for seed in seeds])
        self.generator = torch.Generator(self.device)
        self.generator.manual_seed(int(self.numpy.integers(2**62)))

    def normal(self, *shape: int) -> Tensor:
        return torch.randn(shape, generator=self.generator, device=self.device)

    def uniform(self, *shape: int, low: float = 0.0, high: float = 1.0) -> Tensor:
        return low + (high - low) * torch.rand(shape, generator=self.generator, device=self.device)

    def exponential(self, *shape: int) -> Tensor:
        return -torch.log1p(-torch.rand(shape, generator=self.generator, device=self.device))

    def integers(self, low: int, high: int, *shape: int) -> Tensor:
        """Whole numbers from `low` to `high` - 1."""
        return torch.randint(low, high, shape, generator=self.generator, device=self.device)

    def choice(self, shares, count: int) -> Tensor:
        """`count` indices drawn with the given shares."""
        weights = torch.as_tensor(shares, dtype=torch.float32, device=self.device)
        return torch.multinomial(weights, count, replacement=True, generator=self.generator)

    def device_tensor(self, values, dtype=torch.float32) -> Tensor:
        return torch.as_tensor(np.asarray(values), dtype=dtype).to(self.device)
