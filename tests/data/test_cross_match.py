"""Labels of one's own, by identifier and by place."""

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from astropy import units
from astropy.table import QTable, Table

from spectral_tokenizer.data import load_survey
from spectral_tokenizer.data.cross_match import cross_match
from spectral_tokenizer.data.fits_access import SpectrumFileError


@pytest.fixture(scope="module")
def sdss(simulated_surveys, tmp_path_factory):
    return load_survey("sdss", simulated_surveys["sdss"], cache_dir=tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="module")
def galah(simulated_surveys, tmp_path_factory):
    return load_survey("galah", simulated_surveys["galah"], cache_dir=tmp_path_factory.mktemp("cache"))


def ages(rows) -> pd.DataFrame:
    """A table of every object but the first, backwards, and of somebody else."""
    names = [*rows["object_id"][:0:-1], "987654321098765"]
    return pd.DataFrame({"star": np.array(names, dtype=np.int64), "age": np.arange(len(names)) + 0.5})


@pytest.mark.parametrize("ending", ["csv", "ecsv", "fits", "vot", "parquet"])
def test_files_of_every_kind_give_the_same_labels(galah, tmp_path, ending):
    table, path = ages(galah), tmp_path / f"ages.{ending}"
    Table.from_pandas(table).write(path, **({"format": "votable"} if ending == "vot" else {}))
    matched = cross_match(galah, path, ["age"], key="star")
    expected = dict(zip(table["star"].astype(str), table["age"]))
    assert matched["object_id"][:] == galah["object_id"][:]
    np.testing.assert_array_equal(matched["age"][:], [expected.get(name, np.nan) for name in galah["object_id"]])
    assert np.isnan(matched["age"][0]) and np.isfinite(matched["age"][1:]).all()
    assert set(matched.column_names) - set(galah.column_names) == {"age"}


def test_what_is_no_value_is_none(galah):
    table = ages(galah)
    table["age"] = table["age"].where(table.index != 0, np.inf).where(table.index != 1, -9999.0)
    table["type"] = pd.Series(["G2V "] * len(table)).where(table.index != 2, None)
    table["visits"] = pd.array([3] * len(table), dtype="Int64")
    table.loc[0, "visits"] = pd.NA
    matched = cross_match(galah, table, {"age": "age", "spectral_type": "type", "visits": "visits"}, key="star")
    assert np.isnan(np.array(matched["age"][:])[[0, -1, -2]]).all() and np.isfinite(matched["age"][1:-2]).all()
    assert matched["spectral_type"][-3:] == [None, "G2V", "G2V"] and matched["spectral_type"][0] is None
    assert [matched.features[name].dtype for name in ("age", "spectral_type", "visits")] == [
        "float64",
        "string",
        "float64",
    ]
    nothing = cross_match(galah, table.assign(type=None), ["type"], key="star")
    assert nothing.features["type"].dtype == "string" and set(nothing["type"][:]) == {None}
    assert np.isnan(matched["visits"][-1]) and matched["visits"][-2] == 3.0


@pytest.mark.parametrize("layout", ["fits", "hdf5", "votable", "pandas"])
def test_texts_that_are_bytes(galah, tmp_path, layout):
    """As FITS, HDF5 and VOTable have them: labels and identifiers alike; a blank is none."""
    types = ["G2V", "", *["K0 III"] * (len(galah) - 2)]
    table, path = Table({"star": [f" {name} " for name in galah["object_id"]], "type": types}), tmp_path / "types"
    if layout == "hdf5":
        pytest.importorskip("h5py")
        table.convert_unicode_to_bytestring()
        table.write(path, format="hdf5", path="types")
        table = Table.read(path, format="hdf5")
    elif layout == "pandas":
        table = table.to_pandas()
        table["type"] = [text.encode() or None for text in types]
    else:
        table.write(path, format=layout)
        table = Table.read(path, format=layout)
    assert cross_match(galah, table, ["type"], key="star")["type"][:3] == ["G2V", None, "K0 III"]


