import numpy as np
import pytest
from astropy.io import fits
from native_files import rows_of, write_desi, write_redshifts

from spectral_tokenizer.data import SpectrumFileError, desi, load_survey, survey_report
from spectral_tokenizer.data.desi import resolution_sigma


BIG = 39633297352951413  # odd and beyond 2^53: as float64 it would become another number


def load(tmp_path, path, **options):
    return load_survey("desi", path, cache_dir=tmp_path / "cache", **options)


def test_rows(tmp_path):
    write_desi(tmp_path / "coadd-1.fits", [BIG, BIG + 2], objtype=["TGT", "TGT"], status=[0, 0], sigma_pixels=1.5)
    first, second = rows_of(load(tmp_path, tmp_path))
    assert (first["object_id"], second["object_id"]) == (str(BIG), str(BIG + 2))
    assert first["source"] == "coadd-1.fits#0" and first["frame"] == "barycentric"
    assert first["segment_lengths"].tolist() == [40, 40, 40]
    np.testing.assert_allclose(first["wavelength"][38:42], [3630.4, 3631.2, 3620.0, 3620.8])  # arms overlap, unmerged
    assert (first["flux"] == 1).all() and (second["flux"] == 2).all()
    for start in (0, 40, 80):  # pixel 3: MASK != 0 with ivar > 0; pixel 4: ivar 0 with MASK 0
        assert first["ivar"][start : start + 6].tolist() == [2, 2, 2, 0, 0, 2]
    # a Gaussian of 1.5 pixels of 0.8 A, its band cut at +-5 pixels
    np.testing.assert_allclose(first["lsf_sigma"], 1.5 * 0.8, rtol=0.02)
    assert first["lsf_kind"] == "measured"
    assert first["class"] is None and np.isnan(first["redshift"])


def test_what_is_no_target_is_dropped_by_reason(tmp_path):
    path = write_desi(
        tmp_path / "coadd-1.fits",
        [-7, BIG, BIG + 1, BIG + 2, BIG + 3, BIG + 4],
        objtype=["TGT", "SKY", "", "TGT", "TGT", "TGT"],
        status=[0, 0, 0, 512, 0, 0],
        dead=[4],  # MASK 0 and ivar 0 throughout
    )
    dataset = load(tmp_path, path)
    assert dataset["object_id"][:] == [str(BIG + 4)]
    expected = {
        "negative TARGETID": 1,
        "sky fibre": 1,
        "blank OBJTYPE": 1,
        "bad fibre status": 1,
        "no usable pixel": 1,
    }
    assert dict(survey_report(dataset).dropped) == expected
    assert len(load(tmp_path, path, sky=True)) == 4
    assert len(load(tmp_path, path, sky=True, bad_fibers=True)) == 5


def test_spectra_files_name_the_status_otherwise_and_repeat_targets(tmp_path):
    path = write_desi(tmp_path / "spectra-1.fits", [BIG, BIG, BIG], status=[0, 0, 3], status_name="FIBERSTATUS")
    dataset = load(tmp_path, path)
    assert dataset["object_id"][:] == [str(BIG)] * 2
    assert dataset["source"][:] == ["spectra-1.fits#0", "spectra-1.fits#1"]


def test_without_fibermap_mask_and_resolution(tmp_path):
    path = write_desi(tmp_path / "any.fits", [0, 0], has_fibermap=False, has_mask=False, sigma_pixels=None)
    rows = rows_of(load(tmp_path, path))
    assert [row["object_id"] for row in rows] == ["any.fits#0", "any.fits#1"]
    assert rows[0]["lsf_kind"] == "nominal"
    np.testing.assert_allclose(rows[0]["wavelength"][0] / (2.3548 * rows[0]["lsf_sigma"][0]), 2000, rtol=1e-4)
    assert rows[0]["ivar"][3:5].tolist() == [2, 0]


def test_files_of_one_name_without_fibermap(tmp_path):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        write_desi(tmp_path / folder / "coadd-1.fits", [0], has_fibermap=False)
    assert load(tmp_path, tmp_path)["object_id"][:] == ["a/coadd-1.fits#0", "b/coadd-1.fits#0"]


