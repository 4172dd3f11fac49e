# Copyright 2026 The spectral_tokenizer authors. Licensed under the Apache License, Version 2.0.
"""What a head's numbers mean and what a wrong one costs: classes, Gaussians, probabilities in bins.

Nothing here has weights: a head gives (batch, num_outputs), a target makes a loss or an answer in the label's unit of
it.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers.utils import logging

from .configuration_spectral_tokenizer import SpectralConfig, TargetConfig, check_order
from .packing_spectral_tokenizer import is_recorded


logger = logging.get_logger(__name__)

# A central interval of this probability is what one standard deviation to both sides is for a Gaussian.
ONE_SIGMA = math.erf(2**-0.5)
# Logits over bins are a sum of functions of 8, 16, 32, ... knots, see `BinnedTarget`.
COARSEST_KNOTS = 8
# The window that finds a peak stands on a bin's middle; moved to the peak's, it cuts both its sides alike.
RECENTRINGS = 3
# ln(variance) beyond this is a diverging fit, and its exponential would overflow.
MAX_LOG_VARIANCE = 15.0
# Labels closer together than this part of their size are not told apart well in float32, whose digits are 6e-8 of it.
LEAST_SPREAD = 1e-5
# So many scales from their target's centre labels are remarked on. Another label's of like values lie nearer.
FAR = 10.0
# Spectra whose distributions over bins are held at a time in calibration: thousands of bins of all would not fit.
AT_ONCE = 512
# Where calibration looks for a temperature, and the limits of a factor on widths.
TEMPERATURES = [10 ** (step / 200) for step in range(-400, 401)]
# Of what is even inside of a bin, in bins.
BIN_VARIANCE = 1 / 12
TRANSFORMS = {"identity": lambda value: value, "log": torch.log, "log1p": torch.log1p}
INVERSES = {"identity": lambda value: value, "log": torch.exp, "log1p": torch.expm1}


@dataclass
class Prediction:
    """What is said of one regression target, (batch,) each but for `interval` (batch, 2) and `probabilities` (batch,
    num_bins); in the target's unit. The confidence is float64: of good spectra it is 1 in float32, and so is that of some
    failures."""

    value: Tensor
    interval: Tensor
    confidence: Tensor
    probabilities: Tensor | None = None


class ClassTarget:
    """One class of several (`"single_label_classification"`), or any number of them. Labels: integers with -100 for
    unknown, or (batch, num_labels) of 0, 1 and NaN for unknown."""

    def __init__(self, config: SpectralConfig):
        self.config, self.num_outputs = config, config.num_labels
        self.is_single = config.problem_type != "multi_label_classification"

    def cost(self, outputs: Tensor, labels: Tensor) -> Tensor:
        """Sum of the cross-entropies of known labels."""
        if self.is_single:
            if labels.is_floating_point() or labels.numel() != len(outputs):
                raise ValueError(
                    f"labels: expected {len(outputs)} integers, one class each (-100 where unknown), as problem_type "
                    f"{self.config.problem_type!r} says, found: shape {tuple(labels.shape)} of {labels.dtype}"
                )
            labels = labels.flatten().long()  # int32, as numpy gives them, is not taken
            is_outside = (labels != -100) & ((labels < 0) | (labels >= self.num_outputs))
            # A GPU would wait for this at each step, and a recorded graph has no numbers.
            if labels.is_cpu and not is_recorded() and is_outside.any():
                raise ValueError(
                    f"labels: expected 0 to {self.num_outputs - 1}, of {self.num_outputs} classes, and -100 where unknown, "
                    f"found: {labels[is_outside][0].item()}"
                )
            return nn.functional.cross_entropy(outputs, labels, reduction="sum", ignore_index=-100)
        check_shape(labels, outputs.shape)
        is_known = ~labels.isnan()
        if ((labels < 0) | (labels > 1)).any():
            found = labels[(labels < 0) | (labels > 1)][0].item()
            raise ValueError(
                f"labels: expected 0 to 1, and NaN where unknown, for each of several classes, found: {found}"
            )
        return nn.functional.binary_cross_entropy_with_logits(
            outputs[is_known], labels[is_known].float(), reduction="sum"
        )

    def count(self, labels: Tensor) -> Tensor | int:
        """By how many a sum of costs is divided: known classes, or all of several classes' labels."""
        return labels.ne(-100).sum() if self.is_single else labels.numel()

    def answer(self, outputs: Tensor) -> dict[str, Tensor]:
        """What the model's output holds of them."""
        return {"logits": outputs / self.config.classifier_temperature}

    def scales(self, labels: Tensor, is_settled: bool = False) -> dict:
        """Classes have none."""
        return {}

    def calibrate(self, outputs: Tensor, labels: Tensor, false_alarms: float) -> dict[str, float]:
        """The temperature of least cost on spectra not trained on (arXiv 1706.04599), as a setting; none where no
        class is known, and none where all answers are right: the cost then falls without end."""
        is_known = labels.flatten() != -100 if self.is_single else ~labels.isnan().all(1)
        if not is_known.any():
            return {}
        costs = [self.cost(outputs / temperature, labels).item() for temperature in TEMPERATURES]
        best = costs.index(min(costs))
        if best == 0:
            logger.warning("calibrate: found no wrong answer to learn the temperature from; it stays as it is")
            return {}
        if best == len(costs) - 1:
            logger.warning(
                f"calibrate: expected answers better than chance, found none: temperature {TEMPERATURES[best]:g}, the highest"
            )
        return {"classifier_temperature": TEMPERATURES[best]}


