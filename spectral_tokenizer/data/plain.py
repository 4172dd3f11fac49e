"""What a reader gives, made plain: pixels without masks and units, labels that are possible.

`np.asarray` drops masks and units without a word, and nothing later knows that a temperature of -999 is none.
"""

import functools
import logging
import math
from pathlib import Path

import numpy as np
from astropy import units

from .fits_access import SpectrumFileError, number
from .schema import CLASSES, UNITS
from .wavelengths import SPEED_OF_LIGHT


logger = logging.getLogger(__name__)

OTHER_FLUXES = {"spectral flux density", "surface brightness"}
LABEL_UNITS = {label: units.Unit(unit) for label, unit in (UNITS | {"logg": "dex(cm / s2)"}).items()}
VELOCITY, GRAVITY = units.Unit("km / s"), units.Unit("cm / s2")
F_LAMBDA = units.Unit("1e-17 erg / (s cm2 AA)")
PIXELS = ("wavelength", "flux", "ivar", "lsf_sigma")
UNKNOWN = ("None", "nan", "--", "<NA>", "")  # as text: nothing, NaN, numpy's masked value, pandas' null
SENTINELS = (-999.0, -9999.0)
#: What labels may be at all, bounds included: wide, as it is for sentinels and other units, not for rare objects.
POSSIBLE = {
    "redshift": (-0.99, 1100.0),
    "radial_velocity": (-SPEED_OF_LIGHT, SPEED_OF_LIGHT),
    "teff": (1.0, math.inf),
    "logg": (-10.0, 20.0),
    "fe_h": (-20.0, 20.0),
    "ra": (0.0, 360.0),
    "dec": (-90.0, 90.0),
}


_told: set[tuple] = set()


def is_new(*subject) -> bool:
    """Whether this process has not asked for it before: each shard opens the catalogue again, and the log has it once."""
    if subject in _told:
        return False
    _told.add(subject)
    return True


def plain_pixels(row: dict) -> dict:
    """A row with its pixels as plain arrays: masked ones (numpy's and astropy's, True where bad) with ivar 0, or with
    an unknown resolution; what has a unit in Angstrom, ivar in that of 1 / flux^2, a flux per frequency per wavelength.

    Raises:
        SpectrumFileError: units that do not go together, magnitudes, photons, or booleans in ivar, which would be errors of 1.
    """
    given = {name: row[name] for name in PIXELS if row.get(name) is not None}
    masks = {name: getattr(values, "mask", None) for name, values in given.items()}
    flux_unit = getattr(given["flux"], "unit", None)
    plain = {name: in_unit(row["source"], name, values, flux_unit) for name, values in given.items()}
    refuse_booleans(row["source"], plain["ivar"])
    # Of other lengths than each other's, or without a wavelength, the row is refused further on.
    is_even = plain["flux"].shape == plain["ivar"].shape == plain["wavelength"].shape
    if flux_unit is not None and is_even and np.all(plain["wavelength"]):
        factor = per_wavelength(row["source"], flux_unit, plain["wavelength"])
        plain |= {"flux": plain["flux"] * factor, "ivar": plain["ivar"] / factor**2}
    for name, mask in masks.items():
        marked, value = ("lsf_sigma", np.nan) if name == "lsf_sigma" else ("ivar", 0.0)
        if isinstance(mask, np.ndarray) and mask.shape == plain[marked].shape:
            plain[marked] = np.where(mask, value, plain[marked])
    return row | plain


def refuse_booleans(source: str, ivar: np.ndarray) -> None:
    """Raise `SpectrumFileError` for a mask in ivar's place, also with nulls: its pixels would have errors of 1."""
    kinds = {bool} if ivar.dtype == bool else set(map(type, ivar)) if ivar.dtype == object else set()
    if not kinds.isdisjoint({bool, np.bool_}):
        raise SpectrumFileError(source, "column ivar", "booleans", "numbers, 1 / error^2, and 0 for bad pixels")


def in_unit(source: str, name: str, values, flux_unit) -> np.ndarray:
    """Values of a column as an array, converted where they have a unit and the column's is known. A stands for Angstrom,
    as no wavelength is in ampere."""
    unit = getattr(values, "unit", None)
    is_angstrom = name != "ivar" and unit == units.A
    if unit is None or name == "flux" or is_angstrom or (name == "ivar" and flux_unit is None):
        return np.asarray(values)
    try:
        return np.asarray(values.to(flux_unit**-2 if name == "ivar" else "Angstrom").value)
    except Exception as error:  # astropy's, of several kinds
        expected = (
            f"the unit of 1 / flux^2, of flux in {flux_unit}" if name == "ivar" else "Angstrom, or what becomes it"
        )
        raise SpectrumFileError(source, f"column {name}", f"the unit {str(unit)!r}", expected) from error


def known_unit(text: object) -> units.UnitBase | None:
    """The unit that a file states, or None for none and for what astropy does not know."""
    unit = units.Unit(str(text), parse_strict="silent") if text else None
    return None if isinstance(unit, units.UnrecognizedUnit) else unit


