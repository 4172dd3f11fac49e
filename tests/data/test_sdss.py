import numpy as np
import pytest
from astropy.io import fits
from native_files import rows_of, write_plate, write_sdss, write_table

from spectral_tokenizer.data import SDSS, SpectrumFileError, load_survey, sdss_plates, survey_report


def load(tmp_path, path, **options):
    return load_survey("sdss", path, cache_dir=tmp_path / "cache", **options)


@pytest.mark.parametrize("upper", [False, True])
def test_row(tmp_path, upper):
    path = write_sdss(tmp_path / "spec-0001-55555-0007.fits", upper=upper, PLUG_RA=12.5, PLUG_DEC=-3.0)
    (row,) = rows_of(load(tmp_path, path))
    assert row["object_id"] == "0001-55555-0007"
    assert row["survey"] == "sdss" and row["frame"] == "heliocentric"
    assert row["source"] == "spec-0001-55555-0007.fits"
    assert row["class"] == "GALAXY" and row["redshift"] == 0.25
    assert np.isnan(row["radial_velocity"]) and np.isnan(row["teff"])
    assert (row["ra"], row["dec"]) == (12.5, -3.0)
    assert row["segment_lengths"].tolist() == [64]
    # float32 loglam would be wrong by up to 2e-3 A here
    np.testing.assert_allclose(row["wavelength"], 10 ** (3.58 + 1e-4 * np.arange(64)), rtol=1e-12)
    np.testing.assert_allclose(row["lsf_sigma"], 0.9 * 1e-4 * np.log(10) * row["wavelength"], rtol=1e-3)
    assert row["snr"] == 2.0  # flux 1, ivar 4


def test_a_grid_that_is_not_of_whole_steps_is_left_alone(tmp_path):
    path = write_sdss(tmp_path / "spec-1.fits", loglam_start=3.58005)
    (row,) = rows_of(load(tmp_path, path))
    np.testing.assert_allclose(np.log10(row["wavelength"]), 3.58005 + 1e-4 * np.arange(64), atol=3e-7)


def test_only_ivar_says_bad(tmp_path):
    ivar, and_mask, wdisp = np.full(64, 4.0), np.zeros(64), np.full(64, 0.9)
    ivar[:5], wdisp[:5] = 0, 0
    and_mask[10:50] = 1 << 23  # bright sky, on good pixels
    (row,) = rows_of(load(tmp_path, write_sdss(tmp_path / "spec-1.fits", ivar=ivar, and_mask=and_mask, wdisp=wdisp)))
    np.testing.assert_array_equal(row["ivar"], ivar)
    assert (row["lsf_sigma"] > 0).all() and row["lsf_kind"] == "measured"
    assert (row["lsf_sigma"][:5] == row["lsf_sigma"][5]).all()  # unknown, so as at the nearest known pixel


def test_what_is_not_finite_becomes_unusable(tmp_path):
    flux, ivar = np.ones(64), np.full(64, 4.0)
    flux[0], ivar[1], ivar[2], flux[3] = np.nan, np.inf, -1.0, np.inf
    (row,) = rows_of(load(tmp_path, write_sdss(tmp_path / "spec-1.fits", flux=flux, ivar=ivar)))
    assert np.isfinite(row["flux"]).all()
    assert row["ivar"][:5].tolist() == [0, 0, 0, 0, 4]


def test_a_file_without_usable_pixels_is_dropped(tmp_path):
    write_sdss(tmp_path / "spec-1.fits", ivar=np.zeros(64))
    write_sdss(tmp_path / "spec-2.fits")
    dataset = load(tmp_path, tmp_path)
    assert len(dataset) == 1
    assert dict(survey_report(dataset).dropped) == {"no usable pixel": 1}


@pytest.mark.parametrize(
    "label", [{"ZWARNING": 5}, {"SOURCETYPE": "SKY"}, {"OBJTYPE": "SKY"}, {"ZWARNING": 4, "OBJTYPE": "SKY"}]
)
def test_sky_fibres(tmp_path, label):
    path = write_sdss(tmp_path / "spec-1.fits", CLASS="QSO", Z=6.9, **label)
    dataset = load(tmp_path, path)
    assert len(dataset) == 0 and dict(survey_report(dataset).dropped) == {"sky fibre": 1}
    (row,) = rows_of(load(tmp_path, path, sky=True))
    assert row["class"] is None and np.isnan(row["redshift"])  # the pipeline's CLASS of blank sky is no label


def test_zwarning_other_than_bit_0_is_no_sky(tmp_path):
    assert len(load(tmp_path, write_sdss(tmp_path / "spec-1.fits", ZWARNING=4, OBJTYPE="QSO"))) == 1


