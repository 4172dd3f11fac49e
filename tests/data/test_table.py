"""Canonical rows in Parquet, Arrow and HDF5: back as they were, and damage row by row."""

import numpy as np
import pyarrow as pa
import pyarrow.feather as feather
import pyarrow.parquet as pq
import pytest
from astropy import units
from astropy.table import Column, MaskedColumn, QTable
from datasets import Dataset, load_from_disk
from native_files import rows_of

from spectral_tokenizer.data import SpectrumFileError, load_survey, load_table, survey_report
from spectral_tokenizer.data.schema import FEATURES
from spectral_tokenizer.data.wavelengths import air_to_vacuum


@pytest.fixture(scope="module")
def surveys(simulated_surveys, tmp_path_factory):
    cache = tmp_path_factory.mktemp("cache")
    return {name: load_survey(name, folder, cache_dir=cache) for name, folder in simulated_surveys.items()}


def load(tmp_path, path, **options):
    return load_table(path, cache_dir=tmp_path / "cache", **options)


def assert_same(first, second):
    assert len(first) == len(second)
    for one, two in zip(rows_of(first), rows_of(second)):
        for name, value in one.items():
            np.testing.assert_array_equal(value, two[name], err_msg=name)


@pytest.mark.parametrize("survey", ["sdss", "desi", "galah", "apogee"])
@pytest.mark.parametrize("layout", ["parquet", "saved", "feather", "hdf5"])
def test_rows_come_back_as_they_were(tmp_path, surveys, survey, layout):
    dataset = surveys[survey]
    path = tmp_path / "files"
    if layout == "parquet":
        path.mkdir()
        dataset.to_parquet(path / "rows.parquet")
    elif layout == "saved":
        dataset.save_to_disk(path)
    elif layout == "feather":
        path.mkdir()
        feather.write_feather(dataset.with_format("arrow")[:], path / "rows.feather")
    else:
        path.mkdir()
        write_hdf5(path / "rows.hdf5", rows_of(dataset))
    assert_same(load(tmp_path, path), dataset)


def test_a_saved_folder_is_what_its_state_names(tmp_path, surveys, caplog):
    """Neither what `map` keeps beside it, nor what an earlier `save_to_disk` in more files has left."""
    rows, path = surveys["sdss"], tmp_path / "saved"
    rows.save_to_disk(path, num_shards=2)
    rows.save_to_disk(path)
    load_from_disk(path).map(lambda row: {"survey": "another"})
    assert len(list(path.glob("cache-*.arrow"))) == 1 and len(list(path.glob("data-*.arrow"))) == 3
    assert_same(load(tmp_path, path), rows)
    assert "saved: left out 3 files that are no rows saved there, such as cache-" in caplog.text
    (path / "data-00000-of-00001.arrow").unlink()
    with pytest.raises(
        FileNotFoundError, match="saved: expected .* state.json there names, found no data-00000-of-00001"
    ):
        load(tmp_path, path)
    (path / "state.json").write_text("{")
    with pytest.raises(SpectrumFileError, match="state.json: file: found JSONDecodeError.*save_to_disk"):
        load(tmp_path, path)
    (path / "state.json").unlink()
    with caplog.at_level("ERROR"):
        assert len(load(tmp_path, path)) == len(rows)  # the two older files


def write_hdf5(path, rows):
    """Ragged rows: a dataset of variable length per list, texts as bytes, nulls as blank text."""
    h5py = pytest.importorskip("h5py")
    with h5py.File(path, "w") as file:
        for name, feature in FEATURES.items():
            values = [row[name] for row in rows]
            if hasattr(feature, "feature"):
                kind = h5py.vlen_dtype(np.dtype(feature.feature.dtype))
                dataset = file.create_dataset(name, (len(rows),), dtype=kind)
                for index, value in enumerate(values):
                    dataset[index] = value
            elif feature.dtype == "string":
                file[name] = np.array([value or "" for value in values], dtype="S")
            else:
                file[name] = np.array(values)


def table(num_rows=3, **changes):
    wavelength = [list(5000.0 + np.arange(20.0))] * num_rows
    columns = {"wavelength": wavelength, "flux": [[1.0] * 20] * num_rows, "ivar": [[4.0] * 20] * num_rows}
    columns |= {"frame": ["rest"] * num_rows, "object_id": list(range(num_rows)), "colour": [0.5] * num_rows} | changes
    return pa.table({name: values for name, values in columns.items() if values is not None})


def write(tmp_path, **changes):
    pq.write_table(table(**changes), tmp_path / "rows.parquet")
    return tmp_path / "rows.parquet"


