"""Labels from the surveys' catalogues, and the flags that make them unreliable: one mechanism for all surveys."""

import csv

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from astropy.io import fits
from native_files import (
    rows_of,
    write_apstar,
    write_apvisit,
    write_aspcapstar,
    write_desi,
    write_galah_ccd,
    write_redshifts,
    write_sdss,
    write_table,
)

from spectral_tokenizer.data import SURVEYS, SpectrumFileError, load_survey, prepare_survey
from spectral_tokenizer.data.catalogues import Catalogue, CatalogueLayout, LabelCut, join_labels


BIG = 39633297352951413  # odd and beyond 2^53
STAR = "131123003001096"
APOGEE_STAR = "2M00000000+0000000"
LAYOUT = CatalogueLayout(key=("ID",), labels={"teff": ("TEFF",), "class": ("CLASS",)}, flags=("FLAG",))


def load_one(tmp_path, survey, path, **options):
    (row,) = rows_of(load_survey(survey, path, cache_dir=tmp_path / "cache", strict=True, **options))
    return row


def test_galah_dr3_and_dr4(tmp_path):
    path = write_galah_ccd(tmp_path, STAR, 1, velocity=30.0)
    ids = np.array([int(STAR) + 1, int(STAR)])
    columns = {
        "teff": [4000.0, 5500.0],
        "logg": [1.0, 4.5],
        "fe_h": [0.1, -0.2],
        "flag_sp": [0, 0],
        "flag_fe_h": [0, 1],
    }
    dr3 = write_table(tmp_path / "dr3.fits", sobject_id=ids, rv_galah=[0.0, 31.5], ra_dr2=[0.0, 12.0], **columns)
    row = load_one(tmp_path, "galah", path, catalogue=dr3)
    assert (row["teff"], row["logg"], row["radial_velocity"], row["ra"]) == (5500.0, 4.5, 31.5, 12.0)
    assert np.isnan(row["fe_h"]) and row["label_warnings"] == "flag_fe_h"
    dr4 = write_table(tmp_path / "dr4.fits", sobject_id=ids, rv_comp_1=[0.0, 29.5], ra=[0.0, 13.0], **columns)
    row = load_one(tmp_path, "galah", path, catalogue=dr4, unreliable_labels=True)
    assert (row["radial_velocity"], row["ra"], row["fe_h"]) == (29.5, 13.0, np.float32(-0.2))
    assert row["label_warnings"] == "flag_fe_h"  # told all the same


def test_apogee_takes_the_best_of_a_stars_rows(tmp_path):
    path = write_apstar(tmp_path / "apStar-1.fits")
    catalogue = write_table(
        tmp_path / "allStar.fits",
        APOGEE_ID=["2M00000000+0000009", APOGEE_STAR, APOGEE_STAR, APOGEE_STAR],
        TEFF=[4000.0, 4100.0, 4200.0, 4300.0],
        LOGG=[1.0, 1.1, -9999.0, 1.3],
        M_H=[0.0, -0.1, -0.2, -0.3],
        SNR=[900.0, 50.0, 200.0, 100.0],
        ASPCAPFLAG=np.array([0, 0, 1 << 16, 0]),
        VHELIO_AVG=[0.0, 1.0, 2.0, 3.0],
    )
    row = load_one(tmp_path, "apogee", path, catalogue=catalogue)
    assert np.isnan(row["teff"]) and row["label_warnings"] == "TEFF_BAD"
    assert np.isnan(row["logg"]) and row["fe_h"] == np.float32(-0.2) and row["radial_velocity"] == 2.0
    assert load_one(tmp_path, "apogee", path, catalogue=catalogue, unreliable_labels=True)["teff"] == 4200.0


@pytest.mark.parametrize("nothing", [-999.0, -9999.0, np.nan, 0.0, np.inf])
def test_a_catalogue_without_a_value_takes_nothing_from_the_file(tmp_path, nothing):
    """A temperature of -999 is none, and the file's is one."""
    path = write_aspcapstar(tmp_path / "aspcapStar-1.fits")
    catalogue = write_table(tmp_path / "all.fits", APOGEE_ID=["2M00000000+0000001"], TEFF=[nothing], LOGG=[2.75])
    row = load_one(tmp_path, "apogee", path, catalogue=catalogue)
    assert (row["teff"], row["logg"]) == (4500.0, 2.75)


