# Copyright 2026 The spectral_tokenizer authors. Licensed under the Apache License, Version 2.0.
"""Spectra in every form that people hold them in -> checked arrays -> normalised patches.

One spectrum at a time: its arrays stay in the CPU's cache, which beats flat arrays over a whole batch by two."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from transformers.utils import logging

from .packing_spectral_tokenizer import has_enough


logger = logging.get_logger(__name__)

# Outside of this range the wavelengths of a spectrum are not in Angstrom, but in nm, microns or a logarithm.
PLAUSIBLE_ANGSTROM = (500.0, 300_000.0)
# Spectra that end before it are of the far ultraviolet; or optical and infrared ones to 2.5 microns, in nm.
FAR_ULTRAVIOLET = 2500.0
# An error below a millionth of the spectrum's scale is rounding, and its inverse square would overflow float32.
LARGEST_IVAR = 1e12
# An error a million times those of the better pixels is no measurement, but a mark of an unusable pixel.
LEAST_IVAR = 1e-12
# Half of the pixels of pure noise are beyond 0.67 sigma: where they are within 0.3, errors are not those of this flux.
LEAST_SCATTER = 0.3
FEWEST_PIXELS = 100  # of which this can be said
# astropy's names of fluxes of other shapes than the model's, which is per wavelength.
OTHER_FLUXES = {"spectral flux density", "surface brightness"}
HALF = (np.dtype("float16"), torch.float16, torch.bfloat16)
FLOAT32 = (np.dtype("float32"), torch.float32)
# A step so many times its neighbours is the gap between two arms: APOGEE's and GALAH's are of 200 pixels or more.
ARM_LEAP = 100
LEAP_NEIGHBOURS = 8  # to each side
COLUMNS = ("flux", "ivar", "wavelength")


@dataclass
class Spectrum:
    """One spectrum that has passed all checks.

    Args:
        name: What errors call it.
        flux, ivar, wavelength: (pixels,); per wavelength in any unit, its inverse square, vacuum Angstrom (float64).
        segment_lengths: Pixels of each arm, chip or CCD.
    """

    name: str
    flux: np.ndarray
    ivar: np.ndarray
    wavelength: np.ndarray
    segment_lengths: tuple[int, ...]

    def num_patches(self, patch_size: int) -> int:
        return sum(-(-length // patch_size) for length in self.segment_lengths)


def checked_spectra(flux, ivar, wavelength, segment_lengths) -> list[Spectrum]:
    """Any accepted input (see `SpectralProcessor.__call__`) -> spectra.

    Raises:
        ValueError: names the spectrum, what was found and what was expected.
    """
    spectra = []
    for given in as_spectra(flux, ivar, wavelength, segment_lengths):
        spectra.append(checked(*given))
        if given[-1] is None:
            check_one_arm(spectra[-1])
    if not spectra:
        raise ValueError("expected at least one spectrum, found: an empty batch")
    return spectra


def as_spectra(flux, ivar, wavelength, segment_lengths) -> Iterator[tuple]:
    """Every accepted form of input -> (name, flux, ivar, wavelength, segment_lengths) per spectrum."""
    given = type(flux).__name__
    if isinstance(flux, Mapping):
        flux = rows_of_columns(flux)
    if isinstance(flux, Sequence) or hasattr(flux, "column_names"):  # a Dataset is none, but has rows as one
        flux = list(flux)
    if isinstance(flux, list) and not flux:
        raise ValueError(f"flux: expected at least one spectrum, found: an empty {given}")
    if isinstance(flux, list) and isinstance(flux[0], Mapping):
        for position, row in enumerate(flux):
            name = f"spectrum {position}" + (f" ({row['object_id']})" if row.get("object_id") else "")
            missing = [column for column in COLUMNS if row.get(column) is None]
            if missing:
                raise ValueError(f"{name}: a row needs flux, ivar and wavelength, missing: {', '.join(missing)}")
            yield name, row["flux"], row["ivar"], row["wavelength"], row.get("segment_lengths")
        return
    if ivar is None or wavelength is None:
        missing = [name for name, each in (("ivar", ivar), ("wavelength", wavelength)) if each is None]
        raise ValueError(
            f"expected flux, ivar and wavelength, or rows that have them, found a {given} as flux and no "
            f"{' and no '.join(missing)}. ivar is 1 / error**2 per pixel, 0 where the pixel is unusable; wavelength is in "
            "vacuum Angstrom"
        )
    if len(flux) == 0 or np.ndim(first(flux)) == 0:
        flux, ivar, wavelength, segment_lengths = [flux], [ivar], [wavelength], [segment_lengths]
    if np.ndim(first(wavelength)) == 0:  # one grid for all
        wavelength = [wavelength] * len(flux)
    if segment_lengths is None:
        segment_lengths = [None] * len(flux)
    elif np.ndim(segment_lengths[0]) == 0 and segment_lengths[0] is not None:
        segment_lengths = [segment_lengths] * len(flux)
    given = {"flux": flux, "ivar": ivar, "wavelength": wavelength, "segment_lengths": segment_lengths}
    check_counts({name: len(each) for name, each in given.items()})
    for position, spectrum in enumerate(zip(flux, ivar, wavelength, segment_lengths)):
        yield f"spectrum {position}", *spectrum


def check_counts(counts: dict[str, int]) -> None:
    """Raise ValueError unless there are as many spectra in each."""
    if len(set(counts.values())) > 1:
        raise ValueError(f"expected as many spectra in every argument or column, found: {counts}")


def first(values):
    """The first of several, also in pandas, where a column may begin at any index. Not by `iter`, which makes a tensor
    of each of a tensor's numbers."""
    return values.iloc[0] if hasattr(values, "iloc") else values[0]