def test_the_least_that_is_needed(tmp_path):
    dataset = load(tmp_path, write(tmp_path))
    first, *_ = rows_of(dataset)
    assert dataset.features == FEATURES and len(dataset) == 3
    assert (first["survey"], first["object_id"], first["source"]) == ("table", "0", "rows.parquet#0")
    assert first["segment_lengths"].tolist() == [20] and len(first["lsf_sigma"]) == 0 and first["snr"] == 2
    assert first["class"] is None and np.isnan(first["teff"])


def test_arms_that_no_column_names_are_cut_where_wavelengths_leap(tmp_path):
    wavelength = np.concatenate([np.linspace(4715, 4902, 100), np.linspace(5649, 5873, 60)])
    ones = [np.ones(160)] * 3
    path = write(tmp_path, wavelength=[wavelength] * 3, flux=ones, ivar=ones)
    assert rows_of(load(tmp_path, path))[0]["segment_lengths"].tolist() == [100, 60]


def test_options_stand_for_columns(tmp_path):
    path = write(tmp_path, frame=None, flux=None, Luminosity=[[3.0] * 20] * 3)
    dataset = load(tmp_path, path, survey="mine", frame="barycentric", medium="air", columns={"flux": "luminosity"})
    row = rows_of(dataset)[2]
    assert (row["survey"], row["frame"], row["flux"][0]) == ("mine", "barycentric", 3.0)
    np.testing.assert_array_equal(row["wavelength"], air_to_vacuum(5000.0 + np.arange(20.0)))
    with pytest.raises(ValueError, match="medium: found 'water'"):
        load(tmp_path, path, medium="water")
    with pytest.raises(ValueError, match="hue"):
        load(tmp_path, path, columns={"hue": "colour"})


def test_what_all_rows_lack_is_said_once_and_of_the_file(tmp_path, caplog):
    for changes, options, message in (
        ({"ivar": None}, {}, r"columns: found .*expected \['ivar'\] too, or `columns`"),
        ({"frame": None}, {}, "column frame: found none; expected one, or the argument `frame`"),
    ):
        path = write(tmp_path, **changes)
        with pytest.raises(SpectrumFileError, match=message):
            load(tmp_path, path, strict=True, **options)
        assert survey_report(load(tmp_path, path, **options)).damaged == 1
    with pytest.raises(ValueError, match="frame: found 'vacuum'; expected one of"):
        load(tmp_path, write(tmp_path, frame=None), frame="vacuum")
    caplog.clear()
    assert len(load(tmp_path, write(tmp_path, wavelength=[[0.38 + 0.01 * k for k in range(20)]] * 3))) == 0
    said = [each.message for each in caplog.records if "rows.parquet#" in each.message]
    assert len(said) == 1 and "found 0.38 to 0.57; expected Angstrom" in said[0]


def test_a_column_that_is_named_has_to_be_there(tmp_path):
    """A misspelt one would leave all rows without a redshift."""
    path = write(tmp_path, z_spec=[0.5] * 3)
    assert load(tmp_path, path, columns={"redshift": "Z_SPEC"})["redshift"][:] == [0.5] * 3
    with pytest.raises(
        SpectrumFileError, match=r"columns: found .*'z_spec'.*; expected \['zspec'\] too, or `columns`"
    ):
        load(tmp_path, path, columns={"redshift": "zspec"}, strict=True)
    assert survey_report(load(tmp_path, path, columns={"redshift": "zspec"})).damaged == 1


def test_columns_that_differ_in_case_alone(tmp_path):
    """The one that is spelled as it should be counts, whichever comes last; where none is, it is an error."""
    columns = {"REDSHIFT": [0.1] * 3, "redshift": [0.2] * 3, "Redshift": [0.3] * 3, "Colour": [0.4] * 3}
    path = write(tmp_path, **columns)
    assert load(tmp_path, path)["redshift"][:] == [0.2] * 3
    assert load(tmp_path, path, columns={"redshift": "REDSHIFT"})["redshift"][:] == [0.1] * 3
    path = write(tmp_path, **columns | {"redshift": None})
    with pytest.raises(
        SpectrumFileError, match=r"column redshift: found columns \['REDSHIFT', 'Redshift'\]; expected one"
    ):
        load(tmp_path, path, strict=True)


