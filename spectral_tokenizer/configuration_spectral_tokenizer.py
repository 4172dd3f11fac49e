# Copyright 2026 The spectral_tokenizer authors. Licensed under the Apache License, Version 2.0.
"""Every architectural choice of the spectral tokenizer, checked once. Run settings live in `training/recipes`."""

import math
from dataclasses import dataclass, field
from typing import Literal

from huggingface_hub.dataclasses import strict
from transformers import PreTrainedConfig


# All of them are written into every saved config: Transformers itself only enters the class that was saved, and a
# pre-training checkpoint has to open with AutoModel as well.
AUTO_MAP = {
    "AutoConfig": "configuration_spectral_tokenizer.SpectralConfig",
    "AutoModel": "modeling_spectral_tokenizer.SpectralModel",
    "AutoModelForPreTraining": "modeling_spectral_tokenizer.SpectralForPreTraining",
    "AutoModelForSequenceClassification": "heads_spectral_tokenizer.SpectralForSequenceClassification",
}

PROBLEMS = ("regression", "single_label_classification", "multi_label_classification")

#: What pre-training may be told of an object beside its spectrum, where `label_weight` asks for it.
LABELS = {
    "redshift": {"distribution": "bins", "transform": "log1p", "range": [-0.01, 7.0], "num_bins": 256},
    "teff": {"center": 5000.0, "scale": 700.0},
    "logg": {"center": 3.0, "scale": 1.2},
    "fe_h": {"center": -0.3, "scale": 0.4},
    "radial_velocity": {"center": 0.0, "scale": 60.0},
}


@strict
@dataclass(kw_only=True)
class TargetConfig:
    r"""
    How one regression target of [`SpectralForSequenceClassification`] is predicted: one entry of `targets`.

    Args:
        distribution: What is predicted. `"normal"`: mean and variance of the transformed target. `"bins"`: the
            probability of each of `num_bins` evenly spaced bins of the transformed target, which may have several
            peaks. `"shift"`: the same of a redshift, read from all tokens as a shift in ln(wavelength), see
            `SpectralShift`; the one target of its head, with transform `"log1p"`.
        transform: `"identity"`, `"log"`: ln(target), or `"log1p"`: ln(1 + target), for redshifts: errors in it are
            dz / (1 + z).
        center, scale: Mean and standard deviation of the transformed target, see `fit_scales`.
        range: Smallest and largest value that bins reach to, in the target's unit. Needed for `"bins"` and `"shift"`.
        num_bins: Bins across `range`.
        label_width: Standard deviation, in bins, of the Gaussian that labels are spread over bins by (arXiv 2403.03950).
            With thousands of labels 1 was more precise than 2 for galaxies and stars, with hundreds it learns too slowly.
        num_channels: Of `"shift"`: numbers of each pixel that are compared with spectra at rest.
        num_kinds: Of `"shift"`: spectra at rest that are learnt, of which every object is one. More than 1 where stars and
            quasars, or galaxies, are asked together.
        wavelengths: Of `"shift"`: vacuum Angstrom; pixels beyond are left out. A spectrum at rest is learnt from the
            first at the largest redshift to the last at the smallest.
        tolerance: How far a prediction may be off to count as right, in the transformed target. None: `scale`.
        width_factor: Factor on the width of what is predicted, by which 68 % intervals hold 68 % of the truths: see
            `calibrate`.
        confidence_threshold: Confidence under which a prediction is flagged: see `calibrate`.
    """

    distribution: Literal["normal", "bins", "shift"] = "normal"
    transform: Literal["identity", "log", "log1p"] = "identity"
    center: float | int = 0.0
    scale: float | int = 1.0
    range: list[float | int] | tuple[float | int, ...] | None = None
    num_bins: int = 512
    label_width: float | int = 2.0
    num_channels: int = 8
    num_kinds: int = 1
    wavelengths: list[float | int] | tuple[float | int, ...] = (3500.0, 10500.0)
    tolerance: float | int | None = None
    width_factor: float | int = 1.0
    confidence_threshold: float | int = 0.0

    def validate_range(self):
        """Bins need two ends, which the transform knows; scales are positive."""
        if self.distribution != "normal" and self.range is None:
            raise ValueError(
                f"distribution {self.distribution!r} needs a range: the smallest and the largest value of the target"
            )
        lowest = {"identity": -math.inf, "log": 0.0, "log1p": -1.0}[self.transform]
        if self.range is not None and not (len(self.range) == 2 and lowest < self.range[0] < self.range[1] < math.inf):
            raise ValueError(f"range: expected two ascending values above {lowest}, found: {self.range}")
        for name in ("scale", "width_factor", "num_bins", "label_width", "num_channels", "num_kinds"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name}: expected a positive number, found: {getattr(self, name)}")
        if self.tolerance is not None and not self.tolerance > 0:
            raise ValueError(f"tolerance: expected a positive number, found: {self.tolerance}")

    def validate_shift(self):
        """A shift is one of ln(wavelength), over a range of wavelengths."""
        if self.distribution == "shift" and self.transform != "log1p":
            raise ValueError(f"distribution 'shift': expected transform 'log1p', found: {self.transform!r}")
        ends = self.wavelengths
        if not (len(ends) == 2 and 0 < ends[0] < ends[1] < math.inf):
            raise ValueError(f"wavelengths: expected two ascending values above 0, found: {ends}")


