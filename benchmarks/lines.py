"""Lines where physics puts them: `python -m benchmarks.lines --data sdss=/data/sdss galah=... --output figures`.

Every row of a survey is shifted to rest by its own velocity or redshift, and strong lines are looked for at their
vacuum wavelengths. A line counts where its profile can be trusted; a star's offset is the median of its lines, in
resolution elements (the full width at half maximum of the line spread function, which the row states). The sky's lines
are looked for in the noise of SDSS and DESI spectra: they stand at their vacuum wavelengths but for the Earth's
motion, at most 30 km/s; wavelengths taken for air would be off by 83 km/s. A figure per survey is written, and the
last line printed is the figures as JSON.
"""

import argparse
import json
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from datasets import Dataset

from spectral_tokenizer.data import load_survey
from spectral_tokenizer.data.wavelengths import FWHM_PER_SIGMA, SPEED_OF_LIGHT


#: Vacuum Angstrom (NIST; Balmer and Brackett lines from the Rydberg formula), absorption -1, emission 1.
STELLAR = {"H-beta": 4862.69, "Mg b": 5185.05, "Na D2": 5891.58, "Na D1": 5897.56, "H-alpha": 6564.61}
STELLAR |= {"Ca T1": 8500.36, "Ca T2": 8544.44, "Ca T3": 8664.52}
BRACKETT = {f"Br {n}": 1e8 / (109677.58 * (1 / 16 - 1 / n**2)) for n in range(11, 21)}
NEBULAR = {"[O II]": 3728.8, "H-beta": 4862.69, "[O III] 4960": 4960.30, "[O III] 5008": 5008.24}
NEBULAR |= {"H-alpha": 6564.61, "[N II]": 6585.27, "[S II] 6718": 6718.29, "[S II] 6733": 6732.67}
MIN_SIGNIFICANCE = 8.0  # of a line's curvature over its error
MIN_LINES = 4  # that can be trusted, for an object to count


@dataclass
class Offset:
    """Where a line was found.

    Attributes:
        line: its name or vacuum wavelength.
        elements: offset from its vacuum wavelength in resolution elements.
        error: of that, from the noise.
    """

    line: str
    elements: float
    error: float


def metal_lines(low: float, high: float, separation: float, per_element: int = 20) -> dict[str, float]:
    """The strongest lines of a cool star between two vacuum wavelengths, `separation` Angstrom from others as
    strong."""
    from spectral_tokenizer.data.simulation.lines import atomic_lines
    from spectral_tokenizer.data.simulation.opacity import ELEMENTS

    table = atomic_lines()
    inside = np.flatnonzero((table.wavelength > low) & (table.wavelength < high))
    elements, places = [table.species[index][0] for index in inside], table.wavelength[inside]
    strength = table.log_gf[inside] - 5040.0 / 5000.0 * table.excitation[inside]
    strength += np.array([ELEMENTS[element][0] for element in elements])
    chosen, counts = {}, {}
    for index in np.argsort(-strength):
        element = elements[index]
        is_rival = (np.abs(places - places[index]) < separation) & (strength > strength[index] - 1.0)
        if is_rival.sum() == 1 and counts.get(element, 0) < per_element:
            counts[element] = counts.get(element, 0) + 1
            chosen[f"{element} {places[index]:.1f}"] = places[index]
    return chosen


def find_line(
    wavelength: np.ndarray, flux: np.ndarray, ivar: np.ndarray, line: float, fwhm: float, sign: int
) -> Offset | None:
    """Where a line is, by a parabola through its core, if its profile can be trusted.

    Args:
        wavelength: (num_pixels,) at rest; flux and ivar alike.
        line: vacuum wavelength.
        fwhm: of the line spread function at the line, at rest.
        sign: 1 for emission, -1 for absorption.
    """
    near = np.flatnonzero(np.abs(wavelength - line) < 1.0 * fwhm)
    if len(near) < 3 or (ivar[near] == 0).any():
        return None
    top = near[np.argmax(sign * np.convolve(flux, [0.25, 0.5, 0.25], "same")[near])]
    core = np.flatnonzero(
        np.abs(wavelength - wavelength[top]) < max(0.7 * fwhm, 1.6 * np.diff(wavelength[near]).max())
    )
    if top in (near[0], near[-1]) or len(core) < 3 or (ivar[core] == 0).any():
        return None
    x = (wavelength[core] - wavelength[top]) / fwhm
    design = np.stack([np.ones_like(x), x, x**2], axis=1)
    weight = np.sqrt(ivar[core])[:, None]
    covariance = np.linalg.pinv((design * weight).T @ (design * weight))
    _, slope, curvature = covariance @ (design * weight**2).T @ flux[core]
    if -sign * curvature < MIN_SIGNIFICANCE * np.sqrt(covariance[2, 2]):
        return None
    centre = -slope / (2 * curvature)
    gradient = np.array([0.0, -1 / (2 * curvature), slope / (2 * curvature**2)])
    error = float(np.sqrt(gradient @ covariance @ gradient))
    if error > 0.1 or abs(centre) > 0.7:
        return None
    return Offset("", float((wavelength[top] - line) / fwhm + centre), error)


