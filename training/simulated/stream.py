"""Never-repeated spectra to pre-train on, made where the model is: no files.

    stream = SimulatedStream(model.objective, spectra_per_step=512, device="cuda")
    for step in stream.steps(start=0):
        for batch in step["micro_batches"]:
            loss = model(**{name: batch[name] for name in MODEL_INPUTS}).loss

A DataLoader may also make its steps ahead, in other processes: it is a data set whose keys are the steps' numbers.
Everything follows from the seed, the step's number and the process's rank: a resumed run goes on with the spectra that
were to come.
"""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
import torch

from .observing import FRAMES, Observation, observe, vary_response
from .patches import Spectra, concatenate, joined, to_spectra
from .populations import COOL_DWARFS, KINDS, SURVEYS, population
from .template_files import templates_folder


MODEL_INPUTS = ("flux", "ivar", "wavelength", "lengths", "masked_patches", "target_patches")
# Spectra made at once. More than 128 only cost a core memory; a GPU waits for its kernels to be launched, which are as many
# for 2,048 (1 MB each at most, GALAH's).
LARGEST_BATCH = {"cpu": 128, "cuda": 2048}
DOMAINS = {survey: domain for domain, surveys in SURVEYS.items() for survey in surveys}
MIXTURE, HIDING = 2, 3


def observations(
    survey: str,
    split: str,
    count: int,
    templates: str | Path | None = None,
    seed: int = 0,
    device: str = "cpu",
    limits: tuple[float, float] | None = None,
    domain: str | None = None,
) -> Iterator[Observation]:
    """A survey's observations of `count` objects of a split, in parts; signal-to-noise within `limits`, as of `observe`.
    The objects are of the survey's own `domain` where no other is named."""
    for number, size in enumerate(batch_sizes(count, device)):
        known = population(domain or DOMAINS[survey], templates_folder(templates), device)
        objects = known.draw(split, number, size, seed)
        yield observe(objects, survey, seed, device=device, limits=limits)


def batch_sizes(count: int, device: str) -> list[int]:
    """How many of `count` spectra are made at once, batch by batch."""
    largest = LARGEST_BATCH.get(torch.device(device).type, LARGEST_BATCH["cpu"])
    return [min(largest, count - first) for first in range(0, count, largest)]


