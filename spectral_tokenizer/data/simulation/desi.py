"""Simulated DESI coadds: `coadd-*.fits` of up to 100 targets with `redrock-*.fits` beside it.

Vacuum, barycentric, three arms in steps of 0.8 Angstrom, flux in 1e-17 erg/s/cm2/A, TARGETID beyond 2^53.
"""

from collections.abc import Iterator
from functools import cache
from pathlib import Path

import numpy as np

from .fits_files import image, table, write_file
from .instruments import Detector, add_noise, bad_pixels, cosmic_rays, sky_residual, smooth_error
from .population import BAD_FIBER_EVERY, Target
from .templates import Template, narrowed, optical_flux, optical_templates


TARGETS_PER_FILE = 100
ARMS = {"B": (3600.0, 2751), "R": (5760.0, 2326), "Z": (7520.0, 2881)}
#: Sigma in 1e-17 erg/s/cm2/A of a faint object in dark time, by arm: (wavelengths, values).
NOISE = {
    "B": ((3600, 3700, 3850, 4100, 4600, 5400, 5700, 5800), (2.6, 1.5, 0.9, 0.5, 0.33, 0.24, 0.26, 0.5)),
    "R": ((5760, 5790, 5850, 6200, 7000, 7500, 7620), (1.9, 0.5, 0.22, 0.15, 0.13, 0.14, 0.35)),
    "Z": ((7520, 7560, 7650, 8200, 9000, 9500, 9824), (0.6, 0.25, 0.14, 0.11, 0.10, 0.13, 0.22)),
}
SKY_LEVEL = 4.0  # flux at which the object's own photons double the variance
SKY_NOISE = 200.0  # variance at the peak of the strongest sky lines, beside the continuum's
NUM_DIAGONALS = 11
UNITS = {
    "FLUX": "10**-17 erg/(s cm2 Angstrom)",
    "IVAR": "10**+34 (s2 cm4 Angstrom2) / erg2",
    "MASK": "",
    "RESOLUTION": "",
}
FIRST_TARGET, FIRST_SKY = 39627000000000000, 616088560000000000


@cache
def detectors() -> dict[str, Detector]:
    """The three arms."""
    arms = {}
    for arm, (first, count) in ARMS.items():
        wavelength = first + 0.8 * np.arange(count)
        arms[arm] = Detector(wavelength, narrowed(wavelength, dispersion(arm)))
    return arms


def dispersion(arm: str) -> np.ndarray:
    """Sigma of the line spread function in Angstrom: resolving power 2200 at 3600 to 5400 at 9800 Angstrom."""
    first, count = ARMS[arm]
    return 0.8 * np.interp(
        np.linspace(-1.0, 1.0, count),
        [-1.0, 0.0, 1.0],
        {"B": (0.86, 0.84, 0.82), "R": (0.84, 0.80, 0.78), "Z": (0.92, 0.88, 0.93)}[arm],
    )


def observe(target: Target, template: Template | None) -> dict[str, dict[str, np.ndarray]]:
    """One fibre: arm -> flux, ivar, mask, resolution (11, pixels) and the noiseless flux `model`."""
    generator = target.generator(3)
    fibre, depth = generator.normal(1.0, 0.02), 10.0 ** generator.normal(0.0, 0.12)
    tilt = generator.normal(0.0, 0.02, 3)
    arms = {}
    for (arm, detector), offset in zip(detectors().items(), tilt):
        wavelength = detector.wavelength
        truth = optical_flux(target, template, detector, fibre) * smooth_error(generator, wavelength, 0.02)
        truth = truth * (1.0 + 0.3 * offset)
        telluric = np.maximum(detector.telluric, 0.25)
        photons = np.maximum(truth, 0.0) / SKY_LEVEL
        sigma = (
            depth
            * np.interp(wavelength, *NOISE[arm])
            * np.sqrt(1.0 + SKY_NOISE * detector.sky + photons)
            / np.sqrt(telluric)
        )
        truth = truth * (1.0 + generator.normal(0.0, 0.02) * (1.0 - telluric))
        flux = add_noise(generator, truth, sigma) + sky_residual(generator, detector.sky, sigma, 0.5)
        flux += cosmic_rays(generator, sigma, 1e-4)
        is_bad = bad_pixels(generator, len(flux), 0.003, 0.03)
        flux[is_bad] = generator.normal(0.0, 60.0, is_bad.sum())
        # Half of the bad pixels are told by the mask alone, the others by ivar = 0 as well.
        has_ivar = ~is_bad | (generator.random(len(flux)) < 0.5)
        arms[arm] = {
            "flux": flux,
            "ivar": np.where(has_ivar, sigma**-2.0, 0.0),
            "mask": np.where(is_bad, 2, 0),
            "resolution": resolution_bands(fibre * dispersion(arm) / 0.8),
            "model": truth,
        }
    return arms


