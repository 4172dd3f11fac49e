"""One simulated star through several surveys' files and readers stands at one place on one wavelength scale."""

import csv

import numpy as np
import pytest

from spectral_tokenizer.data import load_survey
from spectral_tokenizer.data.simulation import simulate
from spectral_tokenizer.data.wavelengths import SPEED_OF_LIGHT


H_ALPHA = 6564.61  # vacuum Angstrom


@pytest.fixture(scope="module")
def stars(tmp_path_factory):
    """object_key -> survey -> row, of shared stars warm enough for a strong H-alpha."""
    folder = tmp_path_factory.mktemp("shared") / "surveys"
    surveys = ("sdss", "desi", "galah")
    simulate(folder, {"sdss": 150, "desi": 120, "galah": 48}, surveys=surveys, seed=4, shared_stars=1.0)
    with open(folder / "truth.csv") as file:
        truth = {(row["survey"], row["object_id"]): row for row in csv.DictReader(file)}
    found = {}
    for survey in surveys:
        for row in load_survey(survey, folder / survey, cache_dir=tmp_path_factory.mktemp("cache")):
            known = truth[survey, row["object_id"]]
            if known["class"] == "STAR" and 5200 < float(known["teff"]) < 8000 and row["snr"] > 10:
                found.setdefault(known["object_key"], {})[survey] = row
    return found


def h_alpha(row: dict) -> float:
    """Centre of H-alpha at rest, vacuum Angstrom: centroid of what is missing below the local continuum."""
    wavelength, flux, ivar = (np.array(row[name]) for name in ("wavelength", "flux", "ivar"))
    rest = wavelength / (1 + row["radial_velocity"] / SPEED_OF_LIGHT)
    near = (np.abs(rest - H_ALPHA) < 25) & (ivar > 0)
    side = near & (np.abs(rest - H_ALPHA) > 15)
    continuum = np.polyval(np.polyfit(rest[side] - H_ALPHA, flux[side], 1), rest - H_ALPHA)
    core = near & (np.abs(rest - H_ALPHA) < 6)
    depth = np.clip(1 - flux[core] / continuum[core], 0, None) ** 2  # the core rather than neighbours in the wings
    return float((depth * rest[core]).sum() / depth.sum())


@pytest.mark.parametrize(("survey", "tolerance"), [("sdss", 0.35), ("desi", 0.25), ("galah", 0.1)])
def test_h_alpha_stands_at_its_vacuum_wavelength(stars, survey, tolerance):
    centres = np.array([h_alpha(rows[survey]) for rows in stars.values() if survey in rows])
    assert len(centres) >= 4
    assert abs(np.median(centres) - H_ALPHA) < tolerance


def test_a_star_seen_by_sdss_and_galah_lines_up(stars):
    differences = [
        h_alpha(rows["sdss"]) - h_alpha(rows["galah"]) for rows in stars.values() if {"sdss", "galah"} <= set(rows)
    ]
    assert len(differences) >= 3
    # Air against vacuum would be 1.8 A.
    assert np.median(np.abs(differences)) < 0.4