def rows_of_columns(columns: Mapping) -> list[Mapping]:
    """One row, or a mapping of columns that hold several -> a list of rows."""
    missing = [name for name in COLUMNS if columns.get(name) is None]
    if missing:
        raise ValueError(f"a row needs the columns flux, ivar and wavelength, missing: {', '.join(missing)}")
    if len(columns["flux"]) == 0 or np.ndim(first(columns["flux"])) == 0:
        return [columns]
    names = [name for name in (*COLUMNS, "segment_lengths", "object_id") if columns.get(name) is not None]
    check_counts({name: len(columns[name]) for name in names})
    return [dict(zip(names, row)) for row in zip(*(columns[name] for name in names))]


def checked(name: str, flux, ivar, wavelength, segment_lengths) -> Spectrum:
    """Raise ValueError unless the arrays describe one spectrum."""
    if getattr(wavelength, "dtype", None) in FLOAT32:
        # Datasets' numpy and torch formats do this to float64 columns without a word.
        logger.warning_once(
            "wavelengths came as float32, which is 0.001 A at 17,000 A. With Datasets, use rows as they are, or "
            "with_format('numpy', dtype='float64')"
        )
    flux, ivar, wavelength = without_masks_and_units(name, flux, ivar, wavelength)
    for column, values in zip(COLUMNS, (flux, ivar, wavelength)):
        if values.dtype.kind not in "fiub":
            raise ValueError(f"{name}: expected {column} in real numbers, found: {values.dtype}")
    if ivar.dtype == bool:
        raise ValueError(f"{name}: expected ivar, 1 / error**2, found: booleans, which would be errors of 1")
    if not (flux.ndim == 1 and flux.shape == ivar.shape == wavelength.shape):
        raise ValueError(
            f"{name}: expected flux, ivar and wavelength of one length, found shapes: {flux.shape}, {ivar.shape}, "
            f"{wavelength.shape}"
        )
    if len(flux) == 0:
        raise ValueError(f"{name}: expected at least one pixel, found: an empty spectrum")
    try:
        segment_lengths = (len(flux),) if segment_lengths is None else tuple(map(whole, segment_lengths))
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name}: expected segment_lengths as whole numbers, found: {segment_lengths!r}") from error
    if sum(segment_lengths) != len(flux) or min(segment_lengths) < 1:
        raise ValueError(
            f"{name}: expected segment_lengths that add up to {len(flux)} pixels, found: {segment_lengths}"
        )
    wavelength = wavelength.astype(np.float64, copy=False)
    check_wavelength(name, wavelength, segment_lengths)
    return Spectrum(name, flux, ivar, wavelength, segment_lengths)


