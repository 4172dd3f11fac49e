"""Spectra of known truth turned into features, once for all tables of a run."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from sklearn.decomposition import PCA
from tqdm import tqdm

from spectral_tokenizer import SpectralConfig, SpectralForSequenceClassification
from spectral_tokenizer.labels_spectral_tokenizer import KnownLabels
from training.simulated.observing import observe
from training.simulated.patches import Spectra, to_spectra
from training.simulated.populations import KINDS, SURVEYS, population
from training.simulated.stream import DOMAINS
from training.simulated.template_files import templates_folder

from . import features, heads
from .components import ToldComponents
from .heads import BINS


BATCH = 64  # objects made at once
FIRST = {survey: number * 1_000_000 for number, survey in enumerate(DOMAINS)}  # batches of their own for training
LABELS = ("teff", "logg", "fe_h")
KNOWN = ("kind", "redshift", *LABELS, "snr", "band", "index")
ERRORS = "+errors"  # behind the name of principal components that are told errors
TOLD = "label head"  # what pre-training was told of other objects, asked as it is: nothing is fitted


@dataclass(frozen=True)
class Budget:
    """How much is spent: spectra per survey (half of them of GALAH, whose spectra are twice as long), draws of probe
    and test set, heads."""

    name: str
    train: int
    test: int
    draws: int
    heads: Mapping[str, int]  # head -> of the draws, how many it is fitted for


BUDGETS = {
    "tiny": Budget("tiny", 128, 64, 1, {"linear": 1}),  # for tests
    "small": Budget("small", 1536, 640, 3, {"linear": 3, "mlp": 1, "cnn": 1}),
    "full": Budget("full", 12800, 3200, 5, {"linear": 5, "mlp": 3, "cnn": 3}),
}


@dataclass
class ProbeSet:
    """Features (objects, size) by name, and what is known of each spectrum, (objects,) each."""

    features: dict[str, np.ndarray]
    known: dict[str, np.ndarray]
    survey: np.ndarray

    def __len__(self) -> int:
        return len(self.survey)

    def take(self, chosen: np.ndarray) -> "ProbeSet":
        return ProbeSet(
            {name: each[chosen] for name, each in self.features.items()},
            {name: each[chosen] for name, each in self.known.items()},
            self.survey[chosen],
        )


def joined(parts: list[ProbeSet]) -> ProbeSet:
    """Several probe sets behind each other. Features of unlike size (raw spectra of unlike surveys) have columns of
    their own, zero for everybody else."""
    features = {
        name: np.concatenate(own_columns([part.features[name] for part in parts])) for name in parts[0].features
    }
    known = {name: np.concatenate([part.known[name] for part in parts]) for name in parts[0].known}
    return ProbeSet(features, known, np.concatenate([part.survey for part in parts]))


def own_columns(arrays: list[np.ndarray]) -> list[np.ndarray]:
    """Arrays (objects, size) of several sizes -> as many columns for all."""
    sizes = list(dict.fromkeys(array.shape[1] for array in arrays))
    if len(sizes) == 1:
        return arrays
    starts = dict(zip(sizes, np.cumsum([0, *sizes])))
    widened = []
    for array in arrays:
        wide = np.zeros((len(array), sum(sizes)), dtype=array.dtype)
        wide[:, starts[array.shape[1]] : starts[array.shape[1]] + array.shape[1]] = array
        widened.append(wide)
    return widened


def is_told(encoder) -> bool:
    """Whether an encoder is principal components that are told errors."""
    return isinstance(encoder, str) and encoder.endswith(ERRORS)


def told_of(task: str) -> list[str]:
    """The labels that a task asks for."""
    return [task] if task == "class" else ["redshift"] if task.startswith("redshift") else list(LABELS)


def told(folder: str, task: str):
    """The label head of a model's folder as a function of its features."""
    model = SpectralForSequenceClassification.from_label_head(folder, told_of(task)).eval()

    @torch.no_grad()
    def predict(given: np.ndarray) -> np.ndarray:
        answer = model(pooler_output=torch.from_numpy(given)).logits.double().numpy()
        if task == "class":
            return np.array([KINDS.index(name) for name in model.config.id2label.values()])[answer.argmax(axis=1)]
        return np.log1p(answer) if task.startswith("redshift") else answer

    return predict


