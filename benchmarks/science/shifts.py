"""Redshifts read as a shift in ln(wavelength), by the package's own head, from the tokens of each encoder: see
`SpectralShift`. And from pixels: the same head on what an encoder is told of each patch, without an encoder.

    python -m benchmarks.science shifts --encoder hub_configs/released untrained

One head for all objects of both surveys, stars among them, which is more than the heads of `redshift` are asked, who know
the class.
"""

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from tqdm import tqdm

from spectral_tokenizer import SpectralConfig, SpectralForSequenceClassification, SpectralModel
from spectral_tokenizer.configuration_spectral_tokenizer import TargetConfig
from spectral_tokenizer.packing_spectral_tokenizer import trailing
from spectral_tokenizer.shift_spectral_tokenizer import SpectralShift
from spectral_tokenizer.targets_spectral_tokenizer import ShiftTarget
from training.simulated.patches import Spectra
from training.simulated.populations import KINDS

from .bench import BATCH, KNOWN, Bench
from .features import untrained
from .heads import held_out
from .scores import redshift_scores, summary
from .tables import BANDS, row


PIXELS = "pixels, no encoder"
TARGET = {
    "distribution": "shift", "transform": "log1p", "range": [-0.01, 4.5], "num_bins": 5120, "label_width": 1,
    "num_kinds": 3, "tolerance": 0.01,
}  # fmt: skip
PATCH_SIZE = 32  # of the simulated spectra
NUM_EPOCHS = {"tiny": 1}
EPOCHS, BATCH_SIZE, LEARNING_RATE, WEIGHT_DECAY, DROPOUT = 8, 32, 2e-3, 0.05, 0.1


@dataclass
class Told:
    """What there is to read of spectra: tokens (patches, size) float16, wavelengths (patches, pixels) float64 and
    usability of each, and what is known of them, (spectra,) each."""

    tokens: list[Tensor]
    wavelength: list[Tensor]
    is_usable: list[Tensor]
    known: dict[str, np.ndarray]

    def __len__(self) -> int:
        return len(self.tokens)

    def batch(self, places) -> tuple[Tensor, Tensor, Tensor]:
        """Padded, for `SpectralShift`."""
        parts = (self.tokens, self.wavelength, self.is_usable)
        tokens, *pixels = (pad_sequence([part[place] for place in places], batch_first=True) for part in parts)
        return tokens.float(), *pixels


def shifts(bench: Bench) -> list[dict]:
    """Redshift of galaxies, quasars and stars, by a shift of tokens: NMAD and outlier fractions of dz / (1 + z)."""
    rows = []
    for name, read in readers(bench).items():
        train = joined([told(bench, read, survey, "train") for survey in bench.surveys("optical")])
        tests = {survey: told(bench, read, survey, "test") for survey in bench.surveys("optical")}
        found = {}
        for number, fit, _ in bench.draws(len(train), 1, "mlp"):
            predict = fitted(train, fit, number, num_epochs(bench), name)
            for survey, test in tests.items():
                predicted = predict(test)
                for kind in KINDS:
                    scores = by_band(predicted, test.known, KINDS.index(kind))
                    found.setdefault((survey, kind), []).append(scores)
        rows += [
            row(name, "shift", summary(scores), survey=survey, kind=kind) for (survey, kind), scores in found.items()
        ]
    return rows


def num_epochs(bench: Bench) -> int:
    return NUM_EPOCHS.get(bench.budget.name, EPOCHS)


def by_band(predicted: np.ndarray, known: dict[str, np.ndarray], kind: int) -> dict[str, float]:
    """Scores of a kind, and the fraction wrong by more than 0.0033 in each band of signal-to-noise."""
    is_kind = known["kind"] == kind
    scores = redshift_scores(predicted[is_kind], known["redshift"][is_kind])
    for number, band in enumerate(BANDS):
        if (chosen := is_kind & (known["band"] == number)).any():
            in_band = redshift_scores(predicted[chosen], known["redshift"][chosen])
            scores[f"outliers_0.0033_{band}_snr"] = in_band["outliers_0.0033"]
    return scores


def readers(bench: Bench) -> dict[str, Callable[[Spectra], Tensor]]:
    """name -> a function of packed spectra that gives their patches' tokens (patches, size)."""
    models = {name: getattr(each, "encoder", each) for name, each in bench.encoders.items() if callable(each)}
    found = {name: reader_of(each.model) for name, each in models.items()}
    return found | {PIXELS: inputs_of(untrained("tiny").to(bench.device))}