def test_parquet_is_refused_for_no_column_that_is_not_asked_for(galah, tmp_path):
    """Nulls among texts and categories, beside what is wanted and in it; and identifiers are exact beside a null."""
    size = len(galah)
    table = {
        "star": [None, *map(int, galah["object_id"][1:])],
        "type": [None, "G2V", "Sonne ☉", *["K"] * (size - 3)],
        "kind": pa.array([None, "dwarf", *["giant"] * (size - 2)]).dictionary_encode(),
        "lines": [[1.0]] * size,
    }
    pq.write_table(pa.table(table), tmp_path / "mine.parquet")
    matched = cross_match(galah, tmp_path / "mine.parquet", ["type", "kind"], key="star")
    assert matched["type"][:4] == [None, "G2V", "Sonne ☉", "K"]
    assert matched["kind"][:3] == [None, "dwarf", "giant"]
    with pytest.raises(SpectrumFileError, match=r"columns \['lines'\]: found arrays"):
        cross_match(galah, tmp_path / "mine.parquet", ["lines"], key="star")
    with pytest.raises(
        SpectrumFileError, match=r"columns \['mass'\]: found columns \['star', 'type', 'kind', 'lines'\]"
    ):
        cross_match(galah, tmp_path / "mine.parquet", ["mass"], key="star")


def test_identifiers_of_several_numbers(sdss):
    plate, mjd, fiber = zip(*(map(int, name.split("-")) for name in sdss["object_id"]))
    table = Table({"PLATE": plate, "MJD": mjd, "FIBERID": fiber, "width": np.arange(len(sdss)) * 1.0})
    matched = cross_match(sdss, table, {"line_width": "width"}, key=["PLATE", "MJD", "FIBERID"])
    assert matched["line_width"][:] == list(range(len(sdss)))


def named(rows, names):
    return rows.select(range(len(names))).remove_columns("object_id").add_column("object_id", names)


def test_zeros_before_integers_count_where_the_table_has_them(galah):
    """A-01 had A-1's label. Zeros are padding where nothing else is called so."""
    table = pd.DataFrame({"star": ["A-1", "A-01", "B-7 ", "9"], "age": [1.0, 2.0, 7.0, 9.0]})
    rows = named(galah, ["A-01", " A-1", "B-007", "0009"])
    assert cross_match(rows, table, ["age"], key="star")["age"][:] == [2.0, 1.0, 7.0, 9.0]
    twice = named(galah, ["B-007", "C-1", "B-007"])
    np.testing.assert_array_equal(cross_match(twice, table, ["age"], key="star")["age"][:], [7.0, np.nan, 7.0])
    with pytest.raises(SpectrumFileError, match=r"table: object A-001: found \['A-1', 'A-01'\]; expected one of them"):
        cross_match(named(galah, ["A-001", "9"]), table, ["age"], key="star")
    # Two releases put together: the table tells which object either means.
    several = named(galah, ["B-7", "B-007", "B-07", "C-1"])
    np.testing.assert_array_equal(cross_match(several, table, ["age"], key="star")["age"][:], [7.0, 7.0, 7.0, np.nan])


def test_zeros_before_anything_but_integers_are_of_the_name(galah):
    """A hexadecimal identifier took another object's label."""
    table = pd.DataFrame({"star": ["ab", "1e5", "-3", "00"], "age": [1.0, 2.0, 3.0, 4.0]})
    matched = cross_match(named(galah, ["0ab", "01e5", "0-3", "-03", "0"]), table, ["age"], key="star")
    np.testing.assert_array_equal(matched["age"][:], [np.nan, np.nan, np.nan, 3.0, 4.0])


def test_identifiers_that_the_table_has_cost_nothing_more(galah, monkeypatch):
    """Of millions, zeros alone took most of the time and the memory."""
    asked = []
    monkeypatch.setattr("spectral_tokenizer.data.cross_match.without_zeros", lambda text: asked.append(text) or text)
    cross_match(galah.select(range(1, 5)), ages(galah), ["age"], key="star")
    assert not asked


