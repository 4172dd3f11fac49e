"""How good classes, redshifts and stellar labels are, in the field's own terms, without a network.

    from spectral_tokenizer.metrics import NMAD

    NMAD().compute(predictions=redshifts, references=true_redshifts)

References that are NaN are unknown and left out. `make_compute_metrics` puts all that suits a model together for
Trainer. This module needs `evaluate`, whose import takes seconds: nothing in the package imports it.
"""

from collections.abc import Callable

import datasets
import evaluate
import numpy as np
from scipy.special import log_softmax


# 1.4826 times the median absolute deviation of a Gaussian is its standard deviation.
GAUSSIAN = 1.4826
# A redshift failure by DESI's requirement for galaxies (1000 km/s), and a gross one as photometric surveys count them.
OUTLIER_THRESHOLDS = (0.0033, 0.15)
FALSE_ALARMS = 0.05


class SpectralMetric(evaluate.Metric):
    """A metric that keeps to memory: one process has nothing to share through files."""

    DESCRIPTION = ""
    FEATURES = {"predictions": datasets.Value("float64"), "references": datasets.Value("float64")}

    def __init__(self, **kwargs):
        kwargs.setdefault("keep_in_memory", kwargs.get("num_process", 1) == 1)
        super().__init__(**kwargs)

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=self.DESCRIPTION,
            citation="",
            inputs_description=self.__doc__,
            features=datasets.Features(self.FEATURES),
        )


class NMAD(SpectralMetric):
    """Normalised median absolute deviation of redshifts, 1.4826 median |dz| / (1 + z) (Ilbert et al. 2009), and their
    bias, median dz / (1 + z).

    Args:
        predictions, references: Redshifts.
    """

    DESCRIPTION = "Scatter of redshifts that a few failures do not change"

    def _compute(self, predictions, references) -> dict[str, float]:
        error = redshift_error(predictions, references)
        return {"nmad": GAUSSIAN * median(np.abs(error)), "bias": median(error)}


class OutlierFraction(SpectralMetric):
    """Fraction of redshifts with |dz| / (1 + z) beyond each threshold. A prediction that is NaN is beyond all.

    Args:
        predictions, references: Redshifts.
        thresholds: By default 0.0033 and 0.15.
    """

    DESCRIPTION = "How often a redshift is wrong"

    def _compute(self, predictions, references, thresholds=OUTLIER_THRESHOLDS) -> dict[str, float]:
        error = np.abs(redshift_error(predictions, references))
        return {f"outliers_{threshold:g}": mean(~(error <= threshold)) for threshold in thresholds}


class MedianAbsoluteDeviation(SpectralMetric):
    """Median |prediction - reference| and median of prediction - reference, in the label's unit.

    Args:
        predictions, references: Numbers.
    """

    DESCRIPTION = "Scatter of labels that a few failures do not change"

    def _compute(self, predictions, references) -> dict[str, float]:
        predictions, references = known(predictions, references)
        error = predictions - references
        return {"mad": median(np.abs(error)), "bias": median(error)}


class PurityCompleteness(SpectralMetric):
    """Of those called a class, the fraction that is of it (purity, or precision); of those of it, the fraction that is
    called so (completeness, or recall); and the accuracy over all.

    Args:
        predictions, references: Class numbers; references below 0 are unknown.
        classes: Names of the classes; by default their numbers.
    """

    DESCRIPTION = "How clean and how complete each class is"
    FEATURES = {"predictions": datasets.Value("int64"), "references": datasets.Value("int64")}

    def _compute(self, predictions, references, classes=None) -> dict[str, float]:
        predictions, references = np.asarray(predictions), np.asarray(references)
        predictions, references = predictions[references >= 0], references[references >= 0]
        names = list(classes) if classes is not None else range(max([0, *predictions, *references]) + 1)
        scores = {"accuracy": mean(predictions == references)}
        for number, name in enumerate(names):
            is_right = (predictions == number) & (references == number)
            scores[f"{name}_purity"] = mean(is_right[predictions == number])
            scores[f"{name}_completeness"] = mean(is_right[references == number])
        return scores


class IntervalCoverage(SpectralMetric):
    """Fraction of references inside their predicted intervals: 0.68 for calibrated 68 % intervals.

    Args:
        predictions: (lower, upper) each.
        references: Numbers.
    """

    DESCRIPTION = "Whether predicted errors are of the size of the errors"
    FEATURES = {"predictions": datasets.List(datasets.Value("float64")), "references": datasets.Value("float64")}

    def _compute(self, predictions, references) -> dict[str, float]:
        intervals, references = known(predictions, references)
        intervals = intervals.reshape(-1, 2)
        return {"coverage": mean((intervals[:, 0] <= references) & (references <= intervals[:, 1]))}


class FailureFlag(SpectralMetric):
    """Fraction of failures that a low confidence catches, at a given fraction of false alarms among the successes.

    Args:
        predictions: Confidence; NaN is the least.
        references: 1 for a failure, 0 for a success.
        false_alarms: Fraction of the successes that may be flagged, by default 0.05.
    """

    DESCRIPTION = "Whether failures can be told without knowing the truth"

    def _compute(self, predictions, references, false_alarms=FALSE_ALARMS) -> dict[str, float]:
        confidence, is_failure = known(predictions, references)
        is_failure = is_failure > 0
        confidence = np.where(np.isnan(confidence), -np.inf, confidence)
        if is_failure.all():
            return {"caught": float("nan")}
        threshold = np.quantile(confidence[~is_failure], false_alarms)
        return {"caught": mean(confidence[is_failure] < threshold)}


