"""Simulated stars are like real ones and like published models. Skipped where the files are not."""

import json

import numpy as np
import pytest

from benchmarks import likeness
from spectral_tokenizer.data import load_survey


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
