"""A survey by the recipe, in files written as LAMOST describes its own."""

import numpy as np
import pytest
from astropy.io import fits
from native_files import rows_of, write_table

from spectral_tokenizer.data import SpectrumFileError, load_survey, survey_report


NAME = "spec-56972-HD064049N515841V01_sp07-008.fits"
WAVELENGTH = 10 ** (3.5682 + 1e-4 * np.arange(300))


def write(path, *, layout="image", pilot=False, **header):
    """The image of releases 1 to 7, or the table of later ones."""
    flux, ivar = 100 + np.arange(300.0), np.full(300, 0.25)
    ivar[5] = 0
    rows = [flux, ivar, flux - 100 if pilot else WAVELENGTH, np.zeros(300), np.zeros(300)]
    cards = {"TELESCOP": "LAMOST", "OBSID": 275407008, "RA": 64.1, "DEC": 51.9, "CLASS": "STAR", "SUBCLASS": "G5"}
    cards |= {"Z": -1e-4, "FIBERTYP": "Obj"} | header
    if layout == "image":
        hdus = [fits.PrimaryHDU(np.array(rows, dtype="f4"))]
    else:
        names = ("FLUX", "IVAR", "WAVELENGTH", "ANDMASK", "ORMASK")
        columns = [fits.Column(name, "300E", array=[values]) for name, values in zip(names, rows)]
        hdus = [fits.PrimaryHDU(), fits.BinTableHDU.from_columns(columns, name="COADD")]
    hdus[0].header.update(cards)
    fits.HDUList(hdus).writeto(path, overwrite=True)
    return path


def load(tmp_path, path, **options):
    return load_survey("lamost", path, cache_dir=tmp_path / "cache", **options)


@pytest.mark.parametrize("layout", ["image", "table"])
def test_row(tmp_path, layout):
    write(tmp_path / (NAME + ".gz"), layout=layout)
    (row,) = rows_of(load(tmp_path, tmp_path))
    assert (row["survey"], row["object_id"], row["frame"]) == ("lamost", "275407008", "heliocentric")
    np.testing.assert_allclose(row["wavelength"], WAVELENGTH, rtol=1e-12)  # as float32 it would be off by 2e-4 A
    assert row["flux"][7] == 107 and np.flatnonzero(row["ivar"] == 0).tolist() == [5]
    np.testing.assert_allclose(row["lsf_sigma"], WAVELENGTH / 1800 / 2.3548, rtol=1e-4)
    assert (row["class"], row["lsf_kind"], row["ra"]) == ("STAR", "nominal", 64.1)
    assert row["radial_velocity"] == pytest.approx(-29.979, abs=1e-3)


def test_unknown_objects_and_other_fibres(tmp_path):
    path = write(tmp_path / NAME, CLASS="Unknown", Z=-9999.0)
    (row,) = rows_of(load(tmp_path, path))
    assert row["class"] is None and np.isnan(row["redshift"])
    path = write(tmp_path / NAME, FIBERTYP="Sky")
    assert dict(survey_report(load(tmp_path, path)).dropped) == {"no target": 1}
    (row,) = rows_of(load(tmp_path, path, sky=True))
    assert row["class"] is None and np.isnan(row["redshift"])


def test_catalogue(tmp_path):
    columns = {"teff": [5000.0, 5500.0], "logg": [2.0, 4.5], "feh": [-9999.0, -0.5], "rv": [0.0, -25.5]}
    catalogue = write_table(tmp_path / "stellar.fits", obsid=np.array([1, 275407008]), **columns)
    (row,) = rows_of(load(tmp_path, write(tmp_path / NAME), catalogue=catalogue))
    assert (row["teff"], row["logg"], row["fe_h"], row["radial_velocity"]) == (5500.0, 4.5, -0.5, -25.5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pilot": True}, "wavelength"),
        ({"TELESCOP": "SDSS 2.5-M"}, "TELESCOP"),
    ],
)
def test_foreign_files(tmp_path, options, message):
    with pytest.raises(SpectrumFileError, match=message):
        load(tmp_path, write(tmp_path / NAME, **options), strict=True)


def test_the_surveys_do_not_take_each_others_files(tmp_path, spectra_dir):
    path = write(tmp_path / NAME)
    with pytest.raises(SpectrumFileError, match="spSpec|spec"):
        load_survey("sdss", path, cache_dir=tmp_path / "cache", strict=True)
    for file in ("sdss/spec-0266-51602-0013.fits", "desi/picca/coadd-1-80693-thru20210204.fits"):
        with pytest.raises(SpectrumFileError, match="expected"):
            load(tmp_path, spectra_dir / file, strict=True)