@pytest.mark.parametrize("mask", [[True] * 20, [None, *[False] * 19]])
def test_a_mask_is_no_ivar(tmp_path, mask):
    """Its errors would be 1."""
    path = write(tmp_path, ivar=[mask] * 3)
    with pytest.raises(SpectrumFileError, match="rows.parquet#0: column ivar: found booleans; expected numbers"):
        load(tmp_path, path, strict=True)
    assert survey_report(load(tmp_path, path)).dropped == {"damaged row: column ivar": 3}


def test_tables_of_one_name_in_several_folders(tmp_path):
    """As engines write them. Rows without an identifier are known by their file, which another has the name of."""
    for folder in ("a/parts", "b/parts", "b"):
        (tmp_path / "in" / folder).mkdir(parents=True, exist_ok=True)
        write(tmp_path, object_id=None, num_rows=1).rename(tmp_path / "in" / folder / "part-0.parquet")
    write(tmp_path, object_id=None, num_rows=1).rename(tmp_path / "in" / "b" / "part-1.parquet")
    dataset = load(tmp_path, tmp_path / "in", num_proc=2)
    expected = ["a/parts/part-0.parquet#0", "b/part-0.parquet#0", "b/parts/part-0.parquet#0", "part-1.parquet#0"]
    assert sorted(dataset["object_id"][:]) == sorted(dataset["source"][:]) == expected


def test_classes_in_any_case(tmp_path):
    assert load(tmp_path, write(tmp_path, **{"class": ["galaxy", "AGN", None]}))["class"][:] == ["GALAXY", "AGN", None]


def test_integers_stay_exact(tmp_path):
    ids = [39633297352951413 + k for k in range(3)]
    assert load(tmp_path, write(tmp_path, object_id=ids))["object_id"][:] == [str(value) for value in ids]


def test_floats_are_no_identifiers(tmp_path):
    """39633297352951413 and its neighbour would be one object, 3.96e+16."""
    path = write(tmp_path, object_id=[39633297352951413.0 + k for k in range(3)])
    message = r"rows.parquet#0: column object_id: found 3.96\d*e\+16; expected text or integers"
    with pytest.raises(SpectrumFileError, match=message):
        load(tmp_path, path, strict=True)
    assert survey_report(load(tmp_path, path)).dropped == {"damaged row: column object_id": 3}
    path = write(tmp_path, object_id=[None, 39633297352951413, 5])  # integers all the same
    assert load(tmp_path, path)["object_id"][:] == ["rows.parquet#0", "39633297352951413", "5"]


@pytest.mark.parametrize(
    ("column", "value", "reason"),
    [
        ("wavelength", [5000.0] * 20, "wavelength"),
        ("wavelength", [380.0 + k for k in range(20)], "column wavelength"),
        ("wavelength", [3.58 + 1e-4 * k for k in range(20)], "column wavelength"),
        ("wavelength", [5000.0 - k for k in range(20)], "wavelength"),
        ("wavelength", [-1.0 + k for k in range(20)], "column wavelength"),
        ("flux", [1.0] * 19, "flux"),
        ("flux", None, "column flux"),
        ("ivar", [], "ivar"),
        ("segment_lengths", [10, 11], "segment_lengths"),
        ("frame", "air", "frame"),
        ("lsf_kind", "guessed", "values"),
    ],
)
def test_a_damaged_row_is_left_out_by_itself(tmp_path, column, value, reason):
    good = {"segment_lengths": [[20]] * 3, "lsf_sigma": [[0.5] * 20] * 3, "lsf_kind": ["nominal"] * 3}
    columns = {**table(**good).to_pydict()}
    columns[column][1] = value
    path = write(tmp_path, **columns)
    dataset = load(tmp_path, path)
    assert dataset["object_id"][:] == ["0", "2"]
    assert dict(survey_report(dataset).dropped) == {f"damaged row: {reason}": 1}
    with pytest.raises(SpectrumFileError, match="rows.parquet#1"):
        load(tmp_path, path, strict=True)


def test_nulls_inside_lists_are_unusable(tmp_path):
    flux = [[1.0] * 20, [None] + [1.0] * 19, [1.0] * 20]
    row = rows_of(load(tmp_path, write(tmp_path, flux=flux)))[1]
    assert row["ivar"].tolist() == [0] + [4] * 19


def test_a_grid_that_all_rows_share(tmp_path):
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "rows.hdf5", "w") as file:
        file["wavelength"] = 5000.0 + np.arange(20.0)  # as many pixels as rows
        file["FLUX"] = np.arange(400.0).reshape(20, 20)
        file["ivar"] = np.ones((20, 20))
        file["segment_lengths"] = np.array([1, 19])
        file["redshift"] = np.arange(20) / 10
        file.attrs["comment"] = "no column"
    rows = rows_of(load(tmp_path, tmp_path / "rows.hdf5", frame="rest"))
    assert [row["redshift"] for row in rows] == [number / 10 for number in range(20)]
    assert rows[2]["flux"].tolist() == list(range(40, 60)) and rows[3]["segment_lengths"].tolist() == [1, 19]