def find_lines(row: dict, shift: float, lines: dict[str, float], sign: int) -> list[Offset]:
    """All lines of a row that can be trusted.

    Args:
        row: its arrays.
        shift: (1 + z) between the row's frame and rest.
        lines: name -> vacuum wavelength.
        sign: 1 for emission, -1 for absorption.
    """
    found, ends = [], np.cumsum(row["segment_lengths"])
    for start, end in zip(ends - row["segment_lengths"], ends):
        wavelength = row["wavelength"][start:end] / shift
        flux, ivar = row["flux"][start:end].astype(float), row["ivar"][start:end].astype(float)
        for name, line in lines.items():
            if wavelength[0] + 5 < line < wavelength[-1] - 5:
                fwhm = FWHM_PER_SIGMA * np.interp(line, wavelength, row["lsf_sigma"][start:end]) / shift
                if offset := find_line(wavelength, flux, ivar, line, fwhm, sign):
                    found.append(Offset(name, offset.elements, offset.error))
    return found


def survey_lines(survey: str) -> list[tuple[dict[str, float], int, tuple[str, ...]]]:
    """What is looked for in a survey: lines, sign, and the classes of the objects that have them."""
    if survey == "galah":
        metals = {**metal_lines(4700, 4910, 0.4), **metal_lines(5640, 5890, 0.4), **metal_lines(6470, 6760, 0.5)}
        return [({"H-alpha": 6564.61, "H-beta": 4862.69, **metals}, -1, ("STAR",))]
    if survey == "apogee":
        return [({**metal_lines(15000, 17000, 1.0, 8), **BRACKETT}, -1, ("STAR",))]
    return [(STELLAR, -1, ("STAR",)), (NEBULAR, 1, ("GALAXY",))]


def pixels(dataset: Dataset, index: int) -> dict[str, np.ndarray]:
    """A row's arrays as they are stored: other formats would round wavelengths to float32."""
    names = ["wavelength", "flux", "ivar", "lsf_sigma", "segment_lengths"]
    table = dataset.select_columns(names).with_format("arrow")[index : index + 1]
    return {name: table[name].chunk(0).flatten().to_numpy() for name in names}


def measure(survey: str, dataset: Dataset) -> dict[str, list[Offset]]:
    """Trusted lines of every row that has `MIN_LINES` of them, by the row's number."""
    labels = dataset.select_columns(["class", "redshift", "radial_velocity", "frame", "snr"])[:]
    result = {}
    for index in range(len(dataset)):
        velocity, redshift = labels["radial_velocity"][index], labels["redshift"][index]
        shift = 1.0 + (velocity / SPEED_OF_LIGHT if np.isfinite(velocity) else redshift)
        if labels["frame"][index] == "rest":
            shift = 1.0
        if not np.isfinite(shift) or labels["frame"][index] == "observed":
            continue  # a visit in the observatory's frame: the Earth's motion is not in the row
        row = pixels(dataset, index)
        for lines, sign, classes in survey_lines(survey):
            if labels["class"][index] in classes:
                result.setdefault(str(index), []).extend(find_lines(row, shift, lines, sign))
    return {index: found for index, found in result.items() if len(found) >= MIN_LINES}


def sky_velocity(row: dict) -> float | None:
    """Velocity in km/s at which the sky's lines stand in a row's noise, against vacuum; None where they do not
    show."""
    from spectral_tokenizer.data.simulation.lines import sky_lines

    places, intensities = sky_lines()
    usable = (row["ivar"] > 0) & (row["wavelength"] > 5500) & (row["wavelength"] < 9700)
    if usable.sum() < 1000:
        return None
    wavelength, sigma = row["wavelength"][usable], row["ivar"][usable].astype(float) ** -0.5
    order = np.argsort(wavelength)
    wavelength, sigma = wavelength[order], np.log(sigma[order])
    width = np.median(row["lsf_sigma"][usable])
    noise = sigma - running_median(sigma, 101)
    noise = np.clip(noise, 0.0, np.percentile(noise, 99.5))
    velocities, likeness = np.arange(-400.0, 401.0, 5.0), []
    for velocity in velocities:
        template = np.zeros(len(wavelength))
        for place, intensity in zip(places * (1 + velocity / SPEED_OF_LIGHT), intensities):
            low, high = np.searchsorted(wavelength, [place - 4 * width, place + 4 * width])
            template[low:high] += intensity**0.5 * np.exp(-0.5 * ((wavelength[low:high] - place) / width) ** 2)
        likeness.append(np.corrcoef(template, noise)[0, 1])
    best = int(np.argmax(likeness))
    if likeness[best] < 0.35 or best in (0, len(velocities) - 1):
        return None
    curve = np.polyfit(velocities[best - 1 : best + 2], likeness[best - 1 : best + 2], 2)
    return float(-curve[1] / (2 * curve[0]))


