"""What a spectrograph does to a spectrum: resolution, pixels, atmosphere, noise, blemishes.

Wavelengths are vacuum Angstrom in the frame of the detector's final grid (heliocentric, barycentric or rest, as the
survey ships it). Fluxes are those of the survey's unit; noise is Gaussian with a known sigma.
"""

from functools import cache, cached_property

import numpy as np

from ..wavelengths import SPEED_OF_LIGHT
from .lines import FOREST_SEED, TELLURIC_BANDS, sky_lines


SAMPLES_PER_SIGMA = 4
#: Exponent on the intensities of sky lines, and a factor, as real error spectra have them: in the optical nearly
#: their share of the photons, in APOGEE the brightest dominate less.
OPTICAL_SKY, INFRARED_SKY = (0.9, 1.8), (0.6, 1.0)


class Detector:
    """One arm, chip or CCD: resolves a template and puts it on pixels.

    Args:
        wavelength: vacuum Angstrom of the pixels (a star whose grid differs a little passes its own).
        sigma: Gaussian width of the line spread function in Angstrom, an array on `wavelength`.
        sky_contrast: `OPTICAL_SKY` or `INFRARED_SKY`.
    """

    def __init__(self, wavelength: np.ndarray, sigma: np.ndarray, sky_contrast: tuple[float, float] = OPTICAL_SKY):
        self.wavelength, self.sigma, self.sky_contrast = wavelength, sigma, sky_contrast
        first, last = wavelength[0] - 30.0 * sigma[0], wavelength[-1] + 30.0 * sigma[-1]
        coarse = np.linspace(first, last, 4000)
        step = coarse[1] - coarse[0]
        # In the coordinate of the integral of 1 / sigma the line spread function is the same everywhere.
        coordinate = np.concatenate(
            [[0.0], np.cumsum(step / np.interp(0.5 * (coarse[1:] + coarse[:-1]), wavelength, sigma))]
        )
        self.samples = np.interp(np.arange(0.0, coordinate[-1], 1.0 / SAMPLES_PER_SIGMA), coordinate, coarse)
        self.log_samples = np.log(self.samples)

    def observe(self, template, log_start: float, log_step: float, redshift: float, scale: float = 1.0, **changes):
        """Flux of one template on the pixels: shifted by (1 + redshift), resolved with `scale` x sigma, sampled.

        Args:
            template: flux on a logarithmic vacuum grid in the rest frame; `log_start`, `log_step` natural logarithms.
            changes: `wavelength`, other pixels than the detector's own; `transmission`, a factor on `samples`.
        """
        position = (self.log_samples - np.log1p(redshift) - log_start) / log_step
        position = np.clip(position, 0.0, len(template) - 1.001)
        index = position.astype(np.int64)
        fraction = (position - index).astype(np.float32)
        fine = template[index] * (1.0 - fraction) + template[index + 1] * fraction
        if changes.get("transmission") is not None:
            fine = fine * changes["transmission"]
        return self.pixels(fine, scale, changes.get("wavelength"))

    def pixels(self, fine: np.ndarray, scale: float = 1.0, wavelength: np.ndarray | None = None) -> np.ndarray:
        """Resolve values given on `samples` and put them on the pixels."""
        width = SAMPLES_PER_SIGMA * scale
        reach = int(np.ceil(4.0 * width))
        kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / width) ** 2)
        resolved = np.convolve(fine, (kernel / kernel.sum()).astype(np.float32), mode="same")
        return np.interp(self.wavelength if wavelength is None else wavelength, self.samples, resolved)

    @cached_property
    def sky(self) -> np.ndarray:
        """Night-sky lines on the pixels, the strongest about 1 at its peak."""
        sky, (exponent, factor) = np.zeros(len(self.wavelength)), self.sky_contrast
        for line, intensity in zip(*sky_lines()):
            if self.wavelength[0] - 20.0 < line < self.wavelength[-1] + 20.0:
                sigma = np.interp(line, self.wavelength, self.sigma)
                sky += factor * intensity**exponent * np.exp(-0.5 * ((self.wavelength - line) / sigma) ** 2)
        return sky

    @cached_property
    def telluric(self) -> np.ndarray:
        """Transmission of the atmosphere on the pixels at this resolution."""
        return self.pixels(telluric_transmission(self.samples).astype(np.float32))


