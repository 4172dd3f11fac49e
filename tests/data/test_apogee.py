import math

import numpy as np
import pytest
from astropy.io import fits
from native_files import (
    APOGEE_GAPS,
    APOGEE_PIXELS,
    as_release_17,
    rows_of,
    write_apstar,
    write_apvisit,
    write_aspcapstar,
    write_table,
)

from spectral_tokenizer.data import SpectrumFileError, load_survey, survey_report
from spectral_tokenizer.data.apogee import chip_lengths, gauss_hermite_sigma


WAVELENGTH = 10 ** (4.179 + 6e-6 * np.arange(APOGEE_PIXELS))


def load_one(tmp_path, path):
    (row,) = rows_of(load_survey("apogee", path, cache_dir=tmp_path / "cache", strict=True))
    return row


@pytest.mark.parametrize("num_visits", [1, 3])  # with one visit the arrays are 1-D
def test_apstar(tmp_path, num_visits):
    row = load_one(tmp_path, write_apstar(tmp_path / "apStar-1.fits", num_visits=num_visits))
    assert row["object_id"] == "2M00000000+0000000" and row["frame"] == "rest" and row["class"] == "STAR"
    assert (row["ra"], row["dec"], row["radial_velocity"]) == (1.5, 2.5, -60.5)
    assert np.isnan(row["teff"])  # RVTEFF is a grid point of a template
    np.testing.assert_allclose(row["wavelength"], WAVELENGTH, rtol=1e-12)
    is_gap = np.zeros(APOGEE_PIXELS, dtype=bool)
    for start, end in APOGEE_GAPS:
        is_gap[start:end] = True
    np.testing.assert_allclose(row["ivar"], np.where(is_gap, 0, 0.25))
    assert (row["flux"][~is_gap] == 100).all()  # row 0, not the other combination
    assert row["segment_lengths"].tolist() == [3432, 2780, 2363]  # cut in the gaps
    # without coefficients of a line spread function: the nominal resolving power
    np.testing.assert_allclose(row["lsf_sigma"], WAVELENGTH / 22500 / 2.3548, rtol=1e-4)
    assert row["lsf_kind"] == "nominal"


def test_visits(tmp_path):
    path = write_apstar(tmp_path / "apStar-1.fits", num_visits=3)
    rows = rows_of(load_survey("apogee", path, cache_dir=tmp_path / "cache", visits=True))
    assert [row["source"] for row in rows] == ["apStar-1.fits#1", "apStar-1.fits#2", "apStar-1.fits#3"]
    assert [row["flux"][1000] for row in rows] == [400, 500, 600]
    assert [row["radial_velocity"] for row in rows] == [-61, -62, -63]
    assert {row["object_id"] for row in rows} == {"2M00000000+0000000"}
    catalogue = write_table(tmp_path / "allStar.fits", APOGEE_ID=["2M00000000+0000000"], VHELIO_AVG=[7.0], TEFF=[4e3])
    rows = rows_of(load_survey("apogee", path, cache_dir=tmp_path / "cache", visits=True, catalogue=catalogue))
    assert [row["radial_velocity"] for row in rows] == [-61, -62, -63] and rows[0]["teff"] == 4000


def test_the_only_visit_is_the_star(tmp_path):
    path = write_apstar(tmp_path / "apStar-1.fits", num_visits=1)
    (row,) = rows_of(load_survey("apogee", path, cache_dir=tmp_path / "cache", visits=True))
    assert row["flux"][1000] == 100 and row["radial_velocity"] == -61 and row["source"] == "apStar-1.fits#1"


def test_files_without_visits_are_counted(tmp_path):
    write_apvisit(tmp_path / "apVisit-1.fits")
    write_aspcapstar(tmp_path / "aspcapStar-1.fits")
    dataset = load_survey("apogee", tmp_path, cache_dir=tmp_path / "cache", visits=True)
    assert dataset["source"][:] == ["apVisit-1.fits"]
    assert dict(survey_report(dataset).dropped) == {"no visits": 1}


@pytest.mark.parametrize("num_visits", [1, 2])
def test_pixel_bits(tmp_path, num_visits):
    flags = np.zeros(APOGEE_PIXELS, dtype=np.int16)
    bad, good = (*range(8), 14), (8, 9, 10, 11, 12, 13)
    for bit in range(15):
        flags[1000 + bit] = 1 << bit
    flags[1020] = (1 << 14) | (1 << 9)
    row = load_one(tmp_path, write_apstar(tmp_path / "apStar-1.fits", flags=flags, num_visits=num_visits))
    assert all(row["ivar"][1000 + bit] == 0 for bit in bad)
    assert all(row["ivar"][1000 + bit] == 0.25 for bit in good)
    assert row["ivar"][1020] == 0