def test_a_blank_objtype_column_says_nothing(tmp_path):
    path = write_desi(tmp_path / "coadd-1.fits", [BIG, BIG + 1], objtype=["", ""])
    assert len(load(tmp_path, path)) == 2


def test_missing_camera(tmp_path):
    (row,) = rows_of(load(tmp_path, write_desi(tmp_path / "coadd-1.fits", [BIG], cameras=("B", "Z"))))
    assert row["segment_lengths"].tolist() == [40, 40]
    assert row["wavelength"][40] == 3640.0


def test_a_file_cut_between_two_hdus_is_refused_or_told(tmp_path, caplog):
    """Nothing in a FITS file says how many HDUs follow."""
    whole = write_desi(tmp_path / "coadd-1.fits", [BIG])
    with fits.open(whole) as hdus:
        ends = {hdu.name: hdu.fileinfo()["datLoc"] + hdu.fileinfo()["datSpan"] for hdu in hdus}
    for name in list(ends)[:-1]:
        path = tmp_path / name / "coadd-1.fits"
        path.parent.mkdir()
        path.write_bytes(whole.read_bytes()[: ends[name]])
        caplog.clear()
        report = survey_report(load(path.parent, path))
        assert report.damaged or "expected cameras B, R, Z, found: " in caplog.text, name
        assert bool(report.rows) == (name in ("B_IVAR", "B_MASK", "B_RESOLUTION", "R_RESOLUTION")), name


def test_simulations_are_not_taken_for_real(tmp_path):
    path = write_desi(tmp_path / "spectra-1.fits", [BIG], header={"DEPNAM03": "desisim"})
    dataset = load(tmp_path, path)
    assert len(dataset) == 0 and dict(survey_report(dataset).dropped) == {"simulated": 1}
    assert len(load(tmp_path, path, simulated=True)) == 1
    real = write_desi(tmp_path / "spectra-2.fits", [BIG], header={"DEPNAM03": "desimodel"})
    assert len(load(tmp_path, real)) == 1


@pytest.mark.parametrize(("kind", "hdu_name"), [("redrock", "REDSHIFTS"), ("zbest", "ZBEST")])
def test_redshifts_beside(tmp_path, kind, hdu_name):
    write_desi(tmp_path / "coadd-5-169.fits", [BIG, BIG + 1, BIG + 2])
    # neighbours that float64 cannot tell from BIG, and in another order
    write_redshifts(
        tmp_path / f"{kind}-5-169.fits", [BIG + 1, BIG - 1, BIG], [1e-3, 9.0, 2.5], ["STAR", "QSO", "QSO"], hdu_name
    )
    first, second, third = rows_of(load(tmp_path, tmp_path))
    assert (first["class"], first["redshift"]) == ("QSO", 2.5)
    assert (second["class"], second["redshift"]) == ("STAR", 1e-3)
    assert second["radial_velocity"] == pytest.approx(299.792458) and np.isnan(first["radial_velocity"])
    assert third["class"] is None and np.isnan(third["redshift"])


@pytest.mark.parametrize(
    ("folder", "rest"),
    [
        ("healpix/sv3/dark/260/26065", "sv3-dark-26065"),
        ("tiles/cumulative/169/20210419", "5-169-thru20210419"),
        ("tiles/80608/20201215", "0-80608-20201215"),
    ],
)
@pytest.mark.parametrize("suffix", [".fits", ".fits.gz"])
def test_layouts_of_the_surveys_folders(tmp_path, folder, rest, suffix):
    """By HEALPix or by tile: coadds with the redshifts beside, the exposures' files only on request."""
    folder = tmp_path / "iron" / folder
    folder.mkdir(parents=True)
    write_desi(folder / f"coadd-{rest}.fits", [BIG])
    write_desi(folder / f"spectra-{rest}{suffix}", [BIG, BIG], status=[0, 0], status_name="FIBERSTATUS")
    write_redshifts(folder / f"redrock-{rest}{suffix}", [BIG], [0.5], ["QSO"])
    dataset = load(tmp_path, tmp_path / "iron")
    assert dataset["redshift"][:] == [0.5]
    assert dict(survey_report(dataset).dropped) == {"file of exposures whose coadd is there": 1}
    dataset = load(tmp_path, tmp_path / "iron", exposures=True)
    assert sorted(dataset["source"][:]) == sorted(
        [f"coadd-{rest}.fits#0", f"spectra-{rest}{suffix}#0", f"spectra-{rest}{suffix}#1"]
    )
    assert dataset["redshift"][:] == [0.5] * 3
    assert len(load(tmp_path, folder / f"spectra-{rest}{suffix}")) == 2  # named alone, it is wanted