@pytest.mark.parametrize(
    ("bit", "blank", "name"),
    [(16, {"teff"}, "TEFF_BAD"), (17, {"logg"}, "LOGG_BAD"), (19, {"fe_h"}, "M_H_BAD"), (7, set(), None)]
    + [(23, {"teff", "logg", "fe_h"}, "STAR_BAD")],
)
def test_aspcap_flags(tmp_path, bit, blank, name):
    path = write_aspcapstar(tmp_path / "aspcapStar-1.fits", aspcapflag=1 << bit)
    row = load_one(tmp_path, "apogee", path)
    assert {label for label in ("teff", "logg", "fe_h") if np.isnan(row[label])} == blank
    assert row["label_warnings"] == name
    kept = load_one(tmp_path, "apogee", path, unreliable_labels=True)
    assert (kept["teff"], kept["logg"], kept["fe_h"]) == (4500.0, 2.5, -0.25)


@pytest.mark.parametrize("zwarning", [0, 4, 16, 4 + 16])
def test_sdss_zwarning(tmp_path, zwarning):
    path = write_sdss(tmp_path / "spec-1.fits", ZWARNING=zwarning, CLASS="STAR", Z=1e-3)
    row = load_one(tmp_path, "sdss", path)
    if zwarning & 4:
        assert row["class"] is None and np.isnan([row["redshift"], row["radial_velocity"]]).all()
        assert row["label_warnings"] == "ZWARNING"
    else:  # MANY_OUTLIERS alone stands on good spectra
        assert row["class"] == "STAR" and row["label_warnings"] is None
    row = load_one(tmp_path, "sdss", path, unreliable_labels=True)
    assert (row["class"], row["redshift"]) == ("STAR", 1e-3)
    assert row["radial_velocity"] == pytest.approx(299.792458)


def test_sdss_by_plate_mjd_and_fibre(tmp_path):
    path = write_sdss(tmp_path / "spec-1.fits", plate=10656, CLASS="GALAXY", Z=0.25)
    keys = {"PLATE": [10656, 1, 10656, 10656], "MJD": [55555, 55555, 55556, 55555], "FIBERID": [7, 7, 7, 1007]}
    catalogue = write_table(
        tmp_path / "specObj.fits", **{name: np.array(values, dtype="i4") for name, values in keys.items()},
        CLASS=["QSO", "STAR", "STAR", "STAR"], Z=[2.5, 0.1, 0.2, 0.3], ZWARNING=np.zeros(4, dtype="i4"),
    )  # fmt: skip
    row = load_one(tmp_path, "sdss", path, catalogue=catalogue)
    assert (row["class"], row["redshift"]) == ("QSO", np.float64(2.5))


def test_somebodys_own_table(tmp_path):
    """Labels by this package's names, classes in any case, identifiers as text; and nothing that the file's flag says
    of its own labels is said of these."""
    path = write_sdss(tmp_path / "spec-1.fits", plate=10656, CLASS="GALAXY", Z=0.25, ZWARNING=4)
    keys = {"PLATE": np.array([10656]), "MJD": np.array([55555]), "FIBERID": ["7"]}
    mine = write_table(tmp_path / "mine.fits", **keys, redshift=[2.5], Class=["qso"], teff=[5777.0])
    row = load_one(tmp_path, "sdss", path, catalogue=mine)
    assert (row["class"], row["redshift"], row["teff"]) == ("QSO", 2.5, 5777.0) and row["label_warnings"] is None
    theirs = write_table(tmp_path / "theirs.fits", **keys, redshift=[2.5], ZWARNING=np.array([4]))
    row = load_one(tmp_path, "sdss", path, catalogue=theirs)
    assert np.isnan(row["redshift"]) and row["label_warnings"] == "ZWARNING"
    stellar = write_table(tmp_path / "stellar.fits", **keys, teff=[5777.0], CLASS=["giant"])
    row = load_one(tmp_path, "sdss", path, catalogue=stellar)
    assert row["class"] is None and np.isnan(row["redshift"]) and row["teff"] == 5777.0
    assert row["label_warnings"] == "ZWARNING"


