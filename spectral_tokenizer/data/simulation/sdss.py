"""Simulated SDSS and BOSS spectra: `spec-PLATE-MJD-FIBER.fits`, lite, one file per fibre (SDSS data model: "spec").

Vacuum, heliocentric, log10 wavelength in steps of 1e-4, flux in 1e-17 erg/s/cm2/A. Even numbers are SDSS (lower-case
columns, some 3840 pixels), odd ones BOSS (upper case, some 4600).
"""

from collections.abc import Iterator
from functools import cache
from pathlib import Path

import numpy as np

from .fits_files import image, table, write_file
from .instruments import (
    Detector,
    add_noise,
    bad_pixels,
    cosmic_rays,
    sky_residual,
    smooth_error,
)
from .population import Target
from .templates import narrowed, optical_flux, optical_templates


FIRST_LOGLAM, LAST_LOGLAM, STEP = 3.5480, 4.0175, 1e-4
NOISE_NODES = (3600, 3700, 3850, 4000, 5000, 5900, 6000, 7000, 8000, 9000, 9300, 9800, 10300)
#: Sigma in 1e-17 erg/s/cm2/A of a faint object at `NOISE_NODES`, as typical files of each instrument have it.
NOISE = {
    "SDSS": (6.0, 5.0, 3.2, 2.2, 1.25, 1.2, 1.0, 0.73, 0.8, 1.1, 1.5, 3.0, 6.0),
    "BOSS": (3.0, 1.5, 0.85, 0.68, 0.35, 0.4, 0.37, 0.22, 0.22, 0.22, 0.25, 0.4, 1.8),
}
SKY_LEVEL = {"SDSS": 25.0, "BOSS": 9.0}  # flux at which the object's own photons double the variance
SKY_NOISE = {"SDSS": 25.0, "BOSS": 60.0}  # variance at the peak of the strongest sky lines, beside the continuum's
LINE_SPREAD = {"SDSS": 1.0, "BOSS": 1.09}  # over `dispersion_pixels`
BRIGHT_SKY_BIT = 1 << 23


@cache
def detector() -> Detector:
    """The spectrograph over the widest range of any file."""
    wavelength = 10.0 ** (FIRST_LOGLAM + STEP * np.arange(round((LAST_LOGLAM - FIRST_LOGLAM) / STEP) + 1))
    sigma = dispersion_pixels(wavelength) * wavelength * STEP * np.log(10.0)
    return Detector(wavelength, narrowed(wavelength, sigma))


def dispersion_pixels(wavelength: np.ndarray) -> np.ndarray:
    """Sigma of SDSS's line spread function in pixels: each of the two arms is sharpest at its red end."""
    blue = np.interp(wavelength, [3700.0, 3900.0, 4500.0, 5000.0, 5800.0], [1.2, 1.13, 0.97, 0.88, 0.80])
    red = np.interp(wavelength, [6300.0, 7000.0, 8000.0], [0.94, 0.83, 0.74])
    share = np.clip((wavelength - 5850.0) / 250.0, 0.0, 1.0)
    return (1.0 - share) * blue + share * red


def observe(target: Target, template) -> dict[str, np.ndarray]:
    """One fibre: columns of HDU1 (float64; `model` is the noiseless flux) and `is_bad`."""
    generator, whole = target.generator(3), detector()
    instrument = ("SDSS", "BOSS")[target.number % 2]
    if instrument == "SDSS":
        first, count = generator.integers(35785, 35833), generator.integers(3769, 3873)
    else:
        first, count = generator.integers(35510, 35565), generator.integers(4574, 4626)
    start = int(first) - round(FIRST_LOGLAM / STEP)
    part = slice(start, min(start + int(count), len(whole.wavelength)))
    wavelength, sky = whole.wavelength[part], whole.sky[part]
    fibre = LINE_SPREAD[instrument] * generator.normal(1.0, 0.05)
    truth = optical_flux(target, template, whole, fibre)[part] * smooth_error(generator, wavelength, 0.03)
    base = np.interp(wavelength, NOISE_NODES, NOISE[instrument]) * 10.0 ** generator.normal(0.0, 0.1)
    telluric = np.maximum(whole.telluric[part], 0.3)
    photons = np.maximum(truth, 0.0) / SKY_LEVEL[instrument]
    sigma = base * np.sqrt(1.0 + SKY_NOISE[instrument] * sky + photons) / np.sqrt(telluric)
    truth = truth * (1.0 + generator.normal(0.0, 0.02) * (1.0 - telluric))
    flux = add_noise(generator, truth, sigma)
    flux += sky_residual(generator, sky, sigma, 0.6)
    flux += cosmic_rays(generator, sigma, 1e-4)
    is_bad = bad_pixels(generator, len(flux), 0.004, 0.04)
    is_bad[: generator.integers(0, 12)] = True
    flux[is_bad] = np.where(generator.random(is_bad.sum()) < 0.5, 0.0, generator.normal(0.0, 40.0, is_bad.sum()))
    width = dispersion_pixels(wavelength) * fibre
    width[is_bad & (np.arange(len(flux)) < 12)] = 0.0
    and_mask = np.where(sky > 0.3, BRIGHT_SKY_BIT, 0) | np.where(is_bad, 1 << 16, 0)
    return {
        "flux": flux,
        "loglam": np.log10(wavelength),
        "ivar": np.where(is_bad, 0.0, sigma**-2.0),
        "and_mask": and_mask,
        "or_mask": and_mask | np.where(generator.random(len(flux)) < 0.02, 1 << 20, 0),
        "wdisp": width,
        "sky": np.interp(wavelength, [3500, 5000, 8000, 10500], [4.0, 3.0, 4.5, 7.0]) * (1.0 + 25.0 * sky),
        "model": truth,
    }


