import numpy as np
import pytest
from astropy.io import fits
from native_files import GALAH_STARTS, rows_of, write_galah_catalogue, write_galah_ccd

from spectral_tokenizer.data import SpectrumFileError, load_survey, survey_report
from spectral_tokenizer.data.galah import profile_sigma
from spectral_tokenizer.data.wavelengths import air_to_vacuum


STAR = "131123003001096"


def load(tmp_path, path, **options):
    return load_survey("galah", path, cache_dir=tmp_path / "cache", **options)


def test_row_of_four_ccds(tmp_path):
    for ccd in (1, 2, 3, 4):
        write_galah_ccd(tmp_path, STAR, ccd, flux=np.full(50 + ccd, 10.0**ccd), velocity=63.2)
    (row,) = rows_of(load(tmp_path, tmp_path))
    assert row["object_id"] == STAR and row["frame"] == "barycentric" and row["class"] == "STAR"
    assert row["source"] == f"{STAR} CCD 1,2,3,4"
    assert row["segment_lengths"].tolist() == [51, 52, 53, 54]
    assert row["radial_velocity"] == pytest.approx(63.2, abs=1e-6)
    assert np.isnan(row["teff"]) and row["lsf_kind"] == "nominal"
    resolving_power = row["wavelength"] / (2.3548 * row["lsf_sigma"])
    np.testing.assert_allclose(resolving_power[[0, 60, 120, -1]], [27000, 22500, 22500, 22000], rtol=1e-4)
    np.testing.assert_allclose(row["wavelength"][:51], air_to_vacuum(4713.5 + 0.046 * np.arange(51)), rtol=1e-12)
    assert row["wavelength"][0] - 4713.5 == pytest.approx(1.318, abs=1e-2)  # vacuum
    # the CCDs' scales of 10 to 10,000 counts are gone; sigma / flux = 0.05 is kept
    np.testing.assert_allclose(row["flux"], 1.0)
    np.testing.assert_allclose(row["ivar"], 400.0, rtol=1e-6)
    assert row["snr"] == pytest.approx(20.0)


@pytest.mark.parametrize("suffix", [".fits", ".fits.gz"])
def test_missing_ccd4_and_two_stars(tmp_path, suffix):
    for ccd in (1, 2, 3):
        write_galah_ccd(tmp_path, STAR, ccd, suffix=suffix)
        write_galah_ccd(tmp_path, "131123003001097", ccd, suffix=suffix)
    dataset = load(tmp_path, tmp_path)
    assert dataset["object_id"][:] == [STAR, "131123003001097"]
    assert dataset["segment_lengths"][:] == [[50] * 3] * 2
    assert survey_report(dataset).files == 6


def test_a_ccd_that_lies_beside_and_was_not_given_is_told_of(tmp_path, caplog):
    """A file of a star is a quarter of it."""
    for ccd in (1, 2, 3):
        write_galah_ccd(tmp_path, STAR, ccd)
    assert len(load(tmp_path, tmp_path)) == 1
    assert "expected all CCDs" not in caplog.text
    assert load(tmp_path, tmp_path / f"{STAR}2.fits")["segment_lengths"][:] == [[50]]
    assert (
        f"expected all CCDs of a star, which is a file each, found others beside {tmp_path / STAR}2.fits"
        in caplog.text
    )


def test_the_same_star_in_two_reductions_is_two_rows(tmp_path):
    for folder, layout in (("a", "dr3"), ("b", "6.0")):
        (tmp_path / folder).mkdir()
        write_galah_ccd(tmp_path / folder, STAR, 1, layout=layout)
    assert load(tmp_path, tmp_path)["object_id"][:] == [STAR, STAR]


@pytest.mark.parametrize(("crpix", "shift"), [(0.0, 0.0), (1.0, 0.0), (11.0, -0.632)])
def test_crpix_of_0_means_1(tmp_path, crpix, shift):
    write_galah_ccd(tmp_path, STAR, 3, crpix=crpix)
    (row,) = rows_of(load(tmp_path, tmp_path))
    assert row["wavelength"][0] == pytest.approx(air_to_vacuum(GALAH_STARTS[3] + shift), abs=1e-9)


def test_relative_errors_out_of_range(tmp_path):
    flux, error = np.full(50, 100.0), np.full(50, 0.05)
    error[:5] = [0.0, -0.2, 1.01, np.nan, np.inf]
    flux[5:8] = [0.0, -100.0, np.nan]
    flux[8], error[8] = 1e-6, 1.0  # clipped: ivar would be 1e12 times the others'
    flux[9], error[9] = 25.0, 0.1  # a deep line, half the noise: good
    write_galah_ccd(tmp_path, STAR, 1, flux=flux, relative_error=error)
    (row,) = rows_of(load(tmp_path, tmp_path))
    assert (row["ivar"][:9] == 0).all() and (row["ivar"][9:] > 0).all()
    assert np.isfinite(row["flux"]).all()
    assert row["ivar"][9] == pytest.approx(4 * row["ivar"][10])


