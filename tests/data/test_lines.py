"""Lines of real spectra stand at their vacuum wavelengths, all surveys on one scale. Skipped where the files are
not."""

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
