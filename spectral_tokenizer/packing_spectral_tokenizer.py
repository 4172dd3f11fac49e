# Copyright 2026 The spectral_tokenizer authors. Licensed under the Apache License, Version 2.0.
"""Spectra of any length in one row of tokens.

Sequences stand one behind the other in a tensor of shape (total, ...); their lengths are Python integers, made once,
so that no layer waits for the device. Padded tensors exist only at the model's door.
"""

import math
from dataclasses import dataclass, replace
from itertools import groupby

import numpy as np
import torch
from torch import Tensor, nn


class Sequences:
    """Where the sequences of a packed tensor (total, ...) begin and end.

    Args:
        lengths: Positions of each sequence, as Python integers.
        device: Of the packed tensor.

    Attributes:
        boundaries: (sequences + 1,) int32 on the device: 0, then the end of each. Made once for all layers.
        longest: The largest of the lengths.
    """

    def __init__(self, lengths: list[int], device: torch.device):
        self.lengths, self.longest = lengths, max(lengths, default=0)
        self.boundaries = to_device(torch.from_numpy(np.cumsum([0, *lengths], dtype=np.int32)), device)


@dataclass
class PaddedSequences:
    """Sequences in a padded tensor (batch, positions, ...), for export alone: see `SpectralModel.encode_padded`.

    Args:
        is_present: (batch, positions), true where a position exists.
    """

    is_present: Tensor


@dataclass
class PackedPatches:
    """Patches of several spectra, packed.

    Args:
        flux, ivar: (total, patch_size), in units of each spectrum's scale; ivar = 0 is unusable.
        wavelength: (total, patch_size), float64, vacuum Angstrom.
        lengths: Patches of each spectrum.
        code, basis: (total, hidden_size) and (total, patch_size, functions): see `SpectralModel.locate`.
        where: (total,), on the CPU: of selected patches, their places among those they were selected from.
    """

    flux: Tensor
    ivar: Tensor
    wavelength: Tensor
    lengths: list[int]
    code: Tensor | None = None
    basis: Tensor | None = None
    where: Tensor | None = None

    def select(self, is_selected: Tensor) -> "PackedPatches":
        """The patches where `is_selected`, (total,) on the CPU, is true, in the same order; not located yet."""
        where = is_selected.nonzero().squeeze(-1)
        index = to_device(where, self.flux.device)
        tensors = (each.index_select(0, index) for each in (self.flux, self.ivar, self.wavelength))
        return PackedPatches(*tensors, selected_lengths(is_selected, self.lengths), where=where)

    def level(self) -> Tensor:
        """(spectra,) the larger of median flux and median error of all usable pixels: what the processor would take for
        a spectrum's scale if these patches were all of it (it counts pixels of invalid patches as well). 1 where no pixel is
        usable."""
        is_usable = self.ivar > 0
        medians = (sequence_medians(each, is_usable, self.lengths) for each in (self.flux, self.ivar.rsqrt()))
        level = torch.maximum(*medians)
        return torch.where(level.isfinite(), level, 1.0)

    def level_beside(self, lengths: list[int]) -> Tensor:
        """(spectra,) the level of these patches, of `lengths` in all; 1 where these are all, so that such a spectrum is read
        as it is everywhere else."""
        is_all = torch.tensor([own == whole for own, whole in zip(self.lengths, lengths)])
        return torch.where(to_device(is_all, self.flux.device), 1.0, self.level())

    def in_units_of(self, level: Tensor) -> "PackedPatches":
        """Fluxes in units of each spectrum's `level`, (spectra,)."""
        each = level[sequence_of(self.lengths, level.device)][:, None]
        return replace(self, flux=self.flux / each, ivar=self.ivar * each**2)


@torch.compiler.disable  # numpy counts
def selected_lengths(is_selected: Tensor, lengths: list[int]) -> list[int]:
    """How many of each sequence's positions are selected; `is_selected` is (total,), on the CPU."""
    counts = np.asarray(lengths, dtype=np.int64)
    starts, is_filled = np.cumsum(counts) - counts, counts > 0
    # A GPU waits for this at every step. An empty sequence has no sum: `reduceat` would give it its neighbour's first.
    counts[is_filled] = np.add.reduceat(is_selected.numpy().view(np.int8), starts[is_filled], dtype=np.int64)
    return counts.tolist()


def is_recorded() -> bool:
    """Whether a model is being exported or traced: what is then read from the data would stay what it is for ever."""
    return torch.compiler.is_exporting() or torch.jit.is_tracing()


def sequence_of(lengths: list[int], device: torch.device) -> Tensor:
    """(total,) which sequence each position belongs to."""
    return to_device(torch.from_numpy(np.repeat(np.arange(len(lengths)), lengths)), device)


