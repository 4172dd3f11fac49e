"""Galaxy spectra in the rest frame: stellar populations of the package's own stars, dust, gas and velocity dispersion.

A population of one age is a sum over its main sequence up to the turn-off and its giants, weighted by the initial
mass function; a galaxy is an old and a young population behind dust, with emission lines that follow the young one.
Vacuum Angstrom. Simplifications: a toy isochrone, one dust law, line ratios along one metallicity sequence.
"""

from functools import cache

import numpy as np

from ..wavelengths import SPEED_OF_LIGHT
from .lines import NEBULAR_LINES
from .stars import equal_blocks, star_model


STEP = 25.0  # km/s
MINIMUM, MAXIMUM = 1380.0, 10550.0
#: Turn-off temperatures (K) of populations from some 20 Myr to 12 Gyr, and the share of light from giants at 5500 A.
TURN_OFFS = ((20000.0, 0.05), (13000.0, 0.08), (9800.0, 0.12), (8000.0, 0.2), (6800.0, 0.4), (6000.0, 0.55))
METALLICITIES = (-1.0, -0.3, 0.3)


@cache
def rest_wavelength() -> np.ndarray:
    """Vacuum Angstrom of the galaxy templates, logarithmic with `STEP`."""
    return np.exp(np.arange(np.log(MINIMUM), np.log(MAXIMUM), STEP / SPEED_OF_LIGHT))