def resolution_bands(sigma_pixels: np.ndarray) -> np.ndarray:
    """The banded resolution matrix (diagonals, pixels), offsets from +5 down to -5, columns that add up to 1."""
    offset = np.arange(NUM_DIAGONALS // 2, -NUM_DIAGONALS // 2, -1)[:, None]
    bands = np.exp(-0.5 * (offset / sigma_pixels) ** 2)
    return bands / bands.sum(axis=0)


def write(targets: list[Target], folder: Path) -> Iterator[Target]:
    """Write the files and yield the targets with their `truth` filled in."""
    for first in range(0, len(targets), TARGETS_PER_FILE):
        group = targets[first : first + TARGETS_PER_FILE]
        arrays = empty_arrays(len(group))
        for start in range(0, len(group), 32):
            batch = group[start : start + 32]
            for row, (target, template) in enumerate(zip(batch, optical_templates(batch)), start):
                arms = observe(target, template)
                for arm, values in arms.items():
                    for name, value in values.items():
                        if name != "model":
                            arrays[f"{arm}_{name.upper()}"][row] = value
                fill_truth(target, arms, f"coadd-sv3-dark-{first // TARGETS_PER_FILE}.fits#{row}")
                yield target
        write_coadd(group, arrays, folder / f"coadd-sv3-dark-{first // TARGETS_PER_FILE}.fits")
        write_redshifts(group, folder / f"redrock-sv3-dark-{first // TARGETS_PER_FILE}.fits")


def empty_arrays(count: int) -> dict[str, np.ndarray]:
    """Arrays of a coadd file by HDU name, in big-endian as FITS stores them."""
    arrays = {}
    for arm, (_, pixels) in ARMS.items():
        arrays[f"{arm}_FLUX"] = np.zeros((count, pixels), dtype=">f4")
        arrays[f"{arm}_IVAR"] = np.zeros((count, pixels), dtype=">f4")
        arrays[f"{arm}_MASK"] = np.zeros((count, pixels), dtype=">i4")
        arrays[f"{arm}_RESOLUTION"] = np.zeros((count, NUM_DIAGONALS, pixels), dtype=">f4")
    return arrays


def target_id(target: Target) -> int:
    """TARGETID, beyond what a double holds exactly."""
    return (FIRST_SKY if target.kind == "SKY" else FIRST_TARGET) + target.number


def has_bad_fiber(target: Target) -> bool:
    """Whether the fibre's status says that its spectrum is not to be used."""
    return target.number % BAD_FIBER_EVERY == BAD_FIBER_EVERY - 1


def fill_truth(target: Target, arms: dict, source: str) -> None:
    """What the truth table says of a DESI target."""
    flux, ivar = (np.concatenate([arms[arm][name] for arm in ARMS]) for name in ("flux", "ivar"))
    usable = (ivar > 0) & (np.concatenate([arms[arm]["mask"] for arm in ARMS]) == 0)
    target.truth |= {
        "object_id": str(target_id(target)),
        "file": source,
        "snr": float(np.median(flux[usable] * np.sqrt(ivar[usable]))),
        "note": "bad fibre" if has_bad_fiber(target) else "sky fibre" if target.kind == "SKY" else "",
    }


def fibermap(targets: list[Target]) -> bytes:
    """The table FIBERMAP with the columns that most releases have."""
    count = len(targets)
    columns = {
        "TARGETID": np.array([target_id(target) for target in targets], dtype=np.int64),
        "PETAL_LOC": np.array([target.number // 500 % 10 for target in targets], dtype=np.int16),
        "DEVICE_LOC": np.array([target.number % 500 for target in targets], dtype=np.int32),
        "FIBER": np.array([target.number % 5000 for target in targets], dtype=np.int32),
        "COADD_FIBERSTATUS": np.array([8 if has_bad_fiber(target) else 0 for target in targets], dtype=np.int32),
        "TARGET_RA": np.array([target.ra for target in targets]),
        "TARGET_DEC": np.array([target.dec for target in targets]),
        "OBJTYPE": np.array(["SKY" if target.kind == "SKY" else "TGT" for target in targets]),
        "EBV": np.array([target.labels.get("extinction", 0.1) / 3.1 for target in targets], dtype=np.float32),
        "FLUX_R": np.array([target.flux for target in targets], dtype=np.float32),
        "DESI_TARGET": np.zeros(count, dtype=np.int64),
        "COADD_NUMEXP": np.full(count, 4, dtype=np.int16),
        "COADD_EXPTIME": np.full(count, 4000.0, dtype=np.float32),
    }
    return table(columns, "FIBERMAP", rows=count)


def write_coadd(targets: list[Target], arrays: dict[str, np.ndarray], path: Path) -> None:
    """Write one coadd file, HDUs in the survey's order."""
    header = {"SURVEY": "sv3", "PROGRAM": "dark", "SIMULATE": (True, "simulated, not observations")}
    hdus = [image(None, header, primary=True), fibermap(targets)]
    for arm, detector in detectors().items():
        hdus.append(image(detector.wavelength, {"BUNIT": "Angstrom"}, f"{arm}_WAVELENGTH"))
        for name, unit in UNITS.items():
            hdus.append(image(arrays[f"{arm}_{name}"], {"BUNIT": unit} if unit else {}, f"{arm}_{name}"))
    write_file(path, hdus)


def write_redshifts(targets: list[Target], path: Path) -> None:
    """Write the redrock file: true classes and redshifts; of sky fibres whatever a fit finds in noise."""
    kinds, redshifts = [], []
    for target in targets:
        generator = target.generator(4)
        is_sky = target.kind == "SKY"
        kinds.append(generator.choice(["GALAXY", "QSO"]) if is_sky else target.kind)
        redshifts.append(generator.uniform(0.0, 2.0) if is_sky else target.redshift)
    subtypes = [spectral_type(target) for target in targets]
    warnings = [4 if target.kind == "SKY" else 0 for target in targets]
    columns = {
        "TARGETID": np.array([target_id(target) for target in targets], dtype=np.int64),
        "Z": np.array(redshifts),
        "ZERR": np.full(len(targets), 5e-5),
        "ZWARN": np.array(warnings, dtype=np.int64),
        "CHI2": np.full(len(targets), 7900.0),
        "SPECTYPE": np.array(kinds),
        "SUBTYPE": np.array(subtypes).astype("U20"),
        "DELTACHI2": np.array([5.0 if warning else 500.0 for warning in warnings]),
    }
    header = {"SIMULATE": (True, "simulated redshifts: the truth")}
    rows = len(targets)
    write_file(path, [image(None, header, primary=True), table(columns, "REDSHIFTS", rows), fibermap(targets)])


def spectral_type(target: Target) -> str:
    """M to B of a star, blank otherwise."""
    if target.kind != "STAR":
        return " "
    return "MKGFAB"[int(np.searchsorted([3850.0, 5250.0, 6000.0, 7400.0, 10500.0], target.labels["teff"]))]
