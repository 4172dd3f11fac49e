"""Dust before stars and in galaxies, as in the package's simulator (`spectral_tokenizer.data.simulation`)."""

import numpy as np
import torch
from torch import Tensor


def interstellar(wavelength: np.ndarray, device=None) -> Tensor:
    """(pixels,) extinction in magnitudes for each at 5500 Angstrom, less what is there; slope -1.3."""
    return torch.as_tensor((wavelength / 5500.0) ** -1.3 - 1.0, dtype=torch.float32, device=device)


def of_galaxies(wavelength: np.ndarray, device=None) -> Tensor:
    """(pixels,) extinction over that at 5500 Angstrom, slope -0.9."""
    return torch.as_tensor((wavelength / 5500.0) ** -0.9, dtype=torch.float32, device=device)


def transmission(visual: Tensor, law: Tensor) -> Tensor:
    """Transmission (spectra, pixels) of dust of `visual` magnitudes at 5500 Angstrom by one of these laws."""
    return torch.exp(-0.4 * np.log(10.0) * visual[:, None] * law)