def test_redshifts_option_and_its_change(tmp_path):
    path = write_desi(tmp_path / "coadd-1.fits", [BIG])
    catalogue = write_redshifts(tmp_path / "quasars.fits", [BIG], [2.25], hdu_name="QSO_CAT")
    (row,) = rows_of(load(tmp_path, path, catalogue=catalogue))
    assert (row["class"], row["redshift"]) == ("QSO", 2.25)
    catalogue.unlink()
    write_redshifts(catalogue, [BIG, BIG + 1], [3.5, 1.0], hdu_name="QSO_CAT")
    (row,) = rows_of(load(tmp_path, path, catalogue=catalogue))
    assert row["redshift"] == 3.5


def test_blocks_of_rows_lose_nothing(tmp_path, monkeypatch):
    path = write_desi(tmp_path / "coadd-1.fits", [BIG + k if k != 4 else -1 for k in range(7)], cameras=("B", "R"))
    whole = rows_of(load(tmp_path, path))
    monkeypatch.setattr(desi, "ROWS_PER_BLOCK", 3)
    parts = rows_of(load_survey("desi", path, cache_dir=tmp_path / "another"))
    assert [row["flux"][0] for row in parts] == [1, 2, 3, 4, 6, 7]  # write_desi: number of the row
    assert [row["source"] for row in parts] == [row["source"] for row in whole]
    assert all((one["ivar"] == two["ivar"]).all() for one, two in zip(parts, whole))


def write_shapes_that_do_not_match(path):
    write_desi(path, [BIG], cameras=("B",))
    with fits.open(path, mode="update") as hdus:
        hdus["B_IVAR"].data = hdus["B_IVAR"].data[:, :-1]


def write_short_fibermap(path):
    write_desi(path, [BIG, BIG + 1], cameras=("B",))
    with fits.open(path, mode="update") as hdus:
        hdus["FIBERMAP"].data = hdus["FIBERMAP"].data[:1]


def write_without_wavelength(path):
    write_desi(path, [BIG], cameras=("B",))
    with fits.open(path, mode="update") as hdus:
        del hdus["B_WAVELENGTH"]


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (write_shapes_that_do_not_match, "B_IVAR.*39.*40"),
        (write_short_fibermap, "FIBERMAP.*1 rows.*2 rows"),
        (write_without_wavelength, "B_WAVELENGTH"),
        (lambda path: write_redshifts(path, [BIG], [1.0]), "B_FLUX"),
        (lambda path: path.write_bytes(b"SIMPLE  ="), "file"),
    ],
)
def test_foreign_and_damaged_files(tmp_path, write, message):
    write(tmp_path / "coadd-1.fits")
    with pytest.raises(SpectrumFileError, match=message):
        load(tmp_path, tmp_path, strict=True)


def test_resolution_sigma_of_a_shifted_line():
    """The second moment is about the mean: a shift does not widen the line."""
    offset = np.arange(5, -6, -1.0)
    band = np.exp(-0.5 * ((offset - 0.7) / 0.9) ** 2)[:, None] * np.ones(3)
    np.testing.assert_allclose(resolution_sigma(band), 0.9, rtol=0.01)
    assert np.isnan(resolution_sigma(np.zeros((11, 2)))).all()


def test_a_file_systems_metadata_are_not_asked_for_once_per_row(simulated_surveys, tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr("spectral_tokenizer.data.desi.find_redshifts", lambda file: asked.append(file))
    rows = load_survey("desi", simulated_surveys["desi"], cache_dir=tmp_path)
    assert len(rows) > 4 * len(set(asked)) and max(map(asked.count, asked)) <= 4