@cache
def telluric_lines() -> tuple[np.ndarray, np.ndarray]:
    """Fixed, seeded SYNTHETIC absorption lines inside the real bands: vacuum Angstrom and optical depth."""
    generator = np.random.default_rng([FOREST_SEED, 500])
    centers, depths = [], []
    for low, high, depth, molecule in TELLURIC_BANDS:
        if molecule == "O2":  # two branches of pairs whose spacing grows, as in the A and B bands
            ladder = np.arange(0.0, 1.0, 0.035)
            center = np.concatenate(
                [low + (high - low) * 0.28 * ladder, low + (high - low) * (0.3 + 0.7 * ladder**1.1)]
            )
            strength = np.concatenate([0.6 + 0.4 * ladder, 9.0 * ladder * np.exp(1.0 - 9.0 * ladder)])
        else:
            center = generator.uniform(low, high, int((high - low) / 1.2))
            strength = generator.exponential(0.4, len(center))
        centers.append(center)
        depths.append(strength * -2.0 * np.log(1.0 - depth))
    return np.concatenate(centers), np.concatenate(depths)


def telluric_transmission(wavelength: np.ndarray) -> np.ndarray:
    """Transmission at (vacuum) wavelengths in the observatory's frame; lines of width 7 km/s."""
    depth = np.zeros(len(wavelength))
    for center, strength in zip(*telluric_lines()):
        width = 7.0 / SPEED_OF_LIGHT * center
        first, last = np.searchsorted(wavelength, [center - 30.0 * width, center + 30.0 * width])
        distance = (wavelength[first:last] - center) / width
        depth[first:last] += strength / (1.0 + 0.5 * distance**2)
    return np.exp(-depth)


def velocity_sigma(wavelength: np.ndarray, resolution: float) -> np.ndarray:
    """Sigma in Angstrom of a line spread function whose full width at half maximum is wavelength / resolution."""
    return wavelength / resolution / 2.3548


def smooth_error(generator: np.random.Generator, wavelength: np.ndarray, size: float) -> np.ndarray:
    """A smooth multiplicative error about 1 (flux calibration): a random cubic with rms of about `size`."""
    position = np.linspace(-1.0, 1.0, len(wavelength))
    coefficients = generator.normal(0.0, size * np.array([0.5, 0.6, 0.5, 0.4]))
    return 1.0 + np.polynomial.legendre.legval(position, coefficients)


def add_noise(generator: np.random.Generator, flux: np.ndarray, sigma: np.ndarray) -> np.ndarray:
    """Flux with Gaussian noise of `sigma` per pixel, uncorrelated."""
    return flux + sigma * generator.standard_normal(len(flux))


def sky_residual(generator: np.random.Generator, sky: np.ndarray, sigma: np.ndarray, size: float) -> np.ndarray:
    """What imperfect sky subtraction leaves at sky lines: one amplitude and one shift for the whole spectrum.

    `size` is the rms residual at a strong line in units of the noise there. Correlated from line to line.
    """
    profile = np.tanh(3.0 * sky)
    return sigma * size * (generator.normal() * profile + 2.0 * generator.normal() * np.gradient(profile))


def cosmic_rays(generator: np.random.Generator, sigma: np.ndarray, rate: float) -> np.ndarray:
    """Unflagged hits of one or two pixels, exponential with a mean of 25 sigma; `rate` per pixel."""
    hits = np.zeros(len(sigma))
    for pixel in generator.integers(0, len(sigma) - 1, generator.poisson(rate * len(sigma))):
        height = generator.exponential(25.0) * sigma[pixel]
        hits[pixel : pixel + 2] += height * np.array([1.0, generator.uniform(0.0, 0.6)])
    return hits


def bad_pixels(generator: np.random.Generator, count: int, rate: float, block_probability: float) -> np.ndarray:
    """True where the detector is dead: runs of 1 to 4 pixels, now and then a block of 20 to 150."""
    is_bad = np.zeros(count, dtype=bool)
    for start in generator.integers(0, count, generator.poisson(rate * count / 2.5)):
        is_bad[start : start + generator.integers(1, 5)] = True
    if generator.random() < block_probability:
        start = generator.integers(0, count)
        is_bad[start : start + generator.integers(20, 150)] = True
    return is_bad
