"""M dwarfs as APOGEE sees them, cooler than the other templates of its stars: a quadratic model of PHOENIX spectra.

The model is that of J. Birky's apogee_tools (github.com/jbirky/apogee_tools, libraries/PHOENIX/cannon_phoenix): at each
pixel a constant, three labels (Teff, logg, [M/H], less pivots, over scales) and their six products.
"""

from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from spectral_tokenizer.data.simulation import apogee
from spectral_tokenizer.data.simulation.opacity import planck
from spectral_tokenizer.data.wavelengths import air_to_vacuum

from .random import Random
from .spectrographs import LogGrid, Spectrograph, broaden
from .stars import rotation_sigma


FOLDER = "apogee_tools_cannon_phoenix"
GRID = LogGrid(apogee.FIRST_LOGLAM * np.log(10.0), apogee.LOG_STEP * np.log(10.0), apogee.NUM_PIXELS)
# Rows of the lower triangle: fitted in the order of the upper one, three of four real dwarfs of the field have a gravity of 3.5
# to 3.6, where the fit ends, and not of 4.8 to 4.9.
PRODUCTS = np.tril_indices(3)


class CoolDwarfs:
    """Stars of 2,500 to 3,700 K, each of its own labels: there is no table whose rows splits could share.

    Nobody is told these labels. Which of the products is which is not written in the model's files, and the other order
    fits real spectra as well, with temperatures that differ by 30 to 80 K and gravities by up to 1.3 dex.
    """

    def __init__(self, folder: Path, device):
        self.folder, self.device = folder / FOLDER, device
        if not self.folder.is_dir():
            raise FileNotFoundError(f"cool_dwarfs: expected the templates of {FOLDER}, found none at {self.folder}")

    def load(self, name: str) -> np.ndarray:
        return np.load(self.folder / f"23k_{name}.npy", allow_pickle=False)

    @cached_property
    def coefficients(self) -> Tensor:
        """(terms, pixels) on APOGEE's pixels, NaN beyond the model's ends. Its wavelengths are in air: only so do real
        spectra at rest lie on it, to 4 km/s."""
        wavelength, terms = air_to_vacuum(self.load("wl")), self.load("coeffs").T
        moved = [np.interp(GRID.wavelength, wavelength, term, np.nan, np.nan) for term in terms]
        return torch.as_tensor(np.stack(moved), dtype=torch.float32, device=self.device)

    def draw(self, split: str, redshift: np.ndarray, random: Random) -> dict[str, Tensor]:
        generator, count = random.numpy, len(redshift)
        teff = generator.uniform(2500.0, 3700.0, count)
        logg = np.interp(teff, [2500.0, 3000.0, 3700.0], [5.2, 5.1, 4.8]) + generator.normal(0.0, 0.15, count)
        metals = np.clip(generator.normal(-0.15, 0.25, count), -0.7, 0.45)
        rotation = np.clip(2.0 + generator.exponential(12.0, count), 2.0, 60.0)
        values = {"cool_teff": teff, "cool_logg": np.clip(logg, 4.3, 5.5), "cool_m_h": metals, "rotation": rotation}
        return {name: torch.as_tensor(each, dtype=torch.float64) for name, each in values.items()}

    def apogee_flux(self, spectrograph: Spectrograph, parameters: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """As `stars.LabelledStars.apogee_flux`."""
        labels = np.stack([parameters[name].numpy() for name in ("cool_teff", "cool_logg", "cool_m_h")], axis=1)
        offset = (labels - self.load("pivots")) / self.load("scales")
        products = (offset[:, :, None] * offset[:, None, :])[:, *PRODUCTS]
        terms = np.concatenate([np.ones((len(offset), 1)), offset, products], axis=1)
        flux = torch.as_tensor(terms, dtype=torch.float32, device=self.device) @ self.coefficients
        is_known = flux.isfinite()
        broad = broaden(torch.where(is_known, flux, 1.0), rotation_sigma(parameters, self.device), GRID)
        return torch.where(is_known, broad, torch.nan), self.continuum(labels[:, 0])

    def continuum(self, teff: np.ndarray) -> Tensor:
        """A black body's of `teff` K, (stars,): (stars, pixels), 1 in the median."""
        level = planck(GRID.wavelength, teff[:, None])
        return torch.as_tensor(
            level / np.median(level, axis=1, keepdims=True), dtype=torch.float32, device=self.device
        )