def without_masks_and_units(name: str, flux, ivar, wavelength) -> list[np.ndarray]:
    """What `np.asarray` drops without a word, heeded: masked pixels are unusable, and quantities (astropy's,
    specutils') come in Angstrom and in one unit of flux.

    Raises:
        ValueError: units that do not go together.
    """
    # True where a pixel is not to be used, in numpy as in astropy; in pandas, this is a method.
    masks = [getattr(each, "mask", None) for each in (flux, ivar, wavelength)]
    unit = getattr(flux, "unit", None)
    if not is_per_wavelength(unit):
        raise ValueError(
            f"{name}: expected a flux per wavelength, in any multiple, found: {unit}. Convert flux and error by "
            ".to('erg / (s cm2 Angstrom)', astropy.units.spectral_density(wavelength)), then 1 / error**2 is the ivar"
        )
    try:
        wavelength = in_angstrom(wavelength)
        if unit is not None and getattr(ivar, "unit", None) is not None:
            ivar = ivar.to(unit**-2).value
    except Exception as error:
        raise ValueError(
            f"{name}: expected wavelength in a unit of length, and ivar in that of 1 / flux^2: {error}"
        ) from error
    arrays = [as_array(each) for each in (flux, ivar, wavelength)]
    # Lists with None, as of a table's rows: NaN.
    arrays = [each.astype(np.float64) if each.dtype == object else each for each in arrays]
    for mask in masks:
        if isinstance(mask, np.ndarray) and mask.shape == arrays[1].shape:
            arrays[1] = np.where(mask, 0.0, arrays[1])
    return arrays


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


def whole(number) -> int:
    """A whole number, of whichever type, as int; ValueError where it is none: 12.7 pixels are no 12."""
    if int(number) != number:
        raise ValueError
    return int(number)


def as_array(values) -> np.ndarray:
    """Any array as numpy's: also a tensor that is on a GPU, in a graph of gradients, or in bfloat16, which numpy does not
    have (float32)."""
    if isinstance(values, torch.Tensor):
        values = values.detach().cpu()
        values = values.float() if values.dtype == torch.bfloat16 else values
    return np.asarray(values)


def check_not_half(**values) -> None:
    """Raise ValueError where one of them has the three digits of half precision, as after `inputs.to(torch.bfloat16)`."""
    for name, each in values.items():
        if getattr(each, "dtype", None) in HALF:
            raise ValueError(
                f"{name}: expected float64 (float32 is taken), as the processor gave it, found: {each.dtype}. Move inputs by "
                ".to(device) alone: the model casts them itself"
            )


def in_angstrom(wavelength):
    """Wavelengths as they are, converted where they have a unit of their own, as astropy's quantities."""
    return wavelength if getattr(wavelength, "unit", None) is None else wavelength.to("Angstrom").value


def check_wavelength(name: str, wavelength: np.ndarray, segment_lengths: tuple[int, ...]) -> None:
    """Raise ValueError unless wavelengths (pixels,) are finite, in Angstrom, and ascend inside each segment."""
    low, high = PLAUSIBLE_ANGSTROM
    arms = (wavelength[pixels] for pixels, _, _ in segments(segment_lengths, 1))
    # Where they ascend, none is NaN and the ends bound the others: one pass.
    if not all(low <= arm[0] and arm[-1] <= high and (arm[1:] > arm[:-1]).all() for arm in arms):
        raise ValueError(f"{name}: {wavelength_fault(wavelength, segment_lengths)}")
    if wavelength.max() < FAR_ULTRAVIOLET:
        logger.warning_once(
            f"spectra that end before {FAR_ULTRAVIOLET:g} A: they are taken for far ultraviolet ones; or are their wavelengths in "
            "nm, and not in Angstrom?"
        )


def wavelength_fault(wavelength: np.ndarray, segment_lengths: tuple[int, ...]) -> str:
    """What is wrong with wavelengths that are not finite, in Angstrom, and ascending inside each segment."""
    is_positive = np.isfinite(wavelength) & (wavelength > 0)
    if not is_positive.all():
        return f"expected finite, positive wavelengths, found: {np.count_nonzero(~is_positive)} pixels that are not"
    ascends = wavelength[1:] > wavelength[:-1]
    ascends[np.cumsum(segment_lengths)[:-1] - 1] = True
    if not ascends.all():
        pixel = int(np.flatnonzero(~ascends)[0])
        return (
            f"expected wavelengths that ascend inside each segment, found: {wavelength[pixel]:.4f} then "
            f"{wavelength[pixel + 1]:.4f} at pixel {pixel + 1}. Sort the spectrum, or give the lengths of its arms as "
            f"segment_lengths"
        )
    low, high = PLAUSIBLE_ANGSTROM
    return (
        f"expected wavelengths in Angstrom, from {low:g} to {high:g}, found: {wavelength.min():g} to "
        f"{wavelength.max():g}"
    )


