"""What a linear model reads out of frozen embeddings: the class, the redshift, the temperature."""

import numpy as np
from datasets import Dataset, concatenate_datasets
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression, RidgeCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from surveys import not_shown

from spectral_tokenizer.data.embedding import embed


MAX_ROWS = 1000


def probe(encoder, processor, train: dict[str, Dataset], held: dict[str, Dataset]) -> dict[str, float]:
    """Fit linear heads on the embeddings of training rows and score them on rows of other objects, at
    most `MAX_ROWS` a survey each.

    Returns:
        `class_accuracy` over surveys that see several classes, the same from 10 labels a class, `redshift_nmad_*` of
        GALAXY and QSO, class known and not shifted to rest (1.4826 times the median |dz| / (1 + z)), `teff_mad` in K (median absolute error).
        A target with too few labels is left out.
    """
    train, held = (
        {survey: each.select(range(min(MAX_ROWS, len(each)))) for survey, each in part.items()}
        for part in (train, held)
    )
    rows = {"train": concatenate_datasets(list(train.values())), "held": concatenate_datasets(list(held.values()))}
    features = {part: embed(encoder, processor, each, progress=True)[0] for part, each in rows.items()}
    labels = {
        part: {name: np.array(each[name]) for name in ("class", "redshift", "teff", "survey")}
        for part, each in rows.items()
    }
    for part, each in rows.items():
        labels[part]["redshift"][not_shown(each, "redshift")] = np.nan
    scores = {}
    of_several = [each["survey"] for each in train.values() if len({name for name in each["class"] if name}) > 1]
    several = sorted({survey for each in of_several for survey in each})
    chosen = {
        part: np.isin(each["survey"], several) & np.array([name is not None for name in each["class"]])
        for part, each in labels.items()
    }
    if enough(chosen):
        classes = {part: each["class"][chosen[part]].astype(str) for part, each in labels.items()}
        for name, shots in (("class_accuracy", None), ("class_accuracy_10_labels", 10)):
            scores[name] = classify(
                features["train"][chosen["train"]], classes["train"],
                features["held"][chosen["held"]], classes["held"], shots,
            )  # fmt: skip
    for kind in ("GALAXY", "QSO"):
        chosen = {
            part: (each["class"] == kind) & np.isfinite(each["redshift"].astype(float))
            for part, each in labels.items()
        }
        if enough(chosen):
            error, truth = regress(features, labels, chosen, "redshift", np.log1p, np.expm1)
            scores[f"redshift_nmad_{kind}"] = float(1.4826 * np.median(np.abs(error) / (1 + truth)))
    chosen = {part: np.isfinite(each["teff"].astype(float)) for part, each in labels.items()}
    if enough(chosen):
        error, _ = regress(features, labels, chosen, "teff", np.log, np.exp)
        scores["teff_mad"] = float(np.median(np.abs(error)))
    return scores


def classify(train, train_classes, held, held_classes, shots: int | None, repeats: int = 20) -> float:
    """Accuracy of a logistic regression fitted on all labels, or on `shots` a class (mean over `repeats` draws)."""
    if shots is None:
        head = make_head(LogisticRegression(max_iter=1000, C=0.1), train).fit(train, train_classes)
        return float(head.score(held, held_classes))
    scores = []
    for seed in range(repeats):
        generator = np.random.default_rng(seed)
        members = (np.flatnonzero(train_classes == name) for name in np.unique(train_classes))
        chosen = np.concatenate([generator.permutation(each)[:shots] for each in members])
        head = make_head(LogisticRegression(max_iter=1000, C=0.1), train[chosen]).fit(
            train[chosen], train_classes[chosen]
        )
        scores.append(head.score(held, held_classes))
    return float(np.mean(scores))


def enough(chosen: dict[str, np.ndarray]) -> bool:
    return chosen["train"].sum() >= 20 and chosen["held"].sum() >= 5


def make_head(estimator, features: np.ndarray):
    # Standardised first: class and continuum slope otherwise eat the variance of the principal components.
    return make_pipeline(StandardScaler(), PCA(min(256, *features.shape), random_state=0), estimator)


def regress(features, labels, chosen, name, forward, backward) -> tuple[np.ndarray, np.ndarray]:
    """Ridge regression of a transformed label; errors and truth in the label's unit."""
    values = {part: each[name][chosen[part]].astype(float) for part, each in labels.items()}
    head = make_head(RidgeCV(alphas=np.logspace(-1, 5, 13)), features["train"][chosen["train"]])
    head.fit(features["train"][chosen["train"]], forward(values["train"]))
    # A linear head knows no bounds; beyond the labels it was fitted on it only extrapolates.
    known = forward(values["train"])
    predicted = backward(head.predict(features["held"][chosen["held"]]).clip(known.min(), known.max()))
    return predicted - values["held"], values["held"]
