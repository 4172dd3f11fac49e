# Copyright 2026 The spectral_tokenizer authors. Licensed under the Apache License, Version 2.0.
"""Spectra <-> normalised patches. The processor's argument names are the column names of a survey row."""

from collections.abc import Mapping, Sequence
from functools import lru_cache

import numpy as np
import torch
from transformers import BatchFeature
from transformers.feature_extraction_utils import FeatureExtractionMixin
from transformers.utils import logging


logger = logging.get_logger(__name__)

# Outside of this range the wavelengths of a spectrum are probably not in Angstrom.
PLAUSIBLE_ANGSTROM = (500.0, 300_000.0)
# An error below a millionth of the spectrum's scale is rounding, and its inverse square would overflow float32.
LARGEST_IVAR = 1e12
FLOAT32 = (np.dtype("float32"), torch.float32)


class SpectralProcessor(FeatureExtractionMixin):
    r"""
    Turns spectra on their native grids into the model's input and the model's answers back into the survey's unit.

    Per spectrum: a pixel is *usable* if its ivar is positive and both numbers are finite. The *scale* is the larger
    of the usable pixels' median flux and median error, so it is positive whatever the flux does: a faint emission-line
    galaxy or a sky-subtracted quasar whose median is negative or lost in the noise is measured in units of its noise.
    flux / scale and ivar * scale^2 are cut into patches of `patch_size` pixels, segment by segment (an arm, a chip, a
    CCD): no patch straddles two segments, the last one of each is filled up with unusable pixels. A patch with more
    than half of its pixels unusable is invalid: its `attention_mask` is 0.

    Args:
        patch_size: Pixels per patch.
    """

    model_input_names = ["flux", "ivar", "wavelength", "attention_mask"]

    def __init__(self, patch_size: int = 32, **kwargs):
        super().__init__(**kwargs)
        self.patch_size = patch_size

    def __call__(
        self,
        flux,
        ivar=None,
        wavelength=None,
        segment_lengths=None,
        packed: bool = False,
        return_tensors: str | None = None,
    ) -> BatchFeature:
        r"""
        Args:
            flux: One spectrum (pixels,), a list of spectra, a row with the columns of `spectral_tokenizer.data`, a
                list of rows, or a batch of rows (a mapping of columns). Any unit.
            ivar: Inverse variance in the unit of 1 / flux^2, shaped as flux. **0 means unusable.** From an error
                array: `1 / error**2`.
            wavelength: Vacuum Angstrom, ascending inside each segment, shaped as flux.
            segment_lengths: Pixels of each arm, chip or CCD in order. None: the spectrum is one segment.
            packed: Put the valid patches of all spectra one behind the other, without padding.
            return_tensors: `"pt"` or `"np"` (default).

        Returns:
            - **flux, ivar, wavelength** (batch, patches, patch_size); float32, float32 and float64.
            - **attention_mask** (batch, patches) int64: 1 for a valid patch.
            - **scale** (batch,) float64, in the flux's unit.
            - **num_pixels** (batch, patches) int64: pixels of the spectrum in each patch; the rest is filling.

            Packed: flux, ivar and wavelength are (1, total, patch_size) and **lengths** is a list of integers.

        Raises:
            ValueError: lengths differ, wavelengths do not ascend, or no patch is valid. Names the spectrum, what was
                found and what was expected.
        """
        spectra = list(as_spectra(flux, ivar, wavelength, segment_lengths))
        if not spectra:
            raise ValueError("expected at least one spectrum, found: an empty batch")
        patched = [self.patch_spectrum(*spectrum) for spectrum in spectra]
        scale = np.array([each.pop("scale") for each in patched])
        if packed:
            is_valid = [each["attention_mask"].astype(bool) for each in patched]
            features = {
                name: np.concatenate([each[name][valid] for each, valid in zip(patched, is_valid)])[None]
                for name in ("flux", "ivar", "wavelength")
            }
            batch = BatchFeature({**features, "scale": scale}, tensor_type=return_tensors or "np")
            batch["lengths"] = [int(valid.sum()) for valid in is_valid]
            return batch
        length = max(len(each["flux"]) for each in patched)
        features = {name: np.stack([fill(each[name], length) for each in patched]) for name in patched[0]}
        return BatchFeature({**features, "scale": scale}, tensor_type=return_tensors or "np")

    def patch_spectrum(self, name: str, flux, ivar, wavelength, segment_lengths) -> dict[str, np.ndarray]:
        """Check, normalise and patch one spectrum. `name` is what errors call it."""
        if getattr(wavelength, "dtype", None) in FLOAT32:
            # Datasets' numpy and torch formats do this to float64 columns without a word.
            logger.warning_once(
                f"{name}: wavelengths came as float32, which is 0.001 A at 17,000 A. With Datasets, use rows as they "
                f"are, or with_format('numpy', dtype='float64')"
            )
        flux, ivar, wavelength = (np.asarray(each, dtype=np.float64) for each in (flux, ivar, wavelength))
        segment_lengths = check(name, flux, ivar, wavelength, segment_lengths)
        is_usable = np.isfinite(flux) & np.isfinite(ivar) & (ivar > 0)
        if not is_usable.any():
            raise ValueError(f"{name}: expected usable pixels (finite, ivar > 0), found: none among {len(flux)}")
        scale = robust_scale(flux[is_usable], ivar[is_usable])
        flux = np.where(is_usable, flux, 0.0) / scale
        with np.errstate(over="ignore"):
            ivar = np.minimum(np.where(is_usable, ivar, 0.0) * scale**2, LARGEST_IVAR)

        index, steps_beyond = patch_index(segment_lengths, self.patch_size)
        is_filling = steps_beyond > 0
        ivar = np.where(is_filling, 0.0, ivar[index]).astype(np.float32)
        num_usable = (ivar > 0).sum(axis=1)
        is_valid = 2 * num_usable >= self.patch_size
        if not is_valid.any():
            raise ValueError(
                f"{name}: expected a patch of {self.patch_size} pixels at least half of which are usable, found: none "
                f"({is_usable.sum()} usable of {len(is_usable)} pixels)"
            )
        return {
            "flux": np.where(ivar > 0, flux[index], 0.0).astype(np.float32),
            "ivar": ivar,
            "wavelength": extend(wavelength, index, steps_beyond),
            "attention_mask": is_valid.astype(np.int64),
            "num_pixels": (~is_filling).sum(axis=1),
            "scale": scale,
        }

    def patch_wavelength(self, wavelength, segment_lengths=None, return_tensors: str | None = None) -> BatchFeature:
        r"""
        Patches of any grid, to ask the decoder for.

        Args:
            wavelength: (pixels,) vacuum Angstrom, ascending inside each segment.
            segment_lengths: As in `__call__`.

        Returns:
            **wavelength** (1, patches, patch_size) float64 and **num_pixels** (1, patches).
        """
        wavelength = np.asarray(wavelength, dtype=np.float64)
        segment_lengths = check("wavelength", wavelength, wavelength, wavelength, segment_lengths)
        index, steps_beyond = patch_index(segment_lengths, self.patch_size)
        features = {
            "wavelength": extend(wavelength, index, steps_beyond)[None],
            "num_pixels": (steps_beyond == 0).sum(axis=1)[None],
        }
        return BatchFeature(features, tensor_type=return_tensors or "np")

    def post_process_reconstruction(self, reconstruction, scale, num_pixels) -> list[np.ndarray]:
        r"""
        The inverse of patching and normalising.

        Args:
            reconstruction: (batch, patches, patch_size) in units of the scale, from the model.
            scale: (batch,) as `__call__` returned it.
            num_pixels: (batch, patches) as `__call__` or `patch_wavelength` returned it; one row serves a whole batch.

        Returns:
            Per spectrum the flux on the grid that was patched, (pixels,) float64 in the survey's unit.
        """
        flux, scale, num_pixels = (
            np.asarray(each.detach().cpu().double() if hasattr(each, "detach") else each)
            for each in (reconstruction, scale, num_pixels)
        )
        num_pixels = np.broadcast_to(num_pixels, flux.shape[:2])
        is_pixel = np.arange(flux.shape[2]) < num_pixels[:, :, None]
        return [each[keep].astype(np.float64) * factor for each, keep, factor in zip(flux, is_pixel, scale)]

    def to_dict(self) -> dict:
        # One class serves AutoProcessor and AutoFeatureExtractor, which Trainer's saving goes through.
        output = super().to_dict()
        reference = "processing_spectral_tokenizer.SpectralProcessor"
        for class_reference in (output.get("auto_map") or {}).values():
            reference = class_reference
        return {**output, "auto_map": {"AutoProcessor": reference, "AutoFeatureExtractor": reference}}