class RegressionTarget:
    """One number per spectrum, NaN where it is not known.

    Everything happens in the transformed target u = transform(label); the label's unit returns at the door.
    """

    num_outputs: int

    def __init__(self, name: str, config: TargetConfig):
        self.name, self.config = name, config
        self.tolerance = config.tolerance or config.scale

    def predict(self, outputs: Tensor, width_factor: float | None = None) -> Prediction:
        """What the outputs say, as wide as was calibrated unless another factor is given."""
        raise NotImplementedError

    def negative_log_likelihood(self, outputs: Tensor, u: Tensor) -> Tensor:
        """(labels,) of a known u, up to a constant."""
        raise NotImplementedError

    def transform(self, labels: Tensor) -> Tensor:
        """Known labels -> float32 u.

        Raises:
            ValueError: a label that the transform does not take, or that lies outside the range of the bins.
        """
        u = TRANSFORMS[self.config.transform](labels.double())
        if not u.isfinite().all():
            bad = labels[~u.isfinite()][0].item()
            raise ValueError(f"label {self.name}: expected values that {self.config.transform} takes, found: {bad}")
        return u.float()

    def check_digits(self, labels: Tensor) -> None:
        """Raise ValueError where known labels differ by less than float32 tells apart, as dates in days may."""
        u = TRANSFORMS[self.config.transform](labels.double())
        spread = u.std().item() if len(u) > 1 else 0.0
        if 0 < spread < LEAST_SPREAD * u.abs().max().item():
            raise ValueError(
                f"label {self.name}: expected values that differ by more than {LEAST_SPREAD:g} of their size, found: "
                f"{labels.min().item():.10g} to {labels.max().item():.10g}; subtract a constant from them"
            )

    def warn_if_far(self, u: Tensor) -> None:
        """Say so where known labels lie far from a centre that they were not asked for."""

    def inverse(self, u: Tensor) -> Tensor:
        return INVERSES[self.config.transform](u)

    @property
    def middle(self) -> float:
        """A u that the target can have."""
        return self.config.center

    def cost(self, outputs: Tensor, labels: Tensor) -> Tensor:
        """Negative log likelihood, summed over known labels. outputs (batch, num_outputs), labels (batch,)."""
        is_known = ~labels.isnan()
        return self.negative_log_likelihood(outputs[is_known], self.transform(labels[is_known])).sum()

    def calibrate(self, outputs: Tensor, labels: Tensor, false_alarms: float) -> dict[str, float]:
        """Settings by which 68 % intervals hold 68 % of the known labels, and by which the part `false_alarms` of the
        right predictions is flagged. Nothing where no label is known."""
        is_known = ~labels.isnan()
        outputs, labels = outputs[is_known], labels[is_known]
        if not len(labels):
            return {}
        value, interval, _ = self.predicted(outputs, 1.0)
        # Not by `transform`, which refuses what it takes for labels: a wide interval may reach to where ln has no end.
        off, reach = (
            (TRANSFORMS[self.config.transform](each.double()) - self.transform(value)).abs()
            for each in (labels, interval.T)
        )
        needed = off / torch.where(labels < value, *reach)  # for an interval to end at the label
        wanted = needed.quantile(ONE_SIGMA, interpolation="higher").item()
        factor = min(max(wanted, TEMPERATURES[0]), TEMPERATURES[-1])
        if wanted != factor:
            logger.warning(
                f"calibrate: label {self.name}: expected errors within a factor of {TEMPERATURES[-1]:g} of what is "
                f"predicted, found: 68 % intervals hold {(needed <= factor).float().mean():.0%} at a factor of "
                f"{factor:.3g}, the limit"
            )
        value, _, confidence = self.predicted(outputs, factor)
        error = (self.transform(value) - self.transform(labels)).abs()
        confidence = confidence[error <= self.tolerance]
        threshold = confidence.double().quantile(false_alarms).item() if len(confidence) else 1.0
        return {"width_factor": factor, "confidence_threshold": threshold}

    def predicted(self, outputs: Tensor, width_factor: float) -> tuple[Tensor, Tensor, Tensor]:
        """Value, interval and confidence of `predict`, of many spectra a part at a time."""
        parts = [self.predict(part, width_factor) for part in outputs.split(AT_ONCE)]
        return tuple(
            torch.cat([getattr(each, name) for each in parts]) for name in ("value", "interval", "confidence")
        )


