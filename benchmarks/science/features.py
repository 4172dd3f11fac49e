"""Spectra -> one vector each: encoders, and what needs no network. All of them feed the same heads."""

import hashlib
import inspect
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import torch
from fsspec.implementations.local import LocalFileSystem
from transformers import AutoModel

from spectral_tokenizer import SpectralConfig, SpectralModel
from spectral_tokenizer.data.embedding import model_fingerprint
from spectral_tokenizer.data.storage import write_aside
from spectral_tokenizer.data.wavelengths import SPEED_OF_LIGHT
from training.simulated.patches import Spectra


ROOT = Path(__file__).parent.parent.parent
#: Common logarithmic grids that spectra are averaged onto for the methods that need one: vacuum Angstrom from, to,
#: km/s.
RAW_GRIDS = {
    "sdss": ((3600.0, 9800.0, 138.0),),
    "desi": ((3600.0, 9800.0, 138.0),),
    "apogee": ((15168.0, 15793.0, 8.3), (15868.0, 16424.0, 8.3), (16484.0, 16937.0, 8.3)),
    "galah": ((4716.0, 4900.0, 6.0), (5651.0, 5870.0, 6.0), (6481.0, 6735.0, 6.0), (7589.0, 7885.0, 6.0)),
}
LOWEST, HIGHEST = -5.0, 30.0
# A bright spectrum's pixels all count alike within a bin.
ERROR_FLOOR = 0.02

Encoder = Callable[[Spectra], np.ndarray]


@cache
def bin_edges(survey: str, finer: int = 1) -> tuple[np.ndarray, ...]:
    """Natural logarithms of the bins' edges, one array per stretch of wavelength; `finer` bins for one."""
    edges = []
    for low, high, velocity in RAW_GRIDS[survey]:
        edges.append(np.arange(np.log(low), np.log(high), velocity / finer / SPEED_OF_LIGHT))
    return tuple(edges)


def bin_centers(survey: str, finer: int = 1) -> np.ndarray:
    """Vacuum Angstrom of the bins."""
    return np.exp(np.concatenate([0.5 * (edge[1:] + edge[:-1]) for edge in bin_edges(survey, finer)]))


def resampled(spectra: Spectra, quantity: str = "flux") -> np.ndarray:
    """(spectra, bins) float32: averages of pixels in the survey's bins; an empty bin takes the line between its
    neighbours. All spectra must be of one survey (SDSS and DESI have the same bins)."""
    total, weight = binned(spectra, quantity)
    values = total / np.maximum(weight, 1e-30)
    for row, is_known in zip(values, weight > 0):
        if not is_known.all() and is_known.any():
            places = np.arange(len(row))
            row[~is_known] = np.interp(places[~is_known], places[is_known], row[is_known])
    return np.clip(values, LOWEST, HIGHEST).astype(np.float32)


def binned(
    spectra: Spectra, quantity: str = "flux", finer: int = 1, error_floor: float = ERROR_FLOOR
) -> tuple[np.ndarray, np.ndarray]:
    """Weighted sums and weights (spectra, bins) float64."""
    edges = bin_edges(spectra.survey[0], finer)
    device = spectra.flux.device
    log_wavelength = spectra.wavelength[0].log()
    row = spectra.spectrum()[:, None].expand_as(log_wavelength)
    ivar = spectra.ivar[0].double()
    pixel_weight = torch.where(ivar > 0, 1.0 / (1.0 / ivar.clamp_min(1e-30) + error_floor**2), 0.0)
    sums, weights = [], []
    for edge in edges:
        step, count = edge[1] - edge[0], len(edge) - 1
        place = ((log_wavelength - edge[0]) / step).floor().long()
        is_inside = (place >= 0) & (place < count)
        place, inside = (row * count + place)[is_inside], pixel_weight[is_inside]
        values = getattr(spectra, quantity)[0][is_inside].double()
        empty = torch.zeros(len(spectra) * count, dtype=torch.float64, device=device)
        sums.append(empty.index_add(0, place, inside * values).view(len(spectra), count))
        weights.append(empty.index_add(0, place, inside).view(len(spectra), count))
    return torch.cat(sums, 1).cpu().numpy(), torch.cat(weights, 1).cpu().numpy()