@strict
class SpectralConfig(PreTrainedConfig):
    r"""
    Configuration of [`SpectralModel`], [`SpectralForPreTraining`] and [`SpectralForSequenceClassification`].

    Args:
        patch_size: Pixels per patch. A token is one patch.
        hidden_size, num_hidden_layers, num_attention_heads, intermediate_size: Encoder, as in any ViT.
        num_decoder_layers: Cross-attention layers of the decoder, of the same width.
        hidden_act, hidden_dropout, attention_dropout, layer_norm_eps: As everywhere in Transformers.
        initializer_range: Standard deviation of fresh weights. None: 1 / sqrt(inputs) of each layer.
        num_latents: Learned tokens that join the patches: a code of fixed size for any survey. 0 for none.
        num_periods, min_period, max_period: Sines and cosines of the wavelength code and the range of their periods
            in Angstrom, evenly spaced in log. They tell a patch where it is. Shorter ones (the paper has 0.1) average
            out over a patch.
        code_average: What the wavelength code is averaged over: the `"interval"` that the patch covers, or its
            `"pixels"` (the paper). See `wavelength_code`.
        num_pixel_periods, min_pixel_period, max_pixel_period: Sines and cosines of each pixel's wavelength, Angstrom.
            The encoder is also told the residual's amplitudes in them, the decoder also answers with amplitudes: a
            line keeps its description when the grid is shifted by some pixels. Only with `"noise_scaled"` inputs and
            `"level_and_residual"` outputs.
        patch_inputs: What the encoder is told of a patch. `"noise_scaled"`: asinh((flux - patch mean) /
            sqrt(sigma^2 + error_floor^2)), log sigma and usability of every pixel, and the patch mean.
            `"flux_and_error"` (the paper): asinh(flux) and sigma.
        error_floor: Error added in quadrature in the inputs, in units of the spectrum's scale.
        patch_outputs: `"level_and_residual"`: one level and a residual of zero mean per patch. `"flux"`: one flux per
            pixel.
        decoder_reads: `"tokens"`: latents and patches. `"latents"`: the latents alone, which makes them a bottleneck.
        pooling: What `pooler_output` is. `"latents"`: the latents, flattened. `"segments"`: patch tokens averaged in
            `num_segments` stretches of wavelength, flattened. `"mean"` (the paper): one average.
        objective: A name in `OBJECTIVES`, see `objectives_spectral_tokenizer.py`. `"masked"`: predict hidden patches.
            `"autoencoding"` (the paper): every patch seen and asked for.
        hiding_weights: How often hidden patches are drawn at random, as one contiguous block, as whole arms.
        hidden_fraction: Smallest and largest part of a spectrum's patches that is hidden.
        hidden_target_fraction, visible_target_fraction: Part of the hidden and of the visible patches that is asked
            for. A spectrum tells about as much when half of its hidden patches are asked for, at two thirds the cost.
        spectrum_loss: `"log"`: log(0.25 + chi2) averaged over spectra, so that bright spectra and rich surveys do not
            own the gradient. `"gaussian"` (the paper): chi2 averaged over valid pixels.
        label_weight: Weight of the negative log likelihood of an object's known labels in the pre-training loss,
            beside what `spectrum_loss` gives for its spectrum. 0: labels are not looked at, and there is no head for
            them.
        label_classes, label_targets: Which labels: names of the column `class`, and other columns' names -> settings,
            see [`TargetConfig`].
        level: In which units pre-training shows a spectrum to the encoder. `"visible"`: in those of the median of what is
            visible, as of a spectrum whose other pixels nobody observed. `"given"`: in those of its scale, the median of
            all pixels, which tells the mean of what is hidden. Answers are in units of the scale either way.
        residual_cap: Residual in sigma beyond which the loss grows linearly (pseudo-Huber). None: plain chi2.
        problem_type, num_labels, id2label: What a head predicts, as everywhere in Transformers:
            `"single_label_classification"`, `"multi_label_classification"`, or `"regression"` of `num_labels` targets.
            None: classes, or a regression where there is one label, or where there are `targets`.
        targets: Name in `id2label` -> settings of a regression target, see [`TargetConfig`]. Targets that are not
            named here have the default settings.
        num_trainable_layers: How much of the encoder a head trains. None: all of it. 0: nothing, the encoder is
            frozen. n: the last n layers and the norm behind them.
        num_pooling_queries: Learned queries by which a head reads the tokens. 0: it reads `pooler_output`.
        classifier_hidden_size: Width of a hidden layer in the head. 0: the head is linear.
        classifier_dropout: Dropout on what the head reads, and on its hidden layer.
        classifier_temperature: Divides the logits of classes, so that their softmax is calibrated: see `calibrate`.
        num_novelty_axes, novelty_threshold: By which a head tells spectra that are unlike those it was fitted to: see
            `fit_novelty` and `calibrate`, which set them. 0 axes: it does not.
    """

    model_type = "spectral_tokenizer"

    patch_size: int = 32
    hidden_size: int = 512
    num_hidden_layers: int = 6
    num_decoder_layers: int = 6
    num_attention_heads: int = 8
    intermediate_size: int = 2048
    hidden_act: str = "gelu"
    hidden_dropout: float | int = 0.0
    attention_dropout: float | int = 0.0
    layer_norm_eps: float = 1e-6
    initializer_range: float | None = None
    num_latents: int = 16
    num_periods: int = 128
    min_period: float | int = 1.0
    max_period: float | int = 1e5
    code_average: Literal["interval", "pixels"] = "interval"
    num_pixel_periods: int = 32
    min_pixel_period: float | int = 0.2
    max_pixel_period: float | int = 50.0
    patch_inputs: Literal["noise_scaled", "flux_and_error"] = "noise_scaled"
    error_floor: float | int = 0.02
    patch_outputs: Literal["level_and_residual", "flux"] = "level_and_residual"
    decoder_reads: Literal["tokens", "latents"] = "latents"
    pooling: Literal["latents", "segments", "mean"] = "latents"
    num_segments: int = 16
    objective: str = "masked"
    hiding_weights: list[float | int] | tuple[float | int, ...] = (0.5, 0.3, 0.2)
    hidden_fraction: list[float | int] | tuple[float | int, ...] = (0.5, 0.9)
    hidden_target_fraction: float | int = 0.5
    visible_target_fraction: float | int = 0.1
    spectrum_loss: Literal["log", "gaussian"] = "log"
    level: Literal["given", "visible"] = "visible"
    residual_cap: float | int | None = 10.0
    label_weight: float | int = 0.0
    label_classes: list[str] | tuple[str, ...] = ("GALAXY", "QSO", "STAR")
    label_targets: dict[str, dict] = field(default_factory=lambda: {name: dict(each) for name, each in LABELS.items()})
    targets: dict[str, dict] | None = None
    num_trainable_layers: int | None = None
    num_pooling_queries: int = 0
    classifier_hidden_size: int = 0
    classifier_dropout: float | int = 0.0
    classifier_temperature: float | int = 1.0
    num_novelty_axes: int = 0
    novelty_threshold: float | int | None = None

    # Of a head, and not of the encoder that it stands on: heads on the same one let it read each spectrum once.
    settings_of_heads = (
        "problem_type", "id2label", "label2id", "targets", "num_trainable_layers", "num_pooling_queries",
        "classifier_hidden_size", "classifier_dropout", "classifier_temperature", "num_novelty_axes", "novelty_threshold",
    )  # fmt: skip
    # Transformers leaves these out of what `Trainer.predict` collects: a thousand numbers per spectrum, or one per
    # batch; or booleans, which it would fill up with -100, that is with true.
    keys_to_ignore_at_inference = [
        "probabilities", "hidden_states", "loss_terms", "chi2_hidden", "chi2_visible", "masked_patches", "target_patches",
        "novelty",
    ]  # fmt: skip

    def __post_init__(self, **kwargs):
        if type(self) is SpectralConfig:  # a subclass's folder has the subclass's file, and not these
            kwargs.setdefault("auto_map", dict(AUTO_MAP))
        elif kwargs.get("auto_map"):  # of a tokenizer's file, that the subclass begins with
            kwargs["auto_map"] = {
                name: each for name, each in kwargs["auto_map"].items() if each not in AUTO_MAP.values()
            }
        self.output_attentions = kwargs.get("output_attentions")  # Transformers passes the setter by
        if self.label2id and self.id2label is None:
            self.id2label = {index: name for name, index in self.label2id.items()}
        super().__post_init__(**kwargs)
        self.check_names()

    @classmethod
    def from_dict(cls, config_dict: dict, **kwargs):
        """As everywhere, but what is given replaces what a file says before all is checked together, not one by one
        after; names in one direction replace both; and a file's targets go with its labels."""
        # But for dtype, which may be "auto".
        given = {name: kwargs.pop(name) for name in cls.__dataclass_fields__.keys() - {"dtype"} if name in kwargs}
        # Two labels that nobody named are in no file: Transformers writes what differs from its defaults.
        saved, names = numbered(config_dict) or unnamed(2), numbered(given)
        count = kwargs.get("num_labels") or len(names or saved)
        if names:
            if len(names) != count:
                raise ValueError(f"num_labels: expected {len(names)}, as {names} says, found: {count}")
            given = {"id2label": None, "label2id": None, **given}
        if "targets" not in given and config_dict.get("targets"):
            names = names or (saved if count == len(saved) else unnamed(count))
            given["targets"] = carried(config_dict["targets"], saved, names)
            if given["targets"] is None and not config_dict.get("problem_type"):
                given.setdefault("problem_type", "regression")  # which the targets alone have said so far
        return super().from_dict({**config_dict, **given}, **kwargs)

    @classmethod
    def saved_names(cls, pretrained_model_name_or_path=None, **kwargs) -> dict[int, str] | None:
        """Names of the labels that a saved model answers by, as its own file says, whatever a model was opened with; None
        where there is no file. What else is given is as for `from_pretrained`."""
        if pretrained_model_name_or_path is None:
            return None
        where = ("cache_dir", "local_files_only", "proxies", "revision", "subfolder", "token")
        try:
            found, _ = cls.get_config_dict(
                pretrained_model_name_or_path, **{name: kwargs[name] for name in where if name in kwargs}
            )
        except OSError:  # an adapter's folder, say
            return None
        return numbered(found) or unnamed(2)

    def save_pretrained(self, *args, **kwargs):
        """As everywhere, but names that were changed in place hold in both directions, or the file would not open."""
        self.label2id = {name: int(index) for index, name in (self.id2label or {}).items()}
        self.check_names()
        super().save_pretrained(*args, **kwargs)

    def __eq__(self, other) -> bool:
        # By what a file keeps, where tuples are lists: Transformers compares attributes, some of which saving adds.
        return isinstance(other, SpectralConfig) and self.to_json_string(False) == other.to_json_string(False)

    @property
    def output_attentions(self) -> bool:
        """Attention runs over packed spectra, and nothing keeps its weights."""
        return False

    @output_attentions.setter
    def output_attentions(self, value: bool | None) -> None:
        self.check_attentions(value)

    @staticmethod
    def check_attentions(value: bool | None) -> None:
        """Raise ValueError where attention's weights are asked for, in a configuration or of one call."""
        if value:
            raise ValueError(
                f"output_attentions: expected False, as attention over packed spectra keeps no weights, found: {value}; "
                "output_hidden_states gives the tokens of every layer"
            )

    def validate_sizes(self):
        """Heads share the width evenly; there is something to look at; periods are a range."""
        # A decoder without layers looks at no spectrum.
        counts = ("patch_size", "hidden_size", "num_hidden_layers", "num_decoder_layers", "num_attention_heads")
        for name in (*counts, "intermediate_size", "num_periods", "num_segments"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: expected 1 or more, found: {getattr(self, name)}")
        for name in (
            "num_latents",
            "num_pixel_periods",
            "num_pooling_queries",
            "num_novelty_axes",
            "classifier_hidden_size",
            "error_floor",
        ):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name}: expected 0 or more, found: {getattr(self, name)}")
        if self.hidden_size % self.num_attention_heads:
            raise ValueError(
                f"hidden_size must be a multiple of num_attention_heads, found: {self.hidden_size} and "
                f"{self.num_attention_heads} heads"
            )
        for least, most in (("min_period", "max_period"), ("min_pixel_period", "max_pixel_period")):
            if not 0 < getattr(self, least) < getattr(self, most):
                found = f"{getattr(self, least)}, {getattr(self, most)}"
                raise ValueError(f"expected 0 < {least} < {most}, found: {found}")

    def validate_latents(self):
        """Latents can only be read or pooled where there are some."""
        if self.num_latents == 0 and "latents" in (self.pooling, self.decoder_reads):
            raise ValueError("pooling and decoder_reads cannot be 'latents' when num_latents is 0")

    def validate_hiding(self):
        """Fractions are fractions, and something stays visible."""
        for name in ("hidden_target_fraction", "visible_target_fraction"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name}: expected 0 to 1, found: {getattr(self, name)}")
        if len(self.hidden_fraction) != 2 or not 0 <= self.hidden_fraction[0] <= self.hidden_fraction[1] < 1:
            raise ValueError(f"hidden_fraction: expected 0 <= smallest <= largest < 1, found: {self.hidden_fraction}")
        if len(self.hiding_weights) != 3 or min(self.hiding_weights) < 0 or sum(self.hiding_weights) <= 0:
            raise ValueError(
                f"hiding_weights: expected three weights (random, block, arm), found: {self.hiding_weights}"
            )

    def validate_loss(self):
        """A residual beyond which the loss is linear is positive."""
        if self.residual_cap is not None and not self.residual_cap > 0:
            raise ValueError(f"residual_cap: expected None or a positive number, found: {self.residual_cap}")

    def validate_labels(self):
        """Labels that pre-training asks for have a weight, and settings that can be read."""
        if not 0 <= self.label_weight < math.inf:
            raise ValueError(f"label_weight: expected 0 or more, found: {self.label_weight}")
        if len(set(self.label_classes)) < len(self.label_classes):
            raise ValueError(f"label_classes: expected names that differ, found: {self.label_classes}")
        for name, settings in self.label_targets.items():
            check_target(f"label_targets: {name!r}", settings)
            if settings.get("distribution") == "shift":
                raise ValueError(
                    f"label_targets: {name!r}: expected 'normal' or 'bins', found: 'shift', which is for heads"
                )

    def validate_head(self):
        """Open layers exist, and so do the labels that `targets` describes."""
        opened = self.num_trainable_layers
        if opened is not None and not 0 <= opened <= self.num_hidden_layers:
            raise ValueError(
                f"num_trainable_layers: expected None or 0 to {self.num_hidden_layers} (num_hidden_layers), found: "
                f"{opened}"
            )
        if not self.classifier_temperature > 0:
            raise ValueError(
                f"classifier_temperature: expected a positive number, found: {self.classifier_temperature}"
            )
        if self.novelty_threshold is not None and not 0 < self.novelty_threshold < math.inf:
            raise ValueError(f"novelty_threshold: expected None or a positive number, found: {self.novelty_threshold}")
        if self.problem_type not in (None, *PROBLEMS):
            raise ValueError(f"problem_type: expected None or one of {list(PROBLEMS)}, found: {self.problem_type!r}")
        if self.targets and self.problem_type not in (None, "regression"):
            raise ValueError(f"targets: expected problem_type 'regression', found: {self.problem_type!r}")
        labels = self.label_names if self.id2label else []
        for name, settings in (self.targets or {}).items():
            check_named(name, labels)
            check_target(f"targets: {name!r}", settings)
            if settings.get("distribution") == "shift":
                self.check_shift(name, labels)

    def check_shift(self, name: str, labels: list[str]):
        """A shift is all that its head reads, and it is read from tokens as they are."""
        if len(labels) > 1:
            raise ValueError(f"targets: {name!r}: expected no label beside a shift, found: {labels}")
        for setting in ("num_pooling_queries", "classifier_hidden_size"):
            if getattr(self, setting):
                raise ValueError(f"{setting}: expected 0 with a shift, found: {getattr(self, setting)}")

    def check_names(self):
        """Classes have one number each, whichever way they are looked up. Not asked of what is entered later: `label2id`
        follows when a head is made, and when it is saved."""
        self.check_distinct()
        numbers = {name: int(index) for index, name in (self.id2label or {}).items()}
        given = self.label2id or {}
        is_default = set(given) == {f"LABEL_{index}" for index in range(len(given))}  # as of a file without a head
        if not is_default and given != numbers:
            raise ValueError(f"label2id: expected what id2label says, {numbers}, found: {self.label2id}")

    def check_distinct(self):
        """Raise ValueError where two labels have one name."""
        if self.id2label and len(set(self.id2label.values())) < len(self.id2label):
            raise ValueError(f"id2label: expected a name of its own for each label, found: {self.id2label}")

    @property
    def is_regression(self) -> bool:
        """Whether a head predicts numbers, and not classes, which have no `targets`."""
        if self.problem_type is None:
            return self.num_labels == 1 or bool(self.targets)
        return self.problem_type == "regression"

    @property
    def is_calibrated(self) -> bool:
        """Whether a head's `calibrate` has set anything, for its weights as they were then."""
        found = {setting for settings in (self.targets or {}).values() for setting in settings}
        is_told = self.classifier_temperature != 1 or self.novelty_threshold is not None
        return is_told or not found.isdisjoint({"width_factor", "confidence_threshold"})

    @property
    def pooled_size(self) -> int:
        """Length of `pooler_output`."""
        count = {"latents": self.num_latents, "segments": self.num_segments, "mean": 1}[self.pooling]
        return count * self.hidden_size

    @property
    def label_names(self) -> list[str]:
        """Names of the classes or of the regression targets, in the order of a head's outputs."""
        return [name for _, name in sorted((int(index), name) for index, name in self.id2label.items())]

    @property
    def regression_targets(self) -> dict[str, TargetConfig]:
        """Settings of every regression target, in the order of a head's outputs. Raises ValueError where some are of none."""
        settings = self.targets or {}
        for name in settings:
            check_named(name, self.label_names)
        return {name: TargetConfig(**settings.get(name, {})) for name in self.label_names}