def as_spectra(flux, ivar, wavelength, segment_lengths):
    """Every accepted form of input -> (name, flux, ivar, wavelength, segment_lengths) per spectrum."""
    if isinstance(flux, Mapping):
        columns = flux
        missing = [name for name in ("flux", "ivar", "wavelength") if columns.get(name) is None]
        if missing:
            raise ValueError(f"a row needs the columns flux, ivar and wavelength, missing: {', '.join(missing)}")
        if np.ndim(columns["flux"][0]) == 0:
            yield from as_spectra([columns], None, None, None)
            return
        names = [name for name in ("flux", "ivar", "wavelength", "segment_lengths", "object_id") if name in columns]
        yield from as_spectra([dict(zip(names, row)) for row in zip(*(columns[name] for name in names))], *3 * [None])
        return
    if isinstance(flux, Sequence) and len(flux) and isinstance(flux[0], Mapping):
        for position, row in enumerate(flux):
            name = f"spectrum {position}" + (f" ({row['object_id']})" if row.get("object_id") else "")
            missing = [column for column in ("flux", "ivar", "wavelength") if row.get(column) is None]
            if missing:
                raise ValueError(f"{name}: a row needs flux, ivar and wavelength, missing: {', '.join(missing)}")
            yield name, row["flux"], row["ivar"], row["wavelength"], row.get("segment_lengths")
        return
    if ivar is None or wavelength is None:
        raise ValueError(
            "expected flux, ivar and wavelength, found no "
            + " and no ".join(name for name, each in (("ivar", ivar), ("wavelength", wavelength)) if each is None)
            + ". ivar is 1 / error**2 per pixel, 0 where the pixel is unusable; wavelength is in vacuum Angstrom"
        )
    if len(flux) == 0 or np.ndim(flux[0]) == 0:
        flux, ivar, wavelength, segment_lengths = [flux], [ivar], [wavelength], [segment_lengths]
    counts = {"flux": len(flux), "ivar": len(ivar), "wavelength": len(wavelength)}
    if segment_lengths is None:
        segment_lengths = [None] * len(flux)
    elif np.ndim(segment_lengths[0]) == 0 and segment_lengths[0] is not None:
        segment_lengths = [segment_lengths] * len(flux)
    if len({*counts.values(), len(segment_lengths)}) > 1:
        raise ValueError(f"expected as many spectra in every argument, found: {counts}")
    for position, spectrum in enumerate(zip(flux, ivar, wavelength, segment_lengths)):
        yield f"spectrum {position}", *spectrum


