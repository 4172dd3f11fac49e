"""What the models say of one spectrum: its reconstruction, labels, and the spectra most like it."""

import threading
from dataclasses import dataclass, field

import numpy as np
import torch
from datasets import Dataset

from spectral_tokenizer import SpectralForPreTraining, SpectralForSequenceClassification, SpectralProcessor
from spectral_tokenizer.baselines import interpolate
from spectral_tokenizer.data.embedding import nearest
from spectral_tokenizer.objectives_spectral_tokenizer import hide_block, residual_chi2


NUM_NEIGHBOURS = 5
RANDOM_FRACTION = 0.2  # of a spectrum's patches, hidden as "a random block"
SHOWN = ("survey", "object_id", "class", "redshift", "teff", "logg", "fe_h")  # of a neighbour


class HiddenRangeError(ValueError):
    """A range of wavelengths that hides nothing, or everything. Its text is for the visitor."""


@dataclass
class Reconstruction:
    """A spectrum pixel by pixel, and what the model says of it; arrays (pixels,) in the file's unit.

    Attributes:
        wavelength: vacuum Angstrom.
        segment_lengths: pixels of each arm, chip or CCD.
        flux, sigma: NaN where unusable.
        model: NaN in patches that are mostly unusable, which the model is not asked for. None: there is no model.
        interpolation: straight lines across the hidden patches, NaN elsewhere. None: nothing is hidden.
        is_hidden: in a patch that the encoder did not see.
        hidden_range: the wavelengths that were asked to be hidden; None: nothing was.
        is_level_told: the encoder sees flux in units of the median of all pixels, hidden ones too.
        num_hidden, num_patches: how many patches are hidden, and how many there are.
        chi2: mean squared residual in sigma over usable pixels, each capped at `cap` sigma: "visible" and "hidden" by
            the model, "interpolation" over the hidden ones.
    """

    wavelength: np.ndarray
    segment_lengths: np.ndarray
    flux: np.ndarray
    sigma: np.ndarray
    model: np.ndarray | None = None
    interpolation: np.ndarray | None = None
    is_hidden: np.ndarray | None = None
    hidden_range: tuple[float, float] | None = None
    is_level_told: bool = False
    num_hidden: int = 0
    num_patches: int = 0
    chi2: dict[str, float] = field(default_factory=dict)
    cap: float | None = None


def spectrum_of(row: dict) -> Reconstruction:
    """A row as it is, before a model says anything."""
    is_usable = row["ivar"] > 0
    sigma = np.where(is_usable, 1 / np.sqrt(np.where(is_usable, row["ivar"], 1)), np.nan)
    flux = np.where(is_usable, row["flux"], np.nan)
    return Reconstruction(row["wavelength"], np.asarray(row["segment_lengths"]), flux, sigma)


@dataclass
class Answer:
    """What a head says of one label.

    Attributes:
        name: the row's column.
        value: the likeliest class, or a number in the label's unit.
        known: what the file says; None where it says nothing.
        interval: the 68 % interval of a number.
        is_flagged: the head itself does not rely on its number, or knows no such spectra.
        shares: probability of each class; empty for a number.
        bins: edges of the bins of a number that is predicted in them, and the probability of each.
    """

    name: str
    value: str | float
    known: str | float | None
    interval: tuple[float, float] | None = None
    is_flagged: bool = False
    shares: dict[str, float] = field(default_factory=dict)
    bins: tuple[np.ndarray, np.ndarray] | None = None