@torch.compiler.disable  # numpy counts
def sequence_medians(values: Tensor, is_known: Tensor, lengths: list[int]) -> Tensor:
    """(total, n) -> (sequences,): the median of each sequence's known values, the mean of two in the middle; NaN where
    none is known."""
    total, width = values.shape
    if not total:
        return values.new_full((len(lengths),), torch.nan)
    sequence = sequence_of([width * length for length in lengths], values.device)
    flat = torch.where(is_known, values, torch.inf).flatten()
    order = flat.argsort()
    ordered = flat[order[sequence[order].argsort(stable=True)]]  # by sequence, the unknown at each one's end
    count = sequence.new_zeros(len(lengths)).index_add(0, sequence, is_known.flatten().long())
    ends = np.cumsum(lengths) * width
    start = to_device(torch.from_numpy(ends - np.asarray(lengths) * width), values.device)
    low, high = (ordered[(start + place).clamp(0, len(flat) - 1)] for place in ((count - 1) // 2, count // 2))
    return torch.where(count > 0, 0.5 * (low + high), torch.nan)


def to_device(values: Tensor, device: torch.device) -> Tensor:
    """Move a small CPU tensor without making the CPU wait for the work that the device has been given."""
    return values.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else values.to(device)


def interleave(first: Tensor, first_lengths: list[int], second: Tensor, second_lengths: list[int]) -> Tensor:
    """Put each sequence of `first` before the same sequence of `second`."""
    # One gather, not a slice for each sequence: of hundreds of them a GPU would see little but the launches.
    number = np.arange(len(first_lengths))
    sequence = np.concatenate([number.repeat(first_lengths), number.repeat(second_lengths)])
    order = torch.from_numpy(sequence.argsort(kind="stable"))
    return torch.cat([first, second]).index_select(0, to_device(order, first.device))


def leading(tokens: Tensor, lengths: list[int], count: int) -> Tensor:
    """The first `count` tokens of every sequence: (total, hidden) -> (sequences, count, hidden)."""
    starts = np.cumsum([0, *lengths])[:-1]
    index = torch.from_numpy((starts[:, None] + np.arange(count)).ravel())
    return tokens.index_select(0, to_device(index, tokens.device)).unflatten(0, (len(lengths), count))


def trailing(tokens: Tensor, lengths: list[int], count: int) -> Tensor:
    """All but the first `count` tokens of every sequence, packed."""
    return torch.cat([part[count:] for part in tokens.split(lengths)])


def segment_means(tokens: Tensor, wavelength: Tensor, num_segments: int) -> Tensor:
    """Average tokens (patches, hidden) in `num_segments` stretches of ascending wavelength -> flat vector."""
    if len(tokens) == 0:
        return tokens.new_zeros(num_segments * tokens.shape[1])
    order = wavelength[:, wavelength.shape[1] // 2].argsort()
    return nn.functional.adaptive_avg_pool1d(tokens[order].T[None], num_segments)[0].T.flatten()


def pad(tokens: Tensor, is_present: Tensor | None) -> Tensor:
    """Lay packed (total, ...) out as (batch, positions, ...), zero where `is_present` (batch, positions) is false.
    Input that came packed goes out packed: without `is_present`, (1, total, ...)."""
    if is_present is None:
        return tokens[None]
    padded = tokens.new_zeros(is_present.shape + tokens.shape[1:])
    padded[is_present] = tokens
    return padded


def padded(packed: Tensor, lengths: list[int]) -> tuple[Tensor, Tensor]:
    """(1, total, ...) -> (batch, longest, ...), and (batch, longest) booleans that say what is of a spectrum."""
    count = torch.tensor(lengths, device=packed.device)
    is_present = torch.arange(max(lengths), device=packed.device) < count[:, None]
    return pad(packed[0], is_present), is_present


def pack_tokens(
    tokens: Tensor, token_mask: Tensor | None, lengths: list[int] | None, num_latents: int
) -> tuple[Tensor, list[int]]:
    """Tokens as `SpectralModel.encode` gave them -> packed, (total, hidden_size), and how many are each spectrum's.

    Raises:
        ValueError: neither mask nor lengths, or both, or of other tokens.
    """
    if lengths is not None:
        check_lengths(lengths)
        num_tokens = [num_latents + length for length in lengths]
        if token_mask is None and tokens.shape[:-1] == (1, sum(num_tokens)):
            return tokens[0], num_tokens
    elif token_mask is not None and tokens.shape[:-1] == token_mask.shape:
        return tokens[token_mask.bool()], token_mask.sum(1).tolist()
    raise ValueError(
        "expected tokens and the token_mask that encode gave with them or, of packed spectra, (1, all tokens, "
        f"hidden_size) and the lengths that encode was given, found: tokens {tuple(tokens.shape)}, "
        f"token_mask {None if token_mask is None else tuple(token_mask.shape)}, "
        f"lengths {None if lengths is None else f'of {len(lengths)} spectra'}"
    )


def equal_runs(query_lengths: list[int], key_lengths: list[int]):
    """Neighbouring sequences of equal shape, which attention can treat as one batch.

    Yields (number of sequences, query length, key length)."""
    for (query_length, key_length), run in groupby(zip(query_lengths, key_lengths)):
        yield len(list(run)), query_length, key_length


def check_patches(
    flux: Tensor,
    ivar: Tensor,
    wavelength: Tensor,
    patch_size: int,
    attention_mask: Tensor | None = None,
    lengths: list[int] | None = None,
    scale: Tensor | None = None,
) -> None:
    """Raise ValueError unless a model's input, see `SpectralModel.forward`, is of padded or of packed spectra."""
    if not flux.shape == ivar.shape == wavelength.shape or flux.ndim != 3 or flux.shape[-1] != patch_size:
        raise ValueError(
            f"flux, ivar and wavelength must share one shape (batch, patches, {patch_size}), found: "
            f"{tuple(flux.shape)}, {tuple(ivar.shape)}, {tuple(wavelength.shape)}"
        )
    check_precision(wavelength)
    if not len(flux):
        raise ValueError("expected at least one spectrum, found: an empty batch")
    if lengths is not None:
        check_lengths(lengths)
        if len(flux) != 1 or sum(lengths) != flux.shape[1] or attention_mask is not None:
            raise ValueError(
                f"packed input: expected shape (1, total, {patch_size}), lengths that add up to total, and no "
                f"attention_mask, found: {tuple(flux.shape)}, lengths that add up to {sum(lengths)}, "
                f"{'no' if attention_mask is None else 'an'} attention_mask"
            )
        if scale is not None and math.prod(scale.shape) != len(lengths):
            raise ValueError(
                f"lengths: expected one for each of {math.prod(scale.shape)} scales, found: {len(lengths)}"
            )
        return
    if attention_mask is not None and attention_mask.shape != flux.shape[:2]:
        raise ValueError(
            f"attention_mask must have shape {tuple(flux.shape[:2])}, found: {tuple(attention_mask.shape)}"
        )
    if scale is not None and len(flux) == 1 and math.prod(scale.shape) > 1:
        raise ValueError(
            f"scale: expected one, of one spectrum, found: {math.prod(scale.shape)}: packed spectra need their lengths"
        )


def check_lengths(lengths) -> None:
    """Raise ValueError unless each spectrum's number of patches is told: in a list, or in one dimension of integers."""
    numbers = plain(lengths)
    is_list = isinstance(numbers, (list, tuple))
    wrong = [each for each in map(plain, numbers) if not isinstance(each, int) or each < 0] if is_list else [numbers]
    if wrong:
        raise ValueError(
            f"lengths: expected a list of whole numbers, the patches of each spectrum, found: {wrong[0]!r}"
        )


def plain(values):
    """Numbers of Python where a tensor or an array has them, anything else as it is."""
    return values.tolist() if hasattr(values, "tolist") else values


def check_precision(wavelength: Tensor) -> None:
    """Raise ValueError where wavelengths are too coarse to tell pixels apart."""
    if not isinstance(wavelength, Tensor):
        raise ValueError(
            'wavelength: expected a tensor, as a processor gives it with return_tensors="pt", found: '
            f"{type(wavelength).__name__}"
        )
    if wavelength.dtype not in (torch.float64, torch.float32):
        raise ValueError(
            f"wavelength: expected float64 (float32 is taken: 0.001 A at 17,000 A), found: {wavelength.dtype}. Move inputs "
            "by .to(device) alone: the model casts them itself"
        )


def read_mask(attention_mask: Tensor | None, ivar: Tensor) -> Tensor:
    """Which patches are valid, (batch, patches): those that the mask says; by `has_enough` where there is none.

    Raises:
        ValueError: the mask is none of 1 and 0. One that is added to the attention's logits, 0 where a patch is valid,
            would be read the wrong way round; and of nothing but 0.0 nobody knows which of the two it is.
    """
    if attention_mask is None:
        return has_enough(ivar)
    expected = (
        "attention_mask: expected 1 for a valid patch and 0 for one that does not exist, no mask to be added to logits"
    )
    if is_recorded():  # which reads no values
        if attention_mask.is_floating_point():
            raise ValueError(f"{expected}, in integers or booleans, found: {attention_mask.dtype}")
        return attention_mask.bool()
    if attention_mask.dtype != torch.bool:
        is_valid = attention_mask == 1
        if not (is_valid | (attention_mask == 0)).all():
            raise ValueError(f"{expected}, found: {attention_mask.min().item():g} to {attention_mask.max().item():g}")
        if attention_mask.is_floating_point() and not is_valid.any():
            raise ValueError(f"{expected}, found: 0.0 everywhere")
    return attention_mask.bool()


def has_enough(ivar: Tensor | np.ndarray) -> Tensor | np.ndarray:
    """Which patches are valid: (..., patches, patch_size) -> (..., patches), in the processor as in the model."""
    return 2 * (ivar > 0).sum(-1) >= ivar.shape[-1]


def valid_targets(target_flux: Tensor, flux: Tensor, is_valid: Tensor | None) -> Tensor:
    """What the decoder is to answer with, (valid patches, patch_size), shaped as flux; `is_valid` is None where packed.

    Raises:
        ValueError: it has another shape, which would be broadcast, or taken for other patches.
    """
    if target_flux.shape != flux.shape:
        raise ValueError(
            f"target_flux: expected shape {tuple(flux.shape)}, as flux, found: {tuple(target_flux.shape)}"
        )
    return target_flux[0] if is_valid is None else target_flux[is_valid]
