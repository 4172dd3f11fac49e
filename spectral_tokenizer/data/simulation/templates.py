"""From targets to noiseless spectra before the instrument: which model, which range, which sampling.

Stellar rotation is left out here, for SDSS and DESI hardly resolve it; GALAH and APOGEE have it in their line widths.
"""

from typing import NamedTuple

import numpy as np

from ..wavelengths import SPEED_OF_LIGHT
from . import galaxies, quasars
from .instruments import Detector
from .population import Target
from .stars import StarModel, star_model


#: Smoothing of optical stellar templates in km/s; far below the resolution of SDSS and DESI, whose detectors are
#: built with what is left of their line spread function (see `narrowed`).
OPTICAL_SMOOTHING = 12.0
OPTICAL_STEP = 6.0  # km/s


class Template(NamedTuple):
    """Flux on a logarithmic vacuum grid in the rest frame; `log_start`, `log_step` natural; 1 near the reference."""

    flux: np.ndarray
    log_start: float
    log_step: float


def optical_star_model() -> StarModel:
    """The model behind the stars of SDSS and DESI, 3500 to 10500 Angstrom."""
    return star_model(3500.0, 10500.0, OPTICAL_STEP)


def narrowed(wavelength: np.ndarray, sigma: np.ndarray) -> np.ndarray:
    """What is left of a line spread function (sigma in Angstrom) once the template's smoothing is taken off."""
    smoothing = OPTICAL_SMOOTHING / SPEED_OF_LIGHT * wavelength
    return np.sqrt(np.maximum(sigma**2 - smoothing**2, (0.3 * sigma) ** 2))


def stack_labels(targets: list[Target], names: tuple[str, ...]) -> dict[str, np.ndarray]:
    """Labels of many targets as arrays."""
    return {name: np.array([target.labels[name] for target in targets]) for name in names}


def extinction(wavelength: np.ndarray, targets: list[Target]) -> np.ndarray:
    """Transmission (targets, pixels) of interstellar dust, magnitudes at 5500 Angstrom, slope -1.3."""
    visual = np.array([target.labels["extinction"] for target in targets], dtype=np.float32)
    return 10.0 ** (-0.4 * visual[:, None] * ((wavelength / 5500.0) ** -1.3 - 1.0).astype(np.float32))


def optical_templates(targets: list[Target]) -> list[Template | None]:
    """Rest-frame templates of SDSS and DESI targets, about 1 near 6000 Angstrom observed; None for blank sky."""
    templates: list[Template | None] = [None] * len(targets)
    stars = [index for index, target in enumerate(targets) if target.kind == "STAR"]
    if stars:
        model = optical_star_model()
        members = [targets[index] for index in stars]
        flux, _ = model.spectra(stack_labels(members, ("teff", "logg", "fe_h", "alpha_m")))
        flux *= extinction(model.wavelength, members)
        width = OPTICAL_SMOOTHING / OPTICAL_STEP
        kernel = np.exp(-0.5 * (np.arange(-8, 9) / width) ** 2).astype(np.float32)
        for index, spectrum in zip(stars, flux):
            smooth = np.convolve(spectrum, kernel / kernel.sum(), mode="same")
            templates[index] = normalised(smooth, model.wavelength, OPTICAL_STEP, 0.0)
    members = [index for index, target in enumerate(targets) if target.kind == "GALAXY"]
    if members:
        labels = stack_labels([targets[index] for index in members], ("young", "fe_h", "dust", "dispersion"))
        flux = galaxies.galaxy_spectra([targets[index].generator(1) for index in members], labels)
        for index, spectrum in zip(members, flux):
            wavelength = galaxies.rest_wavelength()
            templates[index] = normalised(spectrum, wavelength, galaxies.STEP, targets[index].redshift)
    for index, target in enumerate(targets):
        if target.kind == "QSO":
            spectrum = quasars.quasar_spectrum(target.generator(1))
            templates[index] = normalised(spectrum, quasars.rest_wavelength(), quasars.STEP, target.redshift)
    return templates


def normalised(flux: np.ndarray, wavelength: np.ndarray, step: float, redshift: float) -> Template:
    """A template divided by its median from 5800 to 6300 Angstrom observed."""
    first, last = np.searchsorted(wavelength, np.array([5800.0, 6300.0]) / (1.0 + redshift))
    flux = (flux / np.median(flux[first:last])).astype(np.float32)
    return Template(flux, float(np.log(wavelength[0])), step / SPEED_OF_LIGHT)


def intergalactic(target: Target, detector: Detector) -> np.ndarray | None:
    """Transmission of the intergalactic medium on a detector's samples, None where it is transparent."""
    if target.kind != "QSO" or detector.samples[0] > quasars.LYMAN_ALPHA * (1.0 + target.redshift):
        return None
    wavelength, transmission = quasars.forest_transmission(target.generator(2), target.redshift)
    return np.interp(detector.samples, wavelength, transmission, right=1.0).astype(np.float32)


def optical_flux(target: Target, template: Template | None, detector: Detector, scale: float, wavelength=None):
    """Noiseless flux of a target on a detector's pixels in 1e-17 erg/s/cm2/A."""
    if template is None:
        return np.zeros(len(detector.wavelength if wavelength is None else wavelength))
    return target.flux * detector.observe(
        template.flux,
        template.log_start,
        template.log_step,
        target.redshift,
        scale,
        wavelength=wavelength,
        transmission=intergalactic(target, detector),
    )
