# Copyright 2026 The spectral_tokenizer authors. Licensed under the Apache License, Version 2.0.
"""What is known of some objects (class, redshift, stellar labels), as a second thing that pre-training can ask for.

The tokens have to give it through one linear layer, from what the encoder was shown. Rows without labels cost nothing.
"""

from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor, nn
from transformers import initialization as init

from .configuration_spectral_tokenizer import SpectralConfig, TargetConfig
from .layers_spectral_tokenizer import LinearInFloat32
from .packing_spectral_tokenizer import to_device
from .targets_spectral_tokenizer import TARGETS


#: Labels that are shown by where lines stand, and in which frames: not in spectra that the survey has shifted to rest, and a
#: velocity not as the telescope saw it either: the Earth moves too.
SHOWN_IN = {
    "radial_velocity": ("heliocentric", "barycentric"),
    "redshift": ("observed", "heliocentric", "barycentric"),
}


class KnownLabels:
    """Columns of rows -> (spectra, columns) float32, NaN where unknown: `labels` of
    [`SpectralForPreTraining`]. The class comes first, as its place among the names, then the numbers in their own
    units, in the alphabet's order of their names: the one order that a saved configuration keeps.

    What the frame of a spectrum, its column `frame`, does not show (`SHOWN_IN`) is known of the object, but not from it:
    NaN as well.
    """

    def __init__(self, config: SpectralConfig):
        self.classes = list(config.label_classes)
        self.settings = {name: TargetConfig(**each) for name, each in sorted(config.label_targets.items())}
        self.names = ["class", *self.settings]
        self.columns = [*self.names, *(["frame"] if set(SHOWN_IN) & set(self.settings) else [])]

    def __call__(self, columns: Mapping[str, Sequence]) -> Tensor:
        """A number outside its target's `range`, like a class that has no name, is nothing that can be asked for:
        NaN.

        Raises:
            ValueError: a column is missing. Names it.
        """
        self.check(columns)
        place = {name: number for number, name in enumerate(self.classes)}
        known = [torch.tensor([place.get(name, torch.nan) for name in columns["class"]], dtype=torch.float32)]
        for name, settings in self.settings.items():
            values = as_floats(columns[name])
            low, high = settings.range or (-torch.inf, torch.inf)
            is_asked = (low <= values) & (values <= high)
            if name in SHOWN_IN:
                is_asked &= torch.tensor([frame in SHOWN_IN[name] for frame in columns["frame"]])
            known.append(torch.where(is_asked, values, torch.nan))
        return torch.stack(known, dim=1)

    def check(self, found: Iterable[str]) -> None:
        """Raise ValueError where there are not all columns among those found."""
        found = sorted(found)
        if missing := sorted(set(self.names) - set(found)):
            raise ValueError(f"label_targets: expected some of the columns {found}, found: {missing}")
        if not set(self.columns) <= set(found):
            labels = " and ".join(sorted(set(SHOWN_IN) & set(self.names)))
            raise ValueError(
                f"frame: expected this column too, which says whether spectra show {labels}, found: {found}"
            )


def as_floats(values: Iterable) -> Tensor:
    """(spectra,) float32 on the CPU; None is NaN."""
    if isinstance(values, Tensor):
        return values.float().cpu()
    return torch.tensor([torch.nan if value is None else value for value in values], dtype=torch.float32)


class SpectralLabelHead(nn.Module):
    """`pooler_output` -> the cost of the labels that are known."""

    def __init__(self, config: SpectralConfig):
        super().__init__()
        known = KnownLabels(config)
        self.num_classes = len(known.classes)
        self.targets = [TARGETS[each.distribution](name, each) for name, each in known.settings.items()]
        self.sizes = [self.num_classes, *(target.num_outputs for target in self.targets)]
        self.out_proj = LinearInFloat32(config.pooled_size, sum(self.sizes))

    def forward(self, pooled: Tensor, labels: Tensor) -> Tensor:
        """Sum over spectra and labels of the negative log likelihood, NaN counting nothing.

        Args:
            pooled: (spectra, pooled_size).
            labels: (spectra, 1 + targets), see `KnownLabels`.

        Raises:
            ValueError: labels of another shape.
        """
        expected = (len(pooled), len(self.sizes))
        if tuple(labels.shape) != expected:
            raise ValueError(f"labels: expected shape {expected} (class, then targets), found: {tuple(labels.shape)}")
        known, answers = zip(*(self.answer(column, values) for column, values in enumerate(labels.cpu().T)))
        known, answers = (to_device(torch.stack(each), pooled.device) for each in (known, answers))
        # Not under autocast: the widths of bins and of Gaussians are finer than bfloat16.
        with torch.autocast(pooled.device.type, enabled=False):
            outputs = self.out_proj(pooled).split(self.sizes, dim=1)
            costs = [nn.functional.cross_entropy(outputs[0], answers[0].long(), reduction="none")]
            costs += [
                target.negative_log_likelihood(part, u)
                for target, part, u in zip(self.targets, outputs[1:], answers[1:])
            ]
            # All have a gradient, if of zeros: distributed training waits for every parameter's.
            return torch.where(known, torch.stack(costs), 0.0).sum()

    def answer(self, column: int, values: Tensor) -> tuple[Tensor, Tensor]:
        """Which labels of a column are known, and what they are as the targets count; where they are not, some value
        with a finite cost. On the CPU, where checking values makes no device wait."""
        is_known = ~values.isnan()
        if column == 0:
            return is_known, values.nan_to_num(0.0)
        target = self.targets[column - 1]
        answers = torch.full_like(values, target.middle)
        answers[is_known] = target.transform(values[is_known])
        return is_known, answers

    def reset(self) -> None:
        """The first answer knows nothing: all classes alike, a flat probability, the mean of the labels."""
        init.zeros_(self.out_proj.weight)
        init.zeros_(self.out_proj.bias)


__all__ = ["KnownLabels", "SpectralLabelHead"]
