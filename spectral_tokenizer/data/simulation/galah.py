"""Simulated GALAH spectra: one file per CCD, `<sobject_id><ccd>.fits`, and the reduction's catalogue
`db/<night>.fits`.

AIR wavelengths, linear, barycentric; counts on a scale of its own in each CCD; errors relative to the flux. Even
numbers are written as data release 3 (5 HDUs), odd ones as reduction 6.0 (8 HDUs, labels in the header, the
resolution); the catalogue holds everyone's labels, true values to the last digit. About one star in twelve lacks CCD4.
"""

from collections.abc import Iterator
from functools import cache
from pathlib import Path

import numpy as np

from ..wavelengths import SPEED_OF_LIGHT, air_to_vacuum
from .fits_files import image, table, write_file
from .instruments import Detector, add_noise, cosmic_rays, smooth_error, velocity_sigma
from .population import Target
from .stars import ROTATION_WIDTH, StarModel, star_model
from .templates import stack_labels


NIGHT = 990101  # YYMMDD, before the survey began: no real identifier has it
#: Resolving power by CCD, as typical files have it.
RESOLUTION = {1: 27000.0, 2: 22500.0, 3: 22500.0, 4: 22000.0}
STEP = 1.5  # km/s of the templates
#: CCD -> first wavelength and step (air Angstrom), throughput relative to CCD3.
CCDS = {1: (4713.1, 0.04599, 0.35), 2: (5648.4, 0.05467, 0.7), 3: (6477.6, 0.06312, 1.0), 4: (7585.0, 0.07354, 0.95)}
NUM_PIXELS = 4096
CATALOGUE_LABELS = {
    "teff_r": "teff",
    "logg_r": "logg",
    "fe_h_r": "fe_h",
    "alpha_fe_r": "alpha_m",
    "vbroad_r": "rotation",
}


@cache
def models() -> dict[int, StarModel]:
    """Star models, one per CCD."""
    return {
        ccd: star_model(first - 12.0, first + NUM_PIXELS * step + 16.0, STEP) for ccd, (first, step, _) in CCDS.items()
    }


@cache
def detectors() -> dict[int, Detector]:
    """The four CCDs on a grid a little wider than any star's."""
    grids = {}
    for ccd, (first, step, _) in CCDS.items():
        wavelength = air_to_vacuum(first - 1.5 + step * np.arange(NUM_PIXELS + 70))
        grids[ccd] = Detector(wavelength, velocity_sigma(wavelength, RESOLUTION[ccd]))
    return grids


def blaze_at(position):
    """What the grating sends to places of a CCD from -1 to 1, an array or a tensor of any shape: 1 in the middle."""
    return 1.0 - 0.12 * position - 0.22 * position**2


def observe(target: Target, ccd: int, flux: np.ndarray, continuum: np.ndarray) -> dict:
    """One CCD of one star: counts, relative errors, the normalised flux, and the grid (air)."""
    generator = target.generator(10 + ccd)
    first, step, throughput = CCDS[ccd]
    first, step = first + generator.normal(0.0, 0.25), step * (1.0 + generator.normal(0.0, 2e-4))
    wavelength = air_to_vacuum(first + step * np.arange(NUM_PIXELS))
    model, detector = models()[ccd], detectors()[ccd]
    scale = np.hypot(1.0, ROTATION_WIDTH * target.labels["rotation"] / (SPEED_OF_LIGHT / RESOLUTION[ccd] / 2.3548))
    start, log_step = float(np.log(model.wavelength[0])), STEP / SPEED_OF_LIGHT
    normalised = detector.observe(flux / continuum, start, log_step, target.redshift, scale, wavelength=wavelength)
    level = np.interp(wavelength / (1.0 + target.redshift), model.wavelength[::50], continuum[::50])
    position = np.linspace(-1.0, 1.0, NUM_PIXELS)
    blaze = throughput * blaze_at(position) * smooth_error(generator, wavelength, 0.03)
    barycentric = generator.uniform(-28.0, 28.0)  # km/s: the atmosphere's lines are shifted by it
    telluric = np.interp(wavelength * (1.0 - barycentric / SPEED_OF_LIGHT), detector.wavelength, detector.telluric)
    pseudo = level / np.median(level) * blaze * 1e3 * 10.0 ** (generator.normal(0.0, 0.15)) * target.flux
    # The reduction divides the atmosphere out; what is left is a few per cent and, where it was opaque, noise.
    truth = pseudo * normalised * (1.0 + generator.normal(0.0, 0.05) * (1.0 - telluric))
    signal_to_noise = target.flux * np.sqrt(throughput)
    median = np.median(truth)
    sigma = (
        median / signal_to_noise * np.sqrt(np.maximum(truth, 0.0) / median * 0.85 + 0.15) / np.maximum(telluric, 0.08)
    )
    counts = add_noise(generator, truth, sigma) + cosmic_rays(generator, sigma, 8e-5)
    error = sigma / np.where(np.abs(counts) > 0.01 * median, counts, 0.01 * median)
    is_bad = generator.random(NUM_PIXELS) < 0.0008
    is_bad |= (telluric < 0.15) & (generator.random(NUM_PIXELS) < 0.5)
    error[is_bad] = np.where(generator.random(is_bad.sum()) < 0.5, 0.0, generator.uniform(1.0, 30.0, is_bad.sum()))
    return {
        "first": first,
        "step": step,
        "counts": counts,
        "error": error,
        "model": truth,
        "normalised": counts / (pseudo * (1.0 + 0.005 * generator.normal() * position)),
        "sky": 0.05 * median * np.ones(NUM_PIXELS),
        "telluric": telluric,
        "barycentric": barycentric,
        "snr": 1.0 / error[(error > 0) & (error <= 1)],
        "fwhm": 2.3548 * np.interp(wavelength, detector.wavelength, detector.sigma),
    }