def reader_of(model) -> Callable[[Spectra], Tensor]:
    encoder = getattr(model, "spectral", model).eval()

    def read(spectra: Spectra) -> Tensor:
        found, count = encoder(**spectra.inputs()).last_hidden_state[0], encoder.config.num_latents
        return trailing(found, [count + length for length in spectra.lengths], count)

    return read


def inputs_of(model: SpectralModel) -> Callable[[Spectra], Tensor]:
    """What an encoder is told of each patch, before its first layer."""

    def read(spectra: Spectra) -> Tensor:
        flux, ivar, wavelength = (getattr(spectra, name)[0] for name in ("flux", "ivar", "wavelength"))
        _, basis = model.code_and_basis(wavelength.double())
        return model.embeddings.features(flux, ivar, basis)

    return read


@torch.no_grad()
def told(bench: Bench, read: Callable, survey: str, split: str, count: int | None = None, limits=None) -> Told:
    """`count` objects of a survey or a few more, as a reader has them; `limits` as `observe` takes them."""
    found, count = Told([], [], [], {name: np.zeros(0) for name in KNOWN}), count or bench.num_objects(survey, split)
    batches = bench.batches(survey, split, count, limits)
    for spectra in tqdm(batches, total=-(-count // BATCH), desc=f"{survey} {split}", leave=False, disable=None):
        tokens = read(spectra).half().cpu()
        parts = (tokens, spectra.wavelength[0].cpu(), spectra.ivar[0].cpu() > 0)
        lists = [list(part.split(spectra.lengths)) for part in parts]
        known = {name: getattr(spectra, name).cpu().numpy() for name in KNOWN}
        found = joined([found, Told(*lists, known)])
    return found


def joined(parts: list[Told]) -> Told:
    lists = (
        [each for part in parts for each in getattr(part, name)] for name in ("tokens", "wavelength", "is_usable")
    )
    return Told(*lists, {name: np.concatenate([part.known[name] for part in parts]) for name in KNOWN})


def fitted(train: Told, fit: np.ndarray, seed: int, num_epochs: int, name: str = "") -> Callable[[Told], np.ndarray]:
    """Train a head; a function of spectra that gives redshifts."""
    torch.manual_seed(seed)
    target = ShiftTarget("redshift", TargetConfig(**TARGET))
    config = SpectralConfig(hidden_size=train.tokens[0].shape[1], num_attention_heads=1, patch_size=PATCH_SIZE)
    head = SpectralShift(config, target)
    nn.init.zeros_(head.rest)
    dropout, truth = nn.Dropout(DROPOUT), torch.from_numpy(np.log1p(train.known["redshift"])).float()
    learn, held = (fit[places] for places in held_out(len(fit), seed))
    parts = max(1, len(learn) // BATCH_SIZE)
    steps = torch.optim.AdamW(head.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    pace = torch.optim.lr_scheduler.OneCycleLR(steps, LEARNING_RATE, total_steps=num_epochs * parts, pct_start=0.1)
    generator, best, weights = np.random.default_rng(seed), np.inf, None
    for _ in tqdm(range(num_epochs), desc=f"shift: {name}", leave=False, disable=None):
        for places in np.array_split(generator.permutation(learn), parts):
            tokens, *pixels = train.batch(places)
            steps.zero_grad()
            target.negative_log_likelihood(head(dropout(tokens), *pixels), truth[places]).mean().backward()
            steps.step()
            pace.step()
        answers = torch.cat(list(answered(head, train, held)))
        cost = target.negative_log_likelihood(answers, truth[held]).mean().item()
        if cost < best:
            best, weights = cost, copy.deepcopy(head.state_dict())
    head.load_state_dict(weights)

    return predictor(head, target)


def saved(folder) -> Callable[[Told], np.ndarray] | None:
    """The head of shifts that a model's folder holds, as it is; None where it holds none."""
    if not isinstance(folder, (str, Path)) or not (Path(folder) / "config.json").is_file():
        return None
    config = SpectralConfig.from_pretrained(folder)
    if not any(each.get("distribution") == "shift" for each in (config.targets or {}).values()):
        return None
    model = SpectralForSequenceClassification.from_pretrained(folder).eval()
    return predictor(model.head.shift, model.targets.targets[0])


def predictor(head: SpectralShift, target: ShiftTarget) -> Callable[[Told], np.ndarray]:
    def predict(spectra: Told) -> np.ndarray:
        found = [target.predict(outputs).value for outputs in answered(head, spectra, np.arange(len(spectra)))]
        return torch.cat(found).numpy()

    return predict


@torch.no_grad()
def answered(head: SpectralShift, spectra: Told, places: np.ndarray) -> Iterator[Tensor]:
    for first in range(0, len(places), BATCH_SIZE):
        yield head(*spectra.batch(places[first : first + BATCH_SIZE]))
