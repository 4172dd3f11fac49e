"""Quasars in the rest frame: redrock's principal components, or the package's own, behind the intergalactic medium."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from spectral_tokenizer.data.simulation import quasars as physics
from spectral_tokenizer.data.wavelengths import SPEED_OF_LIGHT

from .random import Random
from .spectrographs import LogGrid
from .template_files import read_redrock


GRID = LogGrid.from_range(700.0, 9600.0, 35.0)
REDSHIFTS = (0.1, 4.0)
FOREST_PIXELS = int(np.log(physics.LYMAN_ALPHA * 1.02 / 700.0) / GRID.step)
LOWEST_FOREST = 1.8  # below it all of these pixels are bluer than 3,480 Angstrom, where no survey looks
#: Parameters of what lies before a quasar.
ABSORPTION = (
    "redshift", "damped", "damped_center", "limit", "limit_depth", "trough_depth", "trough_velocity", "trough_breadth",
    "field",
)  # fmt: skip
#: Of redrock's components the first is fixed by the level, the others are drawn from a Gaussian fitted to 15 (LOZ)
#: and 26 (HIZ) quasars of SDSS with S/N above 3 (least squares at their pipeline redshift, forest left out,
#: coefficients beyond four robust sigma left out): mean, and the lower Cholesky factor of the covariance, in units
#: of the level in the given window; `lowest` is what their flux falls to, relative to its median, redward of the
#: forest.
COEFFICIENTS = {
    "LOZ": {
        "window": (2400.0, 2600.0),
        "redshifts": (0.1, 1.45),
        "lowest": 0.35,
        "mean": (95.92, -9.945, 4.673),
        "factor": ((159.9, 0.0, 0.0), (0.813, 10.46, 0.0), (-12.03, -6.22, 37.71)),
    },
    "HIZ": {
        "window": (1430.0, 1470.0),
        "redshifts": (1.45, 4.0),
        "lowest": 0.15,
        "mean": (16.71, 4.595, -0.327),
        "factor": ((12.52, 0.0, 0.0), (2.827, 9.005, 0.0), (1.638, 0.615, 2.429)),
    },
}


class Part(NamedTuple):
    """One of redrock's two files: basis vectors, the facts of `COEFFICIENTS`, every 20th pixel, level in its
    window."""

    basis: Tensor
    facts: dict
    coarse: np.ndarray
    level: np.ndarray


class Components:
    """redrock's quasar templates v1.1: LOZ below redshift 1.45 (it ends at 9,633 Angstrom), HIZ above (4,498).

    The continuum is free of absorption: the forest is added here. A random slope and dust widen the family.
    """

    redshifts = REDSHIFTS

    def __init__(self, folder: Path, device):
        self.parts = []
        for name, facts in COEFFICIENTS.items():
            basis, _, _ = read_redrock(folder / f"redrock/rrtemplate-QSO-{name}-v1.1.fits", GRID)
            window = (GRID.wavelength > facts["window"][0]) & (GRID.wavelength < facts["window"][1])
            level = basis[:, window].mean(axis=1)
            self.parts.append(
                Part(torch.as_tensor(basis, dtype=torch.float32, device=device), facts, basis[:, ::20], level)
            )

    def draw(self, split: str, redshift: np.ndarray, random: Random) -> dict[str, Tensor]:
        is_high = redshift >= COEFFICIENTS["HIZ"]["redshifts"][0]
        free = random.numpy.normal(size=(len(redshift), 3))
        coefficients = np.zeros((len(redshift), 4))
        for members, part in zip((~is_high, is_high), self.parts):
            coefficients[members] = self.coefficients(part, free[members], redshift[members])
        return {
            "coefficients": random.device_tensor(coefficients),
            "is_high": torch.as_tensor(is_high, device=random.device),
            "slope": random.device_tensor(random.numpy.normal(0.0, 0.15, len(redshift))),
            "dust": random.device_tensor(random.numpy.exponential(0.05, len(redshift))),
        } | draw_absorption(redshift, random)

    @staticmethod
    def coefficients(part: Part, free: np.ndarray, redshift: np.ndarray) -> np.ndarray:
        """Coefficients of normal deviates `free` (quasars, 3), pulled towards the mean where the spectrum would
        fall below what the fitted quasars have: a Gaussian of so few knows no positivity."""
        level, facts, wavelength = part.level, part.facts, GRID.wavelength[::20]
        observed = wavelength * (1.0 + redshift[:, None])
        is_seen = (observed > 3550.0) & (observed < 10400.0) & (wavelength > 1230.0)
        while True:
            others = facts["mean"] + free @ np.array(facts["factor"]).T
            first = (1.0 - others @ level[1:]) / level[0]
            coefficients = np.concatenate([first[:, None], others], axis=1)
            flux = np.where(is_seen, coefficients @ part.coarse, np.nan)
            is_low = np.nanmin(flux, axis=1) < facts["lowest"] * np.nanmedian(flux, axis=1)
            if not is_low.any():
                return coefficients
            free = np.where(is_low[:, None], 0.8 * free, free)

    def spectra(self, parameters: dict[str, Tensor]) -> Tensor:
        low, high = (parameters["coefficients"] @ part.basis for part in self.parts)
        flux = torch.where(parameters["is_high"][:, None], high, low).clamp_min(0.01)
        ratio = torch.as_tensor(GRID.wavelength / 3000.0, dtype=torch.float32, device=flux.device)
        exponent = parameters["slope"][:, None] * ratio.log()
        exponent = exponent - parameters["dust"][:, None] * (ratio**-1.4 - 1.0)
        return absorbed(flux * exponent.exp(), parameters)


class PhysicalQuasars:
    """The package's own quasars."""

    redshifts = REDSHIFTS

    def __init__(self, device):
        self.wavelength = physics.rest_wavelength()

    def draw(self, split: str, redshift: np.ndarray, random: Random) -> dict[str, Tensor]:
        spectra = np.stack([physics.quasar_spectrum(random.numpy, troughs=0.0) for _ in redshift])
        position = (GRID.start + GRID.step * np.arange(GRID.size) - np.log(self.wavelength[0])) / np.log(
            self.wavelength[1] / self.wavelength[0]
        )
        index = np.clip(position.astype(int), 0, len(self.wavelength) - 2)
        fraction = (position - index).astype(np.float32)
        flux = spectra[:, index] * (1.0 - fraction) + spectra[:, index + 1] * fraction
        return {"flux": random.device_tensor(flux)} | draw_absorption(redshift, random)

    def spectra(self, parameters: dict[str, Tensor]) -> Tensor:
        return absorbed(parameters["flux"], parameters)