def test_a_class_takes_away_the_redshift_of_another(tmp_path):
    """A star that the pipeline fitted as a quasar has not 240589 km/s."""
    path = write_sdss(tmp_path / "spec-1.fits", plate=10656, CLASS="QSO", Z=0.802518)
    keys = {"PLATE": np.array([10656]), "MJD": np.array([55555]), "FIBERID": np.array([7])}
    for number, (columns, redshift, velocity, warning) in enumerate(
        [
            ({"CLASS": ["STAR"]}, np.nan, np.nan, "redshift of another class"),
            ({"CLASS": ["STAR"], "radial_velocity": [30.0]}, np.nan, 30.0, "redshift of another class"),
            ({"CLASS": ["STAR"], "Z": [np.nan]}, np.nan, np.nan, "redshift of another class"),
            ({"CLASS": ["STAR"], "Z": [0.0]}, 0.0, 0.0, None),
            ({"CLASS": ["QSO"]}, 0.802518, np.nan, None),
            ({"teff": [5000.0]}, 0.802518, np.nan, None),
        ]
    ):
        catalogue = write_table(tmp_path / f"mine-{number}.fits", **keys, **columns)
        for options in ({}, {"unreliable_labels": True}):
            row = load_one(tmp_path, "sdss", path, catalogue=catalogue, **options)
            np.testing.assert_array_equal([row["redshift"], row["radial_velocity"]], [redshift, velocity])
            assert row["label_warnings"] == warning


def test_a_label_of_zero_is_a_label(tmp_path):
    """As the Sun's [Fe/H]."""
    path = write_galah_ccd(tmp_path, STAR, 1, velocity=30.0)
    columns = {"sobject_id": [int(STAR)], "teff": [5777.0], "fe_h": [0.0], "rv_galah": [0.0]}
    pq.write_table(pa.table(columns), tmp_path / "mine.parquet")
    row = load_one(tmp_path, "galah", path, catalogue=tmp_path / "mine.parquet")
    assert (row["teff"], row["fe_h"], row["radial_velocity"]) == (5777.0, 0.0, 0.0)


def test_flags_that_are_not_there_are_refused(tmp_path):
    """Neither good, nor bad, nor a fault of the spectrum."""
    path = write_sdss(tmp_path / "spec-1.fits")
    columns = {"PLATE": [1, 1], "MJD": [55555] * 2, "FIBERID": [7, 8], "Z": [0.5, None], "ZWARNING": [None, 0]}
    pq.write_table(pa.table(columns), tmp_path / "mine.parquet")
    with pytest.raises(SpectrumFileError, match="mine.parquet: column ZWARNING: found float64; expected integers, in"):
        load_survey("sdss", path, cache_dir=tmp_path / "cache", catalogue=tmp_path / "mine.parquet")
    pq.write_table(pa.table(columns | {"ZWARNING": [0, 0]}), tmp_path / "mine.parquet")
    assert load_one(tmp_path, "sdss", path, catalogue=tmp_path / "mine.parquet")["redshift"] == 0.5


def test_a_visit_keeps_its_own_velocity(tmp_path):
    """The catalogue's is the mean of all visits; whether its own is to be believed, the visit's file says."""
    names = {"APOGEE_ID": ["2M00000000+0000002"], "TEFF": [4100.0], "VHELIO_AVG": [99.0]}
    catalogue = write_table(tmp_path / "allStar.fits", **names)
    for scatter, velocity, warning in ((1.0, 5.0, None), (11.0, np.nan, "VSCATTER")):
        path = write_apvisit(tmp_path / f"apVisit-{scatter}.fits")
        fits.setval(path, "VSCATTER", value=scatter)
        row = load_one(tmp_path, "apogee", path, catalogue=catalogue)
        np.testing.assert_equal((row["radial_velocity"], row["teff"]), (velocity, 4100.0))
        assert row["label_warnings"] == warning


