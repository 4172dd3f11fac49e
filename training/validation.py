"""chi2 on hidden pixels of spectra never trained on, beside what needs no network: interpolation and a mean
spectrum."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from datasets import Dataset

from spectral_tokenizer.baselines import interpolate
from spectral_tokenizer.data.packing import as_arrays, rows_of
from spectral_tokenizer.objectives_spectral_tokenizer import HIDING, residual_chi2


BASELINES = ("interpolation", "mean spectrum")
HIDDEN_FRACTION = 0.5  # of a spectrum's patches, or of its arms
# In sigma, whatever a model is trained with, so that all are measured alike: a few cosmic rays would own the mean
# otherwise.
RESIDUAL_CAP = 10.0
BATCH_SIZE = 16


@dataclass
class ValidationBatch:
    """Packed spectra with one fixed choice of hidden patches per style of hiding."""

    inputs: dict
    is_hidden: dict[str, torch.Tensor]

    def spectra(self, style: str) -> Iterator[dict]:
        """flux, ivar and wavelength (patches, patch_size) and is_hidden (patches,) of one spectrum after the other."""
        names = ("flux", "ivar", "wavelength")
        arrays = {name: self.inputs[name][0] for name in names} | {"is_hidden": self.is_hidden[style][0]}
        parts = {name: each.split(self.inputs["lengths"]) for name, each in arrays.items()}
        for values in zip(*parts.values()):
            yield {name: each.numpy() for name, each in zip(parts, values)}


class SurveyValidation:
    """A fixed set of one survey's spectra and the baselines' chi2 on it. Residuals count at most `RESIDUAL_CAP`.

    Args:
        train, held: Rows that the mean spectrum is taken over, and rows to validate on.
        processor: The model's.
        num_spectra: Of `held`, at most; the mean spectrum uses ten times as many of `train`.
        seed: Of which, and of what is hidden.
    """

    def __init__(self, train: Dataset, held: Dataset, processor, num_spectra: int, seed: int = 0):
        generator = np.random.default_rng([seed, 3])
        self.rows = held.select(sorted(generator.permutation(len(held))[:num_spectra].tolist()))
        rows = as_arrays(self.rows)
        self.batches = []
        for start in range(0, len(rows), BATCH_SIZE):
            inputs = processor(
                rows_of(rows, list(range(start, min(start + BATCH_SIZE, len(rows))))), packed=True, return_tensors="pt"
            )
            inputs.pop("scale")
            wavelengths = np.split(inputs["wavelength"][0].numpy(), np.cumsum(inputs["lengths"])[:-1])
            is_hidden = {
                style: np.concatenate([hide(each, HIDDEN_FRACTION, generator) for each in wavelengths])
                for style, hide in HIDING.items()
            }
            is_hidden = {style: torch.from_numpy(each)[None] for style, each in is_hidden.items()}
            self.batches.append(ValidationBatch(dict(inputs), is_hidden))
        chosen = sorted(generator.permutation(len(train))[: 10 * num_spectra].tolist())
        mean = MeanSpectrum(as_arrays(train), chosen, processor)
        self.baselines = {
            name: {style: self.summary(self.predicted_chi2(predict, style), style) for style in HIDING}
            for name, predict in zip(BASELINES, (interpolate, mean.predict))
        }

    @torch.no_grad()
    def evaluate(self, model) -> dict[str, dict[str, float]]:
        """chi2 per pixel of the model: hidden pixels by style, and all pixels where nothing is hidden ("visible")."""
        was_training = model.training
        model.eval()
        device = next(model.parameters()).device
        scores = {}
        for style in ("visible", *HIDING):
            chi2 = []
            for batch in self.batches:
                inputs = {
                    name: each.to(device) if hasattr(each, "to") else each for name, each in batch.inputs.items()
                }
                is_hidden = batch.is_hidden.get(style)
                output = model(
                    **inputs,
                    masked_patches=torch.zeros_like(batch.is_hidden["random"]) if is_hidden is None else is_hidden,
                )
                found = residual_chi2(output.reconstruction, inputs["flux"], inputs["ivar"], RESIDUAL_CAP)
                chi2.append(found[0].cpu())
            scores[style] = self.summary(chi2, style)
        model.train(was_training)
        return scores

    def predicted_chi2(self, predict: Callable, style: str) -> list[torch.Tensor]:
        """chi2 of a baseline that predicts one spectrum's patches from its visible ones."""
        result = []
        for batch in self.batches:
            predictions = [
                predict(each["flux"], each["ivar"], each["wavelength"], ~each["is_hidden"])
                for each in batch.spectra(style)
            ]
            prediction = torch.from_numpy(np.concatenate(predictions).astype(np.float32))
            result.append(residual_chi2(prediction, batch.inputs["flux"][0], batch.inputs["ivar"][0], RESIDUAL_CAP))
        return result

    def summary(self, chi2: list[torch.Tensor], style: str) -> dict[str, float]:
        """Mean over pixels and median over spectra of chi2 per pixel, over hidden pixels (or all, if none is). NaN
        where no pixel is hidden: spectra of one patch have nothing to hide."""
        per_spectrum, total, count = [], 0.0, 0
        for batch, values in zip(self.batches, chi2):
            is_hidden = batch.is_hidden.get(style, torch.ones_like(batch.is_hidden["random"]))[0]
            is_counted = (batch.inputs["ivar"][0] > 0) & is_hidden[:, None]
            values = torch.where(is_counted, values, 0.0)
            for part, counted in zip(values.split(batch.inputs["lengths"]), is_counted.split(batch.inputs["lengths"])):
                if counted.any():
                    per_spectrum.append(float(part.sum() / counted.sum()))
            total, count = total + float(values.sum()), count + int(is_counted.sum())
        if not count:
            return {"mean": math.nan, "median": math.nan}
        return {"mean": total / count, "median": float(np.median(per_spectrum))}


