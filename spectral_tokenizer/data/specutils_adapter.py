"""`specutils.Spectrum` -> rows, and back. specutils reads many more formats than this package knows.

Needs `pip install 'spectral-tokenizer[specutils]'`.
"""

import hashlib
import logging
from collections.abc import Iterable, Iterator

import numpy as np
from astropy import units
from astropy.nddata import InverseVariance
from datasets import Dataset
from specutils import Spectrum, SpectrumList

from .builder import Dropped, finish_row, to_table
from .fits_access import SpectrumFileError
from .wavelengths import air_to_vacuum, arm_lengths


logger = logging.getLogger(__name__)


def rows_from_spectra(
    spectra: Spectrum | Iterable[Spectrum],
    *,
    frame: str,
    medium: str | None = None,
    survey: str = "specutils",
    ivar: float | None = None,
) -> Dataset:
    """Rows with the canonical columns, one per spectrum; a `Spectrum` with several of them gives as many. Those without a
    usable pixel are left out, with a warning that counts them: go by a row's ``source``, not its place. ``specutils#0.3,4``
    is the fourth along the first and the fifth along the second of a cube's axes, of those that are not the spectral one.

    The spectral axis may be in any unit of wavelength, frequency, energy or wavenumber and run either way. A flux per
    wavelength, or in no unit or counts, keeps its own; one per frequency, as in Jy, is converted
    (`plain.per_wavelength`). Any kind of uncertainty becomes an inverse variance; masked pixels (True in specutils) are
    unusable. The redshift is taken where it is set, and the radial velocity where that is a star's, |z| below 0.01.

    ``object_id`` is that of ``spectrum.meta``, or made of the pixels where there is none: give it where an object has several
    spectra, as `splits` goes by it.

    Args:
        spectra: one, a `SpectrumList` or `SpectrumCollection`, or others.
        frame: one of `schema.FRAMES`, of the spectral axis.
        medium: "vacuum", or "air": then wavelengths are converted. None: air where the spectrum's WCS says so (AWAV), else
            vacuum.
        survey: the rows' ``survey``.
        ivar: inverse variance of spectra that carry no uncertainty, in the inverse square of their flux's unit.

    Raises:
        ValueError: a spectrum has no uncertainty and `ivar` is not given, or is none; there are none, or
            none has a usable pixel; a flux in photons.
    """
    if medium not in ("vacuum", "air", None):
        raise ValueError(f'medium: found {medium!r}; expected "vacuum", "air" or None')
    rows, empty, told = [], [], set()
    for number, spectrum in enumerate([spectra] if isinstance(spectra, Spectrum) else spectra):
        for place, pixels in one_by_one(spectrum, ivar):
            source = f"{survey}#{number}{place}"
            wavelength, named = pixels.pop("wavelength"), spectrum.meta.get("object_id")
            row = {
                "object_id": identity_of(survey, wavelength, pixels["flux"]) if named is None else str(named),
                "survey": survey,
                "source": source,
                "frame": frame,
                "wavelength": air_to_vacuum(wavelength) if (medium or medium_of(spectrum)) == "air" else wavelength,
                "segment_lengths": arm_lengths(wavelength),
                **shift(spectrum),
                **pixels,
            }
            finished = finish_row(row, told)
            if isinstance(finished, Dropped):
                empty.append(source)
            else:
                rows.append(finished)
    if not (rows or empty):
        raise ValueError("spectra: expected at least one, found none")
    if not rows:
        raise SpectrumFileError(empty[0], "flux", "no usable pixel", "pixels with an uncertainty and without a mask")
    if empty:  # such as a cube's corners, outside of the field of view
        left_out = (survey, len(empty), len(empty) + len(rows), empty[0])
        logger.warning("%s: left out %d of %d spectra, which have no usable pixel, %s the first", *left_out)
    return Dataset(to_table(rows))


def medium_of(spectrum: Spectrum) -> str:
    """ "air" where the spectral axis of its WCS is FITS's AWAV, else "vacuum"."""
    types = getattr(spectrum.wcs, "world_axis_physical_types", None) or ()
    return "air" if "em.wl;obs.atmos" in types else "vacuum"