def in_label_unit(source: str | Path, column: str, label: str, values, unit: units.UnitBase | None):
    """A label's values in its own unit; as they are where the file states none, or just dex, or what does not become that
    unit: files spell it in many ways, as ``N/A``, ``dex(Sun)``, ``deg K`` or ``km/S``, and the log has it once.

    Raises:
        SpectrumFileError: a redshift is a velocity.
    """
    target = LABEL_UNITS.get(label)
    if unit is None or is_as_stated(label, unit):
        return values
    try:
        if target is not None:
            return unit.to(target, np.where(np.isin(values, SENTINELS), np.nan, values))
    except Exception:  # astropy's, of several kinds
        pass
    expected = f"{target or 'no unit'}, or what becomes it"
    error = SpectrumFileError(source, f"column {column}", f"the unit {str(unit)!r}", expected)
    if label == "redshift" and unit.is_equivalent(VELOCITY):
        raise error
    if is_new("unit", str(source).rpartition("#")[0] or str(source), column, unit):
        logger.warning("%s: taken as if there were none", error)
    return values


@functools.lru_cache
def is_as_stated(label: str, unit: units.UnitBase) -> bool:
    """Whether a unit is a label's own, or says nothing of it. A gravity's often stands without its logarithm."""
    own = LABEL_UNITS.get(label)
    says_nothing = unit == units.dimensionless_unscaled or (label not in UNITS and unit == units.dex)
    return unit == own or says_nothing or (label == "logg" and unit == GRAVITY)


# The processor's rule, whose file the readers do not import.
@functools.lru_cache
def is_per_wavelength(unit) -> bool:
    """Whether a flux in this unit of astropy's may be one per wavelength: it is none per frequency, of photons, or a magnitude,
    whose spectra have other shapes. None, counts and what astropy does not know may be."""
    if unit is None:
        return True
    if not hasattr(unit, "bases"):  # a function's: magnitudes and the like
        return False
    powers = {str(base): power for base, power in zip(unit.bases, unit.powers)}
    return not (
        OTHER_FLUXES.intersection(str(unit.physical_type).split("/"))
        or not {"mag", "dex", "dB", "ph", "photon"}.isdisjoint(powers)
        or any(name.endswith("Jy") or (name.endswith("Hz") and power < 0) for name, power in powers.items())
    )


def per_wavelength(source: str, unit, wavelength: np.ndarray) -> np.ndarray | float:
    """What a flux in a unit per frequency, as Jy or MJy / sr, is multiplied with to be one per wavelength, in
    1e-17 erg / (s cm2 Angstrom), and per steradian where it was: f_lambda = f_nu c / lambda^2. 1 where it need not be.

    Args:
        wavelength: (num_pixels,) Angstrom.

    Raises:
        SpectrumFileError: magnitudes, photons, whose number is not in proportion to the energy, or another unit per frequency.
    """
    if is_per_wavelength(unit):
        return 1.0
    kinds = str(getattr(unit, "physical_type", None)).split("/")
    if not hasattr(unit, "bases") or OTHER_FLUXES.isdisjoint(kinds):
        expected = "a flux per wavelength, one in Jy or Jy / sr, or one without a unit"
        raise SpectrumFileError(source, "column flux", f"the unit {str(unit)!r}", expected)
    target = F_LAMBDA if "spectral flux density" in kinds else F_LAMBDA / units.sr
    return unit.to(target, equivalencies=units.spectral_density(wavelength * units.AA))


def plain_labels(row: dict, told: set[str]) -> dict:
    """A row whose labels are possible or NaN, and whose class has a name of `schema.CLASSES` if that is only a matter
    of case; another class stays, as somebody may want to learn it.

    Args:
        row: with all labels.
        told: labels of which the log has an example already; a million rows may have the same.
    """
    labels = {name: possible(name, row[name]) for name in POSSIBLE}
    labels["class"] = known_class(row["class"]) or row["class"]
    wrong = {
        name: f"one from {low:g} to {high:g}, or NaN where it is unknown"
        for name, (low, high) in POSSIBLE.items()
        if math.isnan(labels[name]) and str(row[name]) not in UNKNOWN
    }
    if labels["class"] not in (*CLASSES, None):
        wrong["class"] = f"one of {CLASSES}"
    for name in wrong.keys() - told:
        logger.warning("%s: %s: found %s; expected %s", row["source"], name, row[name], wrong[name])
        told.add(name)
    return row | labels


def possible(name: str, value: object) -> float:
    """A label as float; NaN where it is unknown, masked, a sentinel, true or false, an array or out of its bounds."""
    if value is None or getattr(value, "ndim", 0) or isinstance(value, bool | np.bool_):
        return math.nan
    if hasattr(value, "mask") and np.any(value.mask):
        return math.nan
    value, (low, high) = number(value), POSSIBLE[name]
    return value if low <= value <= high and value not in SENTINELS else math.nan


def known_class(value: str | None) -> str | None:
    """One of `schema.CLASSES`, in whichever case it is written; None for anything else."""
    name = (value or "").strip().upper()
    return name if name in CLASSES else None