class NormalTarget(RegressionTarget):
    """A Gaussian in u whose width is predicted too (Nix & Weigend 1994)."""

    num_outputs = 2

    def moments(self, outputs: Tensor, width_factor: float) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation in u."""
        log_variance = outputs[:, 1].clamp(-MAX_LOG_VARIANCE, MAX_LOG_VARIANCE)
        mean = self.config.center + self.config.scale * outputs[:, 0]
        return mean, self.config.scale * width_factor * (0.5 * log_variance).exp()

    def warn_if_far(self, u: Tensor) -> None:
        off = (u - self.config.center).abs().median().item() / self.config.scale if len(u) else 0.0
        if off > FAR:
            logger.warning(
                f"label {self.name}: expected values around the centre in the configuration's targets, {self.config.center:g} "
                f"with scale {self.config.scale:g} (transform {self.config.transform!r}), found: half of them more than "
                f"{off:.3g} scales from it, as of another label. Without center and scale there, fit_scales finds both"
            )

    def negative_log_likelihood(self, outputs: Tensor, u: Tensor) -> Tensor:
        """In units of the scale, so that targets in K and in dex weigh alike."""
        log_variance = outputs[:, 1].clamp(-MAX_LOG_VARIANCE, MAX_LOG_VARIANCE)
        residual = outputs[:, 0] - (u - self.config.center) / self.config.scale
        return 0.5 * (log_variance + residual.square() * (-log_variance).exp())

    def predict(self, outputs: Tensor, width_factor: float | None = None) -> Prediction:
        mean, deviation = self.moments(outputs, width_factor or self.config.width_factor)
        interval = self.inverse(torch.stack([mean - deviation, mean + deviation], dim=-1))
        return Prediction(self.inverse(mean), interval, torch.erf(self.tolerance / (deviation.double() * 2**0.5)))


class BinnedTarget(RegressionTarget):
    """A probability for each of many bins of u: as many peaks as the spectrum allows, as redshifts need when one line
    could be several.

    The head gives the logits at knots, first few, then twice as many and so on up to one for each bin; they are
    interpolated to the bins and added. What is true of all redshifts around 2 is then learnt once, and not by hundreds
    of bins each by itself from some labels of its own.
    """

    def __init__(self, name: str, config: TargetConfig):
        super().__init__(name, config)
        self.num_bins = config.num_bins
        doublings = max(0, math.ceil(math.log2(config.num_bins / COARSEST_KNOTS)))
        self.knots = [COARSEST_KNOTS * 2**power for power in range(doublings)] + [config.num_bins]
        self.num_outputs = sum(self.knots)
        # On the CPU, whatever device models are being built on.
        ends = TRANSFORMS[config.transform](torch.tensor(config.range, dtype=torch.float64, device="cpu"))
        self.low, self.high = ends.tolist()
        self.width = (self.high - self.low) / config.num_bins

    def logits(self, outputs: Tensor) -> Tensor:
        """(batch, num_outputs) -> (batch, num_bins)."""
        levels = outputs.float().split(self.knots, dim=1)
        return sum(
            nn.functional.interpolate(level[:, None], size=self.num_bins, mode="linear", align_corners=True)[:, 0]
            for level in levels
        )

    def edges(self, like: Tensor) -> Tensor:
        """(num_bins + 1,) in u."""
        # Made where it is needed: a copy from the CPU would wait for all that the device has been given.
        return torch.linspace(self.low, self.high, self.num_bins + 1, dtype=torch.float64, device=like.device).to(like)

    def transform(self, labels: Tensor) -> Tensor:
        u = super().transform(labels)
        slack = 1e-6 * max(self.high - self.low, abs(self.low), abs(self.high))  # float32's
        is_outside = (u < self.low - slack) | (u > self.high + slack)
        if is_outside.any():
            low, high = self.config.range
            raise ValueError(
                f"label {self.name}: expected values from {low} to {high}, as its range in the configuration says, "
                f"found: {labels[is_outside][0].item():.6g}"
            )
        return u

    @property
    def middle(self) -> float:
        return 0.5 * (self.low + self.high)

    def negative_log_likelihood(self, outputs: Tensor, u: Tensor) -> Tensor:
        """Cross-entropy with the label spread over its neighbouring bins by a Gaussian: a bin then knows what lies
        beside it, and the place inside the bin is kept."""
        edges = self.edges(outputs)
        cumulative = torch.special.ndtr((edges - u[:, None]) / (self.config.label_width * self.width))
        label = cumulative.diff(dim=1)
        return nn.functional.cross_entropy(self.logits(outputs), label / label.sum(1, keepdim=True), reduction="none")

    def predict(self, outputs: Tensor, width_factor: float | None = None) -> Prediction:
        """The window of +- tolerance that holds most probability decides between the peaks; the median inside it is
        the value, finer than a bin, and the probability around the value the confidence. All that, and the
        probabilities, by the distribution that was trained; the factor is for the interval."""
        cumulative = self.cumulative(outputs)
        edges = self.edges(cumulative)
        batch = outputs.shape[0]  # `len` would fix it in an export
        centers = (0.5 * (edges[1:] + edges[:-1])).expand(batch, -1)
        lower, upper = self.window(centers, cumulative)
        value = centers.gather(1, (upper - lower).argmax(-1, keepdim=True))
        for _ in range(RECENTRINGS):
            value = self.quantile(0.5 * sum(self.window(value, cumulative)), cumulative)
        lower, upper = self.window(value, cumulative)
        confidence = (upper - lower)[:, 0].clamp(max=1.0)
        interval = self.interval(value, cumulative, width_factor or self.config.width_factor)
        return Prediction(self.inverse(value[:, 0]).float(), interval, confidence, cumulative.diff(dim=-1).float())

    def cumulative(self, outputs: Tensor) -> Tensor:
        """Probability below each edge, (batch, num_bins + 1) float64: in float32 most confidences would be 1 or beyond,
        and rounding decide which of them are flagged."""
        return nn.functional.pad(self.logits(outputs).double().softmax(-1).cumsum(-1), (1, 0))

    def interval(self, value: Tensor, cumulative: Tensor, width_factor: float) -> Tensor:
        """The 68 % interval around a value (batch, 1) of u, (batch, 2) in the label's unit.

        On either side of the value it holds 68 % of the probability there. What is learnt is wider than what is known:
        labels are spread by `label_width` bins, by the bin they fall in and by what is even inside of bins. Variances
        add up, and so that much is taken off on each side, down to what one bin leaves open.
        """
        below = self.mass_below(value, cumulative)
        ends = self.quantile(torch.cat([below * (1 - ONE_SIGMA), below + (1 - below) * ONE_SIGMA], dim=1), cumulative)
        variance = ((ends - value) / self.width).square() - self.config.label_width**2 - 2 * BIN_VARIANCE  # in bins
        reach = width_factor * self.width * variance.clamp(min=BIN_VARIANCE).sqrt()
        ends = value + reach * reach.new_tensor([-1.0, 1.0])
        return self.inverse(ends.clamp(self.low, self.high)).float()

    def window(self, u: Tensor, cumulative: Tensor) -> tuple[Tensor, Tensor]:
        """Probability below u - tolerance and below u + tolerance, (batch, positions) each."""
        return self.mass_below(u - self.tolerance, cumulative), self.mass_below(u + self.tolerance, cumulative)

    def mass_below(self, u: Tensor, cumulative: Tensor) -> Tensor:
        """Probability below each u, (batch, positions), linear inside bins."""
        place = ((u - self.low) / self.width).clamp(0, self.num_bins)
        # NaN has no place, and stays NaN by what is added to it.
        left = place.nan_to_num(0.0).long().clamp(max=self.num_bins - 1)
        lower, upper = cumulative.gather(1, left), cumulative.gather(1, left + 1)
        return lower + (place - left) * (upper - lower)

    def quantile(self, probability: Tensor, cumulative: Tensor) -> Tensor:
        """u below which so much probability (batch, positions) lies: the inverse of `mass_below`."""
        left = (torch.searchsorted(cumulative, probability.contiguous()) - 1).clamp(0, self.num_bins - 1)
        lower, upper = cumulative.gather(1, left), cumulative.gather(1, left + 1)
        inside = ((probability - lower) / (upper - lower).clamp(min=1e-30)).clamp(0, 1)
        return self.low + (left + inside) * self.width


class ShiftTarget(BinnedTarget):
    """Bins whose logits come from all tokens of a spectrum, see [`SpectralShift`], one for each."""

    def __init__(self, name: str, config: TargetConfig):
        super().__init__(name, config)
        self.num_outputs = self.num_bins

    def logits(self, outputs: Tensor) -> Tensor:
        return outputs.float()


TARGETS = {"normal": NormalTarget, "bins": BinnedTarget, "shift": ShiftTarget}


class RegressionTargets:
    """All regression targets of a head, in the order of the labels: (batch, num_labels), NaN where unknown."""

    def __init__(self, config: SpectralConfig):
        self.config = config
        self.targets = [TARGETS[each.distribution](name, each) for name, each in config.regression_targets.items()]
        self.num_outputs = sum(target.num_outputs for target in self.targets)

    def parts(self, outputs: Tensor, labels: Tensor):
        """Each target, its part of the outputs and its column of the labels."""
        return zip(self.targets, self.split(outputs), self.columns(labels, len(outputs)))

    def columns(self, labels: Tensor, batch: int) -> Tensor:
        """(num_labels, batch)."""
        if len(self.targets) == 1 and labels.ndim == 1:
            labels = labels[:, None]
        check_shape(labels, (batch, len(self.targets)))
        return labels.T

    def split(self, outputs: Tensor) -> tuple[Tensor, ...]:
        return outputs.split([target.num_outputs for target in self.targets], dim=1)

    def cost(self, outputs: Tensor, labels: Tensor) -> Tensor:
        """Sum over known labels. A mean over them could not be exact when gradients are accumulated: Trainer counts
        what is not -100, and NaN is not."""
        return sum(target.cost(part, column) for target, part, column in self.parts(outputs, labels))

    def count(self, labels: Tensor) -> int:
        """By how many a sum of costs is divided: all labels, known or not."""
        return labels.numel()

    def answer(self, outputs: Tensor) -> dict[str, Tensor]:
        """What the model's output holds of them."""
        predictions = [target.predict(part) for target, part in zip(self.targets, self.split(outputs))]
        intervals = torch.stack([each.interval for each in predictions], dim=1)
        confidence = torch.stack([each.confidence for each in predictions], dim=1)
        thresholds = [target.config.confidence_threshold for target in self.targets]
        probabilities = {target.name: each.probabilities for target, each in zip(self.targets, predictions)}
        return {
            "logits": torch.stack([each.value for each in predictions], dim=1),
            "errors": 0.5 * (intervals[..., 1] - intervals[..., 0]),
            "intervals": intervals,
            "confidence": confidence,
            "is_flagged": ~(confidence >= confidence.new_tensor(thresholds)),  # of NaN too
            "probabilities": {name: each for name, each in probabilities.items() if each is not None} or None,
        }

    def scales(self, labels: Tensor, is_settled: bool = False) -> dict[str, dict]:
        """Mean and standard deviation of every transformed target with two different labels, as settings. Those that
        are set stay, with a warning where labels lie far off, and with `is_settled` the others as well, at what they are
        when they are not set."""
        found = {}
        for target, column in zip(self.targets, self.columns(labels, len(labels))):
            known = column[~column.isnan()]
            target.check_digits(known)
            u = target.transform(known).double()
            if {"center", "scale"} <= (self.config.targets or {}).get(target.name, {}).keys():
                target.warn_if_far(u)
            if is_settled:
                found[target.name] = {"center": target.config.center, "scale": target.config.scale}
            elif len(u) > 1 and u.std() > 0:
                found[target.name] = {"center": u.mean().item(), "scale": u.std().item()}
        return {"targets": self.settings(lambda name, given: {**found.get(name, {}), **given})}

    def calibrate(self, outputs: Tensor, labels: Tensor, false_alarms: float) -> dict[str, dict]:
        """Factor on widths and threshold of every target, as settings."""
        found = {
            target.name: target.calibrate(part, column, false_alarms)
            for target, part, column in self.parts(outputs, labels)
        }
        return {"targets": self.settings(lambda name, given: {**given, **found[name]})}

    def settings(self, update: Callable[[str, dict], dict]) -> dict[str, dict]:
        """The configuration's `targets`, updated."""
        given = self.config.targets or {}
        return {target.name: update(target.name, given.get(target.name, {})) for target in self.targets}


def make_targets(config: SpectralConfig, answers_to: list[str]) -> ClassTarget | RegressionTargets:
    """The meaning of a head's outputs. Made from the configuration at each call: it holds no state.

    Args:
        answers_to: Names of the labels when they were last asked for, in the order of the head's outputs.

    Raises:
        ValueError: the configuration's labels are more or fewer now, or those in other places; or its `targets` are of none.
    """
    if config.label_names != answers_to:
        config.check_distinct()
        if config.num_labels != len(answers_to):
            raise ValueError(
                f"id2label: expected {len(answers_to)} labels, as {answers_to} were, found: {config.id2label}; of "
                "a layer of your own in place of head.out_proj set their names as model.answers_to too"
            )
        names = dict(enumerate(config.label_names))
        check_order(dict(enumerate(answers_to)), names, "the model", "Of other weights set model.answers_to too")
    return RegressionTargets(config) if config.is_regression else ClassTarget(config)


def check_shape(labels: Tensor, shape) -> None:
    if tuple(labels.shape) != tuple(shape):
        raise ValueError(f"labels: expected shape {tuple(shape)} (batch, num_labels), found: {tuple(labels.shape)}")


__all__ = ["ClassTarget", "RegressionTargets", "make_targets"]
