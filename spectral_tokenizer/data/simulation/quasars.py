"""Quasar spectra: power law, broad and narrow lines, iron, and the absorption of the intergalactic medium.

Rest frame, vacuum Angstrom. Widths and strengths scatter about a composite (see lines.py); the Lyman-alpha forest is
a log-normal field with the observed mean opacity. Simplifications: no host galaxy, no associated absorption beyond
an occasional broad trough, an iron template made of Gaussians.
"""

from functools import cache

import numpy as np

from ..wavelengths import SPEED_OF_LIGHT
from .galaxies import add_lines
from .lines import BROAD_LINES, FOREST_SEED, NEBULAR_LINES


STEP = 50.0  # km/s
MINIMUM, MAXIMUM = 640.0, 9700.0
LYMAN_ALPHA, LYMAN_BETA, LYMAN_LIMIT = 1215.67, 1025.72, 911.75
FOREST_STEP = 20.0  # km/s
#: Opacity of a damped system of 10^20.3 atoms/cm2 at one Angstrom from Lyman alpha, in its own frame: the wing that
#: has the equivalent width 7.3 (N / 10^20)^(1/2) Angstrom = 2 (pi opacity)^(1/2).
DAMPED_WING = 8.5
#: Mean opacity -ln<transmission>, and the amplitude of a log-normal opacity (sigma 2) that has it; by Monte Carlo.
FOREST_AMPLITUDE = ((0.05, 0.1, 0.2, 0.4, 0.8, 1.2, 2.4), (0.0101, 0.0247, 0.0669, 0.208, 0.796, 1.98, 12.0))


@cache
def rest_wavelength() -> np.ndarray:
    """Vacuum Angstrom of the quasar templates, logarithmic with `STEP`."""
    return np.exp(np.arange(np.log(MINIMUM), np.log(MAXIMUM), STEP / SPEED_OF_LIGHT))


@cache
def iron_template() -> np.ndarray:
    """Fe II pseudo-continuum: seeded Gaussians under the known ultraviolet (2200 to 3050) and optical humps."""
    generator = np.random.default_rng([FOREST_SEED, 77])
    wavelength, template = rest_wavelength(), np.zeros(len(rest_wavelength()), dtype=np.float64)
    for low, high, count, height in ((1950, 2250, 25, 0.3), (2230, 2680, 70, 1.0), (2700, 3050, 40, 0.45)):
        lines = [(generator.uniform(low, high), height * generator.exponential(10.0)) for _ in range(count)]
        add_lines(template, wavelength, STEP, lines, 1600.0)
    for low, high, count, height in ((4450, 4700, 30, 0.55), (5120, 5420, 35, 0.5)):
        lines = [(generator.uniform(low, high), height * generator.exponential(12.0)) for _ in range(count)]
        add_lines(template, wavelength, STEP, lines, 1600.0)
    return template / template.max()


def quasar_spectrum(generator: np.random.Generator, troughs: float = 0.08) -> np.ndarray:
    """Rest-frame flux of one quasar on `rest_wavelength`, before the intergalactic medium, 1 at 3000 Angstrom; a part
    `troughs` of them has broad absorption."""
    wavelength = rest_wavelength()
    slope, break_slope = generator.normal(-1.55, 0.3), generator.normal(-0.5, 0.2)
    continuum = (wavelength / 3000.0) ** slope
    redward = wavelength > 4800.0  # host and hot dust flatten the power law
    continuum[redward] = (4800.0 / 3000.0) ** slope * (wavelength[redward] / 4800.0) ** break_slope
    blueward = wavelength < 1150.0
    continuum[blueward] *= (wavelength[blueward] / 1150.0) ** 1.2
    dust = generator.exponential(0.06)
    continuum *= np.exp(-dust * ((wavelength / 3000.0) ** -1.4 - 1.0))
    flux = continuum * (1.0 + generator.uniform(0.05, 0.45) * iron_template())
    strength, width = 10.0 ** generator.normal(0.0, 0.15), 10.0 ** generator.normal(0.0, 0.12)
    for center, equivalent_width, sigma, shift in BROAD_LINES.values():
        area = equivalent_width * strength * 10.0 ** generator.normal(0.0, 0.1)
        center = center * (1.0 - shift * generator.uniform(0.3, 1.7) / SPEED_OF_LIGHT)
        level = np.interp(center, wavelength, continuum)
        add_lines(flux, wavelength, STEP, [(center, area * level)], sigma * width)
    add_narrow_lines(generator, flux, np.interp(5008.0, wavelength, continuum))
    if generator.random() < troughs:  # a broad absorption trough blueward of C IV and Si IV
        velocity, breadth, depth = (
            generator.uniform(4e3, 1.8e4),
            generator.uniform(8e2, 3e3),
            generator.uniform(0.4, 0.95),
        )
        for line in (1549.06, 1397.8, 1240.14):
            distance = np.log(wavelength / line) * SPEED_OF_LIGHT + velocity
            flux *= 1.0 - depth * np.exp(-((distance / breadth) ** 4))
    return flux.astype(np.float32)