def write(targets: list[Target], folder: Path) -> Iterator[Target]:
    """Write one file per target and yield the targets with their `truth` filled in."""
    for first in range(0, len(targets), 32):
        batch = targets[first : first + 32]
        for target, template in zip(batch, optical_templates(batch)):
            columns = observe(target, template)
            write_spectrum(target, columns, folder)
            yield target


def write_spectrum(target: Target, columns: dict[str, np.ndarray], folder: Path) -> None:
    """Write `spec-PLATE-MJD-FIBER.fits`."""
    is_boss = target.number % 2 == 1
    plate, fibre = (19001 if is_boss else 18001) + target.number // 1280, target.number // 2 % 640 + 1
    mjd = (55500 if is_boss else 52500) + plate % 1000
    usable = columns["ivar"] > 0
    snr = float(np.median(columns["flux"][usable] * np.sqrt(columns["ivar"][usable])))
    header = {"TELESCOP": "SDSS 2.5-M", "PLATEID": plate, "MJD": mjd, "FIBERID": fibre, "VACUUM": True}
    header |= {"COEFF0": float(columns["loglam"][0]), "COEFF1": STEP, "BUNIT": "1E-17 erg/cm^2/s/Ang"}
    header |= {"PLUG_RA": target.ra, "PLUG_DEC": target.dec, "SIMULATE": (True, "simulated, not an observation")}
    integers = ("and_mask", "or_mask")
    pixels = {
        name.upper() if is_boss else name: values.astype(np.int32 if name in integers else np.float32)
        for name, values in columns.items()
    }
    row = catalogue_row(target, columns, (plate, mjd, fibre), snr)
    name = f"spec-{plate:04d}-{mjd}-{fibre:04d}.fits"
    hdus = [image(None, header, primary=True), table(pixels, "COADD", rows=len(usable))]
    write_file(folder / name, [*hdus, table(row, "SPALL" if is_boss else "SPECOBJ")])
    target.truth |= {"object_id": f"{plate:04d}-{mjd}-{fibre:04d}", "file": name, "snr": snr}
    target.truth["note"] = "sky fibre" if target.kind == "SKY" else ""


def catalogue_row(target: Target, columns: dict[str, np.ndarray], fibre: tuple[int, int, int], snr: float) -> dict:
    """The row of HDU2. A sky fibre gets a class and a redshift all the same, as real ones do."""
    is_boss, is_sky = target.number % 2 == 1, target.kind == "SKY"
    generator = target.generator(4)
    subclass = {"QSO": "BROADLINE"}.get(target.kind, "")
    if target.kind == "STAR":
        subclass = "OBAFGKM"[int(np.searchsorted([3800, 5200, 6000, 7500, 1e4], target.labels["teff"])) * -1 - 1]
    elif target.kind == "GALAXY" and target.labels["young"] > 0.3:
        subclass = "STARFORMING" if target.labels["young"] < 0.7 else "STARBURST"
    labels = target.labels if target.kind == "STAR" else {"teff": 0.0, "logg": 0.0, "fe_h": 0.0}
    wavelength = 10.0 ** columns["loglam"]
    return {
        "SURVEY": "boss" if is_boss else "sdss",
        "INSTRUMENT": "BOSS" if is_boss else "SDSS",
        "PLATEQUALITY": "good",
        "RUN2D": "simulated",
        "SOURCETYPE" if not is_boss else "OBJTYPE": "SKY" if is_sky else target.kind,
        "PLATE": np.int32(fibre[0]),
        "MJD": np.int32(fibre[1]),
        "FIBERID": np.int32(fibre[2]),
        "PLUG_RA": target.ra,
        "PLUG_DEC": target.dec,
        "CLASS": generator.choice(["QSO", "GALAXY", "STAR"]) if is_sky else target.kind,
        "SUBCLASS": subclass,
        "Z": np.float32(generator.uniform(0.0, 7.0) if is_sky else target.redshift),
        "Z_ERR": np.float32(3e-5),
        "RCHI2": np.float32(1.0),
        "DOF": np.int32(len(wavelength)),
        "VDISP": np.float32(target.labels.get("dispersion", 0.0)),
        "WAVEMIN": np.float32(wavelength[0]),
        "WAVEMAX": np.float32(wavelength[-1]),
        "ZWARNING": np.int32(5 if is_sky else 0),
        "SN_MEDIAN_ALL": np.float32(snr),
        "ELODIE_TEFF": np.float32(labels["teff"]),
        "ELODIE_LOGG": np.float32(labels["logg"]),
        "ELODIE_FEH": np.float32(labels["fe_h"]),
    }
