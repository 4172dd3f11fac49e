# Copyright 2026 The spectral_tokenizer authors. Licensed under the Apache License, Version 2.0.
"""Spectra of any length in one row of tokens.

Sequences stand one behind the other in a tensor of shape (total, ...); their lengths are Python integers, made once,
so that no layer waits for the device. Padded tensors exist only at the model's door.
"""

from dataclasses import dataclass, replace
from itertools import groupby

import torch
from torch import Tensor


@dataclass
class PackedPatches:
    """Patches of several spectra, packed.

    Args:
        flux, ivar: (total, patch_size), in units of each spectrum's scale; ivar = 0 is unusable.
        wavelength: (total, patch_size), float64, vacuum Angstrom.
        lengths: Patches of each spectrum.
    """

    flux: Tensor
    ivar: Tensor
    wavelength: Tensor
    lengths: list[int]

    def select(self, is_selected: Tensor) -> "PackedPatches":
        """The patches where `is_selected` (total,) is true, in the same order."""
        index = is_selected.nonzero().squeeze(-1).to(self.flux.device)
        return replace(
            self,
            flux=self.flux[index],
            ivar=self.ivar[index],
            wavelength=self.wavelength[index],
            lengths=selected_lengths(is_selected, self.lengths),
        )


def selected_lengths(is_selected: Tensor, lengths: list[int]) -> list[int]:
    """How many of each sequence's positions are selected. `is_selected` is (total,)."""
    return [int(part.sum()) for part in is_selected.cpu().split(lengths)]


def interleave(first: Tensor, first_lengths: list[int], second: Tensor, second_lengths: list[int]) -> Tensor:
    """Put each sequence of `first` before the same sequence of `second`."""
    parts = zip(first.split(first_lengths), second.split(second_lengths))
    return torch.cat([part for pair in parts for part in pair])


def leading(tokens: Tensor, lengths: list[int], count: int) -> Tensor:
    """The first `count` tokens of every sequence: (total, hidden) -> (sequences, count, hidden)."""
    return torch.stack([part[:count] for part in tokens.split(lengths)])


def trailing(tokens: Tensor, lengths: list[int], count: int) -> Tensor:
    """All but the first `count` tokens of every sequence, packed."""
    return torch.cat([part[count:] for part in tokens.split(lengths)])


def pad(tokens: Tensor, is_present: Tensor) -> Tensor:
    """Lay packed (total, ...) out as (batch, positions, ...), zero where `is_present` (batch, positions) is false."""
    padded = tokens.new_zeros(is_present.shape + tokens.shape[1:])
    padded[is_present] = tokens
    return padded


def equal_runs(query_lengths: list[int], key_lengths: list[int]):
    """Neighbouring sequences of equal shape, which attention can treat as one batch.

    Yields (number of sequences, query length, key length)."""
    for (query_length, key_length), run in groupby(zip(query_lengths, key_lengths)):
        yield len(list(run)), query_length, key_length
