"""How wrong predictions are, in the field's own measures."""

import numpy as np


NARROW, WIDE = 0.0033, 0.15  # |dz| / (1 + z) beyond which a redshift is an outlier: 1,000 km/s, and catastrophic
TO_MEDIAN = 0.6745  # of a Gaussian's sigma: its median absolute value


def nmad(error: np.ndarray) -> float:
    """1.4826 times the median absolute error."""
    return float(1.4826 * np.median(np.abs(error)))


def mad(error: np.ndarray) -> float:
    """The median absolute error, as the paper quotes label errors."""
    return float(np.median(np.abs(error)))


def redshift_scores(predicted: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    """NMAD and outlier fractions of dz / (1 + z)."""
    error = (predicted - truth) / (1.0 + truth)
    return {
        "nmad": nmad(error),
        "outliers_0.0033": float(np.mean(np.abs(error) > NARROW)),
        "outliers_0.15": float(np.mean(np.abs(error) > WIDE)),
    }


def class_scores(predicted: np.ndarray, truth: np.ndarray, names) -> dict[str, float]:
    """Accuracy, and the share of each class that is recovered (completeness)."""
    scores = {"accuracy": float(np.mean(predicted == truth))}
    for number, name in enumerate(names):
        if (truth == number).any():
            scores[f"completeness_{name}"] = float(np.mean(predicted[truth == number] == number))
    return scores


def summary(values: list[dict[str, float]]) -> dict[str, dict[str, float]]:
    """Mean and standard deviation over draws, key by key."""
    return {
        key: {
            "mean": float(np.nanmean([each.get(key, np.nan) for each in values])),
            "std": float(np.nanstd([each.get(key, np.nan) for each in values])),
        }
        for key in values[0]
    }