def identity_of(survey: str, wavelength: np.ndarray, flux: units.Quantity) -> str:
    """A name that spectra of other calls do not share, as "specutils#0" is the first of each; whatever their errors."""
    pixels = np.stack([wavelength, flux.value]).astype(np.float32)
    return f"{survey}-{hashlib.sha256(pixels.tobytes()).hexdigest()[:12]}"


def one_by_one(spectrum: Spectrum, ivar: float | None) -> Iterator[tuple[str, dict]]:
    """Each spectrum in a `Spectrum`: its place among the others, such as ".3,4" in a cube, or "" where it is the only
    one; and its wavelength in Angstrom, flux and ivar with their units, (num_pixels,), in ascending wavelength."""
    wavelength = spectrum.spectral_axis.to(units.AA, equivalencies=units.spectral()).value
    axis = getattr(spectrum, "spectral_axis_index", -1)
    flux = np.moveaxis(spectrum.flux.value, -1 if axis is None else axis, -1)
    if spectrum.uncertainty is not None:
        inverse = spectrum.uncertainty.represent_as(InverseVariance)
        factor = 1.0 if inverse.unit is None else inverse.unit.to(spectrum.flux.unit**-2)
        inverse = np.moveaxis(np.asarray(inverse.array) * factor, -1 if axis is None else axis, -1)
    elif ivar is not None:
        inverse = np.full(flux.shape, ivar)
    else:
        raise ValueError("uncertainty: found none; expected one in the spectrum, or the argument ivar")
    if spectrum.mask is not None:
        inverse = np.where(np.moveaxis(np.asarray(spectrum.mask), -1 if axis is None else axis, -1), 0.0, inverse)
    order = slice(None, None, -1) if len(wavelength) > 1 and wavelength[0] > wavelength[-1] else slice(None)
    for index in np.ndindex(flux.shape[:-1]):
        place = "." + ",".join(map(str, index)) if index else ""
        yield (
            place,
            {
                "wavelength": wavelength[order],
                "flux": flux[index][order] << spectrum.flux.unit,
                "ivar": inverse[index][order] << spectrum.flux.unit**-2,
            },
        )


def shift(spectrum: Spectrum) -> dict[str, float]:
    """Of the object: redshift and velocity in km/s, which specutils keeps as one; NaN where it is 0, which stands for
    not set, and for the velocity of what is no star: there the two are no longer the same but for a factor."""
    velocity, redshift = spectrum.radial_velocity, spectrum.redshift
    velocity, redshift = (
        np.nan if each is None else float(np.ravel(units.Quantity(each).to_value(unit))[0]) or np.nan
        for each, unit in ((velocity, units.km / units.s), (redshift, units.one))
    )
    return {"redshift": redshift, "radial_velocity": velocity if abs(redshift) < 0.01 else np.nan}


def spectra_from_row(row: dict, flux_unit: str | units.UnitBase = "") -> SpectrumList:
    """The segments of a row as specutils has spectra: unusable pixels masked, wavelengths in vacuum Angstrom.

    Args:
        row: of `load_survey`, or ``{**row, "flux": reconstruction}``.
        flux_unit: of the flux, such as "1e-17 erg / (s cm2 AA)"; the surveys' units stand in `schema`.
    """
    unit, spectra = units.Unit(flux_unit), SpectrumList()
    ends = np.cumsum(row["segment_lengths"])
    for start, end in zip(ends - row["segment_lengths"], ends):
        wavelength, flux, ivar = (np.asarray(row[name])[start:end] for name in ("wavelength", "flux", "ivar"))
        spectra.append(
            Spectrum(
                flux=flux * unit,
                spectral_axis=wavelength * units.AA,
                uncertainty=InverseVariance(ivar * unit**-2),
                mask=ivar == 0,
                meta={"object_id": row["object_id"], "frame": row["frame"], "survey": row["survey"]},
            )
        )
    return spectra
