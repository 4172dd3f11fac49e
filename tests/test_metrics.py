"""Every metric against numbers worked out by hand."""

import math
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from spectral_tokenizer import SpectralConfig
from spectral_tokenizer.metrics import (
    NMAD,
    FailureFlag,
    IntervalCoverage,
    MedianAbsoluteDeviation,
    OutlierFraction,
    PurityCompleteness,
    make_compute_metrics,
)


NAN = float("nan")
# dz / (1 + z): 0.001, -0.002, 0.01, 0.2, 0.
TRUE_REDSHIFTS = [0.0, 1.0, 0.0, 1.5, 3.0, NAN]
REDSHIFTS = [0.001, 0.996, 0.01, 2.0, 3.0, 0.5]


def test_nmad():
    scores = NMAD().compute(predictions=REDSHIFTS, references=TRUE_REDSHIFTS)
    assert scores == pytest.approx({"nmad": 1.4826 * 0.002, "bias": 0.001})


def test_outlier_fractions():
    scores = OutlierFraction().compute(predictions=REDSHIFTS, references=TRUE_REDSHIFTS)
    assert scores == {"outliers_0.0033": 0.4, "outliers_0.15": 0.2}
    assert OutlierFraction().compute(predictions=REDSHIFTS, references=TRUE_REDSHIFTS, thresholds=[0.0015]) == {
        "outliers_0.0015": 0.6
    }


def test_median_absolute_deviation():
    scores = MedianAbsoluteDeviation().compute(predictions=[4010, 5000, 5970, 1], references=[4000, 5000, 6000, NAN])
    assert scores == {"mad": 10.0, "bias": 0.0}


def test_purity_and_completeness():
    scores = PurityCompleteness().compute(
        predictions=[0, 0, 1, 0, 1, 2], references=[0, 0, 0, 1, 1, -100], classes=["GALAXY", "QSO", "STAR"]
    )
    assert scores.pop("STAR_purity") != scores.pop("STAR_completeness")  # both NaN: none was called so, none was there
    assert scores == pytest.approx(
        {
            "accuracy": 3 / 5, "GALAXY_purity": 2 / 3, "GALAXY_completeness": 2 / 3, "QSO_purity": 1 / 2,
            "QSO_completeness": 1 / 2,
        }
    )  # fmt: skip


def test_coverage():
    intervals = np.array([[0, 1], [0, 1], [2, 3], [2, 3], [0, 9]], dtype=float)
    scores = IntervalCoverage().compute(predictions=intervals, references=[0.5, 1.5, 2.0, 3.0, NAN])
    assert scores == {"coverage": 0.75}


def test_a_flag_is_scored_at_its_false_alarms():
    """Twenty-one successes of confidence 0.40, 0.42, ... 0.80: the 5 % quantile is the second, 0.42."""
    confidence = np.concatenate([np.linspace(0.4, 0.8, 21), [0.1, 0.41, 0.5, 0.9]])
    is_failure = np.concatenate([np.zeros(21), np.ones(4)])
    assert FailureFlag().compute(predictions=confidence, references=is_failure) == {"caught": 0.5}
    assert FailureFlag().compute(predictions=confidence, references=is_failure, false_alarms=0.5) == {"caught": 0.75}


def test_nothing_known_is_not_a_number():
    for metric in (NMAD(), OutlierFraction(), MedianAbsoluteDeviation(), FailureFlag()):
        assert all(math.isnan(value) for value in metric.compute(predictions=[0.1], references=[NAN]).values())


def test_metrics_for_trainer_on_classes():
    config = SpectralConfig(id2label={0: "GALAXY", 1: "QSO"}, problem_type="single_label_classification")
    evaluation = SimpleNamespace(predictions=np.array([[1.0, 0], [0, 1.0], [1.0, 0]]), label_ids=np.array([0, 1, 1]))
    scores = make_compute_metrics(config)(evaluation)
    assert scores["accuracy"] == pytest.approx(2 / 3) and scores["QSO_completeness"] == 0.5
    assert scores["log_loss"] == pytest.approx(math.log(1 + math.e) - 2 / 3)


@pytest.mark.parametrize("problem_type", ["regression", None])
def test_metrics_for_trainer_on_targets(problem_type):
    """Also where the targets alone say that it is regression, as the model itself reads it."""
    redshift = {"distribution": "bins", "transform": "log1p", "range": [0, 5], "tolerance": 0.05}
    config = SpectralConfig(
        problem_type=problem_type, id2label={0: "redshift", 1: "teff"}, targets={"redshift": redshift}
    )
    values = np.stack([REDSHIFTS, [4010, 5000, 5970, 1, 2, 3]], axis=1)
    labels = np.stack([TRUE_REDSHIFTS, [4000, 5000, 6000, NAN, NAN, NAN]], axis=1)
    intervals = np.stack([values - [0.005, 20], values + [0.005, 20]], axis=-1)
    confidence = np.tile([[0.9], [0.8], [0.7], [0.2], [0.95], [0.5]], 2)
    predictions = (values, np.zeros_like(values), intervals, confidence, confidence < 0.75)
    scores = make_compute_metrics(config)(SimpleNamespace(predictions=predictions, label_ids=labels))
    assert scores["redshift_known"] == 5 and scores["teff_known"] == 3
    assert scores["redshift_nmad"] == pytest.approx(1.4826 * 0.002) and scores["redshift_outliers_0.15"] == 0.2
    assert scores["redshift_coverage"] == 3 / 5 and scores["teff_coverage"] == 2 / 3
    assert scores["teff_mad"] == 10
    # One failure beyond the tolerance, of confidence 0.2; of four successes one, of confidence 0.7, is flagged.
    assert scores["redshift_caught"] == 1 and scores["redshift_flag_caught"] == 1
    assert scores["redshift_flag_false_alarms"] == 0.25


@pytest.mark.parametrize("problem_type", ["regression", "single_label_classification"])
def test_batches_that_are_not_put_together_are_refused(problem_type):
    """As Trainer hands them over when it is told so; the error was one of a list's attributes."""
    config = SpectralConfig(id2label={0: "redshift", 1: "teff"}, problem_type=problem_type)
    batches = SimpleNamespace(predictions=[np.zeros((2, 2))] * 3, label_ids=[np.zeros(2)] * 3)
    with pytest.raises(ValueError, match="eval_do_concat_batches: found False; expected True"):
        make_compute_metrics(config)(batches)


def test_the_package_does_not_import_evaluate():
    code = "import sys, spectral_tokenizer, spectral_tokenizer.data; assert 'evaluate' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("distribution", ["bins", "shift"])
def test_a_prediction_that_is_nan_is_a_failure(distribution):
    """Not one that is right."""
    scores = OutlierFraction().compute(predictions=[NAN, NAN, 1.0, 1.0], references=[1.0] * 4)
    assert scores == {"outliers_0.0033": 0.5, "outliers_0.15": 0.5}
    assert FailureFlag().compute(predictions=[0.9, 0.8, NAN], references=[0, 0, 1]) == {"caught": 1.0}
    redshift = {"distribution": distribution, "transform": "log1p", "range": [0, 5], "tolerance": 0.05}
    config = SpectralConfig(problem_type="regression", id2label={0: "redshift"}, targets={"redshift": redshift})
    values, flags = np.array([[NAN], [1.0]]), np.array([[True], [False]])
    predictions = (values, values, np.stack([values, values], axis=-1), values, flags)
    scores = make_compute_metrics(config)(SimpleNamespace(predictions=predictions, label_ids=np.ones((2, 1))))
    assert scores["redshift_flag_caught"] == 1 and scores["redshift_flag_false_alarms"] == 0