class Bench:
    """What all tables of one run share.

    Args:
        encoders: name -> "raw", "pcaN", "pcaN+errors", "untrained[:SIZE]", a model's folder, or a model in memory.
        budget: A name out of `BUDGETS`, or a `Budget`.
        templates: As `templates_folder` takes it.
        device: Where spectra and models' features are made.
        seed: Another seed is another set of objects.
        surveys: Tables leave out others.
        kept_in: Folder for models' features, see `KeptFeatures`; None keeps them in memory alone.
    """

    def __init__(
        self,
        encoders: Mapping,
        budget="small",
        templates=None,
        device="cpu",
        seed: int = 0,
        surveys=tuple(DOMAINS),
        kept_in: str | Path | None = None,
    ):
        self.budget = BUDGETS[budget] if isinstance(budget, str) else budget
        self.templates: Path | None = templates_folder(templates)
        self.device, self.seed, self.chosen = str(device), seed, tuple(surveys)
        self.given = {str(name): given for name, given in encoders.items()}
        self.encoders = {str(name): features.make_encoder(given, device, kept_in) for name, given in encoders.items()}
        self._sets: dict[tuple, ProbeSet] = {}

    def batches(self, survey: str, split: str, count: int, limits: tuple[float, float] | None = None):
        """Spectra of `count` objects or a few more, in whole batches: what a batch holds depends on its size. Training
        objects differ from survey to survey; test objects are the same in both surveys of a domain."""
        for objects in self.objects(survey, split, count):
            yield to_spectra(observe(objects, survey, self.seed, device=self.device, limits=limits))

    def objects(self, survey: str, split: str, count: int):
        """The same without a telescope: batch by batch what there is to see."""
        first = FIRST[survey] if split == "train" else 0
        source = population(DOMAINS[survey], self.templates, self.device)
        for number in range(-(-count // BATCH)):
            yield source.draw(split, first + number, BATCH, self.seed)

    def num_objects(self, survey: str, split: str) -> int:
        return (self.budget.train if split == "train" else self.budget.test) // (1 + (survey == "galah"))

    def probe_set(
        self, survey: str, split: str, count: int | None = None, limits: tuple[float, float] | None = None
    ) -> ProbeSet:
        """Features of a survey's spectra, made once; `limits` of signal-to-noise as `observe` takes them."""
        count = count or self.num_objects(survey, split)
        key = (survey, split, count, limits)
        if key not in self._sets:
            batches = self.batches(survey, split, count, limits)
            bar = tqdm(batches, total=-(-count // BATCH), desc=f"{survey} {split}", leave=False, disable=None)
            parts = [self.features_of(spectra) for spectra in bar]
            self._sets[key] = joined(parts)
        return self._sets[key]

    def features_of(self, spectra: Spectra) -> ProbeSet:
        """Features of packed spectra of one survey. Principal components are fitted later: here they are raw."""
        found = {name: encoder(spectra) for name, encoder in self.encoders.items() if not isinstance(encoder, str)}
        if any(isinstance(encoder, str) for encoder in self.encoders.values()):
            found["raw"] = features.raw(spectra)
        if any(is_told(encoder) for encoder in self.encoders.values()):
            total, weight = features.binned(spectra, error_floor=0.0)
            found |= {"flux": total / np.maximum(weight, 1e-30), "weight": weight}
        known = {name: getattr(spectra, name).cpu().numpy() for name in KNOWN}
        return ProbeSet(found, known, np.array(spectra.survey))

    def heads(self, name: str, task: str = "") -> list[str]:
        """The heads that features are read with: the CNN is for raw spectra, bins are for redshifts, and what
        pre-training was told is for a model's folder that has kept its label head."""
        found = [head for head in self.budget.heads if head != "cnn" or self.encoders[name] == "raw"]
        if task.startswith("redshift"):
            found += [head + BINS for head in found if head != "linear"]
        return found + [TOLD] * (bool(task) and self.was_told(name, task))

    def was_told(self, name: str, task: str) -> bool:
        """Whether a folder holds a label head that knows of the task."""
        given = self.given[name]
        if not isinstance(given, (str, Path)) or not (Path(given) / "config.json").is_file():
            return False
        config = SpectralConfig.from_pretrained(given)
        return config.label_weight > 0 and set(told_of(task)) <= set(KnownLabels(config).names)

    def fit(self, name: str, head: str, task: str, features: np.ndarray, targets: np.ndarray, seed: int = 0, snr=None):
        """A function of features that answers a task ("class", "redshift ..." in ln(1 + z), "labels"). A head that is
        fitted by signal-to-noise, as `heads.WEIGHTED`, needs `snr` (objects,)."""
        if head == TOLD:
            return told(self.given[name], task)
        if task == "class":
            return heads.classification(head, features, targets, seed)
        return heads.regression(head, features, targets, seed, snr)

    def feature_pairs(self, train: ProbeSet, others: list[ProbeSet]):
        """name, features of the training set, features of the other sets; principal components fitted on the first."""
        for name, encoder in self.encoders.items():
            if is_told(encoder):
                given = [[each.features[key] for key in ("flux", "weight")] for each in (train, *others)]
                count = int(encoder[3:].removesuffix(ERRORS))
                components = ToldComponents(train.survey, *given[0], train.known["snr"], count)
                fit_on, *answers = (components(*each) for each in given)
                yield name, fit_on, answers
            elif isinstance(encoder, str) and encoder.startswith("pca"):
                count = min(int(encoder[3:]), *train.features["raw"].shape)
                pca = PCA(count, svd_solver="randomized", random_state=0).fit(train.features["raw"])
                yield (
                    name,
                    pca.transform(train.features["raw"]),
                    [pca.transform(each.features["raw"]) for each in others],
                )
            elif encoder == "raw" or not isinstance(encoder, str):  # networks of their own are for another table
                key = encoder if isinstance(encoder, str) else name
                yield name, train.features[key], [each.features[key] for each in others]

    def surveys(self, domain: str) -> tuple[str, ...]:
        """The surveys of a domain that were asked for."""
        found = tuple(survey for survey in SURVEYS[domain] if survey in self.chosen)
        if not found:
            raise ValueError(f"this table is about {SURVEYS[domain]}, found only: {self.chosen}")
        return found

    def draws(self, num_train: int, num_test: int, head: str):
        """(number, places to fit on, places to test on): four fifths of the one, a bootstrap of the other."""
        for number in range(self.budget.heads.get(head.removesuffix(BINS), self.budget.draws)):
            generator = np.random.default_rng([self.seed, number, 7])
            fit = generator.permutation(num_train)[: max(1, num_train * 4 // 5)] if num_train > 1 else np.arange(1)
            yield number, fit, generator.integers(0, num_test, num_test)
