"""Which rows are learnt from and measured on: with a label that the spectrum shows, and the values asked for."""

import datetime
import itertools
from types import SimpleNamespace

import labelled
import measure
import numpy as np
import pytest
import surveys
from datasets import Dataset, Features, Value
from recipe import Recipe

from spectral_tokenizer import SpectralConfig, SpectralForPreTraining, SpectralProcessor
from spectral_tokenizer.data import load_survey
from spectral_tokenizer.data.schema import SPECTRUM


FRAMES = ("rest", "heliocentric", "observed", "barycentric")


def stars(**columns) -> Dataset:
    """Four stars, one in each frame."""
    kinds = {
        "teff": "float32",
        "plate": "int64",
        "is_cool": "bool",
        "radial_velocity": "float64",
        "redshift": "float64",
    }
    given = {
        "survey": ["apogee", "sdss", "apogee", "desi"], "frame": FRAMES, "class": ["STAR", "STAR", "QSO", None],
        "radial_velocity": [1.0, 2.0, 3.0, None], "redshift": [0.1, 0.2, 0.3, np.nan], "teff": [0.0, 4500.1, np.nan, 3.0],
        "plate": [0, 7, 2**60 + 1, 2**60], "is_cool": [True, False, False, None], "ra": [None] * 4, **columns,
    }  # fmt: skip
    return Dataset.from_dict(given, Features({name: Value(kinds.get(name, "string")) for name in given}))


def test_labels_of_other_kinds_are_told_where_labels_are_read():
    """Columns of a table of one's own: Arrow's errors named neither column nor object."""
    text = stars().remove_columns("redshift").add_column("redshift", ["x", "0.1", None, None])
    rows = labelled.with_labels(text, ["redshift"], {})
    assert names(rows) == list(FRAMES[:2])
    whole = stars(radial_velocity=[1, 2, 3, None])
    whole = whole.cast(Features({**whole.features, "radial_velocity": Value("int64")}))
    assert labelled.with_labels(whole, ["radial_velocity"], {})["radial_velocity"][:] == [2.0]


def test_a_night_is_selected_by_its_text():
    night = [datetime.date(2020, 1, day) for day in (1, 2, 3, 4)]
    rows = stars().add_column("night", night, feature=Value("date32"))
    assert names(labelled.with_labels(rows, ["frame"], {"night": ["2020-01-02", "2020-01-04"]})) == list(FRAMES[1::2])


def names(rows: Dataset) -> list[str]:
    return rows["frame"][:]


def test_what_a_spectrum_does_not_show_in_its_frame_is_no_label_of_it(capsys):
    """A head learnt velocities from spectra that the survey had shifted to rest: noise."""
    known = labelled.with_labels(stars(), ["radial_velocity"], {})
    assert names(known) == ["heliocentric"] and known["radial_velocity"][:] == [2.0]
    assert "radial_velocity: left out for 2 of 4 spectra (apogee) which do not show it" in capsys.readouterr().out
    known = labelled.with_labels(stars(), ["redshift", "teff"], {})
    assert names(known) == ["rest", "heliocentric", "observed", "barycentric"]
    np.testing.assert_array_equal(known["redshift"][:], [np.nan, 0.2, 0.3, np.nan])
    assert known.features["redshift"].dtype == "float64" and known["teff"][0] == 0.0
    assert "redshift: left out for 1 of 4 spectra" in capsys.readouterr().out
    labelled.with_labels(stars(), ["teff"], {})
    assert not capsys.readouterr().out


def test_pixels_of_rows_chosen_among_others_are_not_copied(monkeypatch):
    """Datasets rewrites all columns of such rows where one is added."""
    monkeypatch.setattr(Dataset, "flatten_indices", lambda *_, **__: pytest.fail("all pixels are written again"))
    chosen = stars().select([3, 1, 0, 2])
    known = labelled.with_labels(chosen, ["radial_velocity", "redshift"], {})
    assert names(known) == ["heliocentric", "observed"]
    np.testing.assert_array_equal(known["radial_velocity"][:], [2.0, np.nan])
    np.testing.assert_array_equal(known["redshift"][:], [0.2, 0.3])
    assert known.features == chosen.features and chosen["redshift"][2] == 0.1


def test_a_velocity_that_no_spectrum_shows_is_an_error(monkeypatch):
    at_rest = stars(frame=["rest"] * 4)
    message = (
        r"expected spectra with one of \['radial_velocity'\], found none of 4; 3 do not show radial_velocity in their"
    )
    with pytest.raises(ValueError, match=f"labels, select: {message}"):
        measure.labelled_rows({"apogee": at_rest}, ["radial_velocity"], {}, None)
    given = pixels(at_rest)
    monkeypatch.setattr(labelled, "of_files", lambda *_: given.select([]))
    monkeypatch.setattr(labelled, "of_templates", lambda *_: {"train": given, "test": given.select([2, 1])})
    with pytest.raises(
        ValueError, match=r"found: {'train': 0, .*} of 0; 5 do not show radial_velocity in their frame"
    ):
        labelled.load(settings(), "")


