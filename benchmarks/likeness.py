"""Simulated stars beside real ones and published models.

    python -m benchmarks.likeness --data galah=/data/galah --output figures

Real GALAH stars with labels, the Kurucz models of SDSS's standards and APOGEE's published templates (`--templates`,
where `training/simulated/template_files.py` looks for them) beside the package's own stars of the same labels: how
alike they are, pixel by pixel at the survey's resolution, and how far apart in the lines of hydrogen. A picture per
GALAH star is written, and the last line printed is the figures as JSON.
"""

import argparse
import json
import tempfile
from pathlib import Path

import numpy as np
import torch
from astropy.io import fits
from datasets import Dataset
from scipy.ndimage import gaussian_filter1d, percentile_filter, uniform_filter1d

from spectral_tokenizer.data import load_survey
from spectral_tokenizer.data.simulation import galah
from spectral_tokenizer.data.simulation.templates import OPTICAL_STEP, optical_star_model
from spectral_tokenizer.data.wavelengths import SPEED_OF_LIGHT
from training.simulated.spectrographs import spectrograph
from training.simulated.stars import LabelledStars, TemplateStars
from training.simulated.template_files import templates_folder


MIN_PIXELS = 500  # usable in a CCD, for a star to be laid beside a simulated one
MOST_STARS = 12  # that are
BALMER = {
    "H-alpha": (6564.61, 90.0),
    "H-beta": (4862.69, 70.0),
}  # vacuum Angstrom, and how far the wings of F stars reach
SDSS_SIGMA = 70.0  # km/s
#: Stars as APOGEE's templates have them: giants as the Cannon (Teff, logg, [Fe/H], [alpha/M]), dwarfs as the networks.
APOGEE_GIANTS = (
    (4500.0, 2.0, -0.3, 0.05),
    (4200.0, 1.6, -0.1, 0.1),
    (4800.0, 2.6, 0.1, 0.0),
    (4700.0, 2.4, -0.6, 0.2),
)
APOGEE_DWARFS = ((5800.0, 4.4, 0.0, 0.0), (4700.0, 4.6, 0.0, 0.0), (6500.0, 4.2, -0.3, 0.1))


