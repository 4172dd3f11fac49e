"""Which objects are observed: classes, redshifts, stellar labels and brightness of each survey's targets.

Every object draws from a generator of its own, seeded with (seed, survey, number), so that an object does not depend
on how many others are made. Shared stars are numbered for all surveys together: the third shared star of GALAH is the
third of APOGEE, with the same labels and velocity.
"""

from dataclasses import dataclass, field

import numpy as np
from scipy.special import ndtr, ndtri

from ..wavelengths import SPEED_OF_LIGHT


SURVEY_NUMBERS = {"sdss": 1, "desi": 2, "galah": 3, "apogee": 4}
SHARED_NUMBER = 99
SKY_EVERY = 25  # one fibre of so many looks at blank sky, in SDSS and DESI; odd, as SDSS and BOSS take turns
BAD_FIBER_EVERY = 61  # DESI: one fibre of so many has a bad status
DWARF_TEFF, DWARF_LOGG = (
    (3500, 4000, 5000, 5800, 6300, 7000, 9000, 12000),
    (4.85, 4.7, 4.55, 4.4, 4.22, 4.12, 4.0, 4.0),
)
GIANT_LOGG, GIANT_TEFF = (0.5, 1.0, 1.7, 2.4, 3.0, 3.6), (3750, 3980, 4350, 4720, 4880, 5000)


@dataclass
class Target:
    """One object as one survey sees it.

    Attributes:
        survey, number: which survey, and which of its objects.
        key: names the object across surveys.
        kind: "STAR", "GALAXY", "QSO" or "SKY".
        redshift: dimensionless; of a star v/c.
        labels: of a star teff (K), logg (dex cm/s2), fe_h, alpha_m (dex), rotation (km/s), extinction (magnitudes);
            of a galaxy young, fe_h, dust, dispersion.
        flux: level near 6000 Angstrom in 1e-17 erg/s/cm2/A (GALAH: S/N; APOGEE: level in the H band).
        ra, dec: degrees, made up.
        truth: rows for the truth table, filled while observing (object_id, file, snr, ...).
    """

    survey: str
    number: int
    key: str
    kind: str
    redshift: float
    labels: dict[str, float]
    flux: float
    ra: float
    dec: float
    seed: int
    truth: dict = field(default_factory=dict)

    def generator(self, purpose: int) -> np.random.Generator:
        """A generator for this object; one per purpose, so that changes in one do not shift the others."""
        return np.random.default_rng([self.seed, SURVEY_NUMBERS[self.survey], self.number, purpose])

    @property
    def velocity(self) -> float:
        """Radial velocity in km/s (stars)."""
        return self.redshift * SPEED_OF_LIGHT


def draw_targets(seed: int, survey: str, count: int, shared_stars: float) -> list[Target]:
    """The first `count` targets of a survey; of its stars a fraction `shared_stars` is common to all surveys."""
    targets, num_shared = [], 0
    for number in range(count):
        generator = np.random.default_rng([seed, SURVEY_NUMBERS[survey], number, 0])
        kind = draw_kind(generator, survey, number)
        key, source = f"{survey}-{number}", generator
        if kind == "STAR" and generator.random() < shared_stars:
            key, source = f"star-{num_shared}", np.random.default_rng([seed, SHARED_NUMBER, num_shared])
            num_shared += 1
        ra, dec = source.uniform(0.0, 360.0), np.degrees(np.arcsin(source.uniform(-0.9, 0.9)))
        labels, redshift = {}, 0.0
        if kind == "STAR":
            labels, redshift = draw_star(source, survey if source is generator else "shared")
        elif kind == "GALAXY":
            labels, redshift = draw_galaxy(generator, survey)
        elif kind == "QSO":
            redshift = draw_quasar_redshift(generator, survey)
        flux = draw_flux(generator, survey, kind)
        targets.append(Target(survey, number, key, kind, redshift, labels, flux, ra, dec, seed))
    return targets


def draw_kind(generator: np.random.Generator, survey: str, number: int) -> str:
    """The class of a target; GALAH and APOGEE see stars only."""
    if survey in ("galah", "apogee"):
        return "STAR"
    if number % SKY_EVERY == SKY_EVERY - 1:
        return "SKY"
    return generator.choice(["STAR", "GALAXY", "QSO"], p=[0.32, 0.42, 0.26])


def truncated_normal(generator: np.random.Generator, mean, sigma, low, high, size=None) -> np.ndarray:
    """Normal deviates between `low` and `high`, from one uniform number each.

    Not clipped: a limit that thousands of objects stand on exactly is a label that a model learns to prefer.
    """
    share = generator.uniform(ndtr((low - mean) / sigma), ndtr((high - mean) / sigma), size)
    return mean + sigma * ndtri(share)


def truncated_exponential(generator: np.random.Generator, scale: float, width: float) -> float:
    """An exponential deviate from 0 to `width`."""
    return -scale * np.log1p(generator.random() * np.expm1(-width / scale))


