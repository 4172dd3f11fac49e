"""How well hidden pixels are predicted, and the noiseless truth found: a model beside what needs no network."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from sklearn.decomposition import PCA
from torch import Tensor
from transformers import AutoModelForPreTraining

from spectral_tokenizer.baselines import interpolate
from spectral_tokenizer.objectives_spectral_tokenizer import hide_arms, hide_block, hide_random
from spectral_tokenizer.patching_spectral_tokenizer import LARGEST_IVAR, robust_scale
from training.simulated.patches import Spectra

from .bench import Bench
from .components import filled, most_probable
from .features import bin_centers, binned
from .scores import summary
from .tables import BANDS


FRACTION = 0.5
HIDING = {"nothing": None, "random": hide_random, "block": hide_block, "arm": hide_arms}
NUM_COMPONENTS = 64
CAP = 5.0  # sigma: chi2 counts a residual at most so much, error against the truth counts it whole
LEVELS = ("given", "not given")
FINER = 2  # bins per bin of `features.RAW_GRIDS`: about one per pixel; with more, some bins would have none


def reconstruction(bench: Bench, styles=tuple(HIDING)) -> list[dict]:
    """chi2 per pixel and rms error against the noiseless truth in sigma, on hidden pixels (on all, if none is hidden).

    Medians over spectra; half of each spectrum is hidden, at random, as a block, as whole arms. "truth" is the limit:
    what noise alone leaves of chi2. Each method twice. `level` "given": fluxes come in units of the median of all pixels,
    hidden ones too, as pre-training has them; that tells the mean of what is hidden. "not given": in units of the median
    of visible pixels, as of a gap or an arm that nobody observed.
    """
    rows, count = [], max(32, bench.budget.test // 3)
    for survey in [each for each in ("sdss", "desi", "apogee", "galah") if each in bench.chosen]:
        methods = {"truth": lambda spectra, is_hidden: spectra.truth[0], "interpolation": interpolation}
        train = list(bench.batches(survey, "train", bench.budget.train // (1 + (survey == "galah"))))
        components = Components(train, NUM_COMPONENTS)
        methods |= {"mean spectrum": components.mean_spectrum, f"pca{NUM_COMPONENTS}": components.predict}
        methods |= {name: Decoder(model) for name, model in models(bench).items()}
        test = list(bench.batches(survey, "test", count))
        for style in styles:
            if style == "arm" and survey == "sdss":
                continue  # one arm: a block
            levels = LEVELS[:1] if style == "nothing" else LEVELS
            of = {name: LEVELS[:1] if name == "truth" else levels for name in methods}  # the limit is the same
            found: dict[tuple, list] = {(name, level): [] for name in methods for level in of[name]}
            for number, spectra in enumerate(test):
                is_hidden = hide(spectra, style, np.random.default_rng([bench.seed, number, 9]))
                for name, level in found:
                    seen = spectra if level == "given" else in_units_of(spectra, ~is_hidden)
                    factor = (seen.scale / spectra.scale)[spectra.spectrum()].float().cpu()
                    prediction = methods[name](seen, is_hidden).cpu() * factor[:, None]
                    found[name, level].append(measure(prediction, spectra, is_hidden))
            for (name, level), parts in found.items():
                measured = [np.concatenate(each) for each in zip(*parts)]
                scores = summary([medians(measured, chosen) for chosen in resamples(len(measured[0]), bench.seed)])
                rows.append({"survey": survey, "hidden": style, "method": name, "level": level, **scores})
    return rows


def in_units_of(spectra: Spectra, is_visible: Tensor) -> Spectra:
    """The same spectra, scaled as if the patches where `is_visible`, (total,) booleans on the CPU, were all there is."""
    parts = zip(
        *(each[0].cpu().split(spectra.lengths) for each in (spectra.flux, spectra.ivar)),
        is_visible.split(spectra.lengths),
    )
    known = [(flux[seen].numpy(), ivar[seen].numpy()) for flux, ivar, seen in parts]
    factor = torch.tensor(
        [robust_scale(flux[ivar > 0], ivar[ivar > 0]) for flux, ivar in known], device=spectra.scale.device
    )
    each = factor[spectra.spectrum()][None, :, None]
    return replace(
        spectra,
        flux=(spectra.flux / each).float(),
        truth=(spectra.truth / each).float(),
        ivar=(spectra.ivar * each**2).clamp_max(LARGEST_IVAR).float(),
        scale=spectra.scale * factor,
    )


def models(bench: Bench) -> dict:
    """Of the run's encoders, those with a decoder."""
    found = {}
    for name, given in bench.given.items():
        if hasattr(given, "decoder"):
            found[name] = given
        elif isinstance(given, (str, Path)) and (Path(given) / "config.json").is_file():
            found[name] = AutoModelForPreTraining.from_pretrained(given).to(bench.device)
    return found


def hide(spectra: Spectra, style: str, generator: np.random.Generator) -> Tensor:
    """(total,) booleans."""
    if HIDING[style] is None:
        return torch.zeros(sum(spectra.lengths), dtype=torch.bool)
    parts = spectra.wavelength[0].cpu().split(spectra.lengths)
    return torch.from_numpy(np.concatenate([HIDING[style](part.numpy(), FRACTION, generator) for part in parts]))