def test_more_rows_than_a_block(tmp_path):
    path = write(tmp_path, **table(200).to_pydict())
    assert load(tmp_path, path)["object_id"][:] == [str(index) for index in range(200)]


@pytest.mark.parametrize("cut", [4, 100, -10])
@pytest.mark.parametrize("layout", ["parquet", "feather", "arrow", "hdf5"])
def test_files_that_break_off(tmp_path, layout, cut):
    path = tmp_path / f"rows.{layout}"
    if layout == "parquet":
        pq.write_table(table(), path)
    elif layout == "feather":
        feather.write_feather(table(), path)
    elif layout == "arrow":
        with pa.OSFile(str(path), "w") as sink, pa.ipc.new_stream(sink, table().schema) as stream:
            stream.write_table(table())
    else:
        write_hdf5(path, rows_of(load(tmp_path, write(tmp_path))))
        (tmp_path / "rows.parquet").unlink()
    content = path.read_bytes()
    path.write_bytes(content[:cut])
    if layout == "arrow" and cut == -10:
        return  # a stream may end without its mark
    with pytest.raises(SpectrumFileError, match="rows"):
        load(tmp_path, path, strict=True)
    assert survey_report(load(tmp_path, path)).damaged == 1


def test_files_of_other_kinds(tmp_path):
    (tmp_path / "rows.parquet").write_text("no table")
    with pytest.raises(SpectrumFileError, match="begins with b'no table'; expected Parquet, Arrow or HDF5"):
        load(tmp_path, tmp_path, strict=True)


def write_astropy(path, wavelength=None, **columns):
    """As astropy writes a table: units in its metadata, masks as columns of their own."""
    wavelength = np.linspace(1510, 1700, 20) * units.nm if wavelength is None else wavelength
    ones = np.ones((3, 20))
    table = QTable({"wavelength": wavelength * ones, "flux": ones, "ivar": ones} | columns)
    table.write(path, overwrite=True)
    return path


def test_masks_of_astropys_parquet(tmp_path):
    """Masked labels were labels, and masked pixels good ones."""
    mask = np.eye(3, 20, dtype=bool)
    columns = {
        "flux": MaskedColumn(np.ones((3, 20)), mask=mask),
        "teff": MaskedColumn([4e3, 5e3, 6e3], mask=[0, 1, 0]),
    }
    columns["object_id"] = MaskedColumn([7, 8, 9], mask=[1, 0, 0])
    path = write_astropy(tmp_path / "rows.parquet", **columns)
    rows = rows_of(load(tmp_path, path, frame="rest"))
    assert [np.flatnonzero(row["ivar"] == 0).tolist() for row in rows] == [[0], [1], [2]]
    np.testing.assert_array_equal([row["teff"] for row in rows], [4e3, np.nan, 6e3])
    assert [row["object_id"] for row in rows] == ["rows.parquet#0", "8", "9"]


def test_units_of_astropys_parquet(tmp_path):
    """Nanometres from 1510 to 1700 were Angstrom, and a flux in Jy one per wavelength."""
    columns = {"flux": np.ones((3, 20)) * units.Jy, "ivar": np.ones((3, 20)) / units.Jy**2}
    columns |= {"radial_velocity": [5e3, -9999, 1] * units.m / units.s, "ra": [1, 2, 3] * units.rad}
    columns |= {"teff": [5e3, 6e3, 7e3] * units.K, "logg": [1, 2, 3] * units.dex(units.m / units.s**2)}
    first, second, _ = rows_of(load(tmp_path, write_astropy(tmp_path / "rows.parquet", **columns), frame="rest"))
    np.testing.assert_allclose(first["wavelength"], np.linspace(15100, 17000, 20))
    f_lambda = (1 * units.Jy).to("1e-17 erg / (s cm2 AA)", units.spectral_density(15100 * units.AA)).value
    assert first["flux"][0] == pytest.approx(f_lambda) and first["ivar"][0] == pytest.approx(f_lambda**-2)
    assert (first["radial_velocity"], first["teff"], first["logg"]) == (5, 5e3, 3)
    assert first["ra"] == pytest.approx(57.29578) and np.isnan(second["radial_velocity"])
    for name, unit in (("flux", "ph / (s cm2 AA)"), ("redshift", "km / s"), ("wavelength", "kg")):
        path = write_astropy(
            tmp_path / "rows.parquet", **{name: np.ones((3, 20) if "l" in name else 3) * units.Unit(unit)}
        )
        with pytest.raises(SpectrumFileError, match=f"rows.parquet#0: column {name}: found the unit .*; expected"):
            load(tmp_path, path, frame="rest", strict=True)