def test_the_nearest_object_within_the_radius(sdss):
    """A row without a place, as one that is too far away, has no match; nor does a masked place find anything."""
    ra, dec = (np.array(sdss[name][:]) for name in ("ra", "dec"))
    rows = sdss.remove_columns("ra").add_column("ra", np.where(np.arange(len(sdss)) == 2, np.nan, ra))
    arcsec = np.where(np.arange(len(sdss)) == 1, 3.0, 0.4) / 3600
    table = Table({"RA": [*ra, 0.0], "DE": [*(dec + arcsec), 0.0], "mass": np.arange(len(ra) + 1.0)}, masked=True)
    table["DE"].mask[3] = True
    rows = rows.add_column("expected", [float(n) if n not in (1, 2, 3) else np.nan for n in range(len(rows))])
    matched = cross_match(rows, table, ["mass"], position=("RA", "DE"), radius=1.0)
    np.testing.assert_array_equal(matched["mass"][:], matched["expected"][:])
    shuffled = cross_match(rows.shuffle(3), table, ["mass"], position=("RA", "DE"))
    np.testing.assert_array_equal(shuffled["mass"][:], shuffled["expected"][:])


@pytest.mark.parametrize("ending", ["fits", "ecsv"])
def test_places_in_hours_and_radians_are_converted(sdss, tmp_path, ending):
    place = Table({"RA": np.array(sdss["ra"][:]), "DE": np.array(sdss["dec"][:]), "mass": np.arange(len(sdss)) + 0.5})
    expected = cross_match(sdss, place, ["mass"], position=("RA", "DE"))["mass"][:]
    assert len(set(expected)) > 3
    other, path = place.copy(), tmp_path / f"places.{ending}"
    other["RA"], other["DE"] = place["RA"] / 15 * units.hourangle, np.radians(place["DE"]) * units.rad
    if ending == "fits":  # whose standard has no hour angle
        other["RA"] = place["RA"] * 60 * units.arcmin
    other.write(path)
    assert cross_match(sdss, path, ["mass"], position=("RA", "DE"))["mass"][:] == expected
    masked = Table(other, masked=True)
    masked["RA"].mask = place["mass"] == expected[0]
    missing = cross_match(sdss, masked, ["mass"], position=("RA", "DE"))["mass"][:]
    assert np.isnan(missing[0]) and missing[-1] == expected[-1]
    other["DE"] = place["DE"] * units.km
    with pytest.raises(SpectrumFileError, match="column DE.*unit km.*degrees"):
        cross_match(sdss, other, ["mass"], position=("RA", "DE"))


def test_places_of_a_table_of_quantities(sdss):
    place = QTable(
        {
            "RA": np.radians(sdss["ra"][:]) * units.rad,
            "DE": np.array(sdss["dec"][:]) * 3600 * units.arcsec,
            "mass": np.arange(len(sdss)) * units.kg,
        }
    )
    assert cross_match(sdss, place, ["mass"], position=("RA", "DE"))["mass"][:] == list(range(len(sdss)))


def test_places_that_are_none_are_left_out(sdss, caplog):
    """As -9999, of a star without coordinates in a table of many. From -180 degrees on they are places."""
    ra, dec = (np.array(sdss[name][:]) for name in ("ra", "dec"))
    place = pd.DataFrame({"RA": np.where(ra > 180, ra - 360, ra), "DE": dec, "mass": np.arange(len(ra)) * 1.0})
    place.loc[1, ["RA", "DE"]] = -9999.0
    matched = np.array(cross_match(sdss, place, ["mass"], position=("RA", "DE"))["mass"][:])
    assert np.isnan(matched[1]) and (np.delete(matched, 1) == np.delete(np.arange(len(ra)), 1)).all()
    assert f"1 of {len(ra)} rows have no place on the sky, such as ra -9999.0, dec -9999.0" in caplog.text


