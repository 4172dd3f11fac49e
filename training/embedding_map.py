"""What lies beside what in a table of embeddings: a map coloured by what is known, and how alike neighbours are."""

import logging
from pathlib import Path

import matplotlib
import numpy as np
from datasets import Dataset
from sklearn.decomposition import PCA
from sklearn.preprocessing import StandardScaler

from spectral_tokenizer.data.embedding import EMBEDDING, nearest


matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402 (the backend comes first)


logger = logging.getLogger(__name__)

# UMAP of the first principal components: the rest is noise that costs time.
NUM_COMPONENTS = 50
# Labels that colour a panel, where they are known.
NUMBERS = {"redshift": "redshift", "teff": "Teff [K]", "fe_h": "[Fe/H]", "snr": "S/N"}
NAMES = ("class", "survey")


def vectors_of(rows: Dataset) -> np.ndarray:
    """(rows, size) float32."""
    flat = rows.with_format("numpy", dtype=np.float32)[:][EMBEDDING]
    return np.stack(list(flat)) if len(rows) else np.zeros((0, 0), dtype=np.float32)


def column(rows: Dataset, name: str) -> np.ndarray | None:
    """A column as text (None: "") or float64; None where it is missing or nothing is known."""
    if name not in rows.column_names:
        return None
    values = rows[name][:]
    if name in NAMES:
        values = np.array(["" if value is None else value for value in values])
        return values if (values != "").any() else None
    values = np.array(values, dtype=np.float64)
    return values if np.isfinite(values).any() else None


def project(vectors: np.ndarray, seed: int) -> tuple[np.ndarray, str]:
    """(rows, 2) and how they were made: by UMAP, or by principal components where umap-learn is not installed."""
    standard = StandardScaler().fit_transform(vectors.astype(np.float64))
    components = PCA(min(NUM_COMPONENTS, *vectors.shape), random_state=seed).fit_transform(standard)
    try:
        from umap import UMAP
    except ImportError:
        logger.warning("umap-learn is not installed: the map shows two principal components (pip install umap-learn)")
        return components[:, :2], "principal components"
    return UMAP(random_state=seed, n_jobs=1).fit_transform(components), "UMAP"


def draw(rows: Dataset, path: Path, seed: int = 0) -> Path:
    """A panel per known label: class, survey, redshift, Teff, [Fe/H], S/N."""
    vectors = vectors_of(rows)
    is_known = np.isfinite(vectors).all(1)
    places, how = project(vectors[is_known], seed)
    panels = {name: column(rows, name) for name in (*NAMES, *NUMBERS)}
    panels = {name: values[is_known] for name, values in panels.items() if values is not None}
    width = min(3, len(panels))
    height = -(-len(panels) // width)
    figure, axes = plt.subplots(
        height, width, figsize=(4.6 * width, 4.2 * height), squeeze=False, layout="constrained"
    )
    for axis in axes.flat[len(panels) :]:
        axis.set_axis_off()
    for axis, (name, values) in zip(axes.flat, panels.items()):
        axis.set_xticks([])
        axis.set_yticks([])
        if name in NAMES:
            by_name(axis, places, values)
            axis.set_title(name)
        else:
            figure.colorbar(by_number(axis, places, values), ax=axis)
            axis.set_title(NUMBERS[name])
    figure.suptitle(f"{is_known.sum()} spectra, {how} of their embeddings")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
    plt.close(figure)
    return path


def by_name(axis, places: np.ndarray, values: np.ndarray) -> None:
    for name in sorted(set(values)):
        chosen = values == name
        axis.scatter(*places[chosen].T, s=4, lw=0, label=name or "unknown", color="0.8" if not name else None)
    axis.legend(fontsize="small", markerscale=3)


def by_number(axis, places: np.ndarray, values: np.ndarray):
    """Unknown values in grey; the colours span the central 96 %."""
    is_known = np.isfinite(values)
    axis.scatter(*places[~is_known].T, s=4, lw=0, color="0.85")
    low, high = np.percentile(values[is_known], [2, 98])
    return axis.scatter(*places[is_known].T, s=4, lw=0, c=values[is_known], vmin=low, vmax=high, cmap="viridis")


def neighbours_agree(rows: Dataset) -> dict[str, float]:
    """How alike each spectrum and the nearest one of another object are: the fraction of equal classes, and the median
    of |dz| / (1 + z), |dTeff| and |d[Fe/H]| between them, where both are known; beside the same of two drawn at
    random.
    """
    vectors, objects = vectors_of(rows), np.array(rows["object_id"][:])
    if len(rows) < 3:
        return {}
    index, _ = nearest(vectors, vectors, min(10, int(np.isfinite(vectors).all(1).sum())))
    is_other = (index >= 0) & (objects[index] != objects[:, None])
    found = np.where(is_other.any(1), index[np.arange(len(index)), is_other.argmax(1)], -1)
    here = np.flatnonzero(found >= 0)
    pairs = {"nearest": found[here], "random": np.random.default_rng(0).permutation(here)}
    scores = {}
    for kind, there in pairs.items():
        for name in ("class", "redshift", "teff", "fe_h"):
            values = column(rows, name)
            if values is not None and (value := likeness(values[here], values[there], name)) is not None:
                scores[f"{name}_{kind}"] = value
    return scores


def likeness(one: np.ndarray, other: np.ndarray, name: str) -> float | None:
    """Of pairs where both are known; None where there is no such pair."""
    if name == "class":
        both = (one != "") & (other != "")
        return float((one == other)[both].mean()) if both.any() else None
    difference = np.abs(one - other) / (1 + one if name == "redshift" else 1)
    difference = difference[np.isfinite(difference)]
    return float(np.median(difference)) if len(difference) else None
