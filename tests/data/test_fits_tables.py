"""Columns as astropy reads them, without astropy's reading them all."""

import numpy as np
import pytest
from astropy.io import fits

from spectral_tokenizer.data import SpectrumFileError
from spectral_tokenizer.data import fits_tables as fits_tables_module
from spectral_tokenizer.data.fits_access import open_fits
from spectral_tokenizer.data.fits_tables import get_column, get_columns, text


@pytest.fixture
def path(tmp_path):
    """A table with a column of every format, scaled ones and a heap among them."""
    rows = 5
    integers = np.arange(rows)
    columns = [
        fits.Column("bits", "11X", array=np.zeros((rows, 11), dtype=bool)),
        fits.Column("Flag", "L", array=integers % 2 == 0),
        fits.Column("byte", "B", array=integers.astype("u1")),
        fits.Column("short", "I", array=integers.astype("i2") - 2),
        fits.Column("int", "J", array=integers.astype("i4") - 2),
        fits.Column("unsigned", "J", bzero=2**31, array=(integers + 2**31).astype("u4")),
        fits.Column("long", "K", array=39633297352951413 + integers),
        fits.Column("name", "6A", array=["a", "bc", "", " d", "sixsix"]),
        fits.Column("float", "E", array=integers / 3),
        fits.Column("double", "D", array=integers / 3),
        fits.Column("vector", "3D", array=np.arange(15.0).reshape(5, 3)),
        fits.Column("complex", "C", array=integers * 1j),
        fits.Column("heap", "PJ()", array=np.array([np.arange(k) for k in range(rows)], dtype=object)),
        fits.Column("last", "E", array=-integers),
    ]
    table = fits.BinTableHDU.from_columns(columns, name="TABLE")
    fits.HDUList([fits.PrimaryHDU(), fits.ImageHDU(np.zeros(3)), table]).writeto(tmp_path / "table.fits")
    return tmp_path / "table.fits"


NUMBERS = ("flag", "byte", "short", "int", "unsigned", "long", "float", "double", "vector", "complex", "last")


@pytest.mark.parametrize("piece", [2**20, 200, 1])  # all rows at once, two, one
def test_all_formats(path, monkeypatch, piece):
    monkeypatch.setattr(fits_tables_module, "PIECE", piece)
    with open_fits(path) as hdus:
        columns = get_columns(path, hdus[2], NUMBERS, ("NAME", "nothing"))
    expected = fits.getdata(path, 2)
    assert columns.keys() == {*NUMBERS, "NAME"}
    for name in NUMBERS:
        np.testing.assert_array_equal(columns[name], expected[name])
        assert columns[name].dtype == np.array(expected[name]).dtype.newbyteorder("=")
    assert [text(value) for value in columns["NAME"]] == ["a", "bc", "", "d", "sixsix"]


def test_by_the_name_of_the_hdu(path):
    with open_fits(path) as hdus:
        assert get_column(path, hdus["TABLE"], "LONG")[4] == 39633297352951417


def test_missing_column_and_no_table(path):
    with open_fits(path) as hdus:
        with pytest.raises(
            SpectrumFileError, match="column colour: found columns .'bits', 'Flag'.*; expected a column"
        ):
            get_columns(path, hdus[2], ("long", "colour"))
        with pytest.raises(SpectrumFileError, match="ImageHDU; expected a binary table"):
            get_column(path, hdus[1], "long")


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        (b"TFORM10 = 'D       '", b"TFORM10 = 'E       '", "NAXIS1: found .* expected .* bytes, as the columns"),
        (b"TFORM10 = 'D       '", b"TFORM10 = '?       '", "TFORM10: found"),
        (b"NAXIS2  =                    5", b"NAXIS2  =               500000", "truncated|500000 rows"),
        (b"NAXIS2  =                    5", b"NAXIS2  =                   -5", "NAXIS2: found -5"),
    ],
)
def test_headers_that_do_not_fit(path, before, after, message):
    content = path.read_bytes()
    assert content.count(before) == 1
    path.write_bytes(content.replace(before, after))
    with pytest.raises(SpectrumFileError, match=message), open_fits(path) as hdus:
        get_column(path, hdus[2], "long")


def test_a_file_that_ends_early(path):
    path.write_bytes(path.read_bytes()[:-3000])
    with pytest.raises(SpectrumFileError, match="table|file"), open_fits(path) as hdus:
        get_column(path, hdus[2], "long")


def test_nulls_of_integers(tmp_path):
    """astropy writes masked integers as 999999 and so on, and says so in TNULL."""
    columns = [
        fits.Column("few", "J", null=999999, array=np.array([1, 999999, 3], dtype="i4")),
        fits.Column("none", "J", null=-1, array=np.array([1, 999999, 3], dtype="i4")),
        fits.Column("unsigned", "I", null=7 - 2**15, bzero=2**15, array=np.array([1, 7, 3], dtype="u2")),
        fits.Column("long", "K", null=-5, array=np.array([39633297352951413, -5, 3])),
    ]
    path = tmp_path / "nulls.fits"
    fits.BinTableHDU.from_columns(columns).writeto(path)
    with open_fits(path) as hdus:
        found = get_columns(path, hdus[1], ("few", "none", "unsigned"))
        masked = get_columns(path, hdus[1], ("few", "long"), masked=True)
    for name in ("few", "unsigned"):
        np.testing.assert_array_equal(found[name], [1.0, np.nan, 3.0])
    assert found["none"].tolist() == [1, 999999, 3] and found["none"].dtype == np.int32
    assert masked["few"].tolist() == [1, None, 3] and masked["long"].tolist() == [39633297352951413, None, 3]
    with (
        pytest.raises(SpectrumFileError, match="column long: found 1 nulls .TNULL.; expected"),
        open_fits(path) as hdus,
    ):
        get_column(path, hdus[1], "long")