def test_aspcapstar_with_an_unparsable_card(tmp_path):
    path = write_aspcapstar(tmp_path / "aspcapStar-1.fits")
    with fits.open(path) as hdus, pytest.raises(fits.VerifyError, match="Unparsable"):  # the card is bad indeed
        hdus[0].header["AKWISE"]
    row = load_one(tmp_path, path)
    assert (row["teff"], row["logg"], row["fe_h"]) == (4500.0, 2.5, -0.25)
    assert row["radial_velocity"] == 12.5 and row["frame"] == "rest"
    assert row["ivar"][999] == pytest.approx(1e4) and row["ivar"][1000] == 0  # error 10
    assert (row["ivar"][3310:3550] == 0).all()  # error 0
    assert row["segment_lengths"].tolist() == [3432, 2780, 2363]


@pytest.mark.parametrize("write", [write_apstar, write_aspcapstar])
def test_files_of_release_17_say_the_same(tmp_path, write):
    """Stars without a name would be one object to a split, and none to a catalogue."""
    path = write(tmp_path / "file.fits")
    (before,) = rows_of(load_survey("apogee", path))
    (row,) = rows_of(load_survey("apogee", as_release_17(path)))
    places = {"ra": 1.5, "dec": 2.5}  # which the older aspcapStar written here has none of
    assert before["object_id"] and before["radial_velocity"] in (-60.5, 12.5)
    for name, value in (before | places).items():
        np.testing.assert_array_equal(row[name], value, err_msg=name)


@pytest.mark.parametrize("write", [write_apstar, write_aspcapstar])
def test_a_star_without_a_name_is_refused(tmp_path, write):
    path = write(tmp_path / "file.fits")
    with fits.open(path, mode="update") as hdus:
        hdus.verify("silentfix")
        for name in ("OBJID", "OBJ"):
            hdus[0].header.remove(name, ignore_missing=True)
    dataset = load_survey("apogee", [path])
    assert len(dataset) == 0
    assert any("OBJID" in message or "APOGEE_ID" in message for message in survey_report(dataset).messages)


def test_a_velocity_that_visits_disagree_on_is_cut(tmp_path):
    path = write_apstar(tmp_path / "apStar-1.fits")
    for flag, velocity, warnings in ((1 << 16, -60.5, None), (1 << 18 | 1 << 16, np.nan, "BAD_RV_COMBINATION")):
        with fits.open(path, mode="update") as hdus:
            hdus[0].header["STARFLAG"] = flag
        (row,) = rows_of(load_survey("apogee", path))
        assert row["label_warnings"] == warnings
        np.testing.assert_equal(row["radial_velocity"], velocity)
        star = {"APOGEE_ID": ["2M00000000+0000000"], "VHELIO_AVG": [7.0], "STARFLAG": [flag]}
        for catalogue in (None, write_table(tmp_path / f"allStar-{flag}.fits", **star)):
            visits = rows_of(load_survey("apogee", path, visits=True, catalogue=catalogue))
            assert [visit["radial_velocity"] for visit in visits] == [-61.0, -62.0, -63.0]


def test_uncalibrated_parameters_are_unknown(tmp_path):
    row = load_one(tmp_path, write_aspcapstar(tmp_path / "aspcapStar-1.fits", params=(4500.0, -9999.0, 0, -9999.0)))
    assert row["teff"] == 4500.0 and np.isnan(row["logg"]) and np.isnan(row["fe_h"])


def test_apvisit_ascends(tmp_path):
    flags = np.zeros((3, 30), dtype=np.int16)
    flags[0, 0], flags[0, 1] = 1 << 3, 1 << 9  # the reddest pixels
    row = load_one(tmp_path, write_apvisit(tmp_path / "apVisit-1.fits", flags=flags))
    assert row["frame"] == "observed" and row["radial_velocity"] == 5.0
    assert row["segment_lengths"].tolist() == [30, 30, 30]
    assert (np.diff(row["wavelength"]) > 0).all()
    assert (row["wavelength"][29], row["wavelength"][-1]) == (15810.0, 16950.0)
    np.testing.assert_allclose(row["flux"], row["wavelength"] / 1000, rtol=1e-6)  # flux went along
    assert row["ivar"][-1] == 0 and row["ivar"][-2] == 4


def gaussian_coefficients(sigma, slope=0.0, pixel_width=1.0, offset=0.0):
    """Of a Gaussian whose sigma is `sigma + slope * (pixel + offset)`, without wings."""
    return [pixel_width, offset, 2, 1, 0, 0, sigma, slope, 0.0, 0.0, 1, 2, 0, 0, 0.0, 1.0]