def test_a_star_has_a_velocity(tmp_path):
    (row,) = rows_of(load(tmp_path, write_sdss(tmp_path / "spec-1.fits", CLASS="STAR", Z=1e-4, ELODIE_TEFF=9000.0)))
    assert row["radial_velocity"] == pytest.approx(29.979, abs=1e-3)
    assert np.isnan(row["teff"])


def test_without_measured_resolution(tmp_path):
    path = write_sdss(tmp_path / "spec-1.fits", wdisp=np.zeros(64))
    (row,) = rows_of(load(tmp_path, path))
    assert row["lsf_kind"] == "nominal"
    resolving_power = row["wavelength"] / (2.3548 * row["lsf_sigma"])
    np.testing.assert_allclose(resolving_power, np.interp(row["wavelength"], [3700, 6000], [1560, 2060]), rtol=1e-4)


def test_single_exposures(tmp_path):
    names = [f"{arm}-000{number}-00000001-00000002" for arm in ("B1", "R1") for number in (20757, 20756)]
    names = ["R2-00020756-00000001-00000002", *names, "B2-00020756-00000001-00000002"]
    path = write_sdss(tmp_path / "spec-1.fits", exposures=names, CLASS="STAR", Z=1e-4)
    rows = rows_of(load(tmp_path, path, exposures=True))
    assert [row["source"] for row in rows] == [
        f"spec-1.fits#{key}" for key in ("1-00020756", "1-00020757", "2-00020756")
    ]
    for row in rows:
        assert row["segment_lengths"].tolist() == [30, 30] and row["class"] == "STAR"
        assert row["flux"].tolist() == 2 * list(range(30))  # from the blue end, however the file has it
        loglam = np.concatenate([start + 1.1e-4 * np.arange(30) for start in (3.58, 3.76)])
        np.testing.assert_allclose(np.log10(row["wavelength"]), loglam, atol=3e-7)
        np.testing.assert_allclose(row["lsf_sigma"], 0.8e-4 * np.log(10) * row["wavelength"], rtol=1e-5)
        assert row["lsf_kind"] == "measured"
    assert len(load(tmp_path, path)) == 1  # the coadd


def test_files_without_exposures_are_counted(tmp_path):
    dataset = load(tmp_path, write_sdss(tmp_path / "spec-1.fits"), exposures=True)
    assert len(dataset) == 0 and dict(survey_report(dataset).dropped) == {"no single exposures": 1}


@pytest.mark.parametrize("folder", [".", "v5_13_2"])
def test_plate(tmp_path, folder, monkeypatch):
    monkeypatch.setattr(sdss_plates, "FIBRES_PER_BLOCK", 2)
    path = write_plate(tmp_path / "0266" / "spPlate-0266-51602.fits", objtypes=("GALAXY", "SKY", "QSO", "NA"))
    (path.parent / folder).mkdir(exist_ok=True)
    ids = {"PLATE": np.full(3, 266, "i4"), "MJD": np.full(3, 51602, "i4"), "FIBERID": np.array([3, 1, 2], "i4")}
    labels = {"CLASS": ["QSO", "GALAXY", "STAR"], "Z": [2.5, 0.1, 0.0], "ZWARNING": np.array([0, 4, 1], "i4")}
    write_table(path.parent / folder / "spZbest-0266-51602.fits", **ids, **labels)
    dataset = load(tmp_path, tmp_path / "0266")
    assert dict(survey_report(dataset).dropped) == {"sky fibre": 1}
    first, third, fourth = rows_of(dataset)
    assert (first["object_id"], third["object_id"]) == ("0266-51602-0001", "0266-51602-0003")
    assert third["source"] == "spPlate-0266-51602.fits#3"
    assert (third["flux"] == 3).all() and (third["ra"], third["dec"]) == (30.0, 3.0)
    np.testing.assert_allclose(third["wavelength"], 10 ** (3.58 + 1e-4 * np.arange(50)), rtol=1e-12)
    np.testing.assert_allclose(third["lsf_sigma"], 0.9e-4 * np.log(10) * third["wavelength"], rtol=1e-5)
    assert (third["class"], third["redshift"], third["label_warnings"]) == ("QSO", 2.5, None)
    assert (first["class"], first["label_warnings"]) == (None, "ZWARNING")
    assert fourth["label_warnings"] == "not in catalogue"


def test_a_plate_whose_images_differ(tmp_path):
    path = write_plate(tmp_path / "spPlate-0266-51602.fits")
    with fits.open(path, mode="update") as hdus:
        hdus[4].data = hdus[4].data[:2]
    with pytest.raises(SpectrumFileError, match="HDU 4: found shape"):
        load(tmp_path, path, strict=True)