def add_narrow_lines(generator: np.random.Generator, flux: np.ndarray, level: float) -> None:
    """Add narrow lines of the quasar's host: [OIII] of 5 to 60 Angstrom and what goes with it."""
    oxygen = level * 14.0 * 10.0 ** generator.normal(0.0, 0.35)
    ratios = {"[OIII]5008": 1.0, "[OIII]4960": 1 / 2.98, "Hbeta": 0.12, "Halpha": 0.35, "[NII]6585": 0.3}
    ratios |= {"[NII]6550": 0.1, "[OII]3727": 0.09, "[OII]3730": 0.1, "[NeIII]3870": 0.1, "[NeV]3427": 0.08}
    ratios |= {"[SII]6718": 0.06, "[SII]6733": 0.06}
    lines = [(NEBULAR_LINES[name], oxygen * ratio) for name, ratio in ratios.items()]
    add_lines(flux, rest_wavelength(), STEP, lines, generator.uniform(150.0, 320.0))


def forest_transmission(generator: np.random.Generator, redshift: float) -> tuple[np.ndarray, np.ndarray]:
    """Observed vacuum Angstrom and transmission of the Lyman-alpha and beta forests and one Lyman-limit system.

    Mean opacity 0.0023 (1 + z)^3.65 (Kim et al. 2007); log-normal field smoothed to some 60 km/s, sigma 2 in the log
    of the opacity. A damped system appears in some 6 per cent of the sight lines.
    """
    wavelength = np.exp(
        np.arange(np.log(3300.0), np.log(LYMAN_ALPHA * (1.0 + redshift) * 1.02), FOREST_STEP / SPEED_OF_LIGHT)
    )
    field = generator.normal(size=len(wavelength) + 40)
    kernel = np.exp(-0.5 * (np.arange(-12, 13) / 2.6) ** 2)
    field = np.convolve(field, kernel / np.sqrt((kernel**2).sum()), mode="same")[20:-20]
    absorber = wavelength / LYMAN_ALPHA
    mean = 0.0023 * absorber**3.65
    opacity = np.exp(np.interp(np.log(mean), *np.log(FOREST_AMPLITUDE)) + 2.0 * field)
    near = np.clip((LYMAN_ALPHA * (1.0 + redshift) / wavelength - 1.0) / 0.01, 0.0, 1.0)  # proximity of the quasar
    opacity *= near
    beta = np.interp(wavelength * LYMAN_ALPHA / LYMAN_BETA, wavelength, opacity, right=0.0) * 0.16
    total = opacity + beta
    if generator.random() < 0.06:
        center = generator.uniform(LYMAN_BETA, LYMAN_ALPHA) * (1.0 + redshift)
        distance = (wavelength / center - 1.0) * LYMAN_ALPHA
        total += 10.0 ** generator.uniform(0.0, 0.9) * DAMPED_WING / (distance**2 + 0.01)
    edge = LYMAN_LIMIT * (1.0 + redshift) * (1.0 - generator.exponential(0.06))
    total += np.where(wavelength < edge, generator.uniform(0.5, 4.0) * (wavelength / edge) ** 3, 0.0)
    return wavelength, np.exp(-np.minimum(total, 50.0))