@dataclass
class Models:
    """The page's models. What could not be loaded is missing, and `problems` say why, in words for the visitor.

    Attributes:
        name: the tokenizer's folder or repository.
        heads: fine-tuned models, each with its processor.
        reference, vectors: rows with labels, and their embeddings (rows, size) by the same tokenizer.
    """

    name: str | None = None
    model: SpectralForPreTraining | None = None
    processor: SpectralProcessor | None = None
    heads: list[tuple[SpectralForSequenceClassification, SpectralProcessor]] = field(default_factory=list)
    reference: Dataset | None = None
    vectors: np.ndarray | None = None
    problems: list[str] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)  # two at once would only slow each other down

    @torch.inference_mode()
    def reconstruct(self, row: dict, hidden_range: tuple[float, float] | None = None) -> Reconstruction:
        """A spectrum as the model sees it, with every patch hidden that a range of wavelengths (A) touches.

        Raises:
            HiddenRangeError: the range hides no patch, or all of them.
            ValueError: the spectrum has too few usable pixels.
        """
        result, inputs = spectrum_of(row), self.processor(row, return_tensors="pt")
        is_valid = inputs["attention_mask"].bool()
        is_hidden = is_valid & touched(inputs, hidden_range) if hidden_range else torch.zeros_like(is_valid)
        if hidden_range:
            check_hidden(int(is_hidden.sum()), int(is_valid.sum()), hidden_range, row["wavelength"])
        with self._lock:
            output = self.model(**inputs, masked_patches=is_hidden)
        predicted = output.reconstruction.double().masked_fill(~is_valid[:, :, None], torch.nan)
        result.model = self._pixels(predicted, inputs, inputs["scale"])
        result.is_hidden = self._pixels(is_hidden[:, :, None].expand_as(predicted), inputs) > 0
        result.hidden_range, result.cap = hidden_range, self.model.config.residual_cap
        result.is_level_told = self.model.config.level == "given"
        result.num_hidden, result.num_patches = int(is_hidden.sum()), int(is_valid.sum())
        result.chi2 = {"visible": float(output.chi2_visible)}
        if hidden_range:
            lines, chi2 = across(inputs, is_valid[0], is_hidden[0], result.cap)
            result.interpolation = self._pixels(lines, inputs, inputs["scale"])
            result.chi2 |= {"hidden": float(output.chi2_hidden), "interpolation": chi2}
        return result

    def _pixels(self, patches: torch.Tensor, inputs: dict, scale=(1.0,)) -> np.ndarray:
        (pixels,) = self.processor.post_process_reconstruction(patches, scale, inputs["num_pixels"])
        return pixels

    def random_range(self, row: dict, generator: np.random.Generator) -> tuple[float, float]:
        """The wavelengths (A) of a block of patches, drawn. Raises ValueError where no patch has enough usable
        pixels."""
        inputs = self.processor(row, return_tensors="np")
        wavelength = inputs["wavelength"][inputs["attention_mask"].astype(bool)]
        is_hidden = hide_block(wavelength, RANDOM_FRACTION, generator)
        block = wavelength[is_hidden] if is_hidden.any() else wavelength  # of a single patch, all of it
        return round(float(block.min()), 1), round(float(block.max()), 1)

    @torch.inference_mode()
    def labels(self, row: dict) -> list[Answer]:
        """What the heads say."""
        answers = []
        for head, processor in self.heads:
            with self._lock:
                output = head(**processor(row, return_tensors="pt"))
            answers += (
                number_answers(head, output, row) if output.errors is not None else [class_answer(head, output, row)]
            )
        return answers

    @torch.inference_mode()
    def neighbours(self, row: dict) -> list[dict]:
        """The spectra of the reference most like this one, the likest first: their labels and `similarity`. Nothing
        where there is no reference."""
        if self.reference is None:
            return []
        with self._lock:
            vector = self.model.encode(**self.processor(row, return_tensors="pt")).pooler_output.float().numpy()
        index, similarity = nearest(self.vectors, vector, min(NUM_NEIGHBOURS, len(self.vectors)))
        rows = [self.reference[int(place)] for place in index[0]]
        return [
            {name: each[name] for name in SHOWN} | {"similarity": value} for each, value in zip(rows, similarity[0])
        ]


def touched(inputs: dict, hidden_range: tuple[float, float]) -> torch.Tensor:
    """Which patches hold a pixel inside a range of wavelengths: (batch, patches) booleans. Filling does not count."""
    low, high = hidden_range
    wavelength = inputs["wavelength"]
    is_pixel = torch.arange(wavelength.shape[2]) < inputs["num_pixels"][:, :, None]
    return ((wavelength >= low) & (wavelength <= high) & is_pixel).any(-1)


def check_hidden(num_hidden: int, num_patches: int, hidden_range: tuple[float, float], wavelength: np.ndarray) -> None:
    """Raise `HiddenRangeError` unless some patches are hidden and some are not."""
    found = f"{hidden_range[0]:g} to {hidden_range[1]:g} Å"
    if num_hidden == 0:
        whole = f"{wavelength.min():.0f} to {wavelength.max():.0f} Å"
        raise HiddenRangeError(f"Nothing to hide from {found}. The spectrum goes from {whole}.")
    if num_hidden == num_patches:
        raise HiddenRangeError(f"From {found} is the whole spectrum. Leave the model something to see.")


def across(
    inputs: dict, is_valid: torch.Tensor, is_hidden: torch.Tensor, cap: float | None
) -> tuple[torch.Tensor, float]:
    """Straight lines across the hidden patches, (1, patches, patch_size) with NaN elsewhere, and their chi2 there."""
    arrays = [inputs[name][0][is_valid].numpy() for name in ("flux", "ivar", "wavelength")]
    lines = torch.full(inputs["flux"].shape, torch.nan, dtype=torch.float64)
    lines[0, is_valid] = torch.from_numpy(interpolate(*arrays, ~is_hidden[is_valid].numpy()))
    lines[0, ~is_hidden] = torch.nan
    flux, ivar = inputs["flux"][0][is_hidden], inputs["ivar"][0][is_hidden]
    return lines, float(residual_chi2(lines[0, is_hidden], flux, ivar, cap).sum() / (ivar > 0).sum())


def class_answer(head: SpectralForSequenceClassification, output, row: dict) -> Answer:
    """The classes' probabilities."""
    is_single = head.config.problem_type != "multi_label_classification"
    shares = (output.logits[0].softmax(-1) if is_single else output.logits[0].sigmoid()).tolist()
    shares = {head.config.id2label[index]: share for index, share in enumerate(shares)}
    return Answer("class", max(shares, key=shares.get), row["class"], is_flagged=is_unlike(output), shares=shares)


def is_unlike(output) -> bool:
    """Whether the spectrum is unlike those that the head was fitted to, as far as it can tell."""
    return output.novelty is not None and bool(output.novelty[0] > 1)


def number_answers(head: SpectralForSequenceClassification, output, row: dict) -> list[Answer]:
    """One answer per regression target."""
    answers = []
    for index, name in head.config.id2label.items():
        known = row.get(name)
        bins = None
        if name in (output.probabilities or {}):
            bins = head.bin_edges(name).numpy(), output.probabilities[name][0].numpy()
        answers.append(
            Answer(
                name,
                float(output.logits[0, index]),
                known if known is not None and np.isfinite(known) else None,
                tuple(output.intervals[0, index].tolist()),
                bool(output.is_flagged[0, index]) or is_unlike(output),
                bins=bins,
            )
        )
    return answers