@pytest.mark.parametrize(
    ("name", "columns", "message"),
    [
        ("labels.csv", None, "labels.csv: file: found"),
        ("no_key.fits", {"teff": [1.0]}, "no_key.fits: column PLATE"),
        (
            "no_label.fits",
            {"PLATE": [1], "MJD": [2], "FIBERID": [3], "MAG": [4.0]},
            "no_label.fits: columns of labels",
        ),
        (
            "words.fits",
            {"PLATE": ["a"], "MJD": [2], "FIBERID": [3], "Z": [4.0]},
            "words.fits: column PLATE: found .S1",
        ),
    ],
)
def test_a_wrong_catalogue_is_an_error_and_no_damage_of_the_spectra(tmp_path, name, columns, message):
    path = write_sdss(tmp_path / "spec-1.fits")
    if columns is None:
        (tmp_path / name).write_text("PLATE,MJD\n1,2\n")
    else:
        write_table(tmp_path / name, **columns)
    with pytest.raises(SpectrumFileError, match=message):
        load_survey("sdss", path, cache_dir=tmp_path / "cache", catalogue=tmp_path / name)
    with pytest.raises(TypeError, match="catalogue: found a dict; expected the path"):
        load_survey("sdss", path, cache_dir=tmp_path / "cache", catalogue={})


def test_desi_neighbours_that_float64_does_not_tell_apart(tmp_path):
    path = write_desi(tmp_path / "coadd-1.fits", [BIG])
    columns = {
        "TARGETID": np.array([BIG - 1, BIG, BIG + 1]),
        "Z": [1.0, 2.0, 3.0],
        "SPECTYPE": ["GALAXY", "QSO", "STAR"],
    }
    catalogue = write_table(tmp_path / "zcat.fits", hdu_name="ZCATALOG", ZWARN=np.array([0, 0, 0]), **columns)
    row = load_one(tmp_path, "desi", path, catalogue=catalogue)
    assert (row["class"], row["redshift"], row["label_warnings"]) == ("QSO", 2.0, None)


def test_desi_primary_row_and_warning(tmp_path):
    path = write_desi(tmp_path / "coadd-1.fits", [BIG, BIG + 2])
    catalogue = write_table(
        tmp_path / "zcat.fits", hdu_name="ZCATALOG", TARGETID=np.array([BIG, BIG, BIG + 2]), Z=[1.0, 2.0, 3.0],
        SPECTYPE=["GALAXY", "QSO", "QSO"], ZWARN=np.array([0, 0, 4]), ZCAT_PRIMARY=np.array([False, True, True]),
    )  # fmt: skip
    first, second = rows_of(load_survey("desi", path, cache_dir=tmp_path / "cache", catalogue=catalogue))
    assert (first["class"], first["redshift"]) == ("QSO", 2.0)
    assert second["class"] is None and np.isnan(second["redshift"]) and second["label_warnings"] == "ZWARN"


def test_stellar_parameters_of_desi(tmp_path):
    path = write_desi(tmp_path / "coadd-1.fits", [BIG])
    columns = {"VRAD": [-120.5], "TEFF": [5100.0], "LOGG": [4.5], "FEH": [-1.5], "RVS_WARN": np.array([0])}
    catalogue = write_table(tmp_path / "rv.fits", hdu_name="RVTAB", TARGETID=np.array([BIG]), **columns)
    row = load_one(tmp_path, "desi", path, catalogue=catalogue)
    assert (row["class"], row["radial_velocity"], row["teff"], row["fe_h"]) == ("STAR", -120.5, 5100.0, -1.5)


def test_labels_that_a_catalogue_does_not_know_stay_those_of_the_file(tmp_path):
    path = write_aspcapstar(tmp_path / "aspcapStar-1.fits")
    catalogue = write_table(tmp_path / "allStar.fits", APOGEE_ID=["2M00000000+0000001"], TEFF=[np.nan], LOGG=[2.75])
    row = load_one(tmp_path, "apogee", path, catalogue=catalogue)
    assert (row["teff"], row["logg"], row["fe_h"]) == (4500.0, 2.75, -0.25)


def test_an_object_that_the_catalogue_does_not_hold(tmp_path):
    path = write_galah_ccd(tmp_path, STAR, 1, velocity=30.0)
    catalogue = write_table(tmp_path / "dr3.fits", sobject_id=np.array([int(STAR) + 1]), teff=[4000.0])
    row = load_one(tmp_path, "galah", path, catalogue=catalogue)
    assert row["label_warnings"] == "not in catalogue" and np.isnan(row["teff"])
    assert row["radial_velocity"] == pytest.approx(30.0)


def plates(folder, plates):
    """SDSS files of these plates, and a catalogue of each plate alone."""
    folder.mkdir()
    for plate in plates:
        write_sdss(folder / f"spec-{plate:04d}-55555-0007.fits", plate=plate)
    return folder, lambda plate: write_table(
        folder.parent / f"of-{plate}.fits", PLATE=[plate], MJD=[55555], FIBERID=[7], Z=[0.5]
    )