def test_line_spread_function_of_apstar(tmp_path):
    path = write_apstar(tmp_path / "apStar-1.fits", lsf=gaussian_coefficients(1.5))
    row = load_one(tmp_path, path)
    pixel = WAVELENGTH * np.log(10) * 6e-6
    np.testing.assert_allclose(row["lsf_sigma"], np.hypot(1.5, 12**-0.5) * pixel, rtol=0.01)
    assert row["lsf_kind"] == "measured"


def test_line_spread_function_of_apvisit_goes_with_its_chip(tmp_path):
    chips = [gaussian_coefficients(sigma, offset=40.0, slope=0.01) for sigma in (1.5, 1.2, 0.9)]
    path = write_apvisit(tmp_path / "apVisit-1.fits", lsf=chips)
    row = load_one(tmp_path, path)
    for chip, sigma in enumerate((0.9, 1.2, 1.5)):  # blue first
        expected = sigma + 0.01 * (40 + np.arange(30)[::-1])  # pixels run towards the blue
        found = row["lsf_sigma"][30 * chip : 30 * (chip + 1)] / 0.2  # A per pixel
        np.testing.assert_allclose(found, np.hypot(expected, 12**-0.5), rtol=0.02)
    assert row["lsf_kind"] == "measured"


@pytest.mark.parametrize("coefficients", [[0.0] * 26, gaussian_coefficients(90.0), [1e9, np.nan, 3], []])
def test_unlikely_line_spread_functions_are_not_believed(tmp_path, coefficients):
    row = load_one(tmp_path, write_apstar(tmp_path / "apStar-1.fits", lsf=coefficients))
    assert row["lsf_kind"] == "nominal"
    np.testing.assert_allclose(row["lsf_sigma"], WAVELENGTH / 22500 / 2.3548, rtol=1e-4)


def test_gauss_hermite_width():
    """Against the definition, summed over a finer grid: a function with all terms and wings."""
    terms = (-0.02, -0.2, 0.05, 0.2, -0.06)
    core = [1.7, *terms]
    found = gauss_hermite_sigma(np.array([1.0, 0.0, 5, *[0] * 6, *core, 1, 2, 0, 0, 0.05, 3.0]), 10)
    x = np.linspace(-20, 20, 40001)
    hermite = [1, x / 1.7, (x / 1.7) ** 2 - 1, (x / 1.7) ** 3 - 3 * x / 1.7]
    for n in (3, 4):
        hermite.append(x / 1.7 * hermite[n] - n * hermite[n - 1])
    factor = 0.95 + sum(h * hermite[n] / np.sqrt(math.factorial(n)) for n, h in enumerate(terms, 1))
    profile = factor * np.exp(-0.5 * (x / 1.7) ** 2) / 1.7 + 0.05 * np.exp(-0.5 * (x / 3) ** 2) / 3
    profile = np.convolve(profile, np.ones(1001), mode="same")  # one pixel wide
    above = x[profile > profile.max() / 2]
    np.testing.assert_allclose(found, (above[-1] - above[0]) / 2.354820, rtol=2e-3)


@pytest.mark.parametrize("velocity", [-600.0, 0.0, 600.0])
def test_chips_are_cut_in_gaps_wherever_the_star_moves_them(velocity):
    shift = round(np.log10(1 - velocity / 299792.458) / 6e-6)
    is_blank = np.zeros(APOGEE_PIXELS, dtype=bool)
    for start, end in APOGEE_GAPS[1:3]:
        is_blank[start + shift : end + shift] = True
    is_blank[3000:3060] = True  # bad columns are no gap
    first, second, _ = np.cumsum(chip_lengths(WAVELENGTH, is_blank))
    assert 3310 + shift < first < 3550 + shift
    assert 6120 + shift < second < 6310 + shift


def test_chips_without_visible_gaps():
    lengths = chip_lengths(WAVELENGTH, np.zeros(APOGEE_PIXELS, dtype=bool))
    assert len(lengths) == 3 and sum(lengths) == APOGEE_PIXELS
    assert WAVELENGTH[lengths[0]] == pytest.approx(15834, abs=0.5)


@pytest.mark.parametrize("name", ["apStar-1.fits", "apVisit-1.fits", "aspcapStar-1.fits"])
def test_foreign_files(tmp_path, name):
    hdus = [fits.PrimaryHDU(), fits.ImageHDU(np.ones((3, 20))), fits.ImageHDU(np.ones((3, 20)))]
    fits.HDUList(hdus).writeto(tmp_path / name)
    with pytest.raises(SpectrumFileError, match="apStar, aspcapStar or apVisit"):
        load_one(tmp_path, tmp_path / name)


def test_truncated_file(tmp_path):
    path = write_apstar(tmp_path / "apStar-1.fits")
    path.write_bytes(path.read_bytes()[:300_000])
    with pytest.raises(SpectrumFileError, match="apStar-1.fits"):
        load_one(tmp_path, path)
