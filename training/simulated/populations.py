"""Which objects there are: classes, redshifts, labels, from published templates or from the package's own physics."""

from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from spectral_tokenizer.data.wavelengths import SPEED_OF_LIGHT

from . import cool_dwarfs, galaxies, quasars, stars
from .random import Random
from .spectrographs import LogGrid
from .template_files import SPLITS


SEEDS = 1 << 11  # that fit into the number of an object, an int64
KINDS = ("GALAXY", "QSO", "STAR")
#: domain -> the surveys that see its objects.
SURVEYS = {"optical": ("sdss", "desi"), "stars": ("apogee", "galah")}
#: A domain beside these, which APOGEE alone sees: no table of the benchmark has them.
COOL_DWARFS = "cool dwarfs"
KIND_SHARES = (0.4, 0.3, 0.3)
# Independent streams of random numbers under one seed.
OBJECTS, OBSERVATION = 0, 1
NUMBERS = {**{domain: number for number, domain in enumerate(SURVEYS)}, COOL_DWARFS: 8}  # bits 48, and 51, of an index


@dataclass
class Objects:
    """Objects before any telescope.

    Attributes:
        index: (objects,) int64: names an object; the same in every survey and every noise draw of it.
        kind: (objects,) int64 into `KINDS`.
        redshift: (objects,) float64; of a star v/c.
        labels: teff (K), logg (dex cm/s2), fe_h (dex), each (objects,) float64, NaN where not known.
        members: source -> its objects' places and parameters.
    """

    index: Tensor
    kind: Tensor
    redshift: Tensor
    labels: dict[str, Tensor]
    members: list[tuple[object, LogGrid, Tensor, dict[str, Tensor]]] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.index)


class Population:
    """Objects of one domain, batch by batch.

    Args:
        domain: "optical" (galaxies, quasars and stars, for SDSS and DESI), "stars" (with labels, for APOGEE and
            GALAH; SDSS and DESI see them too, with the package's physics), or "cool dwarfs" (M dwarfs whose labels are not
            known, for APOGEE alone; from published templates only).
        templates: Folder of published templates; None for the package's own physics.
        device: Where spectra are made.
    """

    def __init__(self, domain: str, templates: Path | None, device: str = "cpu"):
        if domain not in NUMBERS:
            raise ValueError(f"domain: expected one of {sorted(NUMBERS)}, found: {domain!r}")
        self.domain, self.device = domain, device
        if domain == COOL_DWARFS:
            if templates is None:
                raise ValueError(f"{COOL_DWARFS}: expected published templates, found none")
            self.stars = cool_dwarfs.CoolDwarfs(templates, device)
        elif domain == "stars":
            self.stars = stars.LabelledStars(device) if templates is None else stars.TemplateStars(templates, device)
        elif templates is None:
            self.galaxies = [galaxies.PhysicalGalaxies(device)]
            self.quasars, self.stars = quasars.PhysicalQuasars(device), stars.LabelledStars(device)
        else:
            self.galaxies = [galaxies.Archetypes(templates, device), galaxies.EMILES(templates, device)]
            self.quasars, self.stars = quasars.Components(templates, device), stars.Archetypes(templates, device)

    def draw(self, split: str, batch: int, count: int, seed: int = 0) -> Objects:
        """`count` objects: the same for the same split, batch and seed, others for any other.

        Args:
            split: "train", "validation" or "test": they share no archetype and no row of labels.
            batch: 0 or more; endless.
        """
        if split not in SPLITS:
            raise ValueError(f"split: expected one of {SPLITS}, found: {split!r}")
        if not 0 <= seed < SEEDS:
            raise ValueError(f"seed: expected 0 to {SEEDS - 1}, as objects are numbered with it, found: {seed}")
        domain, number = NUMBERS[self.domain], SPLITS.index(split)
        random = Random(seed, OBJECTS, domain, number, batch, device=self.device)
        index = torch.arange(count) + (batch << 12) + (domain << 48) + (number << 49) + (seed << 52)
        if self.domain != "optical":
            kind = torch.full((count,), KINDS.index("STAR"))
        else:
            kind = torch.as_tensor(random.numpy.choice(3, count, p=KIND_SHARES))
        redshift = torch.zeros(count, dtype=torch.float64)
        labels = {name: torch.full((count,), torch.nan, dtype=torch.float64) for name in ("teff", "logg", "fe_h")}
        objects = Objects(index, kind, redshift, labels)
        for name, make in (("GALAXY", self.add_galaxies), ("QSO", self.add_quasars), ("STAR", self.add_stars)):
            places = (kind == KINDS.index(name)).nonzero().squeeze(-1)
            if len(places):
                make(objects, places, split, random)
        return objects

    def add_galaxies(self, objects: Objects, places: Tensor, split: str, random: Random) -> None:
        which = random.numpy.integers(len(self.galaxies), size=len(places))
        for number, source in enumerate(self.galaxies):
            chosen = places[torch.as_tensor(which == number)]
            if len(chosen):
                redshift = galaxies.draw_redshift(random, len(chosen), source.redshifts)
                self.add(objects, source, galaxies.GRID, chosen, split, redshift, random)

    def add_quasars(self, objects: Objects, places: Tensor, split: str, random: Random) -> None:
        redshift = quasars.draw_redshift(random, len(places))
        self.add(objects, self.quasars, quasars.GRID, places, split, redshift, random)

    def add_stars(self, objects: Objects, places: Tensor, split: str, random: Random) -> None:
        width = random.numpy.choice([35.0, 60.0, 140.0], len(places), p=[0.7, 0.2, 0.1])
        velocity = np.clip(random.numpy.normal(0.0, width), -450.0, 450.0)
        parameters = self.add(objects, self.stars, stars.GRID, places, split, velocity / SPEED_OF_LIGHT, random)
        for name in objects.labels:
            if name in parameters:
                objects.labels[name][places] = parameters[name]

    def add(self, objects, source, grid, places, split, redshift, random) -> dict[str, Tensor]:
        parameters = source.draw(split, redshift, random)
        objects.redshift[places] = torch.as_tensor(redshift)
        objects.members.append((source, grid, places, parameters))
        return parameters


@cache
def population(domain: str, templates: Path | None, device: str = "cpu") -> Population:
    """A population, built once per process."""
    return Population(domain, templates, device)
