"""Galaxies in the rest frame: redrock's archetypes, E-MILES stellar populations with gas, or the package's own.

A source draws parameters of objects and turns them into spectra on its grid; it knows which redshifts it is fit for.
"""

from pathlib import Path

import numpy as np
import torch
from astropy.io import fits
from torch import Tensor

from spectral_tokenizer.data.simulation import galaxies as physics
from spectral_tokenizer.data.simulation.lines import NEBULAR_LINES
from spectral_tokenizer.data.simulation.population import draw_galaxy
from spectral_tokenizer.data.wavelengths import SPEED_OF_LIGHT, air_to_vacuum

from .dust import of_galaxies, transmission
from .random import Random
from .spectrographs import LogGrid, broaden
from .template_files import read_redrock, regrid, split_shapes


GRID = LogGrid.from_range(1430.0, 10450.0, 25.0)
NORMALISATION = (4150.0, 4250.0)  # vacuum Angstrom, rest frame: seen by both optical surveys at every redshift used


class Archetypes:
    """redrock's galaxy templates: principal components with the coefficients of 750 archetypes.

    Half of the objects are one archetype, half a mixture of two of the same split. The templates end at 10,000
    Angstrom, hence a lowest redshift; below some 2,000 Angstrom a sixth of them dips below zero, which is cut off.
    """

    redshifts = (0.05, 1.4)

    def __init__(self, folder: Path, device):
        basis, coefficients, _ = read_redrock(folder / "redrock/rrtemplate-galaxy-oldhistory.fits", GRID)
        level = coefficients @ basis[:, within(GRID, *NORMALISATION)].mean(axis=1)
        shapes = split_shapes("redrock galaxy", coefficients)
        self.rows = {split: rows[level[rows] > 0] for split, rows in shapes.items()}
        self.basis = torch.as_tensor(basis, dtype=torch.float32, device=device)
        self.dust_law = of_galaxies(GRID.wavelength, device)
        self.coefficients = torch.as_tensor(
            coefficients / np.where(level > 0, level, 1.0)[:, None], dtype=torch.float32, device=device
        )

    def draw(self, split: str, redshift: np.ndarray, random: Random) -> dict[str, Tensor]:
        rows = random.numpy.choice(self.rows[split], (len(redshift), 2))
        share = np.where(random.numpy.random(len(redshift)) < 0.5, 1.0, random.numpy.random(len(redshift)))
        mixed = self.coefficients[rows[:, 0]] * random.device_tensor(share)[:, None]
        mixed += self.coefficients[rows[:, 1]] * random.device_tensor(1.0 - share)[:, None]
        dust = random.numpy.exponential(0.15, len(redshift))
        return {"coefficients": mixed, "dust": random.device_tensor(dust), "rows": torch.as_tensor(rows)}

    def spectra(self, parameters: dict[str, Tensor]) -> Tensor:
        flux = (parameters["coefficients"] @ self.basis).clamp_min(0.0)
        return flux * transmission(parameters["dust"], self.dust_law)


class Populations:
    """Stellar populations (metallicities x ages) with dust, velocity dispersion and emission lines that follow the
    young ones, after the package's own galaxies; its subclasses say whose populations."""

    redshifts = (0.01, 1.05)
    own_dispersion: float  # km/s, of the templates: part of the galaxy's dispersion
    templates: np.ndarray
    metallicities: np.ndarray

    def __init__(self, device):
        flat = self.templates.reshape(-1, self.templates.shape[-1])
        self.basis = torch.as_tensor(flat, dtype=torch.float32, device=device)
        self.lines, self.dust_law = EmissionLines(device), of_galaxies(GRID.wavelength, device)

    def draw(self, split: str, redshift: np.ndarray, random: Random) -> dict[str, Tensor]:
        generator, rows = random.numpy, []
        for _ in redshift:
            labels, _ = draw_galaxy(generator, "desi")
            rows.append((*labels.values(), *self.weights(generator, labels), *self.lines.areas(generator, labels)))
        values = random.device_tensor(rows)
        count = len(self.basis)
        names = ("young", "fe_h", "dust", "dispersion")
        parameters = {name: values[:, column] for column, name in enumerate(names)}
        return parameters | {"weights": values[:, 4 : 4 + count], "areas": values[:, 4 + count :]}

    def weights(self, generator: np.random.Generator, labels: dict[str, float]) -> np.ndarray:
        """Light of every population at the normalisation, summing up to 1."""
        num_metals, num_ages = self.templates.shape[:2]
        metal = np.interp(labels["fe_h"], self.metallicities, np.arange(num_metals))
        lower = min(int(metal), num_metals - 2)
        shares = np.zeros(num_metals)
        shares[lower], shares[lower + 1] = 1.0 - (metal - lower), metal - lower
        half = num_ages // 2
        young = np.concatenate([generator.dirichlet([1.2, 1.0, 0.7][:half] + [0.6] * (half - 3)), np.zeros(half)])
        old = np.concatenate([np.zeros(half), generator.dirichlet([0.3, 1.0, 3.0][:half])])
        return np.outer(shares, labels["young"] * young + (1.0 - labels["young"]) * old).ravel()

    def spectra(self, parameters: dict[str, Tensor]) -> Tensor:
        flux = parameters["weights"] @ self.basis
        extra = (parameters["dispersion"] ** 2 - self.own_dispersion**2).clamp_min(1.0).sqrt()
        flux = broaden(flux, extra, GRID)
        width = (0.7 * parameters["dispersion"]).clamp(45.0, 160.0)
        return self.lines.add(flux, parameters["areas"], width) * transmission(parameters["dust"], self.dust_law)