def beside_simulated(row: dict, ccd: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Wavelength (vacuum Angstrom, at rest), relative flux of a real GALAH star and of a simulated one of its labels:
    usable pixels of a CCD.

    A quartic takes the difference of their continua out; the atmosphere's A band is left out.
    """
    model, detector = galah.models()[ccd], galah.detectors()[ccd]
    whole, shift = np.asarray(row["wavelength"]), 1.0 + row["radial_velocity"] / SPEED_OF_LIGHT
    inside = (whole > detector.wavelength[0]) & (whole < detector.wavelength[-1])
    wavelength, flux, ivar = (np.asarray(row[name], dtype=float)[inside] for name in ("wavelength", "flux", "ivar"))
    labels = {name: np.array([row[name]]) for name in ("teff", "logg", "fe_h")} | {"alpha_m": np.array([0.05])}
    template, level = model.spectra(labels)
    start, step = float(np.log(model.wavelength[0])), galah.STEP / SPEED_OF_LIGHT
    simulated = detector.observe(template[0] / level[0], start, step, shift - 1.0, 1.0, wavelength=wavelength)
    usable = (ivar > 0) & ((wavelength < 7590) | (wavelength > 7700))
    position, kept = np.linspace(-1.0, 1.0, len(flux)), usable
    for _ in range(3):
        ratio = flux / np.maximum(simulated, 0.05)
        curve = np.polynomial.polynomial.polyfit(position[kept], ratio[kept], 4)
        continuum = np.polynomial.polynomial.polyval(position, curve)
        kept = usable & (np.abs(ratio - continuum) < 3.0 * np.std((ratio - continuum)[kept]))
    usable &= np.abs(flux / continuum - 1.0) < 1.0  # cosmic rays
    return wavelength[usable] / shift, (flux / continuum)[usable], simulated[usable]


def wings(row: dict, line: str, low: float, high: float) -> tuple[float, float]:
    """Median flux from `low` to `high` Angstrom of a line over that from 20 to 40: a real GALAH star, a simulated
    one."""
    place, _ = BALMER[line]
    wavelength, *both = beside_simulated(row, {"H-beta": 1, "H-alpha": 3}[line])
    distance = np.abs(wavelength - place)
    near, far = (distance > low) & (distance < high), (distance > 20.0) & (distance < 40.0)
    return tuple(float(np.median(flux[near]) / np.median(flux[far])) for flux in both)


def real_stars(dataset: Dataset) -> dict[str, dict]:
    """GALAH stars, the first `MOST_STARS` that have labels and `MIN_PIXELS` in each CCD: their correlation with
    simulated ones, CCD by CCD, and the flux of both 4 to 7 Angstrom from the Balmer lines."""
    labels = dataset.select_columns(["teff", "logg", "fe_h", "radial_velocity"])[:]
    known = np.isfinite(np.array([labels[name] for name in labels], dtype=float)).all(axis=0)
    result = {}
    for index in np.flatnonzero(known):
        row = dataset[int(index)]
        usable = np.split(np.asarray(row["ivar"]) > 0, np.cumsum(row["segment_lengths"])[:-1])
        if min(each.sum() for each in usable) < MIN_PIXELS:
            continue
        ccds = [beside_simulated(row, ccd) for ccd in range(1, len(usable) + 1)]
        found = {"teff": row["teff"], "correlation": [correlation(*each[1:]) for each in ccds]}
        result[row["object_id"]] = found | {
            line: [round(each, 3) for each in wings(row, line, 4.0, 7.0)] for line in BALMER
        }
        if len(result) == MOST_STARS:
            break
    return result


def kurucz_models(folder: Path) -> dict:
    """SDSS's standards at its resolution: correlation (means by Teff), rms difference of the Balmer lines from 5,900 K
    on."""
    with fits.open(folder / "sdss_idlspec2d/kurucz_stds_v5.fit") as hdus:
        header, table, published = hdus[0].header, hdus[1].data, hdus[0].data.astype(float)
    wavelength = 10.0 ** (header["CRVAL1"] + header["CD1_1"] * np.arange(published.shape[1]))
    columns = {"teff": "TEFF", "logg": "G", "fe_h": "FEH"}
    labels = {name: table[column].astype(float) for name, column in columns.items()}
    labels["alpha_m"] = np.zeros(len(published))
    model = optical_star_model()
    flux = gaussian_filter1d(model.spectra(labels)[0], SDSS_SIGMA / OPTICAL_STEP, axis=1)
    simulated = np.array([np.interp(wavelength, model.wavelength, each) for each in flux])
    inside, found = (wavelength > 3850.0) & (wavelength < 9000.0), {}
    alike = [
        correlation(gaussian_filter1d(relative(one, 80, 201), 1.0), relative(other, 80, 201))
        for one, other in zip(published[:, inside], simulated[:, inside])
    ]
    nearest = 500.0 * np.round(labels["teff"] / 500.0)
    found["correlation"] = {
        int(teff): round(float(np.mean(np.array(alike)[nearest == teff])), 3) for teff in np.unique(nearest)
    }
    hot = labels["teff"] > 5900.0
    for line, (place, reach) in BALMER.items():
        one, other = (straightened(wavelength - place, each[hot], reach) for each in (published, simulated))
        found[line] = round(float(np.sqrt(np.mean((one - other) ** 2))), 4)
    return found


def straightened(distance: np.ndarray, flux: np.ndarray, reach: float) -> np.ndarray:
    """Flux (stars, pixels) within `reach` of a line over a straight line through what is beyond, up to 1.3 times as
    far."""
    ends = (np.abs(distance) > reach) & (np.abs(distance) < 1.3 * reach)
    near = np.abs(distance) < reach
    level = np.polynomial.polynomial.polyfit(distance[ends], flux[:, ends].T, 1)
    return flux[:, near] / np.polynomial.polynomial.polyval(distance[near], level)


def apogee_templates(folder: Path) -> dict[str, float]:
    """Correlation with the published templates of APOGEE, after a running continuum."""
    labels = np.array(APOGEE_GIANTS + APOGEE_DWARFS)
    parameters = {name: torch.tensor(each) for name, each in zip(("teff", "logg", "fe_h", "alpha_m"), labels.T)}
    parameters["rotation"] = torch.full((len(labels),), 5.0, dtype=torch.float64)
    parameters["extinction"] = torch.zeros(len(labels), dtype=torch.float64)
    parameters["is_giant"] = torch.arange(len(labels)) < len(APOGEE_GIANTS)
    both = [
        stars.apogee_flux(spectrograph("apogee"), parameters)[0].numpy()
        for stars in (TemplateStars(folder, "cpu"), LabelledStars("cpu"))
    ]
    result = {}
    for star, published, simulated in zip(labels, *both):
        known = np.isfinite(published)
        name = "giant" if star[1] < 3.6 else "dwarf"
        result[f"{name} {star[0]:.0f} K"] = correlation(
            *(relative(each[known], 85, 401) for each in (published, simulated))
        )
    return result


def relative(flux: np.ndarray, percentile: float, size: int) -> np.ndarray:
    """Flux over a running continuum: a percentile of `size` pixels, smoothed."""
    return flux / uniform_filter1d(percentile_filter(flux, percentile, size), size)


def correlation(one: np.ndarray, other: np.ndarray) -> float:
    return round(float(np.corrcoef(one, other)[0, 1]), 2)


def draw_beside(dataset: Dataset, object_id: str, path: Path) -> None:
    """A real GALAH star and a simulated one of its labels, 60 Angstrom of each CCD."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    row = dataset[dataset["object_id"].index(object_id)]
    count = len(row["segment_lengths"])
    figure, axes = plt.subplots(count, 1, figsize=(11.0, 2.1 * count), constrained_layout=True)
    for axis, ccd in zip(np.atleast_1d(axes), range(1, count + 1)):
        wavelength, real, simulated = beside_simulated(row, ccd)
        middle = BALMER["H-alpha"][0] if ccd == 3 else wavelength[len(wavelength) // 2]
        near = np.abs(wavelength - middle) < 30
        axis.plot(wavelength[near], real[near], lw=0.9, color="0.35", label="real")
        axis.plot(wavelength[near], simulated[near], lw=0.9, color="tab:orange", label="simulated from its labels")
        axis.set(xlim=(middle - 30, middle + 30), ylim=(0.2, 1.2))
    labels = {name: row[name] for name in ("teff", "logg", "fe_h")}
    title = "{object_id}: {teff:.0f} K, logg {logg:.2f}, [Fe/H] {fe_h:.2f}".format(object_id=object_id, **labels)
    np.atleast_1d(axes)[0].set_title(title)
    np.atleast_1d(axes)[0].legend(loc="lower left", ncols=2, frameon=False)
    np.atleast_1d(axes)[-1].set_xlabel("vacuum Å, at rest")
    figure.savefig(path, dpi=90)
    plt.close(figure)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", metavar="galah=PATH", help="real GALAH stars with labels")
    parser.add_argument("--templates", help="folder of published templates")
    parser.add_argument("--output", type=Path, help="folder for a picture per GALAH star")
    given = parser.parse_args(arguments)
    figures = {}
    if given.data:
        survey, path = given.data.split("=", 1)
        if survey != "galah":
            parser.error(
                f"--data: expected galah=PATH, found {given.data!r}: other surveys' stars have published templates"
            )
        with tempfile.TemporaryDirectory() as cache:
            dataset = load_survey("galah", path, cache_dir=cache, unreliable_labels=False)
            figures["galah"] = real_stars(dataset)
            for object_id in figures["galah"] if given.output else ():
                given.output.mkdir(parents=True, exist_ok=True)
                draw_beside(dataset, object_id, given.output / f"simulated_{object_id}.png")
    if folder := templates_folder(given.templates):
        figures |= {"kurucz": kurucz_models(folder), "apogee": apogee_templates(folder)}
    if not figures:
        parser.error("nothing to lay simulated stars beside: expected --data galah=PATH, --templates FOLDER, or both")
    for name, found in figures.items():
        print(name, *(f"  {key}: {value}" for key, value in found.items()), sep="\n")
    print(json.dumps({"likeness": figures}))


if __name__ == "__main__":
    main()
