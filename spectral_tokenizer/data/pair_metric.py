"""A distance between embeddings by which two observations of one object are near: learnt from objects seen twice."""

from dataclasses import dataclass

import numpy as np


NUM_COMPONENTS = 256  # of the embeddings, in which noise and objects are compared
LARGEST = 10.0  # standard deviations: a spectrum that went wrong must not decide


@dataclass
class PairMetric:
    """Linear discriminants of objects (Fisher 1936; as speaker verification uses them, Hatch et al. 2006).

    What differs between two observations of an object - noise, coverage, another instrument - has a covariance W; what
    differs between objects has another, B. Directions are kept and weighed by how much of B they have for
    their W. A vector's own size says as little of the object as before: similarities are cosines.

    Called with embeddings (vectors, size of the embedding), it gives (vectors, size) of length 1 each, whose scalar
    products are similarities. Rows that are NaN stay so.

    Args:
        mean, spread: (size of the embedding,) of the embeddings it was fitted on.
        directions: (size of the embedding, size).
    """

    mean: np.ndarray
    spread: np.ndarray
    directions: np.ndarray

    @classmethod
    def fit(cls, first: np.ndarray, second: np.ndarray, size: int = 64, shrinkage: float = 0.1) -> "PairMetric":
        """Learn it from pairs: `first` and `second` (pairs, size of the embedding), row by row the same object.

        It serves queries that differ from the reference as these pairs differ: fit it on other noise for repeats, on
        pairs of two surveys to find one in the other. Some hundred pairs are few, a thousand enough.

        Args:
            size: Directions that are kept.
            shrinkage: How far W, which is known from few pairs, is drawn to a multiple of the identity: 0 to 1.

        Raises:
            ValueError: other than as many rows in both, fewer than ten pairs, or one observation twice.
        """
        from sklearn.decomposition import PCA
        from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

        first, second = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
        if first.ndim != 2 or first.shape != second.shape:
            raise ValueError(
                f"expected two arrays (pairs, size) of one shape, a pair in each row, found: {first.shape} and {second.shape}"
            )
        is_known = np.isfinite(first).all(1) & np.isfinite(second).all(1)
        first, second = first[is_known], second[is_known]
        if len(first) < 10:
            raise ValueError(f"expected ten pairs or more, found: {len(first)} with both embeddings")
        mean, spread = first.mean(0), first.std(0)
        spread = np.where(spread > 0, spread, 1.0)
        first, second = (standardised(each, mean, spread) for each in (first, second))
        if np.array_equal(first, second):
            raise ValueError("expected two observations of each object, found: the same embeddings twice")
        components = PCA(min(NUM_COMPONENTS, *first.shape), svd_solver="randomized", random_state=0).fit(first)
        discriminants = LinearDiscriminantAnalysis(solver="eigen", shrinkage=shrinkage)
        first, second = components.transform(first), components.transform(second)
        discriminants.fit(np.concatenate([first, second]), np.tile(np.arange(len(first)), 2))
        directions = discriminants.scalings_[:, :size]  # each with the variance 1 of W
        between = np.mean((first @ directions) * (second @ directions), axis=0).clip(min=0.0)
        return cls(mean, spread, components.components_.T @ directions * np.sqrt(between / (between + 1.0)))

    def __call__(self, embeddings: np.ndarray) -> np.ndarray:
        vectors = standardised(np.asarray(embeddings, dtype=np.float64), self.mean, self.spread) @ self.directions
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True).clip(min=1e-30)


def standardised(embeddings: np.ndarray, mean: np.ndarray, spread: np.ndarray) -> np.ndarray:
    """(vectors, size of the embedding) in units of the spread, both (size of the embedding,); far ones are drawn in."""
    return ((embeddings - mean) / spread).clip(-LARGEST, LARGEST)
