"""Simulated stars are like real ones and like published models. Skipped where the files are not."""

import json

import numpy as np
import pytest
import torch
from scipy.ndimage import median_filter

from benchmarks import likeness
from spectral_tokenizer.data import load_survey
from training.simulated.observing import observe
from training.simulated.patches import rows
from training.simulated.populations import population


#: Stars of reduction 6.0 whose labels stand in its catalogue, and how well simulated lines follow theirs in each CCD.
#: With lines where real stars have none the correlation is 0.1; the metal-poor dwarf has few but hydrogen's.
KNOWN_STARS = {
    "210115000101001": (0.8, 0.85, 0.8, 0.75),
    "210115000101003": (0.75, 0.25, 0.55, 0.1),
    "210115000101005": (0.7, 0.65, 0.75, 0.45),
}


@pytest.fixture(scope="module")
def stars(spectra_dir, tmp_path_factory):
    path = str(spectra_dir / "galah/galah_workshop")
    dataset = load_survey("galah", path, cache_dir=tmp_path_factory.mktemp("cache"))
    return {row["object_id"]: row for row in dataset if row["object_id"] in KNOWN_STARS}


@pytest.mark.parametrize("star", KNOWN_STARS)
def test_lines_are_those_of_real_stars(stars, star):
    """A star of the same labels, CCD by CCD: pixel by pixel the same lines, and about as deep."""
    for ccd, wanted in zip(range(1, 5), KNOWN_STARS[star]):
        _, real, simulated = likeness.beside_simulated(stars[star], ccd)
        assert np.corrcoef(real, simulated)[0, 1] > wanted, ccd
        assert np.std(real - simulated) < (1.02 if wanted < 0.4 else 0.95) * np.std(real), ccd


@pytest.mark.parametrize("star", ["210115000101003", "210115000101005"])
@pytest.mark.parametrize("line", likeness.BALMER)
def test_hydrogen_has_the_wings_of_real_stars(stars, star, line):
    """An F and a G dwarf: how the temperature of such stars is told."""
    for low, high in ((2.5, 4.0), (4.0, 7.0), (7.0, 12.0)):
        real, simulated = likeness.wings(stars[star], line, low, high)
        assert simulated == pytest.approx(real, abs=0.07), (low, high)


def test_stars_are_as_published_models_have_them(templates_dir):
    """Kurucz's at SDSS's resolution, hydrogen's lines among them; giants and dwarfs of APOGEE, lines at the same
    places."""
    found = likeness.kurucz_models(templates_dir)
    assert min(found["correlation"].values()) > 0.86 and found["correlation"][6500] > 0.95
    assert found["H-alpha"] < 0.013 and found["H-beta"] < 0.018
    found = likeness.apogee_templates(templates_dir)
    assert len(found) == 7 and min(found.values()) > 0.7


def test_figures(spectra_dir, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("TEMPLATES_DIR", "none")
    likeness.main(["--data", f"galah={spectra_dir / 'galah/galah_workshop'}", "--output", str(tmp_path)])
    found = json.loads(capsys.readouterr().out.splitlines()[-1])["likeness"]
    assert set(found) == {"galah"} and set(found["galah"]) == set(KNOWN_STARS)
    for star in KNOWN_STARS:
        assert (tmp_path / f"simulated_{star}.png").stat().st_size > 10_000
    with pytest.raises(SystemExit):
        likeness.main(["--data", "sdss=anywhere"])
    assert "expected galah=PATH, found 'sdss=anywhere'" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        likeness.main([])
    assert "nothing to lay simulated stars beside" in capsys.readouterr().err


SKY_LINES = (5891.6, 6302.0, 7752.8, 7915.9, 8346.0, 8829.0, 8921.0)  # vacuum Angstrom
#: Of O2 and H2O.
BANDS = [(low, high, np.nanmedian) for low, high in ((6872, 6900), (7595, 7625), (7625, 7680), (8940, 9170))]


def noise_profile(wavelength: np.ndarray, ivar: np.ndarray) -> list[float]:
    """How noise stands out: sigma over its running median, at the peaks of sky lines and in the atmosphere's bands."""
    usable = ivar > 0
    sigma = np.interp(wavelength, wavelength[usable], ivar[usable] ** -0.5)
    ratio = np.where(usable, sigma / median_filter(sigma, 301), np.nan)
    found = []
    for low, high, statistic in (*((line - 4.0, line + 4.0, np.nanmax) for line in SKY_LINES), *BANDS):
        part = ratio[(wavelength > low) & (wavelength < high)]
        is_whole = wavelength[0] < low and wavelength[-1] > high and np.isfinite(part).any()
        found.append(statistic(part) if is_whole else np.nan)
    return found


@pytest.mark.parametrize(
    ("survey", "path", "is_boss"),
    [("sdss", "", False), ("sdss", "", True), ("desi", "quasarnp/test_coadd.fits", False)],
)
def test_sky_is_as_noisy_as_in_real_files(spectra_dir, survey, path, is_boss):
    """Median over spectra. Within a factor of 1.6 at single lines, which differ from night to night."""
    real = [
        noise_profile(np.asarray(row["wavelength"])[part], np.asarray(row["ivar"])[part])
        for row in load_survey(survey, str(spectra_dir / survey / path))
        if survey == "desi" or (row["wavelength"][0] < 3750.0) == is_boss
        for part in arms_of(row)
    ]
    objects = population("optical", None).draw("test", 0, 40)
    seen = observe(objects, survey, snr=torch.full((40,), 1.0))
    simulated = []
    for row in rows(seen):
        if survey == "desi" or (row["wavelength"][0] < 3750.0) == is_boss:
            simulated += [noise_profile(row["wavelength"][part], row["ivar"][part]) for part in arms_of(row)]
    ratio = np.nanmedian(simulated, axis=0) / np.nanmedian(real, axis=0)
    assert len(real) > 20 and np.isfinite(ratio).sum() > 8
    assert (np.abs(np.log(ratio[np.isfinite(ratio)])) < np.log(1.6)).all(), ratio.round(2)


def arms_of(row: dict) -> list[slice]:
    ends = np.cumsum(row["segment_lengths"])
    return [slice(end - length, end) for end, length in zip(ends, row["segment_lengths"])]