def test_two_objects_at_one_place_are_refused(sdss):
    """Not one of them at random; the same in all that is asked for they may be."""
    place = pd.DataFrame({"RA": sdss["ra"], "DE": sdss["dec"], "mass": np.arange(len(sdss)) * 1.0, "visit": 1})
    twice = pd.concat([place, place.assign(visit=2)], ignore_index=True)
    assert cross_match(sdss, twice, ["mass"], position=("RA", "DE"))["mass"][:] == place["mass"].tolist()
    with pytest.raises(
        SpectrumFileError, match=r"place \{'RA': .*: found \{'visit': \[1, 2\]\}; expected one row there"
    ):
        cross_match(sdss, twice, ["visit"], position=("RA", "DE"))


def test_few_matches_are_told_unless_the_table_is_small(galah, sdss, caplog):
    """Few of the rows and few of the table's objects, which is all that a wrong column may find by chance."""
    strangers = pd.DataFrame({"star": np.arange(10**14, 10**14 + 50), "age": 1.0})
    own = ages(galah)[:-1]
    for fine in (own[:3], pd.concat([own[:3]] * 3), pd.concat([own, strangers])):
        cross_match(galah, fine, ["age"], key="star")
    places = pd.DataFrame({"RA": sdss["ra"], "DE": sdss["dec"], "mass": 1.0})
    cross_match(sdss, places[:3], ["mass"], position=("RA", "DE"))
    assert not caplog.records
    cross_match(galah, pd.concat([own[:3], strangers]), ["age"], key="star")
    beside = places.assign(DE=places["DE"] * -1)
    beside.loc[5] = places.loc[5]
    cross_match(sdss, beside, ["mass"], position=("RA", "DE"))
    by_name, by_place = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    first = galah[0]["object_id"]
    assert f"table: ['star']: 3 of {len(galah)} rows are in it, 3 of its 53 objects" in by_name
    assert f"without a match are rows such as {first}, it has such as {own['star'][0]}" in by_name
    assert f"1 of {len(sdss)} rows are in it, 1 of its {len(sdss)} objects" in by_place
    assert f"rows such as ra {sdss[0]['ra']}, dec {sdss[0]['dec']}" in by_place


def test_an_object_twice_is_one_only_with_the_same_values(galah):
    table = ages(galah)
    twice = pd.concat([table, table])
    assert (
        cross_match(galah, twice, ["age"], key="star")["age"][1:]
        == cross_match(galah, table, ["age"], key="star")["age"][1:]
    )
    twice.iloc[0, 1] = 99.0
    with pytest.raises(SpectrumFileError, match=rf"object {table['star'][0]}: found .*99.0.*; expected one row"):
        cross_match(galah, twice, ["age"], key="star")


def test_what_cannot_be_matched_is_told(galah, tmp_path):
    table = ages(galah)
    with pytest.raises(ValueError, match="columns: expected a list of names, or .*, found: 'age'"):
        cross_match(galah, table, "age", key="star")
    with pytest.raises(ValueError, match="expected one of them"):
        cross_match(galah, table, ["age"])
    with pytest.raises(ValueError, match=r"found \['teff'\], which the rows have already"):
        cross_match(galah, table.rename(columns={"age": "teff"}), ["teff"], key="star")
    with pytest.raises(SpectrumFileError, match=r"columns \['mass'\].*found columns \['star', 'age'\]"):
        cross_match(galah, table, ["mass"], key="star")
    with pytest.raises(SpectrumFileError, match="column star: found float64; expected text or integers"):
        cross_match(galah, table.astype({"star": float}), ["age"], key="star")
    with pytest.raises(ValueError, match=f"found none of {len(galah)} rows, such as {galah[0]['object_id']}"):
        cross_match(galah, table.assign(star=table["star"] + 10**15), ["age"], key="star")
    with pytest.raises(SpectrumFileError, match=r"absent\.csv: file: found FileNotFoundError"):
        cross_match(galah, tmp_path / "absent.csv", ["age"], key="star")
    with pytest.raises(SpectrumFileError, match=r"\['star', 'name'\].*expected degrees"):
        cross_match(galah, table.assign(name="x"), ["age"], position=("star", "name"))