def test_units_that_astropy_does_not_know_are_none(tmp_path):
    path = write_astropy(tmp_path / "rows.parquet", teff=Column([5e3, 6e3, 7e3], unit="Kelvins of mine"))
    assert load(tmp_path, path, frame="rest")["teff"][:] == [5e3, 6e3, 7e3]


def test_odd_units_of_astropys_parquet_are_passed_over(tmp_path, caplog):
    """Ampere are Angstrom, and what becomes no kelvin is as it stands, with one line of the log for all rows."""
    wavelength = np.linspace(15100, 17000, 20) * units.A
    path = write_astropy(tmp_path / "rows.parquet", wavelength, teff=Column([5e3, 6e3, 7e3], unit="N/A"))
    dataset = load(tmp_path, path, frame="rest", strict=True)
    assert dataset["teff"][:] == [5e3, 6e3, 7e3] and dataset["wavelength"][0][0] == 15100
    assert caplog.text.count("column teff: found the unit 'N / A'; expected K, or what becomes it") == 1


def test_labels_with_a_unit_that_are_no_numbers_are_told(tmp_path, caplog):
    """True was 1 K, and text NaN without a word."""
    columns = {"teff": Column([True] * 3, unit="K"), "ra": Column(["12:30:00"] * 3, unit="deg")}
    columns["radial_velocity"] = Column(["5000"] * 3, unit="m / s")
    rows = rows_of(load(tmp_path, write_astropy(tmp_path / "rows.parquet", **columns), frame="rest"))
    assert np.isnan([row[name] for row in rows for name in ("teff", "ra")]).all() and rows[0]["radial_velocity"] == 5
    assert "#0: teff: found True" in caplog.text and "#0: ra: found 12:30:00" in caplog.text


def test_labels_that_are_no_numbers_are_told(tmp_path, caplog):
    """They became NaN without a word, and true 1 K."""
    labels = {
        "teff": ["5000 K"] * 3,
        "logg": [[4.5]] * 3,
        "fe_h": [True] * 3,
        "ra": ["12:30:00"] * 3,
        "class": [5] * 3,
    }
    rows = rows_of(load(tmp_path, write(tmp_path, **labels, dec=["-30.5"] * 3, redshift=[None, 0.1, 0.2])))
    for name in ("teff", "logg", "fe_h", "ra"):
        assert np.isnan([row[name] for row in rows]).all() and caplog.text.count(f"#0: {name}: found") == 1
    assert "teff: found 5000 K; expected one from 1 to inf" in caplog.text and "#0: class: found 5" in caplog.text
    assert rows[0]["dec"] == -30.5 and "dec: found" not in caplog.text and "redshift: found" not in caplog.text


def test_descending_wavelengths_are_told(tmp_path):
    """Each pixel was an arm, and the row was dropped for want of a patch."""
    wavelength, ones = [np.linspace(6000, 5000, 200)] * 3, [np.ones(200)] * 3
    path = write(tmp_path, wavelength=wavelength, flux=ones, ivar=ones)
    with pytest.raises(SpectrumFileError, match="wavelength: found 6000.0 before .* expected strictly ascending"):
        load(tmp_path, path, strict=True)


def test_what_is_no_angstrom_is_told_as_it_was_given(tmp_path):
    """The formula makes other numbers of nanometres."""
    path = write(tmp_path, wavelength=[list(380.0 + np.arange(20))] * 3)
    with pytest.raises(SpectrumFileError, match="column wavelength: found 380 to 399; expected Angstrom"):
        load(tmp_path, path, medium="air", strict=True)


def test_a_table_in_memory_is_no_file(tmp_path):
    """The names of its columns were looked for as files."""
    rows = table().to_pydict()
    for given in (rows, pa.table(rows), pa.table(rows).to_pandas(), QTable(rows), Dataset.from_dict(rows)):
        with pytest.raises(TypeError, match=f"data_files: found a {type(given).__name__}; expected files; a table in"):
            load_table(given)
    with pytest.raises(TypeError, match="columns: found 'wavelength'; expected a dict"):
        load_table(write(tmp_path), columns="wavelength")
