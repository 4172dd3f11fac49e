"""What readers may give without thinking of it: masks, units, arrays used again, sentinels; nothing of it is lost."""

import logging
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from astropy import units
from astropy.table import MaskedColumn
from astropy.utils.masked import Masked

from spectral_tokenizer import patching_spectral_tokenizer as patching
from spectral_tokenizer.data import SURVEYS, SpectrumFileError, load_survey, prepare_survey, survey_report
from spectral_tokenizer.data.builder import Dropped, SpectraBuilder
from spectral_tokenizer.data.catalogues import CatalogueLayout, LabelCut
from spectral_tokenizer.data.plain import is_per_wavelength, per_wavelength
from spectral_tokenizer.data.wavelengths import air_to_vacuum


WAVELENGTH = np.linspace(4000.0, 4200.0, 101)
IS_BAD = np.arange(101) < 40


def row(**changes):
    pixels = {"wavelength": WAVELENGTH, "flux": np.arange(1.0, 102.0), "ivar": np.full(101, 4.0)}
    return {"object_id": "a", "source": "a.txt", "frame": "rest", "segment_lengths": [101], **pixels, **changes}


def reader(*rows):
    """A survey whose file has these rows."""

    class Survey(SpectraBuilder):
        FILE_NAMES = ("*.txt",)

        def read(self, files):
            yield from rows

    return Survey


def build(tmp_path, *rows, survey=None, **options):
    files = (str(tmp_path / "a.txt"),)
    if not (tmp_path / "a.txt").exists():  # a later time would be another file to the cache
        (tmp_path / "a.txt").touch()
    survey = survey or reader(*rows)
    return survey(cache_dir=str(tmp_path / "cache"), files=files, strict=True, **options).build()


@pytest.mark.parametrize("masked", [np.ma.array, Masked, MaskedColumn])
@pytest.mark.parametrize("name", ["flux", "ivar", "wavelength"])
def test_masked_pixels_are_unusable(tmp_path, masked, name):
    dataset = build(tmp_path, row(**{name: masked(row()[name], mask=IS_BAD)}))
    assert dataset["ivar"][0] == np.where(IS_BAD, 0.0, 4.0).tolist()
    assert dataset["wavelength"][0] == WAVELENGTH.tolist()


def test_masked_resolution_is_unknown(tmp_path):
    sigma = np.ma.array(np.where(IS_BAD, 99.0, 1.5), mask=IS_BAD)
    assert set(build(tmp_path, row(lsf_sigma=sigma, lsf_kind="measured"))["lsf_sigma"][0]) == {1.5}


@pytest.mark.parametrize("none", [np.nan, np.float32(np.nan), np.ma.masked, pd.NA, None], ids=repr)
def test_text_that_is_missing_is_none(tmp_path, none):
    texts = {"class": none, "label_warnings": none, "lsf_kind": none}
    (tmp_path / "again").mkdir()
    (found,) = build(tmp_path, row(**texts))
    assert found["class"] is None and found["label_warnings"] is None and found["lsf_kind"] is None
    with pytest.raises(SpectrumFileError, match="object_id"):
        build(tmp_path / "again", row(object_id=none))


def test_air_to_vacuum_keeps_masks():
    air = np.ma.array(WAVELENGTH, mask=IS_BAD)
    assert air_to_vacuum(air).mask.tolist() == IS_BAD.tolist()
    assert not isinstance(air_to_vacuum(np.ma.array(WAVELENGTH)), np.ma.MaskedArray)


def test_units_are_converted(tmp_path):
    given = {"wavelength": WAVELENGTH / 10 * units.nm, "flux": np.ones(101) * units.Unit("erg / (s cm2 AA)")}
    given |= {"ivar": MaskedColumn(np.full(101, 4e-2), mask=IS_BAD, unit=(units.Unit("erg / (s cm2 nm)")) ** -2)}
    dataset = build(tmp_path, row(**given))
    np.testing.assert_allclose(dataset["wavelength"][0], WAVELENGTH, rtol=1e-14)
    np.testing.assert_allclose(dataset["flux"][0], 1.0)
    np.testing.assert_allclose(dataset["ivar"][0], np.where(IS_BAD, 0.0, 4.0), rtol=1e-6)