def test_parts_are_judged_together(monkeypatch):
    """Of simulated files without a velocity, or of templates that bring none to one part, the others may have enough."""
    known, none = (pixels(stars(frame=["heliocentric"] * 4, radial_velocity=[each] * 4)) for each in (1.0, None))
    assert len(labelled.chosen(none, settings())) == 0
    for files, templates in ((none, dict.fromkeys(labelled.PARTS, known)), (known, {"train": none})):
        monkeypatch.setattr(labelled, "of_files", lambda *_, files=files: files)
        monkeypatch.setattr(labelled, "of_templates", lambda *_, templates=templates: templates)
        monkeypatch.setattr(labelled, "split", lambda rows, *_: dict.fromkeys(labelled.PARTS, rows))
        assert {part: len(rows) for part, rows in labelled.load(settings(), "").items()} == dict.fromkeys(
            labelled.PARTS, 4
        )
    monkeypatch.undo()
    assert {part: len(each) for part, each in labelled.split(known.select([]), 0.1, 0.1, 0).items()} == dict.fromkeys(
        labelled.PARTS, 0
    )


def settings() -> SimpleNamespace:
    kept = {"labels": ["radial_velocity"], "classes": [], "select": {}, "split_seed": 0}
    return SimpleNamespace(**kept, calibration_fraction=0.1, test_fraction=0.1)


def pixels(rows: Dataset) -> Dataset:
    """With the columns besides that a run needs."""
    for name in ("object_id", "snr", "dec", *SPECTRUM):
        rows = rows.add_column(name, ["1"] * len(rows))
    return rows


def test_rows_chosen_among_others_keep_their_frames():
    found = surveys.not_shown(stars().select([3, 1, 0]), "radial_velocity")
    assert found.tolist() == [False, False, True]


def test_pretraining_says_how_many_labels_its_spectra_do_not_show(simulated_surveys, capsys):
    little = {"hidden_size": 32, "num_hidden_layers": 1, "num_decoder_layers": 1, "num_attention_heads": 2,
              "intermediate_size": 32, "num_latents": 2}  # fmt: skip
    rows = load_survey("apogee", simulated_surveys["apogee"])
    expected = int(surveys.not_shown(rows, "radial_velocity").sum())
    assert expected and not capsys.readouterr().out
    place = SimpleNamespace(process_index=0, num_processes=1)

    def step(**settings):
        model = SpectralForPreTraining(SpectralConfig(**little, label_weight=0.5, **settings))
        recipe = Recipe(data={"apogee": "a"}, max_spectra=4)
        return list(
            itertools.islice(surveys.steps(recipe, {"apogee": rows}, SpectralProcessor(), model, place, None), 1)
        )

    step()
    assert f"radial_velocity: left out for {expected} of {len(rows)} spectra (apogee)" in capsys.readouterr().out
    with pytest.raises(
        ValueError, match=r"label_targets: expected some of the columns \[.*'teff'.*\], found: \['age'\]"
    ):
        step(label_targets={"age": {}, "teff": {}})
    step(label_targets={"snr": {}})


@pytest.mark.parametrize(
    ("select", "expected"),
    [
        ({"class": "STAR"}, FRAMES[:2]),  # S, T, A and R were asked for
        ({"class": ["STAR", "QSO"]}, FRAMES[:3]),
        ({"class": None}, FRAMES[3:]),
        ({"teff": 0}, FRAMES[:1]),
        ({"teff": "0"}, FRAMES[:1]),
        ({"teff": [0.0, "4500.1"]}, FRAMES[:2]),
        ({"plate": [0.0, "7.0"]}, FRAMES[:2]),
        ({"plate": 2**60}, FRAMES[3:]),
        ({"plate": str(2**60 + 1)}, FRAMES[2:3]),
        ({"is_cool": "true"}, FRAMES[:1]),
        ({"is_cool": False}, FRAMES[1:3]),
        ({"class": "STAR", "plate": 7}, FRAMES[1:2]),
    ],
)
def test_values_to_select_are_meant_alike_in_recipes_and_on_the_command_line(select, expected):
    assert names(labelled.with_labels(stars(), ["frame"], select)) == list(expected)
    assert names(measure.labelled_rows({"": stars()}, ["frame"], select, None)[1]) == list(expected)


@pytest.mark.parametrize(
    ("select", "message"),
    [
        ({"klass": "STAR"}, r"labels, select: expected some of .*'class'.*, found: \['klass'\]"),
        ({"class": "BLAZAR"}, r"one of \['frame'\] and {'class': 'BLAZAR'}, found none of 4"),
        ({"class": []}, r"and {'class': \[\]}, found none of 4"),
        ({"teff": "hot"}, r"select: teff: expected values of float32, found: \['hot'\]"),
        ({"plate": [7, None]}, r"select: plate: expected values of int64, found: \[7, None\]"),
        ({"teff": None}, r"select: teff: expected values of float32, found: \[None\]"),
        ({"teff": [1, "nan"]}, r"select: teff: expected values of float32, found: \[1, 'nan'\]"),
        ({"is_cool": 3}, r"select: is_cool: expected values of bool, found: \[3\]"),
    ],
)
def test_a_selection_of_nothing_is_an_error(select, message):
    with pytest.raises(ValueError, match=message):
        measure.labelled_rows({"": stars()}, ["frame"], select, None)
