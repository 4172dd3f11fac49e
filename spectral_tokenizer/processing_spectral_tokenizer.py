# Copyright 2026 The spectral_tokenizer authors. Licensed under the Apache License, Version 2.0.
"""Spectra <-> normalised patches. The processor's argument names are the column names of a survey row."""

from collections.abc import Mapping

import numpy as np
import torch
from transformers import BatchFeature
from transformers.feature_extraction_utils import FeatureExtractionMixin

from .packing_spectral_tokenizer import check_precision
from .patching_spectral_tokenizer import (
    Spectrum,
    as_array,
    check_not_half,
    checked,
    checked_spectra,
    in_angstrom,
    lay_out_wavelength,
    num_pixels,
    patch_spectrum,
    patches_like,
    valid_patches,
)


PIXELS = {"flux": np.float32, "ivar": np.float32, "wavelength": np.float64}


class SpectralProcessor(FeatureExtractionMixin):
    r"""
    Turns spectra on their native grids into the model's input and the model's answers back into the survey's unit.

    Per spectrum: a pixel is *usable* if its ivar is positive and both numbers are finite (and its error not a million
    times that of the better pixels, which some files mark bad ones by). The *scale* is the larger
    of the usable pixels' median flux and median error, so it is positive whatever the flux does: a faint emission-line
    galaxy or a sky-subtracted quasar whose median is negative or lost in the noise is measured in units of its noise.
    flux / scale and ivar * scale^2 are cut into patches of `patch_size` pixels, segment by segment (an arm, a chip, a
    CCD): no patch straddles two segments, the last one of each is filled up with unusable pixels. A patch with more
    than half of its pixels unusable is invalid: its `attention_mask` is 0.

    Saved beside a model it opens with `AutoProcessor`, saved alone with this class.

    Args:
        patch_size: Pixels per patch, as in the model's configuration.

    Raises:
        ValueError: patch_size is no positive whole number.
    """

    model_input_names = ["flux", "ivar", "wavelength", "attention_mask"]

    def __init__(self, patch_size: int = 32, **kwargs):
        super().__init__(**kwargs)
        if isinstance(patch_size, bool) or not isinstance(patch_size, int | np.integer) or patch_size < 1:
            raise ValueError(f"patch_size: expected a positive whole number of pixels, found: {patch_size!r}")
        self.patch_size = int(patch_size)

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
                list of rows, or a batch of rows (a mapping of columns). A flux per wavelength, in any multiple: no f_nu.
            ivar: Inverse variance in the unit of 1 / flux^2, shaped as flux. **0 means unusable.** From an error
                array: `1 / error**2`. Where any of the three is a masked array, its masked pixels are unusable too.
            wavelength: Vacuum Angstrom, ascending inside each segment, shaped as flux, or (pixels,) for all spectra.
                With a unit of its own, as astropy's quantities, it is converted to Angstrom.
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
            ValueError: lengths differ, wavelengths do not ascend, cannot be in Angstrom (below 500 or beyond 300,000), or leap
                as between arms where there are no `segment_lengths`, the flux has a unit per frequency, of photons or
                magnitudes, or no patch is valid. Names the spectrum, what was found and what was expected.
        """
        spectra = checked_spectra(flux, ivar, wavelength, segment_lengths)
        if not packed:
            return BatchFeature(self.pad(spectra), tensor_type=return_tensors or "np")
        features, lengths = self.pack(spectra)
        return BatchFeature({**BatchFeature(features, tensor_type=return_tensors or "np"), "lengths": lengths})

    def pad(self, spectra: list[Spectrum]) -> dict:
        """All patches of each spectrum in a row of its own."""
        counts = [spectrum.num_patches(self.patch_size) for spectrum in spectra]
        shape = (len(spectra), max(counts))
        features = {name: np.zeros((*shape, self.patch_size), dtype) for name, dtype in PIXELS.items()}
        features |= {"attention_mask": np.zeros(shape, dtype=np.int64), "num_pixels": np.zeros(shape, dtype=np.int64)}
        features["scale"] = np.zeros(len(spectra))
        for row, (spectrum, count) in enumerate(zip(spectra, counts)):
            pixels = [features[name][row, :count] for name in PIXELS]
            features["scale"][row] = patch_spectrum(spectrum, *pixels)
            features["attention_mask"][row, :count] = valid_patches(spectrum, pixels[1])
            features["num_pixels"][row, :count] = num_pixels(spectrum.segment_lengths, self.patch_size)
        return features

    def pack(self, spectra: list[Spectrum]) -> tuple[dict, list[int]]:
        """The valid patches of all spectra, one behind the other, and how many each has."""
        counts = [spectrum.num_patches(self.patch_size) for spectrum in spectra]
        features = {name: np.empty((1, sum(counts), self.patch_size), dtype) for name, dtype in PIXELS.items()}
        scale, lengths, total = np.zeros(len(spectra)), [], 0
        for position, (spectrum, count) in enumerate(zip(spectra, counts)):
            pixels = [features[name][0, total : total + count] for name in PIXELS]
            scale[position] = patch_spectrum(spectrum, *pixels)
            valid = np.flatnonzero(valid_patches(spectrum, pixels[1]))
            lengths.append(len(valid))
            # Over the invalid ones while they are in the CPU's cache: a selection of all would move them again.
            if len(valid) < count:
                for each in pixels:
                    each[: len(valid)] = each.take(valid, axis=0)
            total += lengths[-1]
        return {name: features[name][:, :total] for name in PIXELS} | {"scale": scale}, lengths

    def patch_wavelength(
        self, wavelength, segment_lengths=None, like: Mapping | None = None, return_tensors: str | None = None
    ) -> BatchFeature:
        r"""
        Patches to ask the decoder for.

        Args:
            wavelength: (pixels,) vacuum Angstrom, or with a unit of its own; ascending inside each segment.
            segment_lengths: As in `__call__`.
            like: What `__call__` made of the spectra, padded. The decoder answers well in pixels about as wide as
                those it was trained on, which are the surveys': with pixels half as wide or twice, it errs by as much
                again. So the patches then have pixels as wide as each spectrum's own, wherever a wavelength is asked
                for, and `post_process_reconstruction` goes from these to the wavelengths. Without, they are made of
                the wavelengths as they are, as for a survey's own grid.

        Returns:
            **wavelength** (1, patches, patch_size) float64 and **num_pixels** (1, patches); with `like` one row for
            each spectrum, and **grid** (pixels,), the wavelengths themselves.

        Raises:
            ValueError: as `__call__`; or `like` is not what it returns of padded spectra.
        """
        wavelength = in_angstrom(wavelength)
        if np.ndim(wavelength) != 1:
            raise ValueError(
                f"wavelength: expected one ascending array, asked of all spectra alike, found: shape {np.shape(wavelength)}"
            )
        grid = checked("wavelength", wavelength, wavelength, wavelength, segment_lengths)
        if like is None:
            patches = np.empty((1, grid.num_patches(self.patch_size), self.patch_size))
            lay_out_wavelength(grid.wavelength, grid.segment_lengths, patches[0])
            features = {"wavelength": patches, "num_pixels": num_pixels(grid.segment_lengths, self.patch_size)[None]}
        else:
            features = self.patches_like(grid.wavelength, like) | {"grid": grid.wavelength}
        return BatchFeature(features, tensor_type=return_tensors or "np")

    def patches_like(self, grid: np.ndarray, like: Mapping) -> dict[str, np.ndarray]:
        """`wavelength` (batch, patches, patch_size) and `num_pixels` (batch, patches), 0 where there are fewer."""
        if missing := [name for name in ("wavelength", "num_pixels") if like.get(name) is None]:
            raise ValueError(
                f"like: expected padded spectra as the processor returns them, found: {sorted(like)}, without {missing}"
            )
        if isinstance(like["wavelength"], torch.Tensor):
            check_precision(like["wavelength"])
        if np.ndim(like["wavelength"]) != 3 or np.ndim(like["num_pixels"]) != 2:
            raise ValueError(
                "like: expected wavelength (batch, patches, patch_size) and num_pixels (batch, patches), one spectrum as a batch "
                f"of one, found shapes: {np.shape(like['wavelength'])} and {np.shape(like['num_pixels'])}"
            )
        spectra = zip(as_array(like["wavelength"]), as_array(like["num_pixels"]))
        found = [patches_like(grid, *spectrum) for spectrum in spectra]
        longest = max(map(len, found))
        patches = np.stack([np.pad(each, ((0, longest - len(each)), (0, 0)), mode="edge") for each in found])
        is_patch = np.arange(longest) < np.array([[len(each)] for each in found])
        return {"wavelength": patches, "num_pixels": is_patch * self.patch_size}

    def post_process_reconstruction(
        self, reconstruction, scale, num_pixels, wavelength=None, grid=None
    ) -> list[np.ndarray]:
        r"""
        The inverse of patching and normalising.

        Args:
            reconstruction: (batch, patches, patch_size) in units of the scale, from the model.
            scale: (batch,) as `__call__` returned it.
            num_pixels: (batch, patches) as `__call__` or `patch_wavelength` returned it; one row serves a whole batch.
            wavelength, grid: As `patch_wavelength` returned them for spectra that it was given as `like`.

        Returns:
            Per spectrum the flux on the grid that was patched, or at the wavelengths of `grid`, linear between pixels:
            (pixels,) float64 in the survey's unit.

        Raises:
            ValueError: not one scale for each spectrum, or other patches: packed spectra, say; or a scale or
                wavelengths in half precision.
        """
        check_not_half(scale=scale, wavelength=wavelength, grid=grid)
        if grid is not None and wavelength is None:
            raise ValueError(
                "expected the patches' wavelength beside a grid, both of patch_wavelength, found: a grid alone"
            )
        flux, scale, num_pixels = (as_array(each) for each in (reconstruction, scale, num_pixels))
        if scale.shape != flux.shape[:1] or num_pixels.shape not in (flux.shape[:2], (1, *flux.shape[1:2])):
            raise ValueError(
                "expected (batch, patches, patch_size) of padded spectra, (batch,) scales and (batch, patches) num_pixels, "
                f"found: {flux.shape}, {scale.shape} and {num_pixels.shape}"
            )
        num_pixels = np.broadcast_to(num_pixels, flux.shape[:2])
        is_pixel = np.arange(flux.shape[2]) < num_pixels[:, :, None]
        fluxes = [each[keep].astype(np.float64) * factor for each, keep, factor in zip(flux, is_pixel, scale)]
        if grid is None:
            return fluxes
        return [
            np.interp(as_array(grid), each[keep], flux)
            for each, keep, flux in zip(as_array(wavelength), is_pixel, fluxes)
        ]

    def to_dict(self) -> dict:
        # One class serves AutoProcessor and AutoFeatureExtractor, which Trainer's saving goes through.
        output = super().to_dict()
        own = "processing_spectral_tokenizer.SpectralProcessor"
        reference = next(iter((output.get("auto_map") or {}).values()), own)
        return {**output, "auto_map": {"AutoProcessor": reference, "AutoFeatureExtractor": reference}}


__all__ = ["SpectralProcessor"]
