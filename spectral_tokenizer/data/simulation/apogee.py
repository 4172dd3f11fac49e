"""Simulated APOGEE spectra: `apStar-*.fits` (even numbers) and `aspcapStar-*.fits` (odd), and
`allStar-simulated.fits`.

8575 pixels, log10 wavelength = 4.179 + 6e-6 i, vacuum, the star's rest frame. apStar holds flux in 1e-17 erg/s/cm2/A
and the visits; aspcapStar the normalised spectrum with the labels in PARAM. The allStar table holds everyone's labels.
"""

from collections.abc import Iterator
from functools import cache
from pathlib import Path

import numpy as np

from ..wavelengths import SPEED_OF_LIGHT
from .fits_files import image, table, write_file
from .instruments import INFRARED_SKY, Detector, add_noise, bad_pixels, cosmic_rays, smooth_error, velocity_sigma
from .population import Target
from .stars import ROTATION_WIDTH, StarModel, star_model
from .templates import extinction, stack_labels


FIRST_LOGLAM, LOG_STEP, NUM_PIXELS = 4.179, 6e-6, 8575
RESOLUTION = 22500.0
STEP = 2.0  # km/s of the templates
CHIPS = ((15145.0, 15806.0), (15860.0, 16430.0), (16480.0, 16953.0))  # vacuum Angstrom, observed frame
BAD_BITS, PERSISTENCE_BITS, SKY_BIT = (0, 4, 5, 14), (9, 10, 11), 12
BLANK_ERROR = 1e10
AXIS = {"CRVAL1": FIRST_LOGLAM, "CDELT1": LOG_STEP, "CRPIX1": 1, "CTYPE1": "LOG-LINEAR", "DC-FLAG": 1}
UNITS = ("Flux (10^-17 erg/s/cm^2/Ang)", "Error (10^-17 erg/s/cm^2/Ang)", "Flag Mask (bitwise)")
UNITS += ("Sky (10^-17 erg/s/cm^2/Ang)", "Sky error (10^-17 erg/s/cm^2/Ang)", "Telluric", "Telluric error")


@cache
def wavelength_grid() -> np.ndarray:
    """Vacuum Angstrom of the pixels."""
    return 10.0 ** (FIRST_LOGLAM + LOG_STEP * np.arange(NUM_PIXELS))


@cache
def model() -> StarModel:
    """Stars in the H band."""
    return star_model(15050.0, 17060.0, STEP)


@cache
def detector() -> Detector:
    """The spectrograph on the rest-frame grid."""
    wavelength = wavelength_grid()
    return Detector(wavelength, velocity_sigma(wavelength, RESOLUTION), INFRARED_SKY)