def check_one_arm(spectrum: Spectrum) -> None:
    """Raise ValueError where wavelengths of a spectrum whose segments nobody named leap as from one arm to the next: a
    patch would straddle both."""
    steps = np.diff(spectrum.wavelength)
    if len(steps) < 2 * LEAP_NEIGHBOURS:
        return
    pixel = int(steps.argmax())
    step = np.median(steps[max(0, pixel - LEAP_NEIGHBOURS) : pixel + LEAP_NEIGHBOURS + 1])
    if steps[pixel] > ARM_LEAP * step:
        low, high = spectrum.wavelength[pixel : pixel + 2]
        raise ValueError(
            f"{spectrum.name}: segment_lengths: expected the pixels of each arm, found: none, and wavelengths that leap from "
            f"{low:.4f} to {high:.4f} at pixel {pixel + 1}. Of arms that are one segment all the same: [{len(steps) + 1}]"
        )


def patch_spectrum(spectrum: Spectrum, flux: np.ndarray, ivar: np.ndarray, wavelength: np.ndarray) -> float:
    """Write a spectrum's normalised patches into arrays (patches, patch_size) and return its scale.

    Unusable pixels and the filling of each segment's last patch get flux and ivar 0; the filling's wavelengths go on
    in the segment's last step. Raises ValueError where no pixel is usable.
    """
    is_usable = np.isfinite(spectrum.flux) & np.isfinite(spectrum.ivar) & (spectrum.ivar > 0)
    if not is_usable.all() and (spectrum.ivar == np.inf).any():
        logger.warning_once(
            "ivar is infinite in places, which are taken for unusable: an error of 0, or 1 / error**2 beyond float32, as of "
            "a flux in erg/s/cm2/A (in units of 1e-17 of it, or in float64, it is not)"
        )
    if not is_usable.any():
        raise ValueError(
            f"{spectrum.name}: expected usable pixels (finite, ivar > 0), found: none among {len(is_usable)}"
        )
    ivar_known = spectrum.ivar[is_usable]
    if ivar_known.min() < LEAST_IVAR * ivar_known.max():  # of the best tenth, as the very largest may be an error
        is_usable &= spectrum.ivar >= LEAST_IVAR * np.quantile(ivar_known, 0.9)
        ivar_known = spectrum.ivar[is_usable]
    flux_known = spectrum.flux[is_usable]
    scale = robust_scale(flux_known, ivar_known)
    warn_of_errors(spectrum.name, flux_known, ivar_known, scale)
    lay_out_scaled(spectrum, is_usable, scale, flux, ivar)
    lay_out_wavelength(spectrum.wavelength, spectrum.segment_lengths, wavelength)
    return scale