def check(name: str, flux, ivar, wavelength, segment_lengths) -> tuple[int, ...]:
    """Raise ValueError unless the arrays describe one spectrum; return its segment lengths."""
    if not (flux.ndim == 1 and flux.shape == ivar.shape == wavelength.shape):
        raise ValueError(
            f"{name}: expected flux, ivar and wavelength of one length, found shapes: {flux.shape}, {ivar.shape}, "
            f"{wavelength.shape}"
        )
    if len(flux) == 0:
        raise ValueError(f"{name}: expected at least one pixel, found: an empty spectrum")
    segment_lengths = (len(flux),) if segment_lengths is None else tuple(int(each) for each in segment_lengths)
    if sum(segment_lengths) != len(flux) or min(segment_lengths) < 1:
        raise ValueError(
            f"{name}: expected segment_lengths that add up to {len(flux)} pixels, found: {segment_lengths}"
        )
    if not np.isfinite(wavelength).all() or wavelength.min() <= 0:
        raise ValueError(
            f"{name}: expected finite, positive wavelengths, found: "
            f"{np.sum(~np.isfinite(wavelength) | (wavelength <= 0))} pixels that are not"
        )
    is_within = np.ones(len(flux) - 1, dtype=bool)
    is_within[np.cumsum(segment_lengths)[:-1] - 1] = False
    step = np.diff(wavelength)
    if (step[is_within] <= 0).any():
        pixel = int(np.flatnonzero(is_within & (step <= 0))[0])
        raise ValueError(
            f"{name}: expected wavelengths that ascend inside each segment, found: {wavelength[pixel]:.4f} then "
            f"{wavelength[pixel + 1]:.4f} at pixel {pixel + 1}. Sort the spectrum, or give the lengths of its arms as "
            f"segment_lengths"
        )
    low, high = PLAUSIBLE_ANGSTROM
    if wavelength[0] < low or wavelength[-1] > high:
        logger.warning_once(f"{name}: wavelengths {wavelength[0]:.6g} to {wavelength[-1]:.6g}: are they in Angstrom?")
    return segment_lengths


