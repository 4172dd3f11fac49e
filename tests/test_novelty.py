"""Whether a head can tell that a spectrum is unlike those that it was fitted to."""

import numpy as np
import pytest
import torch
from spectra import spectrum
from test_heads import LABELS, POOLINGS, REDSHIFT, close, make_model
from transformers import AutoModelForSequenceClassification, Trainer, TrainingArguments

from spectral_tokenizer import SpectralConfig, SpectralForSequenceClassification, SpectralProcessor
from spectral_tokenizer import heads_spectral_tokenizer as heads
from spectral_tokenizer.data.collator import SpectralCollator
from spectral_tokenizer.metrics import make_compute_metrics, with_novelty
from spectral_tokenizer.novelty_spectral_tokenizer import SpectralNovelty


SURVEYS = ("sdss", "desi", "galah", "apogee")


def batch(seeds, head="labels"):
    rows = [spectrum(survey, seed) for seed, survey in zip(seeds, SURVEYS)]
    return {**SpectralProcessor()(rows, return_tensors="pt"), "labels": LABELS[head]}


def without_labels(inputs):
    return {name: each for name, each in inputs.items() if name != "labels"}


def fitted(head="labels", **settings):
    """A head that knows some spectra, and others like them by which it is calibrated."""
    model = make_model(head, **settings)
    model.fit_novelty([batch(range(start, start + 4), head) for start in range(0, 40, 4)])
    model.calibrate([batch(range(start, start + 4), head) for start in range(100, 120, 4)], false_alarms=0.25)
    return model


def test_it_is_what_principal_axes_leave():
    generator = np.random.default_rng(0)
    features = generator.normal(size=(200, 3)) @ generator.normal(size=(3, 10)) + 0.01 * generator.normal(
        size=(200, 10)
    )
    features = features * 10.0 ** np.arange(10) + 1e3  # units that differ, and an offset
    novelty = SpectralNovelty(SpectralConfig(num_novelty_axes=3), 10)
    novelty.fit(torch.from_numpy(features))
    scaled = (features - features.mean(0)) / features.std(0, ddof=1)
    _, vectors = np.linalg.eigh(scaled.T @ scaled)
    left = scaled - scaled @ vectors[:, -3:] @ vectors[:, -3:].T
    found = novelty(torch.from_numpy(features))
    np.testing.assert_allclose(found, (left**2).mean(1), rtol=2e-3, atol=1e-7)
    # Along the axes everything is known, however far; beside them little is too much.
    far = features.mean(0) + 30 * (features[0] - features.mean(0))
    beside = features[0] + 3 * features.std(0) * generator.normal(size=10)
    one, other = novelty(torch.from_numpy(np.stack([far, beside]))).tolist()
    assert other > 100 * found.max() and other > 10 * one


def test_a_feature_that_never_changes_is_no_division_by_zero():
    features = torch.randn(50, 6, generator=torch.Generator().manual_seed(0)).double()
    features[:, 2] = 7.0
    novelty = SpectralNovelty(SpectralConfig(num_novelty_axes=2), 6)
    novelty.fit(features)
    assert novelty(features).isfinite().all() and novelty(features).max() < 10


def test_axes_are_no_more_than_spectra_tell():
    count = SpectralNovelty.num_axes
    assert [count(torch.zeros(*shape)) for shape in ((2000, 2048), (80, 2048), (2000, 32), (2, 2))] == [64, 20, 16, 1]


def test_held_spectra_pass_1_as_often_as_was_asked_for():
    model = fitted()
    novelty = torch.cat(
        [model(**without_labels(batch(range(start, start + 4)))).novelty for start in range(100, 120, 4)]
    )
    assert novelty.shape == (20,) and (novelty > 1).float().mean() == pytest.approx(0.25, abs=0.05)
    assert novelty.dtype == torch.float32


@pytest.mark.parametrize("pooling", POOLINGS)
def test_noise_is_news(pooling):
    """To an encoder that was not even trained."""
    model = fitted(**POOLINGS[pooling])
    known = batch(range(200, 204))
    noise = {**known, "flux": torch.randn(known["flux"].shape, generator=torch.Generator().manual_seed(0))}
    noise["ivar"] = (known["ivar"] > 0).float()
    like, unlike = (model(**without_labels(each)).novelty for each in (known, noise))
    assert like.median() < 1.5 and (unlike > 2 * like).all() and (unlike > 1).all()


@pytest.mark.parametrize("pooling", ["latents", "attention"])
def test_it_does_not_depend_on_company_or_packing(pooling):
    model = fitted(**POOLINGS[pooling])
    inputs = without_labels(batch(range(200, 204)))
    expected = model(**inputs).novelty
    rows = [spectrum(survey, seed) for seed, survey in zip(range(200, 204), SURVEYS)]
    packed = SpectralProcessor()(rows, packed=True, return_tensors="pt")
    close(model(**packed).novelty, expected, 1e-4)
    for number, row in enumerate(rows):
        close(model(**SpectralProcessor()([row], return_tensors="pt")).novelty, expected[number : number + 1], 1e-4)