def draw_star(generator: np.random.Generator, survey: str) -> tuple[dict[str, float], float]:
    """Labels and v/c of a star of the thin disc, the thick disc or the halo."""
    component = generator.choice(3, p=[0.70, 0.21, 0.09])
    mean, sigma = ((-0.05, 0.2), (-0.5, 0.25), (-1.3, 0.4))[component]
    fe_h = float(truncated_normal(generator, mean, sigma, -2.0, 0.5))
    alpha = (max(0.0, -0.15 * fe_h), 0.22, 0.27)[component] + generator.normal(0.0, 0.03)
    giants = {"apogee": 0.65, "galah": 0.35, "shared": 0.5, "sdss": 0.2, "desi": 0.2}[survey]
    branch = generator.random()
    if branch < giants:
        clump = generator.random() < 0.35
        logg = generator.normal(2.45, 0.08) if clump else generator.uniform(0.6, 3.6)
        teff = np.interp(logg, GIANT_LOGG, GIANT_TEFF) + generator.normal(60.0 if clump else 0.0, 70.0) - 260.0 * fe_h
    elif branch < giants + 0.08:
        teff, logg = generator.uniform(4900.0, 6000.0), generator.uniform(3.5, 4.1)
    else:
        teff = draw_dwarf_teff(generator, survey)
        logg = np.interp(teff, DWARF_TEFF, DWARF_LOGG) + generator.normal(0.0, 0.07)
    rotation = (
        generator.exponential(2.5) if teff < 6300.0 else generator.uniform(3.0, 20.0 if teff < 7000.0 else 120.0)
    )
    velocity = float(np.clip(generator.normal(0.0, (33.0, 60.0, 140.0)[component]), -450.0, 450.0))
    labels = {
        "teff": float(np.clip(teff, 3500.0, 12000.0)),
        "logg": float(np.clip(logg, 0.3, 5.1)),
        "fe_h": fe_h,
        "alpha_m": float(alpha),
        "rotation": float(rotation),
        "extinction": float(min(generator.exponential(0.25), 2.5)),
    }
    return labels, velocity / SPEED_OF_LIGHT


def draw_dwarf_teff(generator: np.random.Generator, survey: str) -> float:
    """Level for SDSS and DESI, whose targets are chosen by colour; else about the Sun's, with few A stars."""
    if survey in ("sdss", "desi"):
        is_hot = generator.random() < {"sdss": 0.25, "desi": 0.2}[survey]
        return generator.uniform(*((7000.0, 12000.0) if is_hot else (3500.0, 7000.0)))
    if generator.random() < 0.03:
        return 7000.0 + truncated_exponential(generator, 1500.0, 5000.0)
    return float(truncated_normal(generator, 5700.0, 700.0, 3800.0, 7000.0))


def draw_galaxy(generator: np.random.Generator, survey: str) -> tuple[dict[str, float], float]:
    """Properties and redshift of a galaxy: SDSS nearby and luminous red ones, DESI bright, red and emission-line
    ones."""
    if survey == "sdss":
        is_red, redshift = generator.random() < 0.45, float(np.clip(generator.gamma(2.2, 0.055), 0.004, 0.7))
        if is_red and generator.random() < 0.4:
            redshift = generator.uniform(0.3, 0.7)
    else:
        branch = generator.choice(3, p=[0.42, 0.25, 0.33])
        redshift = generator.uniform(*((0.02, 0.5), (0.4, 1.1), (0.6, 1.5))[branch])
        is_red = (generator.random() < 0.4, True, False)[branch]
    young = generator.uniform(0.0, 0.04) if is_red else generator.beta(2.0, 2.2) * 0.92 + 0.05
    labels = {
        "young": float(young),
        "fe_h": float(truncated_normal(generator, 0.1 if is_red else 0.05 - 0.5 * young, 0.15, -1.0, 0.3)),
        "dust": float(generator.exponential(0.1 if is_red else 0.5)),
        "dispersion": float(np.clip(10.0 ** generator.normal(2.28 if is_red else 1.95, 0.13), 45.0, 380.0)),
    }
    return labels, redshift


def draw_quasar_redshift(generator: np.random.Generator, survey: str) -> float:
    """0.1 to 4; half of them beyond 2, where the Lyman-alpha forest is seen."""
    low, middle, high = (0.1, 2.0, 4.0) if survey == "sdss" else (0.3, 1.9, 3.8)
    if generator.random() < 0.55:
        return float(generator.uniform(low, middle))
    return float(middle + truncated_exponential(generator, 0.55, high - middle))


def draw_flux(generator: np.random.Generator, survey: str, kind: str) -> float:
    """Brightness over some 2.5 dex, in the unit of `Target.flux`."""
    if survey == "galah":
        return float(10.0 ** np.clip(generator.normal(1.65, 0.28), 0.9, 2.4))
    if survey == "apogee":
        return float(10.0 ** np.clip(generator.normal(2.5, 0.5), 1.3, 3.8))
    low, high = {
        ("sdss", "STAR"): (0.2, 2.6),
        ("sdss", "GALAXY"): (0.3, 2.2),
        ("sdss", "QSO"): (-0.1, 2.0),
        ("desi", "STAR"): (-0.2, 2.3),
        ("desi", "GALAXY"): (-0.6, 1.5),
        ("desi", "QSO"): (-0.5, 1.5),
    }.get((survey, kind), (0.0, 0.0))
    # Faint objects are the many: the median lies at a third of the range in log, as survey S/N distributions have it.
    return float(10.0 ** (low + (high - low) * generator.random() ** 1.6))
