"""What the models say of a spectrum, and how they are loaded."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from loading import load_models
from prediction import HiddenRangeError
from settings import Settings, read_settings
from spectra import spectrum
from words import labels_words

from spectral_tokenizer import SpectralProcessor


UNKNOWN = dict.fromkeys(("redshift", "radial_velocity", "teff", "logg", "fe_h"), np.nan)


@pytest.fixture(scope="module")
def models(saved_models, reference):
    heads = tuple(str(saved_models[name]) for name in ("classes", "redshift", "labels"))
    models = load_models(Settings(str(saved_models["model"]), heads, str(reference)))
    assert models.problems == []
    return models


def row_of(survey="sdss", **labels):
    return {"object_id": "1", "class": None, **UNKNOWN, **spectrum(survey), **labels}


def test_nothing_hidden_is_what_the_model_gives(models):
    row = row_of("desi")
    found = models.reconstruct(row)
    inputs = SpectralProcessor()(row, return_tensors="pt")
    with torch.no_grad():
        output = models.model(**inputs)
    (expected,) = SpectralProcessor().post_process_reconstruction(
        output.reconstruction, inputs["scale"], inputs["num_pixels"]
    )
    is_asked = np.isfinite(found.model)  # the last patch of each arm is mostly filling
    assert is_asked.mean() > 0.95
    np.testing.assert_allclose(found.model[is_asked], expected[is_asked], rtol=1e-6)
    assert found.chi2 == {"visible": pytest.approx(float(output.chi2_visible))}
    assert not found.is_hidden.any() and found.interpolation is None
    np.testing.assert_array_equal(np.isnan(found.flux), row["ivar"] == 0)


@pytest.mark.parametrize("survey", ["sdss", "desi", "galah", "apogee"])
def test_whole_patches_are_hidden_in_every_arm(models, survey):
    """Pixels of the range are hidden, wherever arms overlap; nothing else of them changes the answer."""
    row = row_of(survey)
    low, high = np.quantile(row["wavelength"], [0.4, 0.55])
    found = models.reconstruct(row, (low, high))
    is_inside = (row["wavelength"] >= low) & (row["wavelength"] <= high)
    assert (
        found.is_hidden[is_inside & np.isfinite(found.model)].all()
        and found.is_hidden.sum() < is_inside.sum() + 4 * 32
    )
    shuffled = np.flatnonzero(found.is_hidden & (row["ivar"] > 0))
    other = {**row, "flux": row["flux"].copy()}
    other["flux"][shuffled] = row["flux"][shuffled[::-1]]  # the median stays
    np.testing.assert_array_equal(models.reconstruct(other, (low, high)).model, found.model)
    np.testing.assert_array_equal(np.isfinite(found.interpolation), found.is_hidden)
    assert found.chi2["hidden"] > 0 and found.chi2["interpolation"] > 0
    assert 0 < found.num_hidden < found.num_patches


def test_straight_lines_are_straight(models):
    row = row_of("sdss")
    row["flux"] = 2e-3 * row["wavelength"]
    found = models.reconstruct(row, (4000.0, 4100.0))
    np.testing.assert_allclose(found.interpolation[found.is_hidden], row["flux"][found.is_hidden], rtol=1e-5)
    assert found.chi2["interpolation"] < 1e-2


def test_a_random_block_hides_about_what_it_says(models):
    row = row_of("apogee")
    ranges = {models.random_range(row, np.random.default_rng(seed)) for seed in range(5)}
    assert len(ranges) > 2
    for each in ranges:
        found = models.reconstruct(row, each)
        assert 0.1 < found.num_hidden / found.num_patches < 0.35


def test_of_a_single_patch_no_block_can_be_hidden(models):
    row = {**row_of(), **{name: values[:20] for name, values in spectrum().items()}, "segment_lengths": [20]}
    with pytest.raises(HiddenRangeError, match="whole spectrum"):
        models.reconstruct(row, models.random_range(row, np.random.default_rng(0)))


@pytest.mark.parametrize(
    ("hidden_range", "message"), [((100, 200), "goes from 3802 to 4785"), ((1000, 20000), "whole spectrum")]
)
def test_ranges_that_hide_nothing_or_all(models, hidden_range, message):
    with pytest.raises(HiddenRangeError, match=message):
        models.reconstruct(row_of("sdss"), hidden_range)


def test_patches_without_usable_pixels_have_no_answer(models):
    row = row_of("sdss")
    row["ivar"][320:352] = 0
    found = models.reconstruct(row, (3900.0, 4000.0))
    assert np.isnan(found.model[320:352]).all() and np.isfinite(found.model[:320]).all()


def test_heads_say_class_redshift_and_labels(models):
    found = {answer.name: answer for answer in models.labels(row_of("sdss", **{"class": "QSO", "redshift": 2.5}))}
    assert list(found) == ["class", "redshift", "teff", "logg", "fe_h"]
    assert sum(found["class"].shares.values()) == pytest.approx(1) and found["class"].known == "QSO"
    assert found["class"].value == max(found["class"].shares, key=found["class"].shares.get)
    redshift = found["redshift"]
    edges, shares = redshift.bins
    assert len(edges) == len(shares) + 1 and shares.sum() == pytest.approx(1, abs=1e-4)
    assert redshift.interval[0] <= redshift.value <= redshift.interval[1] and redshift.known == 2.5
    assert found["teff"].known is None and found["teff"].bins is None


def test_a_spectrum_unlike_a_head_s_own_is_not_to_rely_on(models, saved_models):
    """Of classes too, which have no flag of their own."""
    (loaded,) = load_models(Settings(str(saved_models["model"]), (str(saved_models["classes"]),))).heads
    head, processor = loaded
    inputs = processor([row_of(survey) for survey in ("sdss", "desi", "galah", "apogee")], return_tensors="pt")
    batch = {**inputs, "labels": torch.tensor([0, 1, 2, 2])}
    head.fit_novelty([batch])
    head.calibrate([batch], false_alarms=0.0)
    (like,) = replace(models, heads=[loaded]).labels(row_of("sdss"))
    turned = row_of("sdss")
    turned["flux"] = turned["flux"][::-1] * 10.0 ** np.linspace(0, 3, len(turned["flux"]))
    (unlike,) = replace(models, heads=[loaded]).labels(turned)
    assert [each.is_flagged for each in (like, unlike)] == [False, True]
    assert "not to rely on</em>" in labels_words([unlike]) and "not to rely on</em>" not in labels_words([like])


def test_a_spectrum_finds_itself_first(models, simulated_surveys, tmp_path):
    from spectral_tokenizer.data import load_survey

    row = load_survey("apogee", simulated_surveys["apogee"], cache_dir=tmp_path)[3]
    first, second, *_ = models.neighbours(row)
    assert first["object_id"] == row["object_id"] and first["similarity"] == pytest.approx(1, abs=1e-4)
    assert second["similarity"] < first["similarity"] and second["survey"] == "apogee"


# Loading


def test_no_model_is_told():
    models = load_models(Settings())
    assert models.model is None and "MODEL" in models.problems[0]


def test_what_cannot_be_loaded_is_told_and_the_rest_is_there(saved_models, tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    heads = (str(saved_models["classes"]), str(saved_models["model"]), str(tmp_path))
    models = load_models(Settings(str(saved_models["model"]), heads, str(tmp_path / "none")))
    assert models.model is not None and len(models.heads) == 1
    assert [problem.split(":")[0] for problem in models.problems] == ["HEADS", "HEADS", "REFERENCE"]
    assert "expected SpectralForSequenceClassification" in models.problems[0]


def test_nothing_but_safetensors_is_loaded(saved_models, tmp_path):
    folder = tmp_path / "pickled"
    shutil.copytree(saved_models["model"], folder)
    (folder / "model.safetensors").unlink()
    torch.save({}, folder / "pytorch_model.bin")
    models = load_models(Settings(str(folder)))
    assert models.model is None and "safetensors" in models.problems[0]


def test_a_reference_of_another_model_is_refused(saved_models, reference, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(reference, other)
    manifest = json.loads((other / "embeddings.json").read_text())
    (other / "embeddings.json").write_text(json.dumps(manifest | {"model": "0" * 16}))
    models = load_models(Settings(str(saved_models["model"]), (), str(other)))
    assert models.reference is None and "embeddings of model 0000" in models.problems[0]


def test_settings_come_from_the_environment():
    found = read_settings({"MODEL": "a/b", "HEADS": "x, y,", "MAX_SECONDS": "7", "MAX_FILES": " "})
    assert (found.model, found.heads, found.max_seconds, found.max_files) == ("a/b", ("x", "y"), 7, 16)
    with pytest.raises(ValueError, match="QUEUE_SIZE: found 'many'; expected"):
        read_settings({"QUEUE_SIZE": "many"})