def robust_scale(flux: np.ndarray, ivar: np.ndarray) -> float:
    """The larger of median flux and median error: positive, and not smaller than what the noise allows to be known."""
    # 1 / sqrt before the median, in this order, so that a factor on the flux passes through exactly.
    return float(max(np.median(flux), np.median(1 / np.sqrt(ivar))))


@lru_cache(maxsize=256)
def patch_index(segment_lengths: tuple[int, ...], patch_size: int) -> tuple[np.ndarray, np.ndarray]:
    """Which pixel stands where.

    Returns:
        Two (patches, patch_size) integer arrays: the pixel (filling repeats its segment's last one), and how many
        steps beyond that last pixel a filling stands (0 for a pixel of the spectrum).
    """
    starts = np.cumsum([0, *segment_lengths[:-1]])
    indices, beyond = [], []
    for start, length in zip(starts, segment_lengths):
        position = np.arange(-(-length // patch_size) * patch_size)
        indices.append(start + np.minimum(position, length - 1))
        beyond.append(np.maximum(position - (length - 1), 0))
    index, steps = (np.concatenate(each).reshape(-1, patch_size) for each in (indices, beyond))
    index.flags.writeable = steps.flags.writeable = False  # shared by all callers
    return index, steps


def extend(wavelength: np.ndarray, index: np.ndarray, steps_beyond: np.ndarray) -> np.ndarray:
    """Wavelengths of all patch positions (patches, patch_size); filling goes on in the segment's last step."""
    before = np.maximum(index - 1, 0)
    step = np.where(steps_beyond > 0, wavelength[index] - wavelength[before], 0.0)
    # A segment of one pixel has no step of its own: an earlier segment's would point anywhere.
    step = np.where(step > 0, step, (steps_beyond > 0) * 1e-4 * wavelength[index])
    return wavelength[index] + steps_beyond * step


def fill(values: np.ndarray, length: int) -> np.ndarray:
    """Append zeros up to `length` patches."""
    return np.pad(values, [(0, length - len(values))] + [(0, 0)] * (values.ndim - 1))


__all__ = ["SpectralProcessor"]