def test_a_catalogue_that_holds_few_of_the_spectra_is_told(tmp_path, caplog):
    """All spectra kept their files' labels, and nobody was told. It may be right, of a small table of somebody's own."""
    folder, catalogue_of = plates(tmp_path / "sdss", (1, 2, 3))
    (folder / "spec-0004-55555-0007.fits").write_text("damaged")
    message = "of-9.fits: columns ['PLATE', 'MJD', 'FIBERID']: found 0 of 3 spectra; expected the objects of sdss"
    for num_proc, cache in ((None, "cache"), (None, "cache"), (2, "another")):  # built, read again, by processes
        rows = load_survey("sdss", folder, cache_dir=tmp_path / cache, catalogue=catalogue_of(9), num_proc=num_proc)
        assert len(rows) == 3 and message in caplog.text
        caplog.clear()
    load_one(tmp_path, "sdss", folder / "spec-0001-55555-0007.fits", catalogue=catalogue_of(9))
    assert "found 0 of 1 spectra" in caplog.text
    load_survey("sdss", folder, cache_dir=tmp_path / "cache", catalogue=catalogue_of(2))
    assert "of-2.fits: columns ['PLATE', 'MJD', 'FIBERID']: found 1 of 3 spectra" in caplog.text
    caplog.clear()
    load_one(tmp_path, "sdss", folder / "spec-0002-55555-0007.fits", catalogue=catalogue_of(2))
    assert "of-2.fits" not in caplog.text


def test_what_is_prepared_with_few_of_the_spectra_in_the_catalogue_is_told_too(tmp_path, caplog):
    folder, catalogue_of = plates(tmp_path / "sdss", (1, 2, 3))
    for plate, shards in ((3, [0]), (3, None), (9, [0]), (9, None), (9, None)):  # at last all is there already
        catalogue = catalogue_of(plate)
        output = tmp_path / catalogue.stem
        report = prepare_survey("sdss", folder, output, num_shards=3, shards=shards, catalogue=catalogue)
        assert f"found {report.found} of {report.sought} spectra" in caplog.text
        assert report.sought == (1 if shards else 3) and report.found == (plate == 3 and not shards)
        caplog.clear()
    assert (output / "README.md").exists()


def test_two_warnings(tmp_path):
    flags = {"A": 6, "B": 1}
    cuts = (
        LabelCut("first", "A", ("teff",), bits=2),
        LabelCut("second", "B", ("logg",)),
        LabelCut("no", "A", (), bits=8),
    )
    labels = {"teff": 1.0, "logg": 2.0, "fe_h": 3.0}
    joined = join_labels(labels, flags, cuts, None, 1, keep_unreliable=False)
    assert joined == {"fe_h": 3.0, "class": None, "label_warnings": "first, second"}


def test_classes_that_are_none(tmp_path):
    assert join_labels({"class": "CATAGORY"}, {}, (), None, 1, False)["class"] is None


@pytest.mark.parametrize("size", [1, 3, 1000])
def test_every_row_is_found(tmp_path, size):
    generator = np.random.default_rng(size)
    ids = generator.permutation(10 * size)[:size] + BIG
    path = write_table(tmp_path / "table.fits", id=ids, teff=ids - BIG + 0.5, FLAG=np.arange(size))
    catalogue = Catalogue(path, LAYOUT)
    for row, key in enumerate(ids.tolist()):
        assert catalogue.find(key) == ({"teff": key - BIG + 0.5}, {"FLAG": row})
    assert catalogue.find(BIG - 1) is catalogue.find(BIG + 10 * size) is None


def test_parquet(tmp_path):
    table = pa.table({"id": pa.array([BIG, BIG + 1]), "Teff": [1.5, 2.5], "class": ["QSO", "STAR"], "other": [0, 0]})
    pq.write_table(table, tmp_path / "table.parquet")
    catalogue = Catalogue(tmp_path / "table.parquet", LAYOUT)
    assert catalogue.find(BIG + 1) == ({"teff": 2.5, "class": "STAR"}, {})
    texts = CatalogueLayout(key=("name",), labels={"teff": ("teff",)}, is_text=True)
    pq.write_table(pa.table({"NAME": ["b", "a"], "teff": [1.0, 2.0]}), tmp_path / "texts.parquet")
    assert Catalogue(tmp_path / "texts.parquet", texts).find("a") == ({"teff": 2.0}, {})
    assert Catalogue(tmp_path / "texts.parquet", texts).find("abc") is None


