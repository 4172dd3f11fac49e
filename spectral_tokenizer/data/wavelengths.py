"""One wavelength scale for all surveys: vacuum Angstrom. And one measure of resolution on it."""

import math

import numpy as np


SPEED_OF_LIGHT = 299792.458  # km/s
PLAUSIBLE = (500.0, 300_000.0)  # Angstrom: a spectrum beyond is in another unit; the processor says so as well
FWHM_PER_SIGMA = 2.0 * math.sqrt(2.0 * math.log(2.0))  # of a Gaussian


def air_to_vacuum(wavelength: np.ndarray) -> np.ndarray:
    """Convert wavelengths in standard air to vacuum.

    N. Piskunov's inverse, for VALD3 (Ryabchikova et al. 2015, Physica Scripta 90, 054005), of Morton (2000, ApJS 130,
    403), whose refractive index is that of Birch & Downs (1994, Metrologia 31, 315). From 4,000 to 17,000 Angstrom it
    is within 1e-8 Angstrom of Morton's and within 1e-4 of Ciddor's (1996, Applied Optics 35, 1566).

    Args:
        wavelength: (any shape) in Angstrom, or with a unit of its own, as astropy's quantities; in air.

    Returns:
        The same shape, float64, in Angstrom, in vacuum; masked where it was. Numbers that can be no Angstrom are left
        as they are: what checks rows, or the processor, then says what was given.
    """
    mask = getattr(wavelength, "mask", None)
    if getattr(wavelength, "unit", None) is not None:
        wavelength = wavelength.to("Angstrom").value
    wavelength = np.asarray(wavelength, dtype=np.float64)
    wavenumber_squared = (1e4 / wavelength) ** 2  # 1/micron^2
    index = (
        1.0
        + 8.336624212083e-5
        + 2.408926869968e-2 / (130.1065924522 - wavenumber_squared)
        + 1.599740894897e-4 / (38.92568793293 - wavenumber_squared)
    )
    low, high = PLAUSIBLE
    index = np.where((wavelength >= low) & (wavelength <= high), index, 1.0)
    return np.ma.array(wavelength * index, mask=mask) if isinstance(mask, np.ndarray) else wavelength * index


def nominal_sigma(wavelength: np.ndarray, resolving_power: float | np.ndarray) -> np.ndarray:
    """Sigma of a Gaussian line spread function whose full width at half maximum is wavelength / resolving power.

    Args:
        wavelength: (num_pixels,) in Angstrom.
        resolving_power: one number, or (num_pixels,).

    Returns:
        (num_pixels,) in Angstrom.
    """
    return wavelength / resolving_power / FWHM_PER_SIGMA


# A step so many times its neighbours is the gap between two arms: the processor's rule, whose file the readers do not import.
ARM_LEAP = 100
LEAP_NEIGHBOURS = 8  # to each side


def arm_lengths(wavelength: np.ndarray) -> list[int]:
    """Pixels of each arm of a spectrum whose segments nobody named: ascending wavelengths (pixels,) in any unit, cut where
    they leap, as no patch may straddle two arms. Others are one arm, which is refused where rows are checked."""
    steps = np.diff(wavelength)
    if len(steps) < 2 * LEAP_NEIGHBOURS or steps.min() <= 0:
        return [len(wavelength)]
    leaps = [
        pixel + 1
        for pixel in np.flatnonzero(steps > ARM_LEAP * steps.min())  # no others can be
        if steps[pixel] > ARM_LEAP * np.median(steps[max(0, pixel - LEAP_NEIGHBOURS) : pixel + LEAP_NEIGHBOURS + 1])
    ]
    return np.diff([0, *leaps, len(wavelength)]).tolist()