class EMILES(Populations):
    """E-MILES populations: 3 metallicities x 6 ages from 63 Myr to 17.8 Gyr, on the LIS-5.0 system: 5 Angstrom full
    width, so that no galaxy has narrower absorption than 122 km/s at 5200 Angstrom."""

    own_dispersion = 122.0
    metallicities = np.array([-1.31, -0.40, 0.0])
    ages = ("00.0631", "00.2512", "01.0000", "04.4668", "12.5893", "17.7828")

    def __init__(self, folder: Path, device):
        self.templates = np.stack(
            [
                np.stack([self.read(folder, metallicity, age) for age in self.ages])
                for metallicity in ("m1.31", "m0.40", "p0.00")
            ]
        )
        super().__init__(device)

    @staticmethod
    def read(folder: Path, metallicity: str, age: str) -> np.ndarray:
        path = folder / "emiles_ssp" / f"Ech1.30Z{metallicity}T{age}_iPp0.00_baseFe_LIS5.0.fits.gz"
        with fits.open(path) as hdus:
            header, flux = hdus[0].header, np.asarray(hdus[0].data, dtype=np.float64)
        air = header["CRVAL1"] + header["CDELT1"] * np.arange(len(flux))
        spectrum = regrid(air_to_vacuum(air), flux, GRID)[0]
        return spectrum / np.median(spectrum[within(GRID, *NORMALISATION)])


class PhysicalGalaxies(Populations):
    """The package's own populations: any redshift that its templates (1,380 to 10,550 Angstrom) reach."""

    redshifts = (0.01, 1.4)
    own_dispersion = 22.0  # of the package's sampling, and of `regrid`
    metallicities = np.array(physics.METALLICITIES)

    def __init__(self, device):
        flux = regrid(physics.rest_wavelength(), physics.templates().reshape(-1, physics.templates().shape[-1]), GRID)
        flux /= np.median(flux[:, within(GRID, *NORMALISATION)], axis=1, keepdims=True)
        self.templates = flux.reshape(*physics.templates().shape[:2], -1)
        super().__init__(device)


class EmissionLines:
    """Gaussian lines on `GRID`: the package's nebular lines and their ratios."""

    def __init__(self, device):
        self.names = list(NEBULAR_LINES)
        centers = np.array([NEBULAR_LINES[name] for name in self.names])
        middle = (np.log(centers) - GRID.start) / GRID.step
        reach = int(np.ceil(5.0 * 160.0 / GRID.velocity))
        index = np.round(middle).astype(int)[:, None] + np.arange(-reach, reach + 1)
        self.index = torch.as_tensor(np.clip(index, 0, GRID.size - 1).ravel(), device=device)
        self.velocity = torch.as_tensor((index - middle[:, None]) * GRID.velocity, dtype=torch.float32, device=device)
        self.centers = torch.as_tensor(centers, dtype=torch.float32, device=device)

    def areas(self, generator: np.random.Generator, labels: dict[str, float]) -> list[float]:
        """Equivalent widths in Angstrom at the normalisation, a young population's gas: see the package's galaxies."""
        width = 20.0 * labels["young"] ** 1.3 * 10.0 ** generator.normal(0.0, 0.3) + generator.exponential(0.25)
        ratios = physics.emission_strengths(generator, labels["fe_h"])
        # Gas is dustier than stars.
        dust = {name: 10.0 ** (-0.16 * labels["dust"] * (NEBULAR_LINES[name] / 5500.0) ** -0.9) for name in self.names}
        return [width * ratios.get(name, 0.0) * dust[name] for name in self.names]

    def add(self, flux: Tensor, areas: Tensor, width: Tensor) -> Tensor:
        """`areas` (spectra, lines) in flux x Angstrom, `width` (spectra,) in km/s."""
        profile = torch.exp(-0.5 * (self.velocity / width[:, None, None]) ** 2)
        sigma = width[:, None] / SPEED_OF_LIGHT * self.centers
        profile *= (areas / (np.sqrt(2.0 * np.pi) * sigma))[:, :, None]
        return flux.index_add(1, self.index, profile.flatten(1))


def within(grid: LogGrid, low: float, high: float) -> np.ndarray:
    wavelength = grid.wavelength
    return (wavelength > low) & (wavelength < high)


def draw_redshift(random: Random, count: int, limits: tuple[float, float]) -> np.ndarray:
    """Redshifts as SDSS and DESI have them together: many near, luminous red and emission-line galaxies far."""
    ranges = np.array([(0.01, 0.5), (0.3, 1.0), (0.6, 1.4)])
    chosen = ranges[random.numpy.choice(3, count, p=(0.5, 0.25, 0.25))]
    low, high = np.maximum(chosen[:, 0], limits[0]), np.minimum(chosen[:, 1], limits[1])
    return random.numpy.uniform(low, high)
