"""What columns of a catalogue may hold: kinds, units, masks and blanks of FITS and of Parquet."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from astropy import units
from astropy.io import fits
from astropy.table import Column, MaskedColumn, Table
from native_files import (
    write_table,
)

from spectral_tokenizer.data import SpectrumFileError
from spectral_tokenizer.data.catalogues import Catalogue, CatalogueLayout


BIG = 39633297352951413  # odd and beyond 2^53
STAR = "131123003001096"
LAYOUT = CatalogueLayout(key=("ID",), labels={"teff": ("TEFF",), "class": ("CLASS",)}, flags=("FLAG",))


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"TEFF": ["5000"]}, "column TEFF: found text; expected numbers"),
        ({"TEFF": [True]}, "column TEFF: found booleans; expected numbers"),
        ({"CLASS": [2]}, "column CLASS: found integers; expected text, GALAXY, QSO or STAR"),
        ({"CLASS": [2.0]}, "column CLASS: found floats; expected text, GALAXY, QSO or STAR"),
        ({"TEFF": [5000.0], "SNR": ["high"]}, "column SNR: found text; expected numbers or booleans"),
    ],
)
@pytest.mark.parametrize("ending", ["fits", "parquet"])
def test_labels_of_another_kind_are_refused(tmp_path, columns, message, ending):
    """Text became NaN, true a temperature of 1 K, and a class as a number was told as every spectrum's damage."""
    path = tmp_path / f"c.{ending}"
    write_table(path, ID=[7], **columns) if ending == "fits" else pq.write_table(
        pa.table({"ID": [7], **columns}), path
    )
    layout = CatalogueLayout(LAYOUT.key, LAYOUT.labels, best=("SNR",))
    with pytest.raises(SpectrumFileError, match=f"c.{ending}: {message}"):
        Catalogue(path, layout)


def test_columns_of_labels_that_are_blank_are_no_labels(tmp_path):
    """Parquet has them without any type, where nothing is known of any object."""
    pq.write_table(pa.table({"ID": [7], "TEFF": [None], "CLASS": [None], "logg": [4.5]}), tmp_path / "c.parquet")
    assert Catalogue(tmp_path / "c.parquet", LAYOUT).find(7) == ({"logg": 4.5}, {})
    texts = pa.array([None], pa.string())
    pq.write_table(pa.table({"ID": [7], "TEFF": texts, "CLASS": texts, "logg": [4.5]}), tmp_path / "c.parquet")
    assert Catalogue(tmp_path / "c.parquet", LAYOUT).find(7) == ({"logg": 4.5}, {})
    pq.write_table(pa.table({"ID": [7], "logg": [4.5], "FLAG": [None]}), tmp_path / "c.parquet")
    with pytest.raises(SpectrumFileError, match="column FLAG: found float64; expected integers, in every row"):
        Catalogue(tmp_path / "c.parquet", LAYOUT)


@pytest.mark.parametrize("ending", ["fits", "parquet"])
def test_a_catalogue_whose_labels_are_all_blank_has_none(tmp_path, ending):
    """It was joined without a word, and gave nothing. One without rows is right to."""
    path, columns = tmp_path / f"c.{ending}", {"ID": [7, 8], "TEFF": [np.nan] * 2, "CLASS": ["", ""]}
    message = r"c.*: columns of labels: found \['CLASS', 'TEFF'\], blank in all rows; expected some of"
    write_table(path, **columns) if ending == "fits" else pq.write_table(pa.table(columns), path)
    with pytest.raises(SpectrumFileError, match=message):
        Catalogue(path, LAYOUT)
    columns = {"ID": np.array([], dtype=int), "TEFF": np.array([])}
    path.unlink()
    write_table(path, **columns) if ending == "fits" else pq.write_table(pa.table(columns), path)
    assert Catalogue(path, LAYOUT).find(7) is None


def test_a_blank_column_does_not_hide_a_filled_one(tmp_path):
    layout = CatalogueLayout(LAYOUT.key, {"teff": ("TEFF_A", "TEFF_B")})
    pq.write_table(pa.table({"ID": [7], "TEFF_A": [None], "TEFF_B": [5000.0]}), tmp_path / "c.parquet")
    assert Catalogue(tmp_path / "c.parquet", layout).find(7)[0] == {"teff": 5000.0}