def draw_absorption(redshift: np.ndarray, random: Random) -> dict[str, Tensor]:
    """What stands between a quasar and us: the forest's field, a damped system, a Lyman limit, a broad trough."""
    count, generator = len(redshift), random.numpy
    has_damped, has_trough = generator.random(count) < 0.06, generator.random(count) < 0.08
    values = {
        "redshift": redshift,
        "damped": np.where(has_damped, 10.0 ** generator.uniform(0.0, 0.9, count) * physics.DAMPED_WING, 0.0),
        "damped_center": generator.uniform(physics.LYMAN_BETA, physics.LYMAN_ALPHA, count),
        "limit": physics.LYMAN_LIMIT * (1.0 - generator.exponential(0.06, count)),
        "limit_depth": generator.uniform(0.5, 4.0, count),
        "trough_depth": np.where(has_trough, generator.uniform(0.4, 0.95, count), 0.0),
        "trough_velocity": generator.uniform(4e3, 1.8e4, count),
        "trough_breadth": generator.uniform(8e2, 3e3, count),
    }
    return {name: random.device_tensor(each) for name, each in values.items()} | {
        "field": random.normal(count, FOREST_PIXELS),
        "troughs": random.device_tensor(np.flatnonzero(has_trough), torch.int64),
        "forests": random.device_tensor(np.flatnonzero(redshift > LOWEST_FOREST), torch.int64),
    }