def measure(prediction: Tensor, spectra: Spectra, is_hidden: Tensor) -> tuple[np.ndarray, ...]:
    """chi2 per pixel and rms error against the truth in sigma, over what is scored; signal-to-noise band."""
    is_scored = is_hidden if is_hidden.any() else ~is_hidden
    ivar = torch.where(is_scored.to(spectra.ivar.device)[:, None], spectra.ivar[0], 0.0)
    prediction = prediction.to(ivar.device)
    chi2 = ((prediction - spectra.flux[0]).square() * ivar).clamp_max(CAP**2)
    error = (prediction - spectra.truth[0]).square() * ivar
    spectrum = spectra.spectrum()
    chi2, error, pixels = (
        torch.zeros(len(spectra), device=ivar.device).index_add(0, spectrum, each.sum(1))
        for each in (chi2, error, (ivar > 0).float())
    )
    return tuple(each.cpu().numpy() for each in (chi2 / pixels, (error / pixels).sqrt(), spectra.band))


def medians(measured: list[np.ndarray], chosen: np.ndarray) -> dict[str, float]:
    chi2, error, band = (each[chosen] for each in measured)
    scores = {"chi2": float(np.nanmedian(chi2))}
    for number, name in enumerate(BANDS):
        if (band == number).any():
            scores[f"error_{name}_snr"] = float(np.nanmedian(error[band == number]))
    return scores


def resamples(count: int, seed: int, repeats: int = 8) -> list[np.ndarray]:
    """Bootstraps of the test spectra."""
    generator = np.random.default_rng([seed, 11])
    return [generator.integers(0, count, count) for _ in range(repeats)]


class Decoder:
    """A pre-training model: the encoder sees what is not hidden, the decoder answers for the rest."""

    def __init__(self, model, batch_size: int = 32):
        self.model, self.batch_size = model, batch_size

    @torch.no_grad()
    def __call__(self, spectra: Spectra, is_hidden: Tensor) -> Tensor:
        was_training = self.model.training
        self.model.eval()
        device, answers, start = next(self.model.parameters()).device, [], 0
        is_scored = is_hidden if is_hidden.any() else ~is_hidden
        for first in range(0, len(spectra), self.batch_size):
            lengths = spectra.lengths[first : first + self.batch_size]
            part = slice(start, start := start + sum(lengths))
            tensors = {name: getattr(spectra, name)[:, part].to(device) for name in ("flux", "ivar", "wavelength")}
            choice = {"masked_patches": is_hidden[None, part], "target_patches": is_scored[None, part]}
            answers.append(self.model(**tensors, **choice, lengths=lengths).reconstruction[0].float().cpu())
        self.model.train(was_training)
        return torch.cat(answers)


def interpolation(spectra: Spectra, is_hidden: Tensor) -> Tensor:
    """Straight lines, see `baselines.interpolate`."""
    pixels = (each[0].cpu().numpy() for each in (spectra.flux, spectra.ivar, spectra.wavelength))
    parts = (np.split(each, np.cumsum(spectra.lengths)[:-1]) for each in (*pixels, ~is_hidden.numpy()))
    return torch.from_numpy(np.concatenate([interpolate(*each) for each in zip(*parts)]).astype(np.float32))


class Components:
    """Mean and principal components of a survey's training spectra, with the components' own variances as a prior.

    A spectrum's coefficients are the most probable ones given its visible pixels: so hidden parts are predicted, and
    little is made of noise.
    """

    def __init__(self, train: list[Spectra], count: int):
        self.survey = train[0].survey[0]
        self.centers = bin_centers(self.survey, FINER)
        values = np.concatenate([filled(*binned(spectra, "flux", FINER)) for spectra in train])
        self.mean = values.mean(axis=0)
        pca = PCA(min(count, *values.shape), svd_solver="randomized", random_state=0).fit(values - self.mean)
        self.vectors, self.variance = pca.components_, pca.explained_variance_

    def predict(self, spectra: Spectra, is_hidden: Tensor) -> Tensor:
        return self.on_pixels(spectra, self.fit(spectra, is_hidden, self.vectors, self.variance) + self.mean)

    def mean_spectrum(self, spectra: Spectra, is_hidden: Tensor) -> Tensor:
        """The mean times the amplitude that fits the visible pixels."""
        deviation = self.fit(spectra, is_hidden, self.mean[None], np.array([1e4]))
        return self.on_pixels(spectra, deviation + self.mean)

    def fit(self, spectra: Spectra, is_hidden: Tensor, vectors: np.ndarray, variance: np.ndarray) -> np.ndarray:
        total, weight = visible_bins(spectra, is_hidden)
        return most_probable(total - weight * self.mean, weight, vectors, variance) @ vectors

    def on_pixels(self, spectra: Spectra, values: np.ndarray) -> Tensor:
        parts = spectra.wavelength[0].cpu().split(spectra.lengths)
        return torch.cat(
            [torch.from_numpy(np.interp(part, self.centers, row)).float() for part, row in zip(parts, values)]
        )


def visible_bins(spectra: Spectra, is_hidden: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Weighted sums and weights of bins with hidden pixels left out."""
    ivar = torch.where(is_hidden.to(spectra.ivar.device)[:, None], 0.0, spectra.ivar[0])[None]
    values = {**vars(spectra), "ivar": ivar}
    return binned(Spectra(**values), "flux", FINER)