def test_kinds_of_parquet_that_fits_does_not_have(tmp_path):
    """Booleans beside a null and decimals were refused as text; identifiers as decimals are exact."""
    layout = CatalogueLayout(LAYOUT.key, {"teff": ("TEFF",), "logg": ("LOGG",)}, ("FLAG",), best=("PRIMARY",))
    columns = {
        "ID": pa.array([BIG, BIG, BIG + 1], pa.decimal128(20)),
        "TEFF": pa.array([4000, 5000, None], pa.decimal128(5)),
        "LOGG": pa.array([1, 4, None], pa.decimal128(5, 2)),
        "PRIMARY": [None, True, False],
    }
    pq.write_table(pa.table(columns), tmp_path / "c.parquet")
    catalogue = Catalogue(tmp_path / "c.parquet", layout)
    assert catalogue.find(BIG)[0] == {"teff": 5000.0, "logg": 4.0} and catalogue.find(BIG + 1)[0] == {}
    unknown = [None, True, False]
    for name, message in (("FLAG", "object; expected integers, in every row"), ("TEFF", "booleans; expected numbers")):
        pq.write_table(pa.table(columns | {name: unknown}), tmp_path / "c.parquet")
        with pytest.raises(SpectrumFileError, match=f"column {name}: found {message}"):
            Catalogue(tmp_path / "c.parquet", layout)


def test_an_object_that_stands_twice_alike(tmp_path):
    """Two NaN are alike, and so are columns that give no label, or one that another column gives."""
    columns = {"TEFF": [np.nan, 4.0, np.nan], "teff_2": [1.0, 2.0, 3.0], "OTHER": [1, 2, 3]}
    path = write_table(tmp_path / "c.fits", ID=[7, 3, 7], **columns)
    layout = CatalogueLayout(LAYOUT.key, {"teff": ("TEFF", "teff_2")}, best=("SNR",))
    assert Catalogue(path, layout).find(7) == ({}, {})


def test_masks_of_astropys_parquet(tmp_path):
    """Masked labels were labels."""
    columns = {"ID": MaskedColumn([7, 8, 9], mask=[0, 0, 1]), "TEFF": MaskedColumn([4e3, 5e3, 6e3], mask=[0, 1, 0])}
    columns["CLASS"] = MaskedColumn(["STAR"] * 3, mask=[1, 0, 0])
    Table(columns).write(tmp_path / "c.parquet")
    catalogue = Catalogue(tmp_path / "c.parquet", LAYOUT)
    assert catalogue.find(7) == ({"teff": 4e3}, {}) and catalogue.find(8) == ({"class": "STAR"}, {})
    assert catalogue.find(9) is None


@pytest.mark.parametrize("ending", ["fits", "parquet"])
def test_units_of_labels(tmp_path, ending):
    """A velocity in m/s was one in km/s, and radians were degrees."""
    columns = {"id": [7, 8], "radial_velocity": [5e3, -9999.0] * units.m / units.s, "ra": [1.0, 2.0] * units.rad}
    columns |= {"teff": Column([5e3, 6e3], unit="K"), "fe_h": Column([0.5, 0.1], unit="dex")}
    columns |= {"logg": Column([4.5, 4.0], unit="cm / s2"), "dec": Column([1, 2], unit="my degrees")}
    path = tmp_path / f"c.{ending}"
    Table(columns).write(path)
    found, second = (Catalogue(path, LAYOUT).find(key)[0] for key in (7, 8))
    assert found.pop("ra") == pytest.approx(57.29578) and "radial_velocity" not in second
    assert found == {"radial_velocity": 5, "teff": 5e3, "logg": 4.5, "fe_h": 0.5, "dec": 1}
    Table({"ID": [7], "redshift": Column([5.0], unit="km / s")}).write(path, overwrite=True)
    message = f"(?i)c.{ending}: column redshift: found the unit 'km / s'; expected no unit, or what becomes it"
    with pytest.raises(SpectrumFileError, match=message):
        Catalogue(path, LAYOUT)


@pytest.mark.parametrize(
    ("name", "unit"),
    [
        *[("teff", unit) for unit in ("N/A", "deg K", "k", "m", "Sun")],
        *[("fe_h", unit) for unit in ("dex(Sun)", "Sun", "dex/Sun", "%", "N/A", "mag")],
        *[("logg", unit) for unit in ("dex cm/s2", "cm/s", "N/A")],
        *[("radial_velocity", "km/S"), ("ra", "d"), ("dec", "N/A"), ("redshift", "%"), ("redshift", "N/A")],
    ],
)
def test_units_that_are_none_of_the_label_are_told_once(tmp_path, caplog, name, unit):
    """A column's odd unit, of which astropy makes newton per ampere or siemens, refused the whole catalogue."""
    path = write_table(tmp_path / "c.fits", ID=[7], **{name: [4.5]})
    fits.setval(path, "TUNIT2", value=unit, ext=1)
    for _ in range(2):
        assert Catalogue(path, LAYOUT).find(7)[0] == {name: 4.5}
    (record,) = caplog.records
    assert f"column {name}: found the unit".lower() in record.getMessage().lower()


