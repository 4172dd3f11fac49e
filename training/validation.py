"""chi2 on hidden pixels of spectra never trained on, beside what needs no network: interpolation and a mean spectrum."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from datasets import Dataset

from spectral_tokenizer.baselines import interpolate
from spectral_tokenizer.data.packing import as_arrays, rows_of
from spectral_tokenizer.objectives_spectral_tokenizer import hide_arms, hide_block, hide_random, residual_chi2


# How hidden patches are drawn, and which part of them, in validation. "visible": nothing is hidden.
STYLES: dict[str, tuple[Callable, float]] = {
    "random": (hide_random, 0.5),
    "block": (hide_block, 0.5),
    "arm": (hide_arms, 0.5),
}
BATCH_SIZE = 16


@dataclass
class ValidationBatch:
    """Packed spectra with one fixed choice of hidden patches per style."""

    inputs: dict
    is_hidden: dict[str, torch.Tensor]


class SurveyValidation:
    """A fixed set of one survey's spectra and the baselines' chi2 on it.

    Args:
        train, held: Rows that the mean spectrum is taken over, and rows to validate on.
        processor: The model's.
        num_spectra: Of `held`, at most; the mean spectrum uses ten times as many of `train`.
        cap: Residuals count at most this many sigma: a few cosmic rays would own the mean otherwise.
    """

    def __init__(self, train: Dataset, held: Dataset, processor, num_spectra: int, cap: float, seed: int = 0):
        self.cap = cap
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
                style: torch.from_numpy(np.concatenate([hide(each, fraction, generator) for each in wavelengths]))[
                    None
                ]
                for style, (hide, fraction) in STYLES.items()
            }
            self.batches.append(ValidationBatch(dict(inputs), is_hidden))
        chosen = sorted(generator.permutation(len(train))[: 10 * num_spectra].tolist())
        mean = MeanSpectrum(as_arrays(train), chosen, processor)
        self.baselines = {
            name: {style: self.summary(self.predicted_chi2(predict, style), style) for style in STYLES}
            for name, predict in (("interpolation", interpolate), ("mean spectrum", mean.predict))
        }

    @torch.no_grad()
    def evaluate(self, model) -> dict[str, dict[str, float]]:
        """chi2 per pixel of the model: hidden pixels per style, and all pixels with nothing hidden ("visible")."""
        was_training = model.training
        model.eval()
        device = next(model.parameters()).device
        scores = {}
        for style in ("visible", *STYLES):
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
                chi2.append(residual_chi2(output.reconstruction, inputs["flux"], inputs["ivar"], self.cap)[0].cpu())
            scores[style] = self.summary(chi2, style)
        model.train(was_training)
        return scores

    def predicted_chi2(self, predict: Callable, style: str) -> list[torch.Tensor]:
        """chi2 of a baseline that predicts one spectrum's patches from its visible ones."""
        result = []
        for batch in self.batches:
            predictions = []
            ends = np.cumsum(batch.inputs["lengths"])
            for start, end in zip([0, *ends[:-1]], ends):
                flux, ivar, wavelength = (
                    batch.inputs[name][0, start:end].numpy() for name in ("flux", "ivar", "wavelength")
                )
                predictions.append(predict(flux, ivar, wavelength, ~batch.is_hidden[style][0, start:end].numpy()))
            prediction = torch.from_numpy(np.concatenate(predictions).astype(np.float32))
            result.append(residual_chi2(prediction, batch.inputs["flux"][0], batch.inputs["ivar"][0], self.cap))
        return result

    def summary(self, chi2: list[torch.Tensor], style: str) -> dict[str, float]:
        """Mean over pixels and median over spectra of chi2 per pixel, over hidden pixels (or all, if none is)."""
        per_spectrum, total, count = [], 0.0, 0
        for batch, values in zip(self.batches, chi2):
            is_hidden = batch.is_hidden.get(style, torch.ones_like(batch.is_hidden["random"]))[0]
            is_counted = (batch.inputs["ivar"][0] > 0) & is_hidden[:, None]
            values = torch.where(is_counted, values, 0.0)
            for part, counted in zip(values.split(batch.inputs["lengths"]), is_counted.split(batch.inputs["lengths"])):
                if counted.any():
                    per_spectrum.append(float(part.sum() / counted.sum()))
            total, count = total + float(values.sum()), count + int(is_counted.sum())
        return {"mean": total / max(count, 1), "median": float(np.median(per_spectrum)) if per_spectrum else 0.0}


class MeanSpectrum:
    """A survey's mean normalised spectrum, fitted to a spectrum's visible pixels by its amplitude."""

    def __init__(self, rows: Dataset, chosen: list[int], processor):
        total, weight = np.zeros(0), np.zeros(0)
        self.log_step = None
        for start in range(0, len(chosen), BATCH_SIZE):
            inputs = processor(rows_of(rows, chosen[start : start + BATCH_SIZE]), packed=True)
            wavelength, flux, ivar = (inputs[name].ravel() for name in ("wavelength", "flux", "ivar"))
            if self.log_step is None:
                self.log_step = float(np.median(np.diff(np.log(inputs["wavelength"][0]), axis=1)))
                self.origin = np.log(wavelength.min()) - 0.2
                total = np.zeros(int(np.ceil((np.log(wavelength.max()) + 0.2 - self.origin) / self.log_step)))
                weight = np.zeros_like(total)
            # Bright spectra must not be all of the mean.
            pixel_weight = np.minimum(ivar, 1 / 0.02**2)
            place = np.clip(((np.log(wavelength) - self.origin) / self.log_step).astype(int), 0, len(total) - 1)
            total += np.bincount(place, pixel_weight * flux, len(total))
            weight += np.bincount(place, pixel_weight, len(total))
        is_filled = weight > 0
        self.log_wavelength = self.origin + (np.flatnonzero(is_filled) + 0.5) * self.log_step
        self.flux = total[is_filled] / weight[is_filled]

    def predict(
        self, flux: np.ndarray, ivar: np.ndarray, wavelength: np.ndarray, is_visible: np.ndarray
    ) -> np.ndarray:
        mean = np.interp(np.log(wavelength), self.log_wavelength, self.flux)
        weight = ivar[is_visible]
        norm = (weight * mean[is_visible] ** 2).sum()
        return mean * ((weight * mean[is_visible] * flux[is_visible]).sum() / norm if norm > 0 else 1.0)


def table(scores: dict[str, dict], baselines: dict[str, dict]) -> str:
    """chi2 per pixel on hidden pixels as text, model and baselines side by side."""
    names = ["model", "interpolation", "mean spectrum"]
    lines = [f"{'survey':<8} {'hidden':<8}" + "".join(f"{name:>16}" for name in names)]
    for survey, score in scores.items():
        for style in STYLES:
            values = [score[style]["mean"], *(baselines[survey][name][style]["mean"] for name in names[1:])]
            lines.append(f"{survey:<8} {style:<8}" + "".join(f"{value:>16.2f}" for value in values))
        lines.append(f"{survey:<8} {'nothing':<8}{score['visible']['mean']:>16.2f}")
    return "\n".join(lines)
