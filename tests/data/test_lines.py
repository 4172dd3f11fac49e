"""Lines of real spectra stand at their vacuum wavelengths, all surveys on one scale. Skipped where the files are not."""

import numpy as np
import pytest

from benchmarks import lines
from spectral_tokenizer.data import load_survey


FILES = {
    "sdss": ("sdss/*.fits",),
    "desi": ("desi/picca/coadd*", "desi/fastspecfit/coadd-4-80613-thru20210324.fits", "desi/specutils"),
    "galah": ("galah/dr3", "galah/dr3_emission", "galah/galah_workshop"),
    "apogee": ("apogee/apstar_data", "apogee/aspcap_data"),
}


@pytest.fixture(scope="module")
def dataset(spectra_dir, tmp_path_factory):
    cache, loaded = tmp_path_factory.mktemp("cache"), {}

    def dataset(survey):
        if survey not in loaded:
            loaded[survey] = load_survey(survey, [str(spectra_dir / path) for path in FILES[survey]], cache_dir=cache)
        return loaded[survey]

    return dataset


@pytest.mark.parametrize(("survey", "objects"), [("sdss", 2), ("galah", 35), ("apogee", 4)])
def test_lines_within_a_third_of_a_resolution_element(dataset, survey, objects):
    """Of SDSS galaxies with emission lines, of GALAH and APOGEE stars (most of those are M dwarfs, full of blends)."""
    offsets = lines.measure(survey, dataset(survey))
    medians = np.array([np.median([offset.elements for offset in found]) for found in offsets.values()])
    assert len(medians) >= objects
    assert (np.abs(medians) < 1 / 3).all()
    assert abs(np.median(medians)) < {"sdss": 0.1, "galah": 0.05, "apogee": 0.3}[survey]


@pytest.mark.parametrize(("survey", "rows"), [("sdss", 70), ("desi", 8)])
def test_the_sky_stands_still_but_for_the_earth(dataset, survey, rows):
    """Its lines, seen in the noise, move by at most 30 km/s; in air they would be off by 83 km/s."""
    loaded = dataset(survey)
    found = [lines.sky_velocity(lines.pixels(loaded, index)) for index in range(len(loaded))]
    velocities = np.array([velocity for velocity in found if velocity is not None])
    assert len(velocities) >= rows and np.abs(velocities).max() < 35
    assert abs(np.median(velocities)) < 20


def test_a_shifted_scale_is_seen(dataset):
    """The measurement can fail: half a resolution element is seen as such."""
    loaded = dataset("galah").select(range(30))
    before, after = [], []
    for index in range(len(loaded)):
        row, velocity = lines.pixels(loaded, index), loaded[index]["radial_velocity"]
        shift = 1 + velocity / lines.SPEED_OF_LIGHT
        ((wanted, sign, _),) = lines.survey_lines("galah")
        before += [offset.elements for offset in lines.find_lines(row, shift, wanted, sign)]
        row["wavelength"] = row["wavelength"] + 0.3 * lines.FWHM_PER_SIGMA * row["lsf_sigma"]
        after += [offset.elements for offset in lines.find_lines(row, shift, wanted, sign)]
    assert abs(np.median(before)) < 0.05 and np.median(after) == pytest.approx(0.3, abs=0.08)


def test_figures(dataset, tmp_path, spectra_dir, capsys):
    path = str(spectra_dir / "galah/galah_workshop")
    figures = lines.run({"galah": [path]}, tmp_path / "figures", str(tmp_path / "cache"))
    assert (tmp_path / "figures/lines_galah.png").stat().st_size > 10_000
    assert figures["galah"]["within_a_third"] == figures["galah"]["objects"] > 0
    assert "galah: {'objects'" in capsys.readouterr().out


#: Stars of reduction 6.0 whose labels stand in its catalogue, and how well simulated lines follow theirs in each CCD.
KNOWN_STARS = {
    "210115000101001": (0.8, 0.85, 0.8, 0.75),
    "210115000101003": (0.75, 0.25, 0.55, 0.1),
    "210115000101005": (0.7, 0.65, 0.75, 0.45),
}


@pytest.mark.parametrize("star", KNOWN_STARS)
def test_simulated_lines_are_those_of_real_stars(dataset, star):
    """A star of the same labels, CCD by CCD: pixel by pixel the same lines. With other lines the correlation is 0.1."""
    loaded = dataset("galah")
    row = loaded[loaded["object_id"].index(star)]
    for ccd, wanted in zip(range(1, 5), KNOWN_STARS[star]):
        _, real, simulated = lines.beside_simulated(row, ccd)
        assert np.corrcoef(real, simulated)[0, 1] > wanted, ccd
        assert np.std(real - simulated) < (1.02 if wanted < 0.4 else 0.95) * np.std(real), ccd


@pytest.mark.parametrize("star", ["210115000101003", "210115000101005"])
@pytest.mark.parametrize(("ccd", "line"), [(1, 4862.69), (3, 6564.61)])
def test_simulated_hydrogen_has_the_wings_of_real_stars(dataset, star, ccd, line):
    """An F and a G dwarf, 2.5 to 12 Angstrom from the line: how the temperature of such stars is told."""
    loaded = dataset("galah")
    row = loaded[loaded["object_id"].index(star)]
    wavelength, real, simulated = lines.beside_simulated(row, ccd)
    distance = np.abs(wavelength - line)
    level = [np.median(each[(distance > 20) & (distance < 40)]) for each in (real, simulated)]
    for low, high in ((2.5, 4.0), (4.0, 7.0), (7.0, 12.0)):
        near = (distance > low) & (distance < high)
        wings = [np.median(each[near]) / one for each, one in zip((real, simulated), level)]
        assert wings[1] == pytest.approx(wings[0], abs=0.07), (low, high)