def running_median(values: np.ndarray, size: int) -> np.ndarray:
    """Median of `size` neighbours of each value."""
    padded = np.pad(values, size // 2, mode="edge")
    return np.median(np.lib.stride_tricks.sliding_window_view(padded, size), axis=1)


def summary(offsets: dict[str, list[Offset]], skies: list[float]) -> dict:
    """The figures of a survey."""
    medians = np.array([np.median([offset.elements for offset in found]) for found in offsets.values()])
    lines = [offset.elements for found in offsets.values() for offset in found]
    figures = {"objects": len(medians), "lines": len(lines)}
    if len(medians):
        figures |= {
            "median_offset": round(float(np.median(medians)), 4),
            "largest_offset": round(float(np.abs(medians).max()), 4),
            "within_a_third": int((np.abs(medians) < 1 / 3).sum()),
        }
    if skies:
        figures |= {"skies": len(skies), "sky_velocity": round(float(np.median(skies)), 1)}
        figures["largest_sky_velocity"] = round(float(np.abs(skies).max()), 1)
    return figures


def draw(survey: str, dataset: Dataset, offsets: dict[str, list[Offset]], skies: list[float], path: Path) -> None:
    """The survey's figure: spectra around its strongest lines at rest, and the offsets."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    lines = {name: line for group, _, _ in survey_lines(survey) for name, line in group.items()}
    counts: dict[str, int] = {}
    for found in offsets.values():
        for offset in found:
            counts[offset.line] = counts.get(offset.line, 0) + 1
    shown = sorted(sorted(counts, key=counts.get, reverse=True)[:4], key=lambda name: lines[name])
    figure, axes = plt.subplots(1, len(shown) + 1, figsize=(3.2 * (len(shown) + 1), 3.6), constrained_layout=True)
    labels = dataset.select_columns(["radial_velocity", "redshift", "frame"])[:]
    for axis, name in zip(np.atleast_1d(axes), shown):
        line = lines[name]
        for index in [int(key) for key, found in offsets.items() if name in {offset.line for offset in found}][:25]:
            row = pixels(dataset, index)
            velocity = labels["radial_velocity"][index]
            shift = 1 + (velocity / SPEED_OF_LIGHT if np.isfinite(velocity) else labels["redshift"][index])
            wavelength = row["wavelength"] / (1 if labels["frame"][index] == "rest" else shift)
            near = (np.abs(wavelength - line) < 8 * np.interp(line, wavelength, row["lsf_sigma"])) & (row["ivar"] > 0)
            if near.sum() > 3:
                axis.plot(wavelength[near], row["flux"][near] / np.median(row["flux"][near]), lw=0.6, alpha=0.6)
        axis.axvline(line, color="k", lw=0.8, ls=":")
        axis.set(title=name, xlabel="vacuum Å, at rest", yticks=[])
    medians = [np.median([offset.elements for offset in found]) for found in offsets.values()]
    last = np.atleast_1d(axes)[-1]
    last.hist(medians, bins=np.linspace(-0.7, 0.7, 29), color="0.4")
    for edge in (-1 / 3, 1 / 3):
        last.axvline(edge, color="k", lw=0.8, ls=":")
    sky = f"; sky {np.median(skies):+.0f} km/s" if skies else ""
    last.set(title=f"{survey}: {len(medians)} objects{sky}", xlabel="offset / resolution element")
    figure.savefig(path, dpi=120)
    plt.close(figure)


def run(data: dict[str, str | Iterable[str]], output: Path | None, cache_dir: str | None = None) -> dict:
    """Measure every survey, write its figure if `output` is a folder, and give all figures."""
    figures = {}
    for survey, paths in data.items():
        dataset = load_survey(survey, paths, cache_dir=cache_dir, unreliable_labels=False)
        offsets = measure(survey, dataset)
        skies = []
        if survey in ("sdss", "desi"):
            found = (sky_velocity(pixels(dataset, index)) for index in range(len(dataset)))
            skies = [velocity for velocity in found if velocity is not None]
        figures[survey] = summary(offsets, skies)
        print(f"{survey}: {figures[survey]}", flush=True)
        if output is not None:
            output.mkdir(parents=True, exist_ok=True)
            draw(survey, dataset, offsets, skies, output / f"lines_{survey}.png")
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument(
        "--data", nargs="+", required=True, metavar="SURVEY=PATH", help="a survey may be named repeatedly"
    )
    parser.add_argument("--output", type=Path, help="folder for a figure per survey")
    given = parser.parse_args()
    data: dict[str, list[str]] = {}
    for entry in given.data:
        survey, path = entry.split("=", 1)
        data.setdefault(survey, []).append(path)
    with tempfile.TemporaryDirectory() as cache:
        print(json.dumps({"lines": run(data, given.output, cache)}))


if __name__ == "__main__":
    main()
