"""Small spectra with the shape of each survey's, made from a seed: enough for the model half, which knows no files."""

import numpy as np


def spectrum(survey: str = "sdss", seed: int = 0, num_bad: int = 20) -> dict:
    """A row's spectrum columns: smooth continuum, lines that differ with the seed, noise, bad pixels."""
    generator = np.random.default_rng(seed)
    wavelength, segment_lengths = GRIDS[survey]()
    line = generator.uniform(wavelength.min(), wavelength.max(), 12)
    width = wavelength.mean() / 2000
    flux = 1 + 0.3 * np.sin(wavelength / wavelength.mean() * generator.uniform(2, 6))
    flux -= 0.4 * np.exp(-0.5 * ((wavelength[:, None] - line) / width) ** 2).sum(1)
    sigma = 0.02 * generator.uniform(0.8, 1.2, len(wavelength))
    flux = 7e-3 * (flux + sigma * generator.standard_normal(len(wavelength)))
    ivar = 1 / (7e-3 * sigma) ** 2
    ivar[generator.permutation(len(wavelength))[:num_bad]] = 0
    return {"flux": flux, "ivar": ivar, "wavelength": wavelength, "segment_lengths": segment_lengths}


def sdss_grid():
    return 10 ** (3.58 + 1e-4 * np.arange(1000)), [1000]


def desi_grid():
    arms = [np.arange(300) * 0.8 + start for start in (5600.0, 5760.0, 7520.0)]
    return np.concatenate(arms), [300, 300, 300]


def galah_grid():
    return np.concatenate([4714 + 0.046 * np.arange(700), 6479 + 0.064 * np.arange(650)]), [700, 650]


def apogee_grid():
    return 10 ** (4.179 + 6e-6 * np.arange(1200)), [500, 700]


GRIDS = {"sdss": sdss_grid, "desi": desi_grid, "galah": galah_grid, "apogee": apogee_grid}

#: The surveys' full native grids: shortest and longest wavelength and step there, vacuum Angstrom.
FULL_GRIDS = {
    "sdss": 10 ** (3.55 + 1e-4 * np.arange(4640)),
    "desi": 3600 + 0.8 * np.arange(7781),
    "galah": 4713.5 + 0.046 * np.arange(69120),
    "apogee": 10 ** (4.179 + 6e-6 * np.arange(8575)),
}