def test_columns_that_differ_in_case_alone(tmp_path):
    """The one that is spelled as the survey does, whichever comes last; where none is, it is an error."""
    path, columns = tmp_path / "table.parquet", {"id": [1], "teff": [4.0], "TEFF": [5.0], "Teff": [6.0]}
    pq.write_table(pa.table(columns), path)
    assert Catalogue(path, LAYOUT).find(1) == ({"teff": 5.0}, {})
    columns.pop("TEFF")
    pq.write_table(pa.table(columns), path)
    with pytest.raises(
        SpectrumFileError, match=r"column TEFF: found columns \['teff', 'Teff'\]; expected one of them"
    ):
        Catalogue(path, LAYOUT)


def test_keys_beyond_ascii(tmp_path):
    texts = CatalogueLayout(key=("name",), labels={"teff": ("teff",)}, is_text=True)
    pq.write_table(pa.table({"name": ["β Pic", "Vega", "☉"], "teff": [1.0, 2.0, 3.0]}), tmp_path / "texts.parquet")
    catalogue = Catalogue(tmp_path / "texts.parquet", texts)
    assert [catalogue.find(name)[0]["teff"] for name in ("β Pic", "Vega", "☉")] == [1.0, 2.0, 3.0]
    assert catalogue.find("α Pic") is None


def test_identifiers_as_floats_are_refused(tmp_path):
    path = write_table(tmp_path / "table.fits", id=np.array([float(BIG)]), teff=[1.0])
    with pytest.raises(SpectrumFileError, match="column ID: found float64; expected 64-bit integers"):
        Catalogue(path, LAYOUT)
    with pytest.raises(SpectrumFileError, match="float64"):
        load_one(
            tmp_path, "desi", write_desi(tmp_path / "coadd-1.fits", [BIG]), catalogue=bad_desi_catalogue(tmp_path)
        )


def bad_desi_catalogue(tmp_path):
    return write_table(tmp_path / "zcat.fits", TARGETID=np.array([float(BIG)]), Z=[1.0])


def test_files_that_are_no_catalogue(tmp_path):
    with pytest.raises(SpectrumFileError, match="column ID"):
        Catalogue(write_table(tmp_path / "table.fits", teff=[1.0]), LAYOUT)
    with pytest.raises(SpectrumFileError, match="columns .'ID'"):
        pq.write_table(pa.table({"teff": [1.0]}), tmp_path / "table.parquet")
        Catalogue(tmp_path / "table.parquet", LAYOUT)
    (tmp_path / "text.parquet").write_text("no table")
    with pytest.raises(SpectrumFileError, match="a Parquet table"):
        Catalogue(tmp_path / "text.parquet", LAYOUT)


def test_a_changed_catalogue_is_noticed(tmp_path):
    path = write_desi(tmp_path / "coadd-1.fits", [BIG])
    for redshift in (1.0, 2.0):
        catalogue = tmp_path / "zbest.fits"
        catalogue.unlink(missing_ok=True)
        write_redshifts(catalogue, [BIG, *range(int(redshift))], [redshift, *range(int(redshift))], hdu_name="QSO_CAT")
        assert load_one(tmp_path, "desi", path, catalogue=catalogue)["redshift"] == redshift


def test_simulated_stars_with_their_catalogue(simulated_surveys, tmp_path):
    """apStar files have no labels; with the simulated allStar table every star has its true ones."""
    folder = simulated_surveys["apogee"]
    with open(folder.parent / "truth.csv") as file:
        truth = {row["object_id"]: row for row in csv.DictReader(file) if row["survey"] == "apogee"}
    rows = rows_of(load_survey("apogee", folder, cache_dir=tmp_path, catalogue=folder / "allStar-simulated.fits"))
    assert len(rows) == len(truth)
    for row in rows:
        expected = [float(truth[row["object_id"]][name]) for name in ("teff", "logg", "fe_h")]
        assert [row["teff"], row["logg"], row["fe_h"]] == pytest.approx(expected, rel=1e-6)
        assert row["label_warnings"] is None


