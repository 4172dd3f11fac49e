"""The continuum of stars, as the Cannon-like model and principal components need it taken off."""

import numpy as np

from .features import bin_edges


CONTINUUM_SHARE = 0.15
CONTINUUM_DEGREE = 3


class Continuum:
    """Polynomials per chip through pixels without lines.

    First all pixels count and the polynomial runs through the lines; then those that stand highest over it and vary
    least from star to star are taken for continuum, in each of 20 parts of a chip alike.

    Args:
        survey: Whose bins, `finer` for one of `features.RAW_GRIDS`.
        flux, ivar: Of the training spectra, (spectra, bins).
    """

    def __init__(self, survey: str, flux: np.ndarray, ivar: np.ndarray, finer: int):
        counts = [len(edge) - 1 for edge in bin_edges(survey, finer)]
        self.parts = [slice(end - count, end) for end, count in zip(np.cumsum(counts), counts)]
        self.is_continuum = np.ones(flux.shape[1], dtype=bool)
        for _ in range(2):
            level, weight = self.normalise(flux, ivar)
            mean = (level * weight).sum(0) / np.maximum(weight.sum(0), 1e-30)
            excess = np.maximum((weight * (level - mean) ** 2).sum(0) - (weight > 0).sum(0), 0.0)
            rank = mean - np.sqrt(excess / np.maximum(weight.sum(0), 1e-30))
            chosen = np.zeros_like(self.is_continuum)
            for part in self.parts:
                for piece in np.array_split(np.arange(part.start, part.stop), 20):
                    chosen[piece[np.argsort(rank[piece])[-max(2, int(CONTINUUM_SHARE * len(piece))) :]]] = True
            self.is_continuum = chosen

    def normalise(self, flux: np.ndarray, ivar: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        continuum = np.ones_like(flux)
        for part in self.parts:
            basis = np.polynomial.legendre.legvander(np.linspace(-1, 1, part.stop - part.start), CONTINUUM_DEGREE)
            # Weights are capped, for a polynomial is not true to a thousandth.
            weight = np.minimum(ivar[:, part], 1e4) * self.is_continuum[part]
            normal = np.einsum("sp,pi,pj->sij", weight, basis, basis, optimize=True) + 1e-6 * np.eye(basis.shape[1])
            right = np.einsum("sp,pi->si", weight * flux[:, part], basis)
            continuum[:, part] = np.linalg.solve(normal, right[:, :, None])[:, :, 0] @ basis.T
        # A spectrum without a chip has no continuum there, and no weight.
        continuum = np.maximum(continuum, 0.05)
        return flux / continuum, ivar * continuum**2
