"""Predictions of hidden flux that need no network: what a model has to beat."""

import numpy as np


def patch_means(flux: np.ndarray, ivar: np.ndarray, wavelength: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Inverse-variance weighted mean wavelength and flux of each patch: (patches, patch_size) -> (patches,) twice."""
    weight = ivar / ivar.sum(1, keepdims=True)
    return (weight * wavelength).sum(1), (weight * flux).sum(1)


def interpolate(flux: np.ndarray, ivar: np.ndarray, wavelength: np.ndarray, is_visible: np.ndarray) -> np.ndarray:
    """Straight lines in wavelength between the means of visible patches, level beyond the outermost.

    Args:
        flux, ivar, wavelength: (patches, patch_size) of one spectrum, valid patches alone.
        is_visible: (patches,) booleans; at least one is True.

    Returns:
        (patches, patch_size) flux, in the visible patches too.
    """
    where, level = patch_means(flux[is_visible], ivar[is_visible], wavelength[is_visible])
    order = np.argsort(where)
    return np.interp(wavelength, where[order], level[order])
