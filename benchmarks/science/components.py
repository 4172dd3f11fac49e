"""Principal components that are told errors: how, and as features that stand beside the encoder's."""

import numpy as np
from sklearn.decomposition import PCA

from training.simulated.stream import DOMAINS

from .continuum import Continuum
from .heads import snr_weight


LARGEST_SIGMA = 0.6  # of the scale


def filled(total: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Averages of bins from weighted sums and weights (spectra, bins); a bin noisier than `LARGEST_SIGMA` leans on the
    mean over spectra, an empty one takes it."""
    mean = total.sum(axis=0) / np.maximum(weight.sum(axis=0), 1e-30)
    prior = 1.0 / LARGEST_SIGMA**2
    return (total + prior * mean) / (weight + prior)


def most_probable(total: np.ndarray, weight: np.ndarray, vectors: np.ndarray, variance: np.ndarray) -> np.ndarray:
    """(spectra, components) the most probable coefficients of `vectors` (components, bins) given weighted sums and
    weights of bins, where the components' own variances (components,) are the prior: little is made of noise."""
    normal = np.einsum("sb,ib,jb->sij", weight, vectors, vectors, optimize=True)
    normal += np.diag(1.0 / np.maximum(variance, 1e-12))
    return np.linalg.solve(normal, (total @ vectors.T)[:, :, None])[:, :, 0]


class ToldComponents:
    """Features of spectra: their most probable coefficients, given their errors. The components are those of training
    spectra that count by their signal-to-noise; of stars, with the continuum taken off as for the Cannon-like model.

    Args:
        surveys: Survey of each training spectrum.
        flux, weight: Means and weights of `features.bin_edges`' bins, (spectra, bins); the weight is an inverse variance.
        snr: Of each training spectrum.
        count: How many components.
    """

    def __init__(self, surveys: np.ndarray, flux: np.ndarray, weight: np.ndarray, snr: np.ndarray, count: int):
        flux, weight = flux.astype(np.float64), weight.astype(np.float64)
        names, self.continuum = set(surveys), None
        if len(names) == 1 and DOMAINS[surveys[0]] == "stars":
            self.continuum = Continuum(surveys[0], flux, weight, finer=1)
            flux, weight = self.continuum.normalise(flux, weight)
        values = filled(flux * weight, weight)
        self.mean = values.mean(axis=0)
        deviation = (values - self.mean) * np.sqrt(snr_weight(snr))[:, None]
        pca = PCA(min(count, *values.shape), svd_solver="randomized", random_state=0).fit(deviation)
        self.vectors, self.variance = pca.components_, pca.explained_variance_

    def __call__(self, flux: np.ndarray, weight: np.ndarray) -> np.ndarray:
        flux, weight = flux.astype(np.float64), weight.astype(np.float64)
        if self.continuum is not None:
            flux, weight = self.continuum.normalise(flux, weight)
        return most_probable(weight * (flux - self.mean), weight, self.vectors, self.variance)