def numbered(given: dict) -> dict[int, str]:
    """Names of labels by their numbers, in whichever direction they are given."""
    names = given.get("id2label") or {index: name for name, index in (given.get("label2id") or {}).items()}
    return {int(index): name for index, name in sorted(names.items(), key=lambda each: int(each[0]))}


def unnamed(count: int) -> dict[int, str]:
    """As Transformers calls labels that nobody named."""
    return {index: f"LABEL_{index}" for index in range(count)}


def moved(saved: dict[int, str], names: dict[int, str]) -> list[str]:
    """Of as many names, those that are among the saved ones in other places."""
    is_same_count = len(names) == len(saved)
    return [name for index, name in names.items() if is_same_count and name in {*saved.values()} - {saved.get(index)}]


def check_order(saved: dict[int, str], names: dict[int, str], whose: str, way_out: str) -> None:
    """Raise ValueError where given names are a model's own in other places: its weights would answer by wrong names."""
    if others := moved(saved, names):
        raise ValueError(
            f"id2label: expected the order that {whose} answers in, {saved}, found: {names}, where {', '.join(others)} "
            f"stands elsewhere. {way_out}"
        )


def carried(targets: dict[str, dict], saved: dict[int, str], names: dict[int, str]) -> dict[str, dict] | None:
    """A file's targets under given names: by place where there are as many, which renames its labels; else, of a fresh
    head, whose labels may stand anywhere, those of labels that are still there."""
    if len(names) == len(saved) and not moved(saved, names):
        renamed = dict(zip(saved.values(), names.values()))
        return {renamed.get(name, name): settings for name, settings in targets.items()}
    return {name: settings for name, settings in targets.items() if name in names.values()} or None


def check_named(name: str, labels: list[str]) -> None:
    """Raises ValueError where a target's settings are no label's: they would not be looked at."""
    if name not in labels:
        raise ValueError(f"targets: {name!r} is none of the labels in id2label: {labels}")


def check_target(where: str, settings: dict) -> None:
    """Raises ValueError that says where the settings stand."""
    try:
        TargetConfig(**settings)
    except Exception as error:
        raise ValueError(f"{where}: {error}") from error


__all__ = ["SpectralConfig", "TargetConfig"]
