"""How wrong predictions are, in the field's own measures."""

import numpy as np

from spectral_tokenizer.metrics import GAUSSIAN, OUTLIER_THRESHOLDS, PurityCompleteness, mean, median, redshift_error


def nmad(error: np.ndarray) -> float:
    """1.4826 times the median absolute error."""
    return GAUSSIAN * median(np.abs(error))


def mad(error: np.ndarray) -> float:
    """The median absolute error, as the paper quotes label errors."""
    return median(np.abs(error))


def redshift_scores(predicted: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    """NMAD and outlier fractions of dz / (1 + z); no answer (NaN) is an outlier."""
    error = redshift_error(predicted, truth)
    outliers = {f"outliers_{each:g}": mean(~(np.abs(error) <= each)) for each in OUTLIER_THRESHOLDS}
    return {"nmad": nmad(error)} | outliers


def class_scores(predicted: np.ndarray, truth: np.ndarray, names) -> dict[str, float]:
    """Accuracy, and purity and completeness of each class."""
    return PurityCompleteness().compute(predictions=predicted, references=truth, classes=names)


def summary(values: list[dict[str, float]]) -> dict[str, dict[str, float]]:
    """Mean and standard deviation over draws (of one, NaN), key by key; NaN where no draw has a value."""
    found = {}
    for key in values[0]:
        known = np.array([each[key] for each in values if np.isfinite(each.get(key, np.nan))])
        found[key] = {"mean": mean(known), "std": float(known.std(ddof=1)) if len(known) > 1 else float("nan")}
    return found
