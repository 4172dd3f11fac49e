"""A Cannon-like model: the flux of every pixel is a quadratic function of the labels (Ness et al. 2015).

The continuum is a low polynomial per chip, fitted with ivar weights to pixels that were found to be continuum on the
training set: linear and unbiased at any signal-to-noise. (A running quantile is neither: it follows the noise, and a
Cannon with such a continuum loses to anything.) One quadratic does not span giants and dwarfs, so there is one for
each, and the lower chi2 decides. GALAH's spectra are brought to rest with their true velocity, as the method asks for.
"""

from dataclasses import replace

import numpy as np

from training.simulated.patches import Spectra

from .bench import Bench
from .continuum import Continuum
from .features import binned
from .scores import summary
from .tables import LABELS, label_scores, row


FINER = 2
DWARF_LOGG = 3.8
NUM_STEPS = 12
SMALLEST_SCATTER = 1e-3


def cannon(bench: Bench) -> list[dict]:
    """Label errors of the Cannon-like model on the same spectra as the table `labels`."""
    rows = []
    for survey in bench.surveys("stars"):
        sets = {}
        for split, size in (("train", bench.budget.train), ("test", bench.budget.test)):
            batches = list(bench.batches(survey, split, size // (1 + (survey == "galah"))))
            flux, ivar = (np.concatenate(each) for each in zip(*(bins(spectra) for spectra in batches)))
            labels = np.stack([np.concatenate([getattr(b, name).numpy() for b in batches]) for name in LABELS], 1)
            sets[split] = flux, ivar, labels, np.concatenate([b.band.numpy() for b in batches])
        flux, ivar, labels, _ = sets["train"]
        given, given_ivar, truth, band = sets["test"]
        found = []
        for _, fit, chosen in bench.draws(len(flux), len(given), "linear"):
            model = TwoCannons(survey, flux[fit], ivar[fit], labels[fit])
            error = model.predict(given, given_ivar) - truth
            found.append(label_scores(error[chosen], band[chosen]))
        rows.append(row("Cannon", "quadratic", summary(found), survey=survey))
    return rows


def bins(spectra: Spectra) -> tuple[np.ndarray, np.ndarray]:
    """Flux and ivar (spectra, bins) in bins of about a pixel, at rest."""
    if spectra.survey[0] == "galah":
        shift = (1.0 + spectra.redshift).to(spectra.wavelength.device)[spectra.spectrum()]
        spectra = replace(spectra, wavelength=spectra.wavelength / shift[:, None])
    total, weight = binned(spectra, "flux", FINER, error_floor=0.0)
    return total / np.maximum(weight, 1e-30), weight


class TwoCannons:
    """One model for giants, one for dwarfs."""

    def __init__(self, survey: str, flux: np.ndarray, ivar: np.ndarray, labels: np.ndarray):
        self.continuum = Continuum(survey, flux, ivar, FINER)
        flux, ivar = self.continuum.normalise(flux, ivar)
        is_dwarf = labels[:, 1] > DWARF_LOGG
        groups = [members for members in (is_dwarf, ~is_dwarf) if members.sum() > 30] or [np.ones_like(is_dwarf)]
        self.models = [Quadratic(flux[members], ivar[members], labels[members]) for members in groups]

    def predict(self, flux: np.ndarray, ivar: np.ndarray) -> np.ndarray:
        flux, ivar = self.continuum.normalise(flux, ivar)
        answers, chi2 = zip(*(model.fit(flux, ivar) for model in self.models))
        return np.stack(answers)[np.argmin(chi2, axis=0), np.arange(len(flux))]


class Quadratic:
    """Flux per pixel: 1, labels, their products; with a scatter per pixel."""

    def __init__(self, flux: np.ndarray, ivar: np.ndarray, labels: np.ndarray):
        self.center, self.width = labels.mean(0), labels.std(0)
        self.low, self.high = labels.min(0), labels.max(0)
        terms = self.terms((labels - self.center) / self.width)
        self.scatter = np.full(flux.shape[1], 1e-2)
        for _ in range(2):
            weight = total_weight(ivar, self.scatter)
            normal = np.einsum("sp,si,sj->pij", weight, terms, terms, optimize=True) + 1e-6 * np.eye(terms.shape[1])
            right = np.einsum("sp,si->pi", weight * flux, terms, optimize=True)
            self.coefficients = np.linalg.solve(normal, right[:, :, None])[:, :, 0].T
            residual = (flux - terms @ self.coefficients) ** 2
            noise = np.where(ivar > 0, 1.0 / np.maximum(ivar, 1e-30), 0.0)
            # Unseen pixels count as free of scatter: few where a pixel is seen at all.
            excess = np.median(np.where(ivar > 0, residual - noise, 0.0), axis=0)
            self.scatter = np.sqrt(np.maximum(excess, SMALLEST_SCATTER**2))

    @staticmethod
    def terms(offset: np.ndarray) -> np.ndarray:
        pairs = [offset[:, i] * offset[:, j] for i in range(offset.shape[1]) for j in range(i, offset.shape[1])]
        return np.stack([np.ones(len(offset)), *offset.T, *pairs], axis=1)

    def fit(self, flux: np.ndarray, ivar: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Most likely labels (spectra, labels) by Gauss-Newton, and chi2 (spectra,)."""
        weight = total_weight(ivar, self.scatter)
        low, high = (self.low - self.center) / self.width, (self.high - self.center) / self.width
        offset = np.zeros((len(flux), len(self.center)))
        for _ in range(NUM_STEPS):
            slopes = self.slopes(offset)
            residual = flux - self.terms(offset) @ self.coefficients
            normal = np.einsum("slp,sp,smp->slm", slopes, weight, slopes, optimize=True)
            right = np.einsum("slp,sp->sl", slopes, weight * residual, optimize=True)
            step = np.linalg.solve(normal + 1e-3 * np.eye(normal.shape[1]), right[:, :, None])[:, :, 0]
            offset = np.clip(offset + np.clip(step, -0.7, 0.7), low, high)
        residual = flux - self.terms(offset) @ self.coefficients
        return offset * self.width + self.center, (weight * residual**2).sum(axis=1)

    def slopes(self, offset: np.ndarray) -> np.ndarray:
        """(spectra, labels, pixels): the flux's derivatives by the standardised labels."""
        step = 1e-3
        pushed = []
        for label in range(offset.shape[1]):
            change = np.zeros(offset.shape[1])
            change[label] = step
            pushed.append((self.terms(offset + change) - self.terms(offset - change)) @ self.coefficients / (2 * step))
        return np.stack(pushed, axis=1)


def total_weight(ivar: np.ndarray, scatter: np.ndarray) -> np.ndarray:
    return np.where(ivar > 0, 1.0 / (1.0 / np.maximum(ivar, 1e-30) + scatter**2), 0.0)
