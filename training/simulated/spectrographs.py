"""Native grids and line spread functions of the four surveys, in torch: spectra on a fine grid -> flux on pixels.

Grids, resolution, sky lines and the atmosphere are those of the package's simulator
(`spectral_tokenizer.data.simulation`); here whole batches pass through them at once.
"""

import itertools
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from scipy.fft import next_fast_len
from torch import Tensor

from spectral_tokenizer.data.apogee import CHIP_GAPS
from spectral_tokenizer.data.simulation import apogee, desi, galah, sdss
from spectral_tokenizer.data.simulation.instruments import Detector, velocity_sigma
from spectral_tokenizer.data.wavelengths import SPEED_OF_LIGHT, air_to_vacuum


# Optical templates are smoothed by this before they are sampled; the line spread function is narrowed by as much.
TEMPLATE_SMOOTHING = 15.0  # km/s
SMOOTHED = ("sdss", "desi")
OVERSAMPLING = {"sdss": 3, "desi": 3, "galah": 2, "apogee": 2}
REACH_SIGMA = 3.6
ROWS_IN_CACHE = 8  # spectra that a processor's core works on at once


@dataclass
class LogGrid:
    """A logarithmic wavelength grid: natural logarithm of the first vacuum Angstrom, and the step."""

    start: float
    step: float
    size: int

    @classmethod
    def from_range(cls, minimum: float, maximum: float, velocity: float) -> "LogGrid":
        """From `minimum` to `maximum` Angstrom in steps of `velocity` km/s."""
        step = velocity / SPEED_OF_LIGHT
        return cls(float(np.log(minimum)), step, int(np.ceil(np.log(maximum / minimum) / step)))

    @property
    def wavelength(self) -> np.ndarray:
        return np.exp(self.start + self.step * np.arange(self.size))

    @property
    def velocity(self) -> float:
        """The step in km/s."""
        return self.step * SPEED_OF_LIGHT


class Spectrograph:
    """Pixels and line spread function of one survey.

    Args:
        name: The survey.
        wavelength: (pixels,) vacuum Angstrom of the nominal grid, float64.
        sigma: (pixels,) width of the line spread function in Angstrom, pixel included.
        segment_lengths: Pixels per arm, chip or CCD.
    """

    def __init__(self, name: str, wavelength: np.ndarray, sigma: np.ndarray, segment_lengths: list[int], device="cpu"):
        self.name, self.device, self.segment_lengths = name, torch.device(device), list(segment_lengths)
        self.oversampling = OVERSAMPLING[name]
        self.wavelength_array, self.sigma_array = wavelength, sigma
        self.wavelength = torch.as_tensor(wavelength, dtype=torch.float64, device=self.device)
        kernel = narrowed(wavelength, sigma) if name in SMOOTHED else sigma
        self.segments = [
            Segment(wavelength[part], kernel[part], self.oversampling, self.device) for part in self.slices()
        ]

    def slices(self) -> list[slice]:
        ends = np.cumsum(self.segment_lengths)
        return [slice(int(end - length), int(end)) for end, length in zip(ends, self.segment_lengths)]

    @property
    def num_pixels(self) -> int:
        return len(self.wavelength_array)

    def positions(self) -> Tensor:
        """(pixels,) from -1 to 1 in each segment."""
        parts = [torch.linspace(-1.0, 1.0, length, device=self.device) for length in self.segment_lengths]
        return torch.cat(parts)

    def resolve(self, flux: Tensor, grid: LogGrid, redshift: Tensor, offset: Tensor | None = None) -> Tensor:
        """Flux on the pixels.

        Args:
            flux: (spectra, grid.size) on a logarithmic vacuum grid in the rest frame.
            redshift: (spectra,) float64.
            offset: (spectra, segments, 2) Angstrom: a shift of the segment's pixels, and its growth per pixel.

        Returns:
            (spectra, pixels) float32.
        """
        shift = torch.log1p(redshift.to(self.device, torch.float64))
        return torch.cat(
            [
                segment.resolve(flux, grid, shift, None if offset is None else offset[:, number])
                for number, segment in enumerate(self.segments)
            ],
            dim=1,
        )

    def resolve_part(self, number: int, flux: Tensor, grid: LogGrid, redshift: Tensor, offset: Tensor) -> Tensor:
        """As `resolve`, one segment alone; `offset` (spectra, 2)."""
        shift = torch.log1p(redshift.to(self.device, torch.float64))
        return self.segments[number].resolve(flux, grid, shift, offset)