def write(targets: list[Target], folder: Path) -> Iterator[Target]:
    """Write up to four files per star and the catalogue, and yield the targets with their `truth` filled in."""
    spectra = folder / str(NIGHT) / "spectra" / "com"
    spectra.mkdir(parents=True)
    for start in range(0, len(targets), 16):
        batch = targets[start : start + 16]
        labels = stack_labels(batch, ("teff", "logg", "fe_h", "alpha_m"))
        templates = {ccd: model.spectra(labels) for ccd, model in models().items()}
        for row, target in enumerate(batch):
            has_last = target.generator(3).random() > 0.08
            parts = {
                ccd: observe(target, ccd, flux[row], continuum[row])
                for ccd, (flux, continuum) in templates.items()
                if ccd < 4 or has_last
            }
            name = f"{NIGHT:06d}{target.number // 390 + 1:04d}01{target.number % 390 + 1:03d}"
            for ccd, part in parts.items():
                make = release_hdus if target.number % 2 == 0 else reduction_hdus
                write_file(spectra / f"{name}{ccd}.fits", make(target, name, part))
            snr = float(np.median(np.concatenate([part["snr"] for part in parts.values()])))
            ccds = "".join(map(str, parts))
            target.truth |= {"object_id": name, "file": f"{NIGHT}/spectra/com/{name}[{ccds}].fits", "snr": snr}
            target.truth["note"] = "" if has_last else "no CCD4"
            yield target
    write_catalogue(targets, folder)


def linear_axis(first: float, step: float, reference: float = 1.0) -> dict:
    """Header of a linear wavelength axis."""
    return {"CRPIX1": reference, "CRVAL1": first, "CDELT1": step, "CUNIT1": "Angstroms"}


def counts_hdu(target: Target, name: str, part: dict, header: dict) -> bytes:
    """HDU0: counts, barycentric. Some files say CRPIX1 = 0, as some real ones do, and mean 1."""
    axis = linear_axis(part["first"], part["step"], 0.0 if target.number % 20 == 6 else 1.0)
    cards = {"ORIGIN": ("simulation", "not an observation"), "SIMULATE": True, "OBJECT": name, "CTYPE1": "LINEAR"}
    cards |= {"BARYEFF": part["barycentric"], **axis, **header}
    return image(part["counts"].astype(np.float32), cards, primary=True)


def release_hdus(target: Target, name: str, part: dict) -> list[bytes]:
    """The five HDUs of data release 3; the normalised flux is on a grid shifted to rest."""
    before_sky = part["counts"] + part["sky"]
    relative = part["error"] * part["counts"] / np.where(before_sky == 0, 1.0, before_sky)
    axis, rest = linear_axis(part["first"], part["step"]), 1.0 + target.redshift
    images = {"input_sigma": part["error"], "no_sky_subspectrum": before_sky, "no_sky_sigma": relative}
    hdus = [counts_hdu(target, name, part, {})]
    hdus += [image(values.astype(np.float32), axis, title) for title, values in images.items()]
    shifted = linear_axis(part["first"] / rest, part["step"] / rest)
    return [*hdus, image(part["normalised"].astype(np.float64), shifted, "normalised spectra")]


def reduction_hdus(target: Target, name: str, part: dict) -> list[bytes]:
    """The eight HDUs of reduction 6.0, labels and velocity in the primary header."""
    labels, velocity = target.labels, target.velocity
    header = {"PIPE_VER": "6.0", "RA_ICRS": target.ra, "DEC_ICRS": target.dec, "SNR": float(np.median(part["snr"]))}
    header |= {"RV": velocity, "RV_OK": 1, "RVCOM": velocity, "RVCOM_OK": 1, "PAR_OK": 1, "B": 2.0}
    header |= {keyword.upper()[:8]: labels[label] for keyword, label in CATALOGUE_LABELS.items()}
    images = {
        "normalized": part["normalised"],
        "relative_error": part["error"],
        "sky": part["sky"],
        "teluric": part["telluric"],
        "scattered": np.zeros(NUM_PIXELS),
        "cross_talk": np.zeros(NUM_PIXELS),
        "resolution_profile": part["fwhm"],
    }
    axis = linear_axis(part["first"], part["step"])
    hdus = [image(values.astype(np.float32), axis, title) for title, values in images.items()]
    return [counts_hdu(target, name, part, header), *hdus]


def write_catalogue(targets: list[Target], folder: Path) -> None:
    """Write `<night>/db/<night>.fits`, the reduction's catalogue: labels of every star."""
    (folder / str(NIGHT) / "db").mkdir()
    labels = stack_labels(targets, ("teff", "logg", "fe_h", "alpha_m", "rotation"))
    columns = {
        "sobject_id": np.array([int(target.truth["object_id"]) for target in targets], dtype=np.int64),
        "ra_icrs": np.array([target.ra for target in targets]),
        "dec_icrs": np.array([target.dec for target in targets]),
        "rv_com": np.array([target.velocity for target in targets], dtype=np.float32),
        "e_rv_com": np.full(len(targets), 0.1, dtype=np.float32),
        **{name: labels[key].astype(np.float32) for name, key in CATALOGUE_LABELS.items()},
        "snr": np.array([target.truth["snr"] for target in targets], dtype=np.float32),
    }
    header = {"SIMULATE": (True, "labels are the simulation's truth")}
    hdus = [image(None, header, primary=True), table(columns, "", rows=len(targets))]
    write_file(folder / str(NIGHT) / "db" / f"{NIGHT}.fits", hdus)
