"""What a linear model reads out of frozen embeddings: the class, the redshift, the temperature."""

import numpy as np
import torch
from datasets import Dataset, concatenate_datasets
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression, RidgeCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from tqdm import tqdm

from spectral_tokenizer.data.packing import as_arrays, rows_of


BATCH_SIZE = 32


@torch.no_grad()
def embed(model, processor, dataset: Dataset) -> np.ndarray:
    """`pooler_output` of every row, (rows, pooled_size)."""
    was_training = model.training
    model.eval()
    device = next(model.parameters()).device
    rows, pooled = as_arrays(dataset), []
    for start in tqdm(range(0, len(rows), BATCH_SIZE), desc="embedding", leave=False):
        spectra = rows_of(rows, list(range(start, min(start + BATCH_SIZE, len(rows)))))
        inputs = processor(spectra, packed=True, return_tensors="pt").to(device)
        pooled.append(model(**inputs).pooler_output.float().cpu().numpy())
    model.train(was_training)
    return np.concatenate(pooled)


def probe(encoder, processor, train: dict[str, Dataset], held: dict[str, Dataset]) -> dict[str, float]:
    """Fit linear heads on the embeddings of training rows, score them on rows of other objects.

    Returns:
        `class_accuracy` over surveys that see several classes, `redshift_nmad` of GALAXY and QSO (1.4826 times the
        median |dz| / (1 + z)), `teff_mad` in K (median absolute error). A target with too few labels is left out.
    """
    rows = {
        part: concatenate_datasets(list(datasets.values())) for part, datasets in (("train", train), ("held", held))
    }
    features = {part: embed(encoder, processor, each) for part, each in rows.items()}
    labels = {
        part: {name: np.array(each[name]) for name in ("class", "redshift", "teff", "survey")}
        for part, each in rows.items()
    }
    scores = {}
    several = [
        survey for survey, each in train.items() if len({name for name in each["class"] if name is not None}) > 1
    ]
    chosen = {
        part: np.isin(each["survey"], several) & (each["class"] != None)  # noqa: E711 (elementwise)
        for part, each in labels.items()
    }
    if enough(chosen):
        head = make_head(LogisticRegression(max_iter=300, C=0.1), features["train"][chosen["train"]])
        head.fit(features["train"][chosen["train"]], labels["train"]["class"][chosen["train"]])
        predicted = head.predict(features["held"][chosen["held"]])
        scores["class_accuracy"] = float(np.mean(predicted == labels["held"]["class"][chosen["held"]]))
    chosen = {
        part: np.isin(each["class"].astype(str), ["GALAXY", "QSO"]) & np.isfinite(each["redshift"].astype(float))
        for part, each in labels.items()
    }
    if enough(chosen):
        error, truth = regress(features, labels, chosen, "redshift", np.log1p, np.expm1)
        scores["redshift_nmad"] = float(1.4826 * np.median(np.abs(error) / (1 + truth)))
    chosen = {part: np.isfinite(each["teff"].astype(float)) for part, each in labels.items()}
    if enough(chosen):
        error, _ = regress(features, labels, chosen, "teff", np.log, np.exp)
        scores["teff_mad"] = float(np.median(np.abs(error)))
    return scores


def enough(chosen: dict[str, np.ndarray]) -> bool:
    return chosen["train"].sum() >= 20 and chosen["held"].sum() >= 5


def make_head(estimator, features: np.ndarray):
    # Standardised first: class and continuum slope otherwise eat the variance of the principal components.
    components = min(256, *features.shape)
    return make_pipeline(StandardScaler(), PCA(components, random_state=0), StandardScaler(), estimator)


def regress(features, labels, chosen, name, forward, backward) -> tuple[np.ndarray, np.ndarray]:
    """Ridge regression of a transformed label; errors and truth in the label's unit."""
    values = {part: each[name][chosen[part]].astype(float) for part, each in labels.items()}
    head = make_head(RidgeCV(alphas=np.logspace(-1, 5, 13)), features["train"][chosen["train"]])
    head.fit(features["train"][chosen["train"]], forward(values["train"]))
    # A linear head knows no bounds; beyond the labels it was fitted on it only extrapolates.
    known = forward(values["train"])
    predicted = backward(head.predict(features["held"][chosen["held"]]).clip(known.min(), known.max()))
    return predicted - values["held"], values["held"]