def test_of_a_spectrum_without_valid_patches_it_is_infinite():
    inputs = without_labels(batch(range(200, 204)))
    inputs["attention_mask"][1] = 0
    novelty = fitted()(**inputs).novelty
    assert novelty.isinf().tolist() == [False, True, False, False]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_it_is_saved_and_loaded(tmp_path, dtype):
    model = fitted("classes")
    model.save_pretrained(tmp_path)
    loaded, found = SpectralForSequenceClassification.from_pretrained(tmp_path, dtype=dtype, output_loading_info=True)
    assert not any(found[each] for each in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert loaded.head.novelty.axes.dtype == torch.float32 and loaded.config.novelty_threshold > 0
    inputs = without_labels(batch(range(200, 204)))
    close(loaded.eval()(**inputs).novelty, model(**inputs).novelty, 1e-5 if dtype == torch.float32 else 0.3)
    # A head of other classes on the same features is not calibrated, so it says nothing of novelty.
    other = AutoModelForSequenceClassification.from_pretrained(tmp_path, num_labels=5, ignore_mismatched_sizes=True)
    assert other.eval()(**inputs).novelty is None
    assert torch.equal(other.head.novelty.axes, model.head.novelty.axes)


def test_without_fit_there_is_none():
    model = make_model()
    model.calibrate([batch(range(4))])
    assert model(**without_labels(batch(range(4)))).novelty is None
    model.fit_novelty([batch(range(4))])
    assert model(**without_labels(batch(range(4)))).novelty is None  # not calibrated since
    assert fitted().train()(**batch(range(4))).novelty is None  # features change
    with pytest.raises(ValueError, match="found none"):
        model.fit_novelty([])


@pytest.mark.parametrize("head", ["labels", "classes"])
def test_trainer_s_predictions_are_as_without(tmp_path, head):
    """Whoever takes the argmax of logits does not meet a tuple; who asks for novelty has it, and its score."""
    model = fitted(head)
    rows = [
        spectrum(survey, seed) | {"teff": 4800.0, "logg": 2.5, "class": "GALAXY"}
        for seed, survey in enumerate(SURVEYS)
    ]
    collator = (
        SpectralCollator(SpectralProcessor(), ["teff", "logg"])
        if head == "labels"
        else SpectralCollator(SpectralProcessor(), ["class"], ["GALAXY", "QSO", "STAR"])
    )
    arguments = TrainingArguments(
        tmp_path, use_cpu=True, report_to="none", remove_unused_columns=False, label_names=["labels"]
    )
    model.config.targets = {"teff": {"center": 4800.0}} if head == "labels" else None
    trainer = Trainer(model, arguments, collator, compute_metrics=make_compute_metrics(model.config))
    plain, asked = trainer.predict(rows), trainer.predict(rows, with_novelty(model.config))
    assert isinstance(plain.predictions, np.ndarray) if head == "classes" else len(plain.predictions) == 5
    assert "test_novel" not in plain.metrics
    assert asked.predictions[-1].shape == (4,)
    assert asked.metrics["test_novel"] == np.mean(asked.predictions[-1] > 1)


CALIBRATED = {
    "novelty": lambda: fitted("labels"),
    "temperature": lambda: make_model("classes", classifier_temperature=2.0),
    "width": lambda: make_model("redshift", targets={"redshift": REDSHIFT | {"width_factor": 2.0}}),
    "flag": lambda: make_model("redshift", targets={"redshift": REDSHIFT | {"confidence_threshold": 0.5}}),
}


@pytest.mark.parametrize("made", CALIBRATED)
def test_training_a_calibrated_head_further_is_remarked_on(made, caplog):
    """What was found of its errors, and of what is new to it, is of the weights before."""
    heads.logger.warning_once.cache_clear()
    model = CALIBRATED[made]()
    head = {"novelty": "labels", "temperature": "classes"}.get(made, "redshift")
    inputs = batch(range(4), head)
    model(**inputs)
    model.train()(**without_labels(inputs))
    assert "trained further" not in caplog.text
    for _ in range(2):
        model(**inputs)
    (told,) = [each.message for each in caplog.records if "trained further" in each.message]
    assert "fit_novelty and calibrate" in told


@pytest.mark.parametrize("head", ["classes", "labels", "redshift"])
def test_training_a_head_that_was_not_calibrated_is_not(head, caplog):
    heads.logger.warning_once.cache_clear()
    model = make_model(head)
    model.fit_scales([batch(range(4), head)])
    model.train()(**batch(range(4), head))
    model.calibrate([batch(range(4), head)])
    model.forget_calibration()
    model.train()(**batch(range(4), head))
    assert "trained further" not in caplog.text