class SimulatedStream:
    """Steps of packed micro-batches, shaped as those of `spectral_tokenizer.data.packing.PackedSteps`.

    Args:
        objective: Its `hide` and `ask` choose hidden and target patches; see `objectives_spectral_tokenizer.py`.
        weights: Survey -> relative frequency of its spectra.
        spectra_per_step: Over all processes.
        templates: Folder of published templates, "none" for the package's own physics, None to look for them.
        device: Where spectra are made, and stay.
        split: Which archetypes and labels to use.
        patch_size: The model's.
        seed, rank, num_processes, num_micro_batches: As in `PackedSteps`.
        labels: Columns -> the model's `labels`, see `KnownLabels`; None: steps have none.
        is_noiseless: The decoder is to answer with the noiseless flux (`target_flux`), not with what was observed.
        pairs: Part of the spectra that come as pairs: one object seen by both surveys of its domain (SDSS and DESI,
            APOGEE and GALAH) is one sequence with the arms of both. Hidden arms and blocks then ask what one
            instrument's spectrum says of the other's.
        cool_dwarfs: Part of APOGEE's spectra, but for pairs, that are of M dwarfs. Their labels are not told.
        views: How often each spectrum stands in its step, every time with other patches hidden. Where a step takes
            less time than its spectra, two views of half as many make more of both.
    """

    def __init__(
        self,
        objective,
        weights: Mapping[str, float] | None = None,
        spectra_per_step: int = 64,
        templates: str | Path | None = None,
        device: str = "cpu",
        split: str = "train",
        seed: int = 0,
        rank: int = 0,
        num_processes: int = 1,
        num_micro_batches: int = 1,
        pairs: float = 0.0,
        patch_size: int = 32,
        labels: Callable[[Mapping], torch.Tensor] | None = None,
        is_noiseless: bool = False,
        views: int = 1,
        cool_dwarfs: float = 0.0,
    ):
        self.objective, self.weights = objective, dict(weights or dict.fromkeys(DOMAINS, 1.0))
        self.templates, self.device, self.split = templates_folder(templates), str(device), split
        self.seed, self.rank, self.num_processes, self.num_micro_batches = seed, rank, num_processes, num_micro_batches
        self.pairs, self.cool_dwarfs, self.patch_size = pairs, cool_dwarfs, patch_size
        self.labels, self.is_noiseless, self.views = labels, is_noiseless, views
        if unknown := sorted(set(self.weights) - set(DOMAINS)):
            raise ValueError(f"weights: expected some of {sorted(DOMAINS)}, found: {unknown}")
        fewest = num_processes * num_micro_batches * views
        self.spectra_per_part = spectra_per_step // fewest  # different ones
        if not self.spectra_per_part:
            raise ValueError(f"spectra_per_step: expected at least {fewest}, found: {spectra_per_step}")
        self.domains = [domain for domain, surveys in SURVEYS.items() if set(surveys) & set(self.weights)]
        for name, part in (("pairs", pairs), ("cool_dwarfs", cool_dwarfs)):
            if not 0.0 <= part <= 1.0:
                raise ValueError(f"{name}: expected a part between 0 and 1, found: {part}")
        if cool_dwarfs:
            if "apogee" not in self.weights:
                raise ValueError(f"cool_dwarfs: expected apogee among the weights, found: {[*self.weights]}")
            # Whoever has no templates of them is told now, not in the middle of a run.
            population(COOL_DWARFS, self.templates, self.device)
        if pairs and (alone := [each for each in self.domains if not set(SURVEYS[each]) <= set(self.weights)]):
            raise ValueError(
                f"pairs: expected both of {SURVEYS[alone[0]]} among the weights, found: {[*self.weights]}"
            )

    def __iter__(self) -> Iterator[dict]:
        return self.steps()

    def steps(self, start: int = 0) -> Iterator[dict]:
        """Steps from number `start` on, without end."""
        while True:
            yield self.step(start)
            start += 1

    def __getitem__(self, number: int) -> dict:
        """`step`, as a DataLoader asks for it."""
        return self.step(number)

    def step(self, number: int) -> dict:
        """The step of that number: `micro_batches`, and `state`, which the next step's number can be read from."""
        first = (number * self.num_processes + self.rank) * self.num_micro_batches
        parts = [self.micro_batch(first + part) for part in range(self.num_micro_batches)]
        return {"state": {"step": number + 1}, "micro_batches": parts}

    def micro_batch(self, number: int) -> dict:
        """Packed spectra with hidden and target patches, the noiseless truth and what is known of each object."""
        spectra = self.spectra(number)
        if self.views > 1:
            spectra = concatenate([spectra] * self.views)
        generator = np.random.default_rng([self.seed, HIDING, number])
        # Of a patch's wavelengths, the first and the last tell all that hiding needs: half a per cent of the traffic.
        edges = spectra.wavelength[0][:, [0, -1]].cpu().numpy()
        hidden = [self.objective.hide(each, generator) for each in np.split(edges, np.cumsum(spectra.lengths)[:-1])]
        asked = [self.objective.ask(each, generator) for each in hidden]
        known = {name: getattr(spectra, name) for name in ("redshift", "teff", "logg", "fe_h", "snr")}
        known["class"] = [KINDS[each] for each in spectra.kind.tolist()]
        known["radial_velocity"] = spectra.radial_velocity
        # Of a pair, whatever its second survey has left of the shift is seen.
        known["frame"] = [FRAMES[survey.split("+")[-1]] for survey in spectra.survey]
        asked_for = {} if self.labels is None else {"labels": self.labels(known)}
        if self.is_noiseless:
            asked_for["target_flux"] = spectra.truth
        return {
            **spectra.inputs(),
            "truth": spectra.truth,
            "masked_patches": torch.from_numpy(np.concatenate(hidden))[None],
            "target_patches": torch.from_numpy(np.concatenate(asked))[None],
            "object_id": [str(each) for each in spectra.index.tolist()],
            "survey": spectra.survey,
            **known,
            **asked_for,
        }

    def spectra(self, number: int) -> Spectra:
        """The spectra of a micro-batch, survey by survey, then pairs."""
        surveys = list(self.weights)
        shares = np.array([self.weights[survey] for survey in surveys], dtype=float)
        generator = np.random.default_rng([self.seed, MIXTURE, number])
        num_pairs = int(generator.binomial(self.spectra_per_part // 2, self.pairs)) if self.pairs else 0
        counts = generator.multinomial(self.spectra_per_part - 2 * num_pairs, shares / shares.sum())
        draws = [
            (DOMAINS[survey], (survey,), 64 * place, count)
            for place, (survey, count) in enumerate(zip(surveys, counts))
        ]
        if self.cool_dwarfs:
            place = surveys.index("apogee")
            cool = int(generator.binomial(counts[place], self.cool_dwarfs))
            draws[place] = (*draws[place][:3], counts[place] - cool)
            draws.insert(place, (COOL_DWARFS, ("apogee",), 64 * place, cool))
        if num_pairs:
            shares = np.array([sum(self.weights[survey] for survey in SURVEYS[domain]) for domain in self.domains])
            counts = generator.multinomial(num_pairs, shares / shares.sum())
            # Objects of their own: the second half of the places that a survey's batches have.
            draws += [
                (each, SURVEYS[each], 64 * n + 32, count) for n, (each, count) in enumerate(zip(self.domains, counts))
            ]
        parts = []
        for domain, seen_by, place, count in draws:
            first = number * len(surveys) * 64 + place
            parts += [
                self.observed(domain, seen_by, first + n, size)
                for n, size in enumerate(batch_sizes(count, self.device))
            ]
        return concatenate(parts)

    def observed(self, domain: str, surveys: tuple[str, ...], batch: int, count: int) -> Spectra:
        """New objects as one survey sees them, or as two do together."""
        objects = population(domain, self.templates, self.device).draw(self.split, batch, count, self.seed)
        seen = [observe(objects, survey, self.seed, device=self.device) for survey in surveys]
        spectra = [to_spectra(vary_response(each, self.seed), self.patch_size) for each in seen]
        return spectra[0] if len(spectra) == 1 else joined(*spectra)