def population_stars(turn_off: float, giant_light: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Temperatures, gravities and light at 5500 Angstrom (unnormalised) of the stars of one age."""
    dwarfs = np.linspace(4200.0, turn_off, 6)
    light = (dwarfs / turn_off) ** 7  # luminosity-weighted mass function: the turn-off rules
    giants = np.array([4000.0, 4500.0, 5000.0])
    giant_weight = giant_light / (1.0 - giant_light) * light.sum() / 3.0
    gravity = np.concatenate([np.interp(dwarfs, [4200.0, 6000.0, 20000.0], [4.6, 4.2, 4.0]), [1.2, 2.0, 2.7]])
    return np.concatenate([dwarfs, giants]), gravity, np.concatenate([light, np.full(3, giant_weight)])


@cache
def templates() -> np.ndarray:
    """Populations (metallicities, ages, pixels) on `rest_wavelength`, each 1 at 5500 Angstrom."""
    model = star_model(MINIMUM * 0.998, MAXIMUM * 1.002, STEP / 3.0)
    wavelength = rest_wavelength()
    kernel = np.exp(-0.5 * (np.arange(-9, 10) / 2.0) ** 2)
    kernel /= kernel.sum()
    spectra = np.empty((len(METALLICITIES), len(TURN_OFFS), len(wavelength)), dtype=np.float32)
    for row, fe_h in enumerate(METALLICITIES):
        for column, turn_off in enumerate(TURN_OFFS):
            teff, logg, light = population_stars(*turn_off)
            labels = {"teff": teff, "logg": logg, "fe_h": np.full(9, fe_h), "alpha_m": np.full(9, -0.15 * fe_h)}
            flux, continuum = model.spectra(labels)
            at_visual = np.interp(
                np.log(5500.0), np.log(model.wavelength[::50]), np.arange(len(model.wavelength))[::50]
            )
            total = (light / continuum[:, int(at_visual)]) @ flux
            total = np.interp(wavelength, model.wavelength, np.convolve(total, kernel, mode="same"))
            spectra[row, column] = total / np.median(total[np.abs(wavelength - 5500.0) < 60.0])
    return spectra


def attenuation(wavelength: np.ndarray, visual: np.ndarray) -> np.ndarray:
    """Transmission (galaxies, pixels) of dust with `visual` magnitudes at 5500 Angstrom, slope -0.9."""
    return 10.0 ** (-0.4 * visual[:, None] * (wavelength / 5500.0) ** -0.9)


def emission_strengths(generator: np.random.Generator, metallicity: float) -> dict[str, float]:
    """Intensities relative to H beta: recombination case B, forbidden lines along the star-forming sequence."""
    nitrogen = 10.0 ** (-0.75 + 0.75 * metallicity + generator.normal(0.0, 0.08))  # [NII]6585 / Halpha
    oxygen = 10.0 ** (
        0.61 / (np.log10(nitrogen) - 0.05) + 1.3 + generator.normal(-0.15, 0.1)
    )  # Kewley & others' curve
    oxygen = float(np.clip(oxygen, 0.08, 7.0))
    doublet, sulphur = 10.0 ** generator.normal(0.42, 0.12), 10.0 ** generator.normal(-0.45, 0.1)
    ratio = {"[OIII]5008": oxygen, "[OIII]4960": oxygen / 2.98, "Halpha": 2.86, "Hbeta": 1.0, "Hgamma": 0.468}
    ratio |= {"Hdelta": 0.259, "[NII]6585": 2.86 * nitrogen, "[NII]6550": 2.86 * nitrogen / 3.05}
    ratio |= {"[OII]3727": 0.42 * doublet, "[OII]3730": 0.58 * doublet, "[NeIII]3870": 0.08 * oxygen}
    ratio |= {"[SII]6718": 2.86 * sulphur * 0.57, "[SII]6733": 2.86 * sulphur * 0.43, "[OI]6302": 0.1 * sulphur * 2.86}
    ratio |= {"HeI5877": 0.12, "[ArIII]7138": 0.08, "[SIII]9071": 0.25, "[SIII]9533": 0.62}
    return ratio | {"[OIII]4364": 0.012 * oxygen}


def add_lines(flux: np.ndarray, wavelength: np.ndarray, step: float, lines, width: float) -> None:
    """Add Gaussian lines to one spectrum: `lines` holds (center in Angstrom, area in flux x Angstrom); width in
    km/s."""
    for center, area in lines:
        middle = np.log(center / wavelength[0]) * SPEED_OF_LIGHT / step
        reach = 5.0 * width / step + 2.0
        first, last = max(0, int(middle - reach)), min(len(wavelength), int(middle + reach) + 1)
        if last > first:
            distance = (np.arange(first, last) - middle) * step / width
            sigma = width / SPEED_OF_LIGHT * center
            flux[first:last] += area / (np.sqrt(2.0 * np.pi) * sigma) * np.exp(-0.5 * distance**2)


def broaden(flux: np.ndarray, sigma: np.ndarray, step: float) -> np.ndarray:
    """Convolve each spectrum (galaxies, pixels) with a Gaussian of `sigma` km/s (galaxies,)."""
    size = flux.shape[1]
    padded = 1 << int(np.ceil(np.log2(size + 400)))
    extended = np.concatenate([flux, np.repeat(flux[:, -1:], padded - size, axis=1)], axis=1)
    frequency = np.fft.rfftfreq(padded)
    transfer = np.exp(-2.0 * (np.pi * frequency * (sigma / step)[:, None]) ** 2)
    return np.fft.irfft(np.fft.rfft(extended, axis=1) * transfer, n=padded, axis=1)[:, :size].astype(np.float32)


def galaxy_spectra(generators: list[np.random.Generator], labels: dict[str, np.ndarray]) -> np.ndarray:
    """Rest-frame flux (galaxies, pixels) on `rest_wavelength`, 1 near 5500 Angstrom.

    `labels` holds arrays (galaxies,): young (fraction of the light at 5500 A that is young), fe_h, dust (magnitudes)
    and dispersion (km/s).
    """
    wavelength, grid = rest_wavelength(), templates()
    weights = np.zeros((len(generators), *grid.shape[:2]))
    for index, generator in enumerate(generators):
        metal = np.interp(labels["fe_h"][index], METALLICITIES, np.arange(len(METALLICITIES)))
        lower = min(int(metal), len(METALLICITIES) - 2)
        shares = np.zeros(len(METALLICITIES))
        shares[lower], shares[lower + 1] = 1.0 - (metal - lower), metal - lower
        young = generator.dirichlet([1.2, 1.0, 0.7, 0.6, 0.0001, 0.0001])
        old = generator.dirichlet([0.0001, 0.0001, 0.0001, 0.1, 0.6, 3.0])
        weights[index] = np.outer(shares, labels["young"][index] * young + (1.0 - labels["young"][index]) * old)
    flux, transmission = [], []
    for block, dispersion, dust in equal_blocks(weights.astype(np.float32), labels["dispersion"], labels["dust"]):
        flux.append(broaden(np.tensordot(block, grid, axes=2), np.hypot(dispersion, 1.0), STEP))
        transmission.append(attenuation(wavelength, dust).astype(np.float32))
    flux, transmission = (np.concatenate(parts)[: len(generators)] for parts in (flux, transmission))
    for index, generator in enumerate(generators):
        young, dust = labels["young"][index], labels["dust"][index]
        equivalent_width = 20.0 * young**1.3 * 10.0 ** generator.normal(0.0, 0.3) + generator.exponential(0.25)
        ratios = emission_strengths(generator, labels["fe_h"][index])
        lines = [(NEBULAR_LINES[name], equivalent_width * ratio) for name, ratio in ratios.items()]
        width = float(np.clip(0.7 * labels["dispersion"][index], 45.0, 160.0))
        lines = [(center, area * 10.0 ** (-0.16 * dust * (center / 5500.0) ** -0.9)) for center, area in lines]
        add_lines(flux[index], wavelength, STEP, lines, width)
    return flux * transmission