def test_flux_per_frequency(tmp_path):
    """In Jy a spectrum has another shape than the model knows: f_lambda = f_nu c / lambda^2."""
    given = {"flux": np.ones(101) * units.Jy, "ivar": MaskedColumn(np.full(101, 4e-6), mask=IS_BAD, unit="mJy-2")}
    dataset = build(tmp_path, row(**given))
    expected = 1e-23 * 2.99792458e18 / WAVELENGTH**2 / 1e-17
    np.testing.assert_allclose(dataset["flux"][0], expected, rtol=1e-6)
    np.testing.assert_allclose(dataset["ivar"][0], np.where(IS_BAD, 0.0, 4.0 / expected**2), rtol=1e-6)


def test_a_damaged_row_in_jansky_is_left_out_alone(tmp_path):
    """Of two lengths, which no factor fits, and without a wavelength: other rows are read."""
    flux, none_there = np.ones(101) * units.Jy, np.where(np.arange(101) == 3, 0.0, WAVELENGTH)
    for wavelength, message in ((WAVELENGTH[:-1], "flux: found shape"), (none_there, "wavelength: found")):
        with pytest.raises(SpectrumFileError, match=message):
            build(tmp_path, row(flux=flux, wavelength=wavelength))


PER_WAVELENGTH = ["", "adu", "electron / s", "1e-17 erg / (s cm2 AA)", "W / (m2 um)", "erg / (s cm2 AA sr)"]
CONVERTED = ["Jy", "mJy", "MJy / sr", "W / (m2 Hz)"]
REFUSED = ["Jy / beam", "W / Hz", "ph / (s cm2 AA)", "mag(ST)", "mag", "dex"]


@pytest.mark.parametrize("unit", PER_WAVELENGTH + CONVERTED + REFUSED)
def test_readers_and_the_processor_have_one_rule_of_units(unit):
    """The processor refuses what readers convert or refuse: neither imports the other."""
    name, unit = unit, units.Unit(unit)
    assert is_per_wavelength(unit) == patching.is_per_wavelength(unit) == (name in PER_WAVELENGTH)
    if name in PER_WAVELENGTH:
        assert per_wavelength("one.fits", unit, WAVELENGTH) == 1
    elif name in CONVERTED:
        factors = per_wavelength("one.fits", unit, WAVELENGTH) * WAVELENGTH**2
        np.testing.assert_allclose(factors, factors[0], rtol=1e-12)
    else:
        with pytest.raises(SpectrumFileError, match="one.fits: column flux: found the unit"):
            per_wavelength("one.fits", unit, WAVELENGTH)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"wavelength": WAVELENGTH / 10},
            "column wavelength: found 400 to 420; expected Angstrom, from 500 to 300000",
        ),
        ({"wavelength": WAVELENGTH * 1e-10}, "column wavelength: found 4e-07 to 4.2e-07; expected Angstrom"),
        ({"wavelength": WAVELENGTH * units.Hz}, "column wavelength: found the unit 'Hz'; expected Angstrom"),
        (
            {"flux": np.ones(101) * units.Jy, "ivar": np.ones(101) / units.Jy},
            "column ivar: found the unit '1 / Jy'; expected the unit of 1 / flux.2, of flux in Jy",
        ),
        (
            {"flux": np.ones(101) * units.ABmag},
            "column flux: found the unit 'mag(AB)'; expected a flux per wavelength",
        ),
        ({"ivar": ~IS_BAD}, "column ivar: found booleans; expected numbers"),
        ({"ivar": np.ma.array(np.ones(101, dtype=bool), mask=IS_BAD)}, "column ivar: found booleans"),
    ],
)
def test_what_is_refused(tmp_path, changes, message):
    with pytest.raises(SpectrumFileError, match=re.sub(r"([+()])", r"\\\1", message)):
        build(tmp_path, row(**changes))


def test_an_array_that_is_used_again(tmp_path):
    """Rows given are not changed with it, and what is in it now is checked again."""

    class Survey(SpectraBuilder):
        FILE_NAMES = ("*.txt",)
        WAVELENGTHS = (3900.0, 4300.0)

        def read(self, files):
            wavelength = np.empty(101)
            for first in (4000.0, 4010.0):
                wavelength[:] = np.linspace(first, 4200.0, 101)
                yield row(wavelength=wavelength)

    dataset = build(tmp_path, survey=Survey)
    assert [each[0] for each in dataset["wavelength"]] == [4000.0, 4010.0]

    class Outside(Survey):
        WAVELENGTHS = (3900.0, 4300.0)

        def read(self, files):
            wavelength = WAVELENGTH.copy()
            yield row(wavelength=wavelength)
            wavelength += 1000.0
            yield row(wavelength=wavelength)

    with pytest.raises(SpectrumFileError, match="wavelength: found 5000 to 5200"):
        build(tmp_path, survey=Outside)