def raw(spectra: Spectra) -> np.ndarray:
    """The resampled spectrum, asinh: near 1 in stars, and bright lines do not own the variance."""
    return np.arcsinh(resampled(spectra))


class ModelEncoder:
    """`pooler_output` of a model of this package, whether with or without a decoder."""

    def __init__(self, model, batch_size: int = 32):
        self.model, self.batch_size = model, batch_size

    @torch.no_grad()
    def __call__(self, spectra: Spectra) -> np.ndarray:
        was_training = self.model.training
        self.model.eval()
        encoder = getattr(self.model, "spectral", self.model)
        device = next(encoder.parameters()).device
        pooled, ends = [], np.cumsum(spectra.lengths)
        for first in range(0, len(spectra), self.batch_size):
            lengths = spectra.lengths[first : first + self.batch_size]
            start = int(ends[first] - spectra.lengths[first])
            part = slice(start, start + sum(lengths))
            tensors = {name: getattr(spectra, name)[:, part].to(device) for name in ("flux", "ivar", "wavelength")}
            pooled.append(encoder(**tensors, lengths=lengths).pooler_output.float().cpu().numpy())
        self.model.train(was_training)
        return np.concatenate(pooled)


class KeptFeatures:
    """An encoder's features, kept in a folder: whoever was cut off goes on, and tables of several runs share them.

    They are found again by what they follow from: weights, settings and code of the model, and the pixels.
    """

    def __init__(self, encoder: ModelEncoder, folder: str | Path):
        self.encoder, self.folder = encoder, Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        code = Path(inspect.getfile(type(encoder.model)))
        files = sorted({code, *code.parent.glob("*_spectral_tokenizer.py")})  # those that travel with a model
        made_of = hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()
        self.made_by = f"{model_fingerprint(encoder.model)} {made_of}"

    def __call__(self, spectra: Spectra) -> np.ndarray:
        digest = hashlib.sha256(f"{self.made_by} {spectra.lengths}".encode())
        for pixels in (spectra.flux, spectra.ivar, spectra.wavelength):
            digest.update(pixels.cpu().contiguous().numpy().tobytes())
        path = self.folder / f"{digest.hexdigest()}.npy"
        if path.is_file():
            return np.load(path, allow_pickle=False)
        found = self.encoder(spectra)
        with write_aside(LocalFileSystem(), str(path)) as aside, open(aside, "wb") as file:
            np.save(file, found)
        return found


def untrained(size: str | Path = "tiny", seed: int = 0, **changes) -> SpectralModel:
    """An encoder that has learned nothing: random weights of a size out of `hub_configs`, or a folder's own size."""
    folder = ROOT / "hub_configs" / str(size)
    config = SpectralConfig.from_pretrained(folder if folder.is_dir() else size, **changes)
    torch.manual_seed(seed)
    return SpectralModel(config)


def make_encoder(name, device: str = "cpu", kept_in: str | Path | None = None) -> Encoder | str:
    """What a name on the command line stands for.

    Args:
        name: "raw", "pca64" or "pca256" (fitted on the training spectra: see `tables`), "pca64+errors" (which are told
            errors: see `components`), "untrained" or
            "untrained:SIZE", a saved model's folder, a model in memory, or any function of `Spectra`; "scratch:SIZE"
            and "tuned:FOLDER" are for the table `supervised` alone.
        kept_in: Folder that models' features are kept in.
    """
    text = str(name)
    if isinstance(name, torch.nn.Module):
        encoder = ModelEncoder(name)
    elif callable(name):
        return name
    elif text == "raw" or text.startswith(("pca", "scratch", "tuned")):
        return text
    elif text.startswith("untrained"):
        encoder = ModelEncoder(untrained(text.partition(":")[2] or "tiny").to(device))
    elif (Path(text) / "config.json").is_file():
        encoder = ModelEncoder(AutoModel.from_pretrained(text).to(device))
    else:
        raise FileNotFoundError(f"{text}: expected a saved model's folder, raw, pcaN or untrained[:SIZE]")
    return encoder if kept_in is None else KeptFeatures(encoder, kept_in)