def test_a_ccd_without_light_has_no_usable_pixel(tmp_path):
    write_galah_ccd(tmp_path, STAR, 1)
    write_galah_ccd(tmp_path, STAR, 2, flux=np.full(50, -3.0))
    (row,) = rows_of(load(tmp_path, tmp_path))
    assert (row["ivar"][:50] > 0).all() and (row["ivar"][50:] == 0).all()


def test_reduction_6(tmp_path):
    spectra = tmp_path / "210115" / "spectra" / "com"
    spectra.mkdir(parents=True)
    for ccd in (1, 2):
        write_galah_ccd(spectra, STAR, ccd, layout="6.0", velocity=-18.7)
    (row,) = rows_of(load(tmp_path, tmp_path))
    np.testing.assert_allclose(row["flux"], 1.0)  # not 9, as all other HDUs are
    assert row["ivar"][0] == pytest.approx(400.0)
    assert row["radial_velocity"] == pytest.approx(-18.7)
    assert (row["teff"], row["logg"], row["fe_h"]) == (5000.0, 3.0, -0.5)
    assert (row["ra"], row["dec"]) == (10.0, -20.0)
    np.testing.assert_allclose(row["lsf_sigma"], 0.2 / 2.354820, rtol=1e-6)
    assert row["lsf_kind"] == "measured"
    # the catalogue goes first, and its arrival is noticed
    (tmp_path / "210115" / "db").mkdir()
    columns = {"rv_com": [-19.5, 7.0], "teff_r": [5100.0, 4000.0], "logg_r": [3.5, 1.0], "fe_h_r": [np.nan, 0.0]}
    write_galah_catalogue(tmp_path / "210115" / "db" / "210115.fits", [int(STAR), int(STAR) + 1], **columns)
    (row,) = rows_of(load(tmp_path, tmp_path / "210115" / "spectra"))
    assert (row["radial_velocity"], row["teff"], row["logg"], row["fe_h"]) == (-19.5, 5100.0, 3.5, -0.5)


def test_labels_that_the_reduction_does_not_trust(tmp_path):
    path = write_galah_ccd(tmp_path, STAR, 1, layout="6.0")
    with fits.open(path, mode="update") as hdus:
        hdus[0].header.update(PAR_OK=0, RVCOM_OK=0)
    (row,) = rows_of(load(tmp_path, path))
    assert np.isnan([row["teff"], row["logg"], row["fe_h"], row["radial_velocity"]]).all()
    assert row["label_warnings"] == "PAR_OK, RVCOM_OK"


PARAMETERS = ("teff", "logg", "fe_h")
ALL_LABELS = (*PARAMETERS, "radial_velocity")


def write_night(folder, position=(10.0, -20.0), **header):
    """A night of one star of two CCDs, the second with these cards, and the catalogue that the reduction puts beside:
    spectra, catalogue."""
    spectra, catalogue = folder / "210115" / "spectra" / "com", folder / "210115" / "db" / "210115.fits"
    spectra.mkdir(parents=True)
    catalogue.parent.mkdir()
    write_galah_ccd(spectra, STAR, 1, layout="6.0")
    with fits.open(write_galah_ccd(spectra, STAR, 2, layout="6.0"), mode="update") as hdus:
        hdus[0].header.update(header)
    columns = {"rv_com": [30.0], "teff_r": [5000.0], "logg_r": [3.0], "fe_h_r": [-0.5]}
    places = {"ra_icrs": position[:1], "dec_icrs": position[1:]}
    return spectra, write_galah_catalogue(catalogue, [int(STAR)], **columns, **places)


@pytest.mark.parametrize(
    ("flags", "blank", "warning"),
    [
        ({"PAR_OK": 1}, (), None),
        ({"PAR_OK": 0}, PARAMETERS, "PAR_OK"),
        ({"RVCOM_OK": 0}, ("radial_velocity",), "RVCOM_OK"),
        ({"PAR_OK": 0, "RVCOM_OK": 0}, ALL_LABELS, "PAR_OK, RVCOM_OK"),
    ],
)
def test_the_catalogue_beside_does_not_undo_what_the_header_says(tmp_path, flags, blank, warning):
    """It has the same numbers, and no flag. One that somebody names may say more."""
    spectra, catalogue = write_night(tmp_path, **flags)
    (row,) = rows_of(load(tmp_path, spectra))
    assert tuple(name for name in ALL_LABELS if np.isnan(row[name])) == blank and row["label_warnings"] == warning
    assert (row["ra"], row["dec"]) == (10.0, -20.0)
    (row,) = rows_of(load(tmp_path, spectra, unreliable_labels=True))
    assert [row[name] for name in ALL_LABELS] == [5000.0, 3.0, -0.5, 30.0] and row["label_warnings"] == warning
    (row,) = rows_of(load(tmp_path, spectra, catalogue=catalogue))
    assert [row[name] for name in ALL_LABELS] == [5000.0, 3.0, -0.5, 30.0] and row["label_warnings"] is None