def known(predictions, references) -> tuple[np.ndarray, np.ndarray]:
    """Both as float64, without unknown references."""
    predictions, references = np.asarray(predictions, dtype=float), np.asarray(references, dtype=float)
    is_known = ~np.isnan(references)
    return predictions[is_known], references[is_known]


def redshift_error(predictions, references) -> np.ndarray:
    """dz / (1 + z)."""
    predictions, references = known(predictions, references)
    return (predictions - references) / (1 + references)


def median(values: np.ndarray) -> float:
    """NaN of nothing, without a warning."""
    return float(np.median(values)) if len(values) else float("nan")


def mean(values: np.ndarray) -> float:
    """NaN of nothing, without a warning."""
    return float(np.mean(values)) if len(values) else float("nan")


def make_compute_metrics(config) -> Callable:
    """The `compute_metrics` of Trainer for a model with this configuration.

    Classes: accuracy, purity and completeness, and the log loss, which is small where shares of classes mean what they
    say. Every regression target: the number of known labels, coverage of the
    68 % intervals, NMAD and outliers of a redshift (a target transformed by log1p), the median absolute deviation of
    others, and for probabilities over bins how well failures beyond `tolerance` are flagged: by the calibrated threshold
    (`flag_caught`, `flag_false_alarms`), and at 5 % false alarms (`caught`). Of both, where `novelty` is the last of the
    predictions (see `with_novelty`): `novel`, the part of spectra for which it is above 1.

    Raises:
        ValueError: classes of which a spectrum may have several; and what is returned, of `eval_do_concat_batches=False`.
    """
    if config.problem_type == "multi_label_classification":
        raise ValueError("no metrics for multi_label_classification here: write your own compute_metrics")
    score = score_targets if config.is_regression else score_classes

    def compute_metrics(evaluation) -> dict[str, float]:
        if isinstance(evaluation.label_ids, list):
            raise ValueError(
                "eval_do_concat_batches: found False; expected True, as metrics are of all spectra at once"
            )
        return score(config, evaluation.predictions, evaluation.label_ids) | novel(evaluation.predictions)

    return compute_metrics


def with_novelty(config) -> list[str]:
    """The `ignore_keys` by which Trainer's `predict` collects `novelty` as well, as the last of the predictions."""
    return [key for key in config.keys_to_ignore_at_inference if key != "novelty"]


def novel(predictions) -> dict[str, float]:
    """The part of spectra that are unlike those that a head was fitted to; nothing where predictions have no novelty."""
    has_novelty = isinstance(predictions, tuple) and predictions[-1].ndim == 1
    return {"novel": mean(predictions[-1] > 1)} if has_novelty else {}


def log_loss(logits: np.ndarray, references: np.ndarray) -> float:
    """Mean of -ln of the probability given to the true class: logits (spectra, classes), references below 0 unknown.
    ln(classes) is what knowing nothing costs."""
    logits, references = logits[references >= 0].astype(np.float64), references[references >= 0]
    log_shares = log_softmax(logits, axis=-1)
    return mean(-np.take_along_axis(log_shares, references[:, None], axis=1))


def score_classes(config, predictions: tuple | np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Metrics of a class. predictions: logits, with others behind them where there are several."""
    logits, references = predictions[0] if isinstance(predictions, tuple) else predictions, labels.ravel()
    given = {"predictions": logits.argmax(-1), "references": references, "classes": config.label_names}
    return PurityCompleteness().compute(**given) | {"log_loss": log_loss(logits, references)}


def score_targets(config, predictions: tuple, labels: np.ndarray) -> dict[str, float]:
    """Metrics of every regression target. predictions: values, errors, intervals, confidence and flags, as the
    model's output has them."""
    values, _, intervals, confidence, is_flagged = predictions[:5]
    scores = {}
    for column, (name, target) in enumerate(config.regression_targets.items()):
        references = labels.reshape(values.shape)[:, column]
        pair = {"predictions": values[:, column], "references": references}
        found = {"known": int((~np.isnan(references)).sum())}
        if target.transform == "log1p":
            found |= NMAD().compute(**pair) | OutlierFraction().compute(**pair)
        else:
            found |= MedianAbsoluteDeviation().compute(**pair)
        found |= IntervalCoverage().compute(predictions=intervals[:, column], references=references)
        if target.distribution != "normal":
            error = np.abs(transform(target, values[:, column]) - transform(target, references))
            is_right = error <= (target.tolerance or target.scale)  # a prediction that is NaN is not
            is_failure = np.where(np.isnan(references), np.nan, ~is_right)
            found |= FailureFlag().compute(predictions=confidence[:, column], references=is_failure)
            found["flag_caught"] = mean(is_flagged[is_failure == 1, column])
            found["flag_false_alarms"] = mean(is_flagged[is_failure == 0, column])
        scores |= {f"{name}_{key}": value for key, value in found.items()}
    return scores


def transform(target, values: np.ndarray) -> np.ndarray:
    """A target's own scale, on which its tolerance is measured."""
    return {"identity": np.asarray, "log": np.log, "log1p": np.log1p}[target.transform](values)