def write_legacy(path):
    image = fits.PrimaryHDU(np.ones((5, 40), dtype="f4"))
    image.header.update(COEFF0=3.58, COEFF1=1e-4)
    image.writeto(path)


def write_whole_legacy(path):
    """With the tables that a spSpec file has."""
    write_legacy(path)
    lines = fits.BinTableHDU.from_columns([fits.Column("wave", "D", array=np.arange(3.0))])
    with fits.open(path, mode="append") as hdus:
        hdus.extend([lines] * 6)


def write_other_table(path):
    table = fits.BinTableHDU.from_columns([fits.Column("wave", "D", array=np.arange(3.0))])
    fits.HDUList([fits.PrimaryHDU(), table, table]).writeto(path)


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (write_legacy, "legacy spSpec"),
        (write_whole_legacy, "legacy spSpec"),
        (write_other_table, "HDU 1: found columns"),
        (lambda path: fits.PrimaryHDU(np.ones(4)).writeto(path), "HDU 1"),
        (lambda path: write_sdss(path, header={"VACUUM": False}), "VACUUM"),
        (lambda path: path.write_bytes(b""), "file: found"),
        (lambda path: path.write_text("not a FITS file"), "file: found"),
    ],
)
def test_foreign_files(tmp_path, write, message):
    path = tmp_path / "spec-1.fits"
    write(path)
    with pytest.raises(SpectrumFileError, match=message) as caught:
        load(tmp_path, path, strict=True)
    assert "spec-1.fits" in str(caught.value) and "expected" in str(caught.value)
    dataset = load(tmp_path, path)
    assert len(dataset) == 0 and survey_report(dataset).damaged == 1


@pytest.mark.parametrize("fraction", [0.3, 0.6, 0.9])
def test_truncated_file(tmp_path, fraction):
    path = write_sdss(tmp_path / "spec-1.fits", flux=np.ones(2000))
    content = path.read_bytes()
    path.write_bytes(content[: int(fraction * len(content))])
    with pytest.raises(SpectrumFileError, match="spec-1.fits"):
        load(tmp_path, path, strict=True)


def test_descending_wavelengths_are_damage(tmp_path):
    path = write_sdss(tmp_path / "spec-1.fits")
    with fits.open(path, mode="update") as hdus:
        hdus[1].data["loglam"][5] = hdus[1].data["loglam"][3]
    with pytest.raises(SpectrumFileError, match="ascending"):
        load(tmp_path, path, strict=True)


def test_a_fibre_in_two_files_is_one_row(tmp_path):
    """As a tree with full and lite files has it, or one of two reductions."""
    for place in ("full", "lite"):
        (tmp_path / place).mkdir()
        write_sdss(tmp_path / place / "spec-0001-55555-0007.fits", flux=np.full(64, 1.0 + (place == "lite")))
    dataset = load_survey("sdss", tmp_path, cache_dir=tmp_path / "cache")
    assert dict(survey_report(dataset).dropped) == {"a fibre that another file holds too": 1}
    (row,) = rows_of(dataset)
    assert (row["flux"] == 1.0).all()


def test_of_a_fibres_files_one_that_can_be_read_is_taken(tmp_path):
    for place in ("full", "lite"):
        (tmp_path / place).mkdir()
        write_sdss(tmp_path / place / "spec-0001-55555-0007.fits", flux=np.full(64, 1.0 + (place == "lite")))
    full = tmp_path / "full" / "spec-0001-55555-0007.fits"
    full.write_bytes(full.read_bytes()[:6000])
    dataset = load_survey("sdss", tmp_path, cache_dir=tmp_path / "cache")
    assert dict(survey_report(dataset).dropped) == {"a damaged file of a fibre that another file holds": 1}
    (row,) = rows_of(dataset)
    assert (row["flux"] == 2.0).all()
    with pytest.raises(SpectrumFileError, match="full/spec-0001-55555-0007.fits"):
        load_survey("sdss", tmp_path, cache_dir=tmp_path / "cache", strict=True)


def test_a_fibres_files_are_one_unit_wherever_they_lie(tmp_path):
    """So that no two shards of a survey, prepared apart, have the fibre."""
    names = [
        "a/spec-0001-55555-0007.fits",
        "a/spec-0001-55555-0008.fits",
        "b/spec-0001-55555-0007.fits.gz",
        "b/other.fits",
    ]
    reader = SDSS(cache_dir=str(tmp_path))
    assert reader.group_files([*reversed(names), "a/other.fits"]) == [
        ("a/other.fits",), (names[0], names[2]), (names[1],), ("b/other.fits",),
    ]  # fmt: skip