def test_the_headers_flags_count_for_what_a_named_catalogue_leaves_to_the_file(tmp_path):
    spectra, _ = write_night(tmp_path, PAR_OK=0, RVCOM_OK=0)
    mine = write_galah_catalogue(tmp_path / "mine.fits", [int(STAR)], teff=[5100.0])
    (row,) = rows_of(load(tmp_path, spectra, catalogue=mine))
    assert row["teff"] == 5100.0 and np.isnan([row["logg"], row["fe_h"], row["radial_velocity"]]).all()
    assert row["label_warnings"] == "PAR_OK, RVCOM_OK"


def test_a_header_without_flags_gives_no_labels_and_takes_none_away(tmp_path):
    spectra, catalogue = write_night(tmp_path)
    for path in spectra.iterdir():
        with fits.open(path, mode="update") as hdus:
            del hdus[0].header["PAR_OK"], hdus[0].header["RVCOM_OK"]
    (row,) = rows_of(load(tmp_path, spectra))
    assert [row[name] for name in ALL_LABELS] == [5000.0, 3.0, -0.5, 30.0] and row["label_warnings"] is None
    catalogue.unlink()
    (row,) = rows_of(load(tmp_path, spectra))
    assert np.isnan([row[name] for name in ALL_LABELS]).all() and row["label_warnings"] is None


@pytest.mark.parametrize("position", [(0.0, 0.0), (0.0, -20.0), (10.0, 0.0)])
@pytest.mark.parametrize("has_catalogue", [True, False])
def test_the_origin_is_no_position(tmp_path, position, has_catalogue):
    """Spectra of the Sun's light have it; a star may stand on one of the two axes."""
    spectra, catalogue = write_night(tmp_path, position)
    for path in spectra.iterdir():
        with fits.open(path, mode="update") as hdus:
            hdus[0].header.update(RA_ICRS=position[0], DEC_ICRS=position[1])
    if not has_catalogue:
        catalogue.unlink()
    (row,) = rows_of(load(tmp_path, spectra))
    expected = position if any(position) else (np.nan, np.nan)
    np.testing.assert_array_equal((row["ra"], row["dec"]), expected)
    assert row["teff"] == 5000.0 and row["label_warnings"] is None


def test_a_catalogue_without_a_position_leaves_the_files(tmp_path):
    spectra, _ = write_night(tmp_path, (0.0, 0.0))
    (row,) = rows_of(load(tmp_path, spectra))
    assert (row["ra"], row["dec"]) == (10.0, -20.0)


def test_profile_sigma_is_a_second_moment():
    x = np.linspace(-3, 3, 20001)
    for boxiness in (2.0, 2.8, 4.0):
        profile = np.exp(-np.log(2) * np.abs(2 * x / 0.5) ** boxiness)
        moment = np.sqrt((x**2 * profile).sum() / profile.sum())
        assert profile_sigma(np.array([0.5]), boxiness)[0] == pytest.approx(moment, rel=1e-6)


def write_table(folder):
    path = folder / f"{STAR}1.fits"
    table = fits.BinTableHDU.from_columns([fits.Column("wave", "D", array=np.arange(3.0))])
    fits.HDUList([fits.PrimaryHDU(), table]).writeto(path)
    return path


def write_wrong_name(folder):
    return write_galah_ccd(folder, STAR, 1).rename(folder / "star.fits")


def write_truncated(folder):
    path = write_galah_ccd(folder, STAR, 1, suffix=".fits.gz")
    path.write_bytes(path.read_bytes()[:-400])
    return path


@pytest.mark.parametrize(
    ("write", "message"),
    [(write_table, "DR3 or reduction"), (write_wrong_name, "file name"), (write_truncated, "file")],
)
def test_foreign_and_damaged_files(tmp_path, write, message):
    path = write(tmp_path)
    with pytest.raises(SpectrumFileError, match=message):
        load(tmp_path, path, strict=True)
    assert survey_report(load(tmp_path, path)).damaged == 1


def test_two_files_of_one_ccd(tmp_path):
    write_galah_ccd(tmp_path, STAR, 1)
    write_galah_ccd(tmp_path, STAR, 1, suffix=".fits.gz")
    with pytest.raises(SpectrumFileError, match="second file of this CCD"):
        load(tmp_path, tmp_path, strict=True)