def warn_of_errors(name: str, flux: np.ndarray, ivar: np.ndarray, scale: float) -> None:
    """Tell of errors that are too large for the scatter of usable pixels, (pixels,) each."""
    some = slice(None, None, 1 + len(flux) // 500)  # enough to tell, and no time is lost
    with np.errstate(over="ignore"):
        sigmas = np.abs(flux[some] / scale) * (np.sqrt(ivar[some]) * np.float64(scale))
    if len(flux) >= FEWEST_PIXELS and 2 * np.count_nonzero(sigmas < LEAST_SCATTER) > len(sigmas):
        logger.warning(
            f"{name}: most pixels are within {LEAST_SCATTER:g} sigma of 0, which not even noise is: is ivar 1 / error**2, in the "
            "flux's own unit? The spectrum is taken for noise"
        )


def valid_patches(spectrum: Spectrum, ivar: np.ndarray) -> np.ndarray:
    """Which patches are at least half usable: ivar (patches, patch_size) -> (patches,) booleans. Raises ValueError
    where none is."""
    is_valid = has_enough(ivar)
    if not is_valid.any():
        raise ValueError(
            f"{spectrum.name}: expected a patch of {ivar.shape[1]} pixels at least half of which are usable, found: none "
            f"({np.count_nonzero(ivar)} usable of {len(spectrum.flux)} pixels)"
        )
    return is_valid


def robust_scale(flux: np.ndarray, ivar: np.ndarray) -> float:
    """The larger of median flux and median error, (pixels,) each: positive, and not smaller than what the noise allows
    to be known."""
    median = float(middle_two(flux).mean())
    # Where most errors are below it, so is their median: the second search is for spectra lost in the noise.
    if median > 0 and np.count_nonzero(ivar >= 1 / median**2) > len(flux) // 2:
        return median
    return max(median, float((middle_two(ivar) ** -0.5).mean()))


def middle_two(values: np.ndarray) -> np.ndarray:
    """(n,) numbers, none of them NaN -> the two in the middle; twice the same where n is odd."""
    half = len(values) // 2
    # For one place numpy has vectorised code, which takes a tenth of the time that two places, or np.median, take.
    parted = np.partition(values, half)
    return np.array([parted[half] if len(values) % 2 else parted[:half].max(), parted[half]])


def segments(segment_lengths: tuple[int, ...], patch_size: int) -> Iterator[tuple[slice, slice, slice]]:
    """Per segment: its pixels in the spectrum, their places among the patches' pixels, and those that its last patch is
    filled up with. No patch straddles two segments."""
    pixel = place = 0
    for length in segment_lengths:
        end = place + -(-length // patch_size) * patch_size
        yield slice(pixel, pixel + length), slice(place, place + length), slice(place + length, end)
        pixel, place = pixel + length, end


def lay_out_scaled(
    spectrum: Spectrum, is_usable: np.ndarray, scale: float, flux: np.ndarray, ivar: np.ndarray
) -> None:
    """Write flux / scale and ivar * scale^2 into arrays (patches, patch_size), both 0 where `is_usable`, (pixels,), is
    false and where the last patch of a segment is filled up."""
    flat_flux, flat_ivar, is_bad, square = flux.reshape(-1), ivar.reshape(-1), ~is_usable, np.float64(scale) ** 2
    for pixels, inside, filling in segments(spectrum.segment_lengths, flux.shape[1]):
        # Straight into the patches, without arrays of whole spectra in between.
        np.divide(spectrum.flux[pixels], scale, out=flat_flux[inside], casting="same_kind")
        with np.errstate(over="ignore"):
            np.multiply(spectrum.ivar[pixels], square, out=flat_ivar[inside], casting="same_kind")
        flat_ivar[inside][is_bad[pixels]] = 0
        flat_ivar[filling] = 0
    np.minimum(ivar, LARGEST_IVAR, out=ivar)
    flux[ivar == 0] = 0  # what underflows float32 is unusable as well


def lay_out_wavelength(wavelength: np.ndarray, segment_lengths: tuple[int, ...], patches: np.ndarray) -> None:
    """Write (pixels,) into (patches, patch_size); filling goes on in its segment's last step."""
    flat = patches.reshape(-1)
    for pixels, inside, filling in segments(segment_lengths, patches.shape[1]):
        flat[inside] = wavelength[pixels]
        if missing := filling.stop - filling.start:
            last = wavelength[pixels.stop - 1]
            # A segment of one pixel has no step of its own: an earlier segment's would point anywhere.
            step = last - wavelength[pixels.stop - 2] if pixels.stop - pixels.start > 1 else 1e-4 * last
            flat[filling] = last + step * np.arange(1, missing + 1)


def num_pixels(segment_lengths: tuple[int, ...], patch_size: int) -> np.ndarray:
    """(patches,) int64: pixels of the spectrum in each patch; the rest is filling."""
    counts = [[patch_size] * (length // patch_size) + [length % patch_size] for length in segment_lengths]
    return np.array([count for segment in counts for count in segment if count])


def patches_like(grid: np.ndarray, wavelength: np.ndarray, num_pixels: np.ndarray) -> np.ndarray:
    """Patches one behind the other over the wavelengths that are asked for, in pixels as wide as a spectrum's are there.

    Args:
        grid: (pixels,) wavelengths asked for, vacuum Angstrom.
        wavelength, num_pixels: (patches, patch_size) and (patches,) of the spectrum, see `lay_out_wavelength`.

    Returns:
        (patches, patch_size), ascending; those alone that hold a wavelength of the grid, or stand beside one.
    """
    patch_size = wavelength.shape[1]
    # A patch that is filled up goes on in its segment's last step, which a segment of one pixel has none of.
    known = wavelength[num_pixels > min(1, num_pixels.max() - 1)]
    known = known[known[:, 0].argsort()]
    middles, steps = known.mean(1), (known[:, -1] - known[:, 0]) / (patch_size - 1)
    asked = np.unique(grid)
    patches, place = [], asked[0]
    while len(asked):
        step = np.interp(asked[0], middles, steps)
        start = max(place, asked[0] - step)  # behind the patch before, or where the next wavelength is asked for
        patches.append(start + step * np.arange(patch_size))
        place = start + step * patch_size
        asked = asked[np.searchsorted(asked, patches[-1][-1], side="right") :]
    return np.stack(patches)