def lsf_coefficients() -> np.ndarray:
    """The Gaussian line spread function as apStar's HDU8 has it: a Gauss-Hermite function of pixel + X0 and its
    wings."""
    sigma = 1.0 / (RESOLUTION * 2.3548 * LOG_STEP * np.log(10.0))  # pixels
    core = [np.sqrt(sigma**2 - 1.0 / 12.0), *np.zeros(10)]  # the pixel itself adds to the width
    return np.array([1.0, NUM_PIXELS // 2, 5, 1, 1, 1, 1, 1, 0, *core, 1, 2, 0, 0, 0.0, 1.0])


def observe(target: Target, flux: np.ndarray, continuum: np.ndarray) -> dict[str, np.ndarray]:
    """The combined spectrum of one star: flux, error and flags as in apStar, and what stands behind it."""
    generator, wavelength = target.generator(3), wavelength_grid()
    scale = np.hypot(1.0, ROTATION_WIDTH * target.labels["rotation"] / (SPEED_OF_LIGHT / RESOLUTION / 2.3548))
    start = float(np.log(model().wavelength[0]))
    normalised = detector().observe(flux / continuum, start, STEP / SPEED_OF_LIGHT, 0.0, scale)
    level = np.interp(wavelength, model().wavelength[::50], continuum[::50])
    truth = target.flux * level / np.median(level) * normalised * smooth_error(generator, wavelength, 0.015)
    # The detector's frame: where chips end and where the sky's lines lie for this star.
    barycentric = generator.uniform(-28.0, 28.0)
    observed = wavelength * (1.0 + (target.velocity - barycentric) / SPEED_OF_LIGHT)
    is_blank = ~np.any([(observed > low) & (observed < high) for low, high in CHIPS], axis=0)
    sky = np.interp(observed, wavelength, detector().sky)
    telluric = np.interp(observed, wavelength, detector().telluric)
    signal_to_noise = float(np.clip(4.0 * np.sqrt(target.flux) * 10.0 ** generator.normal(0.15, 0.15), 15.0, 450.0))
    relative = np.sqrt(truth / target.flux * 0.9 + 0.1) / np.maximum(telluric, 0.3)
    edge = 1.0 + sum(2.0 * np.exp(-np.abs(observed - end) / 4.0) for chip in CHIPS for end in chip)
    error = target.flux / signal_to_noise * relative * edge * np.sqrt(1.0 + 40.0 * sky)
    error = np.maximum(error, 0.003 * truth)
    spectrum = add_noise(generator, truth, error) + cosmic_rays(generator, error, 8e-5)
    residual = generator.normal(0.0, 0.8) * np.tanh(3.0 * sky) + generator.normal(0.0, 0.8) * np.gradient(
        np.tanh(3.0 * sky)
    )
    spectrum += error * residual
    flags = np.zeros(NUM_PIXELS, dtype=np.int16)
    is_bad = bad_pixels(generator, NUM_PIXELS, 0.008, 0.03)
    flags[is_bad] |= (1 << generator.choice(BAD_BITS, is_bad.sum())).astype(np.int16)
    flags[sky > 0.25] |= 1 << SKY_BIT
    if generator.random() < 0.4:  # persistence: over a third of the blue chip in real spectra, usable all the same
        flags[observed < 15350.0] |= 1 << int(generator.choice(PERSISTENCE_BITS))
    spectrum[is_bad] = np.where(generator.random(is_bad.sum()) < 0.7, 0.0, spectrum[is_bad] * 3.0)
    error[is_bad & (spectrum == 0)] = BLANK_ERROR
    spectrum[is_blank], error[is_blank], flags[is_blank] = 0.0, BLANK_ERROR, 1
    usable = ~is_blank & ~is_bad
    return {
        "flux": spectrum,
        "error": error,
        "flags": flags,
        "sky": np.where(is_blank, 0.0, 0.02 * target.flux + 400.0 * sky),
        "telluric": np.where(is_blank, 0.0, telluric),
        "model": truth,
        "normalised_model": normalised,
        "is_blank": is_blank,
        "is_usable": usable,
        "barycentric": barycentric,
        "snr": float(np.median(spectrum[usable] / error[usable])),
    }


def write(targets: list[Target], folder: Path) -> Iterator[Target]:
    """Write one file per star and the allStar table, and yield the targets with their `truth` filled in."""
    for start in range(0, len(targets), 32):
        batch = targets[start : start + 32]
        flux, continuum = model().spectra(stack_labels(batch, ("teff", "logg", "fe_h", "alpha_m")))
        reddening = extinction(model().wavelength, batch)
        for target, spectrum, level, dust in zip(batch, flux, continuum, reddening):
            parts = observe(target, spectrum * dust, level * dust)
            name = f"2S{target.number:08d}+{int(abs(target.dec) * 1e5):07d}"  # 2S: no 2MASS name begins so
            is_star = target.number % 2 == 0
            path = f"apStar-r6-{name}.fits" if is_star else f"aspcapStar-r6-l30e.2-{name}.fits"
            (write_star if is_star else write_aspcap)(target, name, parts, folder / path)
            target.truth |= {"object_id": name, "file": path, "snr": parts["snr"]}
            target.truth["note"] = "apStar: labels in allStar only" if is_star else ""
            yield target
    write_catalogue(targets, folder)


def primary_header(target: Target, name: str, snr: float, key: str) -> dict:
    """What the headers of both products share."""
    header = {key: name, "RA": target.ra, "DEC": target.dec, "H": round(14.0 - 2.5 * np.log10(target.flux / 40.0), 3)}
    header |= {"TELESCOP": "apo25m", "SNR": snr, "VRAD": 0.0, "VHELIO": target.velocity, "VSCATTER": 0.1, "VERR": 0.05}
    return header | {"STARFLAG": 0, "SIMULATE": (True, "simulated, not an observation")}


def write_star(target: Target, name: str, parts: dict, path: Path) -> None:
    """Write an apStar file: 1-D arrays for one visit, else two combinations and the visits in rows."""
    generator = target.generator(5)
    num_visits = int(generator.choice([1, 2, 3], p=[0.7, 0.15, 0.15]))
    images = [parts["flux"], parts["error"], parts["flags"], parts["sky"], 0.02 * parts["sky"], parts["telluric"]]
    images.append(np.full(NUM_PIXELS, 0.01))
    if num_visits > 1:
        images = [np.stack([values] * (2 + num_visits)) for values in images]
        error = np.minimum(parts["error"] * np.sqrt(num_visits), BLANK_ERROR)
        for row in range(2, 2 + num_visits):
            visit = add_noise(generator, parts["model"], np.where(error < 1e9, error, 0.0))
            images[0][row], images[1][row] = np.where(error < 1e9, visit, 0.0), error
    header = primary_header(target, name, parts["snr"], "OBJID")
    labels = target.labels
    # The velocity pipeline's template: the nearest point of a coarse grid, not a label.
    header |= {"NVISITS": num_visits, "BC1": parts["barycentric"], "RVTEFF": 250.0 * round(labels["teff"] / 250.0)}
    header |= {"RVLOGG": 0.5 * round(2.0 * labels["logg"]), "RVFEH": 0.5 * round(2.0 * labels["fe_h"])}
    hdus = [image(None, header | {"NWAVE": NUM_PIXELS} | AXIS, primary=True)]
    for values, unit in zip(images, UNITS):
        kind = np.int16 if unit.startswith("Flag") else np.float32
        hdus.append(image(values.astype(kind), {**AXIS, "BUNIT": unit}))
    hdus.append(image(lsf_coefficients(), {"BUNIT": "LSF Coefficients"}))
    visits = {"VHELIO": np.full(num_visits, target.velocity, dtype=np.float32), "TEFF": np.float32(header["RVTEFF"])}
    write_file(path, [*hdus, table(visits, "")])


def write_aspcap(target: Target, name: str, parts: dict, path: Path) -> None:
    """Write an aspcapStar file: normalised flux, error (0 or 10 where unusable), best fit, and PARAM.

    PARAM is Teff, logg, log10 microturbulence, [M/H], [C/M], [N/M], [alpha/M], log10 vsini, [O/M].
    """
    generator, usable = target.generator(6), parts["is_usable"]
    continuum = parts["model"] / parts["normalised_model"] * smooth_error(generator, wavelength_grid(), 0.004)
    flux = np.where(parts["is_blank"], 0.0, parts["flux"] / continuum)
    error = np.where(usable, parts["error"] / continuum, np.where(parts["is_blank"], 0.0, 10.0))
    best_fit = np.where(parts["is_blank"], 0.0, parts["normalised_model"])
    header = primary_header(target, name, parts["snr"], "OBJ")
    hdus = [image(None, header | {"FERRE": "simulated", "NVISITS": 1}, primary=True)]
    hdus += [image(values.astype(np.float32), AXIS) for values in (flux, error, best_fit)]
    labels = target.labels
    parameters = [labels["teff"], labels["logg"], 0.2, labels["fe_h"], 0.0, 0.0, labels["alpha_m"]]
    parameters = np.array([*parameters, np.log10(labels["rotation"] + 0.1), 0.0], dtype=np.float32)
    row = {"APOGEE_ID": name, "SNR": np.float32(parts["snr"]), "VHELIO": np.float32(target.velocity)}
    row |= {"PARAM": parameters, "FPARAM": parameters, "PARAMFLAG": np.zeros(9, dtype=np.int32)}
    write_file(path, [*hdus, table(row | {"ASPCAPFLAG": np.int32(0)}, "")])


def write_catalogue(targets: list[Target], folder: Path) -> None:
    """Write `allStar-simulated.fits`: identifiers, velocities and labels of every star."""
    labels = stack_labels(targets, ("teff", "logg", "fe_h", "alpha_m"))
    columns = {
        "APOGEE_ID": np.array([target.truth["object_id"] for target in targets]),
        "RA": np.array([target.ra for target in targets]),
        "DEC": np.array([target.dec for target in targets]),
        "SNR": np.array([target.truth["snr"] for target in targets], dtype=np.float32),
        "VHELIO_AVG": np.array([target.velocity for target in targets], dtype=np.float32),
        "TEFF": labels["teff"].astype(np.float32),
        "LOGG": labels["logg"].astype(np.float32),
        "M_H": labels["fe_h"].astype(np.float32),
        "ALPHA_M": labels["alpha_m"].astype(np.float32),
        "FE_H": labels["fe_h"].astype(np.float32),
    }
    header = {"SIMULATE": (True, "labels are the simulation's truth")}
    hdus = [image(None, header, primary=True), table(columns, "", rows=len(targets))]
    write_file(folder / "allStar-simulated.fits", hdus)