def test_ivar_that_overflowed_in_float32(tmp_path):
    """The best pixels, as float64 would have said; an error of 0 elsewhere marks bad ones."""
    error = np.geomspace(1e-20, 2e-19, 101).astype(np.float32)
    with np.errstate(over="ignore", divide="ignore"):
        overflowing, with_zeros = 1 / error**2, 1 / np.where(IS_BAD, 0, np.float32(2)) ** 2
        large_with_zeros = 1 / np.where(IS_BAD, 0.0, 1e-18) ** 2  # float64 does not overflow there
    for dtype in ("<f4", ">f4"):
        with pytest.raises(
            SpectrumFileError, match="column ivar: found numbers like inf, .*; expected flux in a larger"
        ):
            build(tmp_path, row(flux=np.full(101, 1e-17), ivar=overflowing.astype(dtype)))
    for ivar in (with_zeros, large_with_zeros):
        assert (np.array(build(tmp_path, row(ivar=ivar))["ivar"][0]) == 0).tolist() == IS_BAD.tolist()


def test_labels_that_cannot_be(tmp_path, caplog):
    wrong = {"teff": -999.0, "logg": -9999.0, "fe_h": np.inf, "redshift": -9999.0, "ra": -9999.0, "dec": 90.5}
    wrong |= {"radial_velocity": "fast"}
    right = {"teff": 5777.0, "logg": "4.5", "fe_h": 0.0, "redshift": 7.5, "ra": 0.0, "dec": -90.0}
    with caplog.at_level(logging.WARNING):
        first, second, third = build(
            tmp_path, row(**wrong), row(**wrong), row(**right, radial_velocity=np.ma.masked)
        ).select_columns([*wrong, "class"])
    assert np.isnan([first[name] for name in wrong]).all() and np.isnan([second[name] for name in wrong]).all()
    assert {name: third[name] for name in right} == {**right, "logg": 4.5} and np.isnan(third["radial_velocity"])
    messages = [record.message for record in caplog.records if record.name.endswith(".plain")]
    assert len(messages) == len(wrong)  # one of each
    assert "a.txt: teff: found -999.0; expected one from 1 to inf, or NaN where it is unknown" in messages


def test_the_case_of_classes(tmp_path, caplog):
    dataset = build(tmp_path, *(row(**{"class": name}) for name in ("galaxy", "WD", "WD", None)))
    assert dataset["class"][:] == ["GALAXY", "WD", "WD", None]
    assert caplog.text.count("class: found WD; expected one of ('GALAXY', 'QSO', 'STAR')") == 1


def test_two_readers_of_one_module(tmp_path, monkeypatch):
    """Neither takes what the other wrote."""

    class Red(SpectraBuilder):
        FILE_NAMES = ("*.txt",)

        def read(self, files):
            yield row(object_id="red")

    class Blue(Red):
        def read(self, files):
            yield row(object_id="blue")

    monkeypatch.setitem(SURVEYS, "test_plain", Red)
    assert build(tmp_path, survey=Red)["object_id"][:] == ["red"]
    assert build(tmp_path, survey=Blue)["object_id"][:] == ["blue"]
    prepare_survey("test_plain", tmp_path / "a.txt", tmp_path / "out")
    monkeypatch.setitem(SURVEYS, "test_plain", Blue)
    with pytest.raises(ValueError, match="prepared from something else: found .*Blue.*; expected .*Red"):
        prepare_survey("test_plain", tmp_path / "a.txt", tmp_path / "out")
    assert load_survey("test_plain", tmp_path / "a.txt", cache_dir=tmp_path / "cache")["survey"][:] == ["test_plain"]
    monkeypatch.setitem(SURVEYS, "blue", Blue)
    with pytest.raises(
        ValueError,
        match=r"SURVEYS\['blue'\]: found Blue of the module .*; expected a class in blue.py, or SURVEYS\['test_plain'\]",
    ):
        load_survey("blue", tmp_path / "a.txt", cache_dir=tmp_path / "cache")


