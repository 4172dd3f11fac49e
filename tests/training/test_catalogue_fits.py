"""A catalogue with columns of one's own, as astropy reads it from FITS."""

from datetime import datetime

import numpy as np
import pyarrow as pa
import pytest
from astropy.table import Table
from catalogue_fits import write_fits


ID = 39633559467591521  # above 2^53, and odd: no float64


def written(folder, *values):
    """A column in two chunks, there and back."""
    column = pa.chunked_array([pa.array(values)[:2], pa.array(values)[2:]])
    return Table.read(write_fits(pa.table({"value": column}), folder / "catalogue.fits"))["value"]


def test_identifiers_stay_exact_where_some_are_unknown(tmp_path):
    found = written(tmp_path, ID, None, ID + 2)
    assert found.dtype.kind == "i" and found.tolist() == [ID, None, ID + 2]
    assert written(tmp_path, ID, ID + 2, ID).tolist() == [ID, ID + 2, ID]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (["ab", None, "Ko\u010d"], ["ab", "", "Ko\\u010d"]),  # FITS is ASCII
        ([None, None, None], ["", "", ""]),
        ([datetime(2020, 1, 2)] * 3, ["2020-01-02 00:00:00"] * 3),
        ([{"a": 1}] * 3, ["{'a': 1}"] * 3),
        ([[1], [2, 3], None], ["[1]", "[2, 3]", ""]),
        ([[1.5, 2], [3, 4], [5, 6]], [[1.5, 2], [3, 4], [5, 6]]),
        ([True, False, True], [True, False, True]),
        ([True, None, False], [1, None, 0]),
    ],
    ids=["text", "nothing", "dates", "records", "lists", "arrays", "truth", "unknown truth"],
)
def test_columns_of_any_kind_are_written(values, expected, tmp_path):
    found = written(tmp_path, *values)
    found = found.filled("") if found.dtype.kind in "SU" and hasattr(found, "filled") else found
    assert [each.decode() if isinstance(each, bytes) else each for each in found.tolist()] == expected


def test_what_a_killed_run_left_is_removed(tmp_path):
    (tmp_path / ".catalogue.fits.0123abcd.unfinished").touch()
    np.testing.assert_array_equal(written(tmp_path, 1.5, None, 2.5), [1.5, np.nan, 2.5])
    assert [path.name for path in tmp_path.iterdir()] == ["catalogue.fits"]


def test_labels_and_what_is_predicted_of_them_have_units(tmp_path):
    units = {
        "ra": "deg", "teff": "K", "predicted_teff": "K", "predicted_teff_low": "K", "predicted_radial_velocity_error": "km / s",
        "predicted_teff_confidence": None, "predicted_teff_is_flagged": None, "redshift": None, "predicted_fe_h_high": None,
    }  # fmt: skip
    table = pa.table({name: pa.array([1.5, 2.5]) for name in units})
    found = Table.read(write_fits(table, tmp_path / "catalogue.fits"))
    assert {name: None if found[name].unit is None else str(found[name].unit) for name in units} == units