class Segment:
    """Samples between and beside the pixels of one segment, and each pixel's weights on them."""

    def __init__(self, wavelength: np.ndarray, sigma: np.ndarray, oversampling: int, device: torch.device):
        step = np.gradient(wavelength)
        width = sigma / step  # in pixels
        self.size, self.oversampling = len(wavelength), oversampling
        self.reach = int(np.ceil(REACH_SIGMA * width.max()))
        pixel = np.arange(-self.reach * oversampling, (self.size - 1 + self.reach) * oversampling + 1) / oversampling
        known = np.arange(self.size)
        samples = np.interp(pixel, known, wavelength)
        samples += np.where(pixel < 0, pixel * step[0], 0.0) + np.where(
            pixel > known[-1], (pixel - known[-1]) * step[-1], 0.0
        )
        self.samples = torch.as_tensor(samples, dtype=torch.float64, device=device)
        self.log_samples = self.samples.log()
        self.sample_pixel = torch.as_tensor(pixel, dtype=torch.float64, device=device)
        distance = np.arange(-self.reach * oversampling, self.reach * oversampling + 1) / oversampling
        weights = np.exp(-0.5 * (distance[:, None] / width) ** 2)
        weights /= weights.sum(axis=0)
        self.weights = torch.as_tensor(weights, dtype=torch.float32, device=device)

    def resolve(self, flux: Tensor, grid: LogGrid, shift: Tensor, offset: Tensor | None) -> Tensor:
        """`Spectrograph.resolve` of this segment; `shift` is ln(1 + redshift)."""
        if not flux.is_cpu or len(flux) <= ROWS_IN_CACHE:
            return self.resolve_together(flux, grid, shift, offset)
        offsets = offset.split(ROWS_IN_CACHE) if offset is not None else itertools.repeat(None)
        parts = zip(flux.split(ROWS_IN_CACHE), shift.split(ROWS_IN_CACHE), offsets)
        return torch.cat([self.resolve_together(rows, grid, *where) for rows, *where in parts])

    def resolve_together(self, flux: Tensor, grid: LogGrid, shift: Tensor, offset: Tensor | None) -> Tensor:
        log_samples = self.log_samples
        if offset is not None:
            log_samples = (self.samples + offset[:, :1] + offset[:, 1:] * self.sample_pixel).log()
        # float64: at a step of 2 km/s a float32 logarithm is wrong by a twentieth of a step.
        position = (log_samples - shift[:, None] - grid.start) / grid.step
        position = position.clamp_(0.0, grid.size - 1.001)
        index = position.long()
        fraction = position.sub_(index).float()
        lower, upper = flux.gather(1, index), flux.gather(1, index + 1)
        fine = torch.lerp(lower, upper, fraction)
        # Samples at the same place of their pixels side by side, as a product runs over pixels.
        whole = torch.nn.functional.pad(fine, (0, -fine.shape[1] % self.oversampling))
        phases = whole.view(len(fine), -1, self.oversampling).permute(2, 0, 1).contiguous()
        resolved = fine.new_zeros(len(fine), self.size)
        for place, weight in enumerate(self.weights):
            pixel, phase = divmod(place, self.oversampling)
            resolved.addcmul_(phases[phase, :, pixel : pixel + self.size], weight)
        return resolved


def narrowed(wavelength: np.ndarray, sigma: np.ndarray) -> np.ndarray:
    """What is left of a line spread function once the templates' smoothing is taken off."""
    return np.sqrt(sigma**2 - (TEMPLATE_SMOOTHING / SPEED_OF_LIGHT * wavelength) ** 2)


def sdss_grid() -> tuple[np.ndarray, np.ndarray, list[int]]:
    wavelength = sdss.detector().wavelength
    sigma = sdss.dispersion_pixels(wavelength) * wavelength * sdss.STEP * np.log(10.0)
    return wavelength, sigma, [len(wavelength)]


def desi_grid() -> tuple[np.ndarray, np.ndarray, list[int]]:
    parts = [detector.wavelength for detector in desi.detectors().values()]
    wavelength = np.concatenate(parts)
    sigma = np.concatenate([desi.dispersion(arm) for arm in desi.ARMS])
    return wavelength, sigma, [len(part) for part in parts]


def galah_grid() -> tuple[np.ndarray, np.ndarray, list[int]]:
    pixels = np.arange(galah.NUM_PIXELS)
    parts = {ccd: air_to_vacuum(first + step * pixels) for ccd, (first, step, _) in galah.CCDS.items()}
    sigma = [velocity_sigma(part, galah.RESOLUTION[ccd]) for ccd, part in parts.items()]
    return np.concatenate(list(parts.values())), np.concatenate(sigma), [galah.NUM_PIXELS] * len(parts)


def apogee_grid() -> tuple[np.ndarray, np.ndarray, list[int]]:
    wavelength = apogee.wavelength_grid()
    cuts = [0, *np.searchsorted(wavelength, CHIP_GAPS).tolist(), len(wavelength)]
    return wavelength, velocity_sigma(wavelength, apogee.RESOLUTION), np.diff(cuts).tolist()


GRIDS = {"sdss": sdss_grid, "desi": desi_grid, "galah": galah_grid, "apogee": apogee_grid}


@cache
def spectrograph(survey: str, device: str = "cpu") -> Spectrograph:
    """The spectrograph of a survey, built once per process and device."""
    return Spectrograph(survey, *GRIDS[survey](), device=device)


@cache
def environment(survey: str, device: str = "cpu") -> tuple[Tensor, Tensor]:
    """Night-sky lines (the strongest about 1) and the atmosphere's transmission, (pixels,) each, as the package
    has."""
    detectors = {
        "sdss": lambda: [sdss.detector()],
        "desi": lambda: desi.detectors().values(),
        "apogee": lambda: [apogee.detector()],
        "galah": lambda: [
            Detector(part, sigma) for part, sigma in zip(*(np.split(each, 4) for each in galah_grid()[:2]))
        ],
    }[survey]()
    sky, telluric = zip(*((detector.sky, detector.telluric) for detector in detectors))
    return tuple(torch.as_tensor(np.concatenate(each), dtype=torch.float32, device=device) for each in (sky, telluric))


def broaden(flux: Tensor, sigma: Tensor, grid: LogGrid) -> Tensor:
    """Convolve each spectrum (spectra, pixels) with a Gaussian of `sigma` km/s (spectra,)."""
    size = flux.shape[1]
    padded = next_fast_len(size + 300, real=True)
    extended = torch.nn.functional.pad(flux[:, None], (0, padded - size), mode="replicate")[:, 0]
    frequency = torch.fft.rfftfreq(padded, device=flux.device)
    transfer = torch.exp(-2.0 * (torch.pi * frequency * (sigma.float() / grid.velocity)[:, None]) ** 2)
    return torch.fft.irfft(torch.fft.rfft(extended) * transfer, n=padded)[:, :size]