class MeanSpectrum:
    """A survey's mean normalised spectrum, fitted to a spectrum's visible pixels by its amplitude."""

    def __init__(self, rows: Dataset, chosen: list[int], processor):
        sums: dict[int, np.ndarray] = {}  # pixel of a log-linear grid -> sums of weight * flux and of weight
        log_step = None
        for start in range(0, len(chosen), BATCH_SIZE):
            inputs = processor(rows_of(rows, chosen[start : start + BATCH_SIZE]), packed=True)
            wavelength, flux, ivar = (inputs[name].ravel() for name in ("wavelength", "flux", "ivar"))
            if log_step is None:
                log_step = float(np.median(np.diff(np.log(inputs["wavelength"][0]), axis=1)))
            # Bright spectra must not be all of the mean.
            weight = np.minimum(ivar, 1 / 0.02**2)
            pixels, place = np.unique((np.log(wavelength) / log_step).astype(int), return_inverse=True)
            found = np.stack([np.bincount(place, each) for each in (weight * flux, weight)], axis=1)
            for pixel, each in zip(pixels.tolist(), found):
                sums[pixel] = sums.get(pixel, 0.0) + each
        filled = {pixel: each for pixel, each in sorted(sums.items()) if each[1] > 0}
        self.log_wavelength = (np.array(list(filled)) + 0.5) * log_step
        flux, weight = np.array(list(filled.values())).T
        self.flux = flux / weight

    def predict(
        self, flux: np.ndarray, ivar: np.ndarray, wavelength: np.ndarray, is_visible: np.ndarray
    ) -> np.ndarray:
        mean = np.interp(np.log(wavelength), self.log_wavelength, self.flux)
        weight = ivar[is_visible]
        norm = (weight * mean[is_visible] ** 2).sum()
        return mean * ((weight * mean[is_visible] * flux[is_visible]).sum() / norm if norm > 0 else 1.0)


def measure(model, validations: dict[str, SurveyValidation]) -> dict[str, dict]:
    """chi2 per pixel of the model and of the baselines -> survey -> style of hiding -> mean and median."""
    return {
        "model": {survey: each.evaluate(model) for survey, each in validations.items()},
        **{name: {survey: each.baselines[name] for survey, each in validations.items()} for name in BASELINES},
    }


def table(chi2: dict[str, dict]) -> str:
    """What `measure` found as text, model and baselines side by side."""
    lines = [f"{'survey':<8} {'hidden':<8}" + "".join(f"{name:>16}" for name in chi2)]
    for survey, score in chi2["model"].items():
        for style in HIDING:
            values = (each[survey][style]["mean"] for each in chi2.values())
            lines.append(f"{survey:<8} {style:<8}" + "".join(f"{value:>16.2f}" for value in values))
        lines.append(f"{survey:<8} {'nothing':<8}{score['visible']['mean']:>16.2f}")
    return "\n".join(lines)