@pytest.mark.parametrize("name", ["teff", "logg", "radial_velocity", "ra", "redshift"])
def test_the_unit_1_is_none(tmp_path, caplog, name):
    path = write_table(tmp_path / "c.fits", ID=[7], **{name: [4.5]})
    fits.setval(path, "TUNIT2", value="1", ext=1)
    assert Catalogue(path, LAYOUT).find(7)[0] == {name: 4.5} and not caplog.records


@pytest.mark.parametrize("ending", ["fits", "parquet"])
def test_the_unit_is_that_of_the_column_that_was_read(tmp_path, ending):
    """One that differs in case gave its own: 5,000,000 K."""
    layout = CatalogueLayout(LAYOUT.key, {})
    first, second = Column([5000.0]), Column([5.0], unit="kK")
    path = tmp_path / f"c.{ending}"
    Table({"ID": [7], "teff": first, "TEFX": second}).write(path)
    if ending == "fits":
        fits.setval(path, "TTYPE3", value="TEFF", ext=1)
    else:
        Table({"ID": [7], "teff": first, "TEFF": second}).write(path, overwrite=True)
    assert Catalogue(path, layout).find(7)[0] == {"teff": 5000.0}


@pytest.mark.parametrize("rows", [1, 3])
def test_columns_of_several_values_a_row_give_no_label(tmp_path, caplog, rows):
    """As many of allStar's: a bare ValueError."""
    wide = np.ones((rows, 2))
    path, columns = tmp_path / "c.fits", {"ID": np.arange(rows), "LOGG": np.full(rows, 4.0)}
    Table({**columns, "TEFF": wide, "fe_h": wide}).write(path)
    for _ in range(2):
        assert Catalogue(path, LAYOUT).find(0) == ({"logg": 4.0}, {})
    assert [each.message.split(": ")[1] for each in caplog.records] == ["column TEFF", "column fe_h"]
    Table({**columns, "FLAG": wide.astype(int)}).write(path, overwrite=True)
    with pytest.raises(SpectrumFileError, match="column FLAG: found .* values in each row"):
        Catalogue(path, LAYOUT)


@pytest.mark.parametrize("ending", ["fits", "parquet"])
def test_a_column_that_the_layout_does_not_list_is_no_reason_to_refuse(tmp_path, caplog, ending):
    path, columns = tmp_path / f"c.{ending}", {"ID": [7], "ra": ["12:30:00"], "class": [2]}
    layout = CatalogueLayout(LAYOUT.key, {"teff": ("TEFF",)})

    def write(**columns):
        path.unlink(missing_ok=True)
        write_table(path, **columns) if ending == "fits" else pq.write_table(pa.table(columns), path)

    write(**columns, TEFF=[5e3])
    for _ in range(2):
        assert Catalogue(path, layout).find(7) == ({"teff": 5e3}, {})
    assert len(caplog.records) == 2 and "column ra: found text; expected numbers: it gives no label" in caplog.text
    write(**columns)
    with pytest.raises(SpectrumFileError, match=r"columns of labels: found \['class', 'ra'\], of another kind"):
        Catalogue(path, layout)


def test_labels_that_cannot_be_are_told_once(tmp_path, caplog):
    path = write_table(tmp_path / "c.fits", ID=[1, 2, 3, 4], TEFF=[5e3, 0.5, -999.0, np.nan], LOGG=[99, 4, 99, -9999])
    catalogue = Catalogue(path, LAYOUT)
    assert [catalogue.find(key)[0] for key in (1, 2, 3)] == [{"teff": 5e3}, {"logg": 4}, {}]
    Catalogue(path, LAYOUT)  # as another shard opens it
    said = [each.message.split(": ", 1)[1] for each in caplog.records]
    assert said == [
        "column TEFF: found 0.5 and the like in 1 rows; expected 1 to inf, or NaN",
        "column logg: found 99 and the like in 2 rows; expected -10 to 20, or NaN",
    ]