def absorbed(flux: Tensor, parameters: dict[str, Tensor]) -> Tensor:
    """Flux behind the intergalactic medium (mean opacity, log-normal field: see the package's quasars) and troughs."""
    wavelength = torch.as_tensor(GRID.wavelength, dtype=torch.float32, device=flux.device)
    flux = flux.clone()
    for members, transmission in (("troughs", trough_transmission), ("forests", forest_transmission)):
        rows = parameters[members]
        if len(rows):
            passed = transmission(wavelength, {name: parameters[name][rows] for name in ABSORPTION})
            flux[rows, : passed.shape[1]] *= passed
    return flux


def trough_transmission(wavelength: Tensor, parameters: dict[str, Tensor]) -> Tensor:
    """(quasars, pixels) what broad troughs blueward of three lines let through."""
    passed = 1.0
    for line in (1549.06, 1397.8, 1240.14):
        velocity = (wavelength / line).log() * SPEED_OF_LIGHT + parameters["trough_velocity"][:, None]
        shape = torch.exp(-((velocity / parameters["trough_breadth"][:, None]) ** 4))
        passed = passed * (1.0 - parameters["trough_depth"][:, None] * shape)
    return passed


def forest_transmission(wavelength: Tensor, parameters: dict[str, Tensor]) -> Tensor:
    """(quasars, `FOREST_PIXELS`) what the forest, a damped system and a Lyman limit let through."""
    rest = wavelength[:FOREST_PIXELS]
    redshift = parameters["redshift"][:, None]
    mean = 0.0023 * ((1.0 + redshift) * rest / physics.LYMAN_ALPHA) ** 3.65
    amplitude = log_interpolate(mean, *physics.FOREST_AMPLITUDE)
    opacity = amplitude * torch.exp(2.0 * smooth_field(parameters["field"]))
    opacity = opacity * ((physics.LYMAN_ALPHA / rest - 1.0) / 0.01).clamp(0.0, 1.0)
    shift = round(np.log(physics.LYMAN_ALPHA / physics.LYMAN_BETA) / GRID.step)
    total = opacity.clone()
    total[:, :-shift] += 0.16 * opacity[:, shift:]
    distance = (rest / parameters["damped_center"][:, None] - 1.0) * physics.LYMAN_ALPHA  # in the absorber's frame
    total += parameters["damped"][:, None] / (distance**2 + 0.01)
    edge = parameters["limit"][:, None]
    total += torch.where(rest < edge, parameters["limit_depth"][:, None] * (rest / edge) ** 3, 0.0)
    return torch.exp(-total.clamp_max(50.0))


def smooth_field(field: Tensor) -> Tensor:
    """White noise -> unit variance, smoothed to some 52 km/s."""
    width = 52.0 / GRID.velocity
    kernel = torch.exp(-0.5 * (torch.arange(-6, 7, device=field.device) / width) ** 2)
    kernel = kernel / kernel.square().sum().sqrt()
    return torch.nn.functional.conv1d(field[:, None], kernel[None, None], padding=6)[:, 0]


def log_interpolate(values: Tensor, known, amplitudes) -> Tensor:
    """Amplitudes at `values`, straight lines between logarithms, level beyond the ends."""
    logs = [torch.as_tensor(np.log(each), dtype=torch.float32, device=values.device) for each in (known, amplitudes)]
    position = values.log().clamp(logs[0][0], logs[0][-1])
    index = torch.searchsorted(logs[0], position.contiguous()).clamp(1, len(logs[0]) - 1)
    fraction = (position - logs[0][index - 1]) / (logs[0][index] - logs[0][index - 1])
    return torch.exp(logs[1][index - 1] + fraction * (logs[1][index] - logs[1][index - 1]))


def draw_redshift(random: Random, count: int, limits: tuple[float, float] = REDSHIFTS) -> np.ndarray:
    """Half of the quasars below 1.9, half above, where the forest is seen."""
    near = random.numpy.uniform(limits[0], 1.9, count)
    tail = 1.0 - np.exp(-(limits[1] - 1.9) / 0.6)
    far = 1.9 - 0.6 * np.log(1.0 - tail * random.numpy.random(count))
    return np.where(random.numpy.random(count) < 0.55, near, far)