def test_readers_of_two_scripts(tmp_path, monkeypatch):
    """Both are ``__main__``."""
    import __main__

    for name in ("first", "second"):
        monkeypatch.setattr(__main__, "__file__", str(tmp_path / f"{name}.py"), raising=False)
        survey = reader(row(object_id=name))
        survey.__module__ = "__main__"
        assert build(tmp_path, survey=survey)["object_id"][:] == [name]


def test_cuts_that_would_never_cut(tmp_path):
    layout = CatalogueLayout(key=("ID",), labels={"teff": ("TEFF",)}, flags=("FLAG",))
    with pytest.raises(ValueError, match=r"found BAD of the column flag; expected that among .*\('FLAG',\)"):
        type("Survey", (SpectraBuilder,), {"CATALOGUE": layout, "LABEL_CUTS": (LabelCut("BAD", "flag", ("teff",)),)})

    class Survey(SpectraBuilder):
        FILE_NAMES = ("*.txt",)
        CATALOGUE = layout
        LABEL_CUTS = (LabelCut("BAD", "FLAG", ("teff",)), LabelCut("OWN", "OWN", ("logg",), of_file=True))

        def read(self, files):
            labels = {"teff": 5777.0, "logg": 4.5}
            yield row(**self.join_labels(labels, {self.FLAG: 1}, files[0], 1))

    Survey.FLAG = "OWN"
    dataset = build(tmp_path, survey=Survey)
    assert dataset["label_warnings"][:] == ["OWN"] and np.isnan(dataset["logg"][0])
    assert survey_report(dataset).rows == 1
    Survey.FLAG = "own"
    survey = Survey(cache_dir=str(tmp_path / "cache"), files=(str(tmp_path / "a.txt"),))
    with pytest.raises(ValueError, match=r"flags: found \['own'\]; expected some of \['FLAG', 'OWN'\]"):
        list(survey.rows(survey.config.files))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"object_id": None}, r"columns \['object_id'\]: found none, or None; expected those"),
        ({"object_id": " "}, "column object_id: found ' '; expected text, or an integer"),
        ({"object_id": b"7"}, "column object_id: found b'7'; expected text, or an integer"),
        ({"object_id": 7.0}, "column object_id: found 7.0; expected text, or an integer"),
        ({"object_id": True}, "column object_id: found True; expected text, or an integer"),
        ({"source": Path("a.txt")}, r"column source: found PosixPath\('a.txt'\); expected text"),
        ({"class": b"STAR"}, "column class: found b'STAR'; expected text"),
        ({"segment_lengths": 101}, "column segment_lengths: found 101; expected the pixels of each arm"),
        ({"segment_lengths": [101.0]}, r"column segment_lengths: found \[101.0\]; expected the pixels of each arm"),
        ({"source": None, "frame": None}, r"columns \['source', 'frame'\]: found none"),
        ({"flux": None, "segment_lengths": None}, r"columns \['flux', 'segment_lengths'\]: found none"),
    ],
)
def test_a_readers_mistakes_in_a_row_are_named(tmp_path, changes, message):
    """They ended in AttributeError or KeyError, or in `split` and `cross_match` later on."""
    with pytest.raises(SpectrumFileError, match=f"a.txt: {message}"):
        build(tmp_path, row(**changes))
    left_out = {name: value for name, value in row(**changes).items() if value is not None}
    with pytest.raises(SpectrumFileError, match=f"a.txt: {message}"):
        build(tmp_path, left_out)


def test_an_identifier_that_is_an_integer_is_text(tmp_path):
    dataset = build(tmp_path, row(object_id=39633297352951413), row(object_id=np.int64(5)))
    assert dataset["object_id"][:] == ["39633297352951413", "5"]


def test_what_is_no_row_is_named(tmp_path, caplog):
    for given, message in (
        ([Dropped], "found <class .*Dropped'>"),
        (row(), "found 'object_id'"),
        (None, "found None"),
    ):
        survey = reader()
        survey.read = lambda self, files, given=given: given
        with pytest.raises(
            SpectrumFileError, match=rf"a.txt: read: {message}; expected rows, .* or Dropped\(reason\)"
        ):
            build(tmp_path, survey=survey)
    assert len(build(tmp_path)) == 0 and not caplog.records  # a file without rows, such as a table's, is no mistake
    survey = reader()
    survey.read = lambda self, files: []
    (tmp_path / "again").mkdir()  # another file to the cache
    assert len(build(tmp_path / "again", survey=survey)) == 0
    assert caplog.text.count("a.txt: read: found nothing; expected rows") == 1