def test_nulls_are_no_labels_and_no_keys(tmp_path):
    """FITS has numbers for them, which TNULL names; Parquet has none. The keys beside stay exact."""
    table = pa.table({"ID": [BIG, None, 3, 4], "TEFF": [5000, 5001, None, 5003], "FLAG": [0, 1, 2, 3]})
    pq.write_table(table, tmp_path / "table.parquet")
    columns = [
        fits.Column("ID", "K", null=999999, array=np.array([BIG, 999999, 3, 4])),
        fits.Column("TEFF", "J", null=999999, array=np.array([5000, 5001, 999999, 5003], dtype="i4")),
        fits.Column("FLAG", "J", array=np.arange(4, dtype="i4")),
    ]
    fits.BinTableHDU.from_columns(columns).writeto(tmp_path / "table.fits")
    for name in ("table.parquet", "table.fits"):
        catalogue = Catalogue(tmp_path / name, LAYOUT)
        assert catalogue.find(BIG) == ({"teff": 5000.0}, {"FLAG": 0})
        assert catalogue.find(3) == ({}, {"FLAG": 2}) and catalogue.find(4) == ({"teff": 5003.0}, {"FLAG": 3})
        assert catalogue.find(999999) is None and len(catalogue.keys) == 3


@pytest.mark.parametrize(
    ("columns", "unlike"),
    [
        ({"TEFF": [4000.0, 5000.0, 5100.0]}, "'TEFF': \\[5000.0, 5100.0\\]"),
        ({"TEFF": [4000.0, np.nan, 5100.0]}, "'TEFF': \\[nan, 5100.0\\]"),
        ({"TEFF": [4000.0, 5000.0, 5000.0], "FLAG": [0, 0, 1]}, "'FLAG': \\[0, 1\\]"),
        ({"CLASS": ["STAR", "STAR", "QSO"]}, "'CLASS': \\[b'STAR', b'QSO'\\]"),
    ],
)
def test_an_object_that_stands_twice_with_unlike_values(tmp_path, columns, unlike):
    """The first row counted: a label changed with the order of rows."""
    path = write_table(tmp_path / "c.fits", ID=[3, 7, 7], **columns)
    with pytest.raises(
        SpectrumFileError, match=f"c.fits: object 7: found .*{unlike}.*; expected one row, or the same"
    ):
        Catalogue(path, LAYOUT)
    best = CatalogueLayout(LAYOUT.key, LAYOUT.labels, LAYOUT.flags, best=("SNR",))
    path = write_table(path, ID=[3, 7, 7], SNR=[1.0, 1.0, 2.0], **columns)
    assert Catalogue(path, best).find(7) is not None


def test_rows_that_are_equally_good_are_told_and_the_first_counts(tmp_path, caplog):
    """Also where nobody knows how good, and whatever stands after them."""
    layout = CatalogueLayout(LAYOUT.key, LAYOUT.labels, best=("SNR",))
    columns = {"ID": [7, 7, 7, 7, 5, 5, 3, 3], "SNR": [1.0, 9.0, 9.0, 9.0, np.nan, np.nan, 2.0, 1.0]}
    teff = [1.0, 2.0, 2.0, 3.0, 5.0, 6.0, 7.0, 8.0]
    path = write_table(tmp_path / "c.fits", TEFF=teff, **columns)
    catalogue = Catalogue(path, layout)
    assert [catalogue.find(key)[0]["teff"] for key in (7, 5, 3)] == [2.0, 5.0, 7.0]
    Catalogue(path, layout)  # as another shard opens it
    (record,) = caplog.records
    assert "object 5: found {'TEFF': [5.0, 6.0]}; expected one row" in record.getMessage()
    assert "best by SNR: the first counts, as for 2 objects" in record.getMessage()
    caplog.clear()
    Catalogue(write_table(path, TEFF=[1.0, 2.0, 2.0, 2.0, 5.0, 5.0, 7.0, 8.0], **columns), layout)
    assert not caplog.records


def test_the_milky_way_survey_tells_its_best_row_in_a_column_of_its_own(tmp_path):
    path = write_table(tmp_path / "mwsall.fits", TARGETID=[7, 7], VRAD=[1.0, 2.0], PRIMARY=[False, True])
    assert Catalogue(path, SURVEYS["desi"].CATALOGUE).find(7)[0]["radial_velocity"] == 2.0
