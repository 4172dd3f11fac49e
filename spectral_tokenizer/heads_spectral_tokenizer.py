# Copyright 2026 The spectral_tokenizer authors. Licensed under the Apache License, Version 2.0.
"""From tokens to a class, a label or a redshift: the encoder with a head, frozen, partly frozen or open."""

import copy
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

import torch
from torch import Tensor, nn
from transformers import initialization as init
from transformers.utils import ModelOutput, can_return_tuple, logging

from .configuration_spectral_tokenizer import SpectralConfig, check_order
from .labels_spectral_tokenizer import KnownLabels
from .layers_spectral_tokenizer import SpectralAttentionPooling, input_dtype
from .modeling_spectral_tokenizer import (
    SpectralForPreTraining,
    SpectralModel,
    SpectralModelOutput,
    SpectralPreTrainedModel,
)
from .novelty_spectral_tokenizer import SpectralNovelty
from .packing_spectral_tokenizer import is_recorded, padded, read_mask
from .shift_spectral_tokenizer import SpectralShift
from .targets_spectral_tokenizer import BinnedTarget, ShiftTarget, make_targets


logger = logging.get_logger(__name__)

# Of a head that stands where the label head of pre-training stood; of what was loaded, half came from there.
SAID_BY_LABEL_HEAD = {
    "config", "output_loading_info", "problem_type", "num_labels", "id2label", "label2id", "targets",
    "classifier_hidden_size", "num_pooling_queries", "num_trainable_layers",
}  # fmt: skip


@dataclass
class SpectralClassifierOutput(ModelOutput):
    r"""
    Output of [`SpectralForSequenceClassification`]. Regression is in the labels' own units: K, dex, redshift.

    Args:
        loss (`Tensor`, scalar):
            Sum of all costs over the number of labels, where labels were given: what is trained, of the outputs as they
            are before any calibration. 0 where none is known: Trainer's `eval_loss`, a mean over batches, is the lower for
            such ones.
        logits (`Tensor` of shape `(batch, num_labels)`):
            Classes: logits, divided by the calibrated temperature. Regression: the predicted values. NaN where a spectrum
            has no valid patch.
        errors (`Tensor` of shape `(batch, num_labels)`): Regression: half the width of `intervals`.
        intervals (`Tensor` of shape `(batch, num_labels, 2)`): Regression: 68 % intervals around the values.
        confidence (`Tensor` of shape `(batch, num_labels)`, float64):
            Regression: the probability within the target's `tolerance` of the prediction.
        is_flagged (`Tensor` of shape `(batch, num_labels)`):
            Regression: True where the confidence is below the target's calibrated threshold.
        probabilities (`dict[str, Tensor]`):
            Name of each target that is predicted in bins -> (batch, num_bins), see `bin_edges`. As they were trained, on
            labels that are spread over `label_width` bins; `intervals` are without that.
        novelty (`Tensor` of shape `(batch,)`, float32):
            How unlike those that the head was fitted to a spectrum is, where `fit_novelty` and `calibrate` were called: 1 is
            what the part `false_alarms` of held spectra passes, infinity a spectrum without a valid patch. An answer to
            one far above 1 is a guess. Not in what `Trainer.predict` collects.
        hidden_states (`tuple[Tensor]`): The encoder's, if asked for.
    """

    loss: Tensor | None = None
    logits: Tensor | None = None
    errors: Tensor | None = None
    intervals: Tensor | None = None
    confidence: Tensor | None = None
    is_flagged: Tensor | None = None
    probabilities: dict[str, Tensor] | None = None
    novelty: Tensor | None = None
    hidden_states: tuple[Tensor, ...] | None = None


class SpectralFeatureHead(nn.Module):
    """What every head has: features of each spectrum with their scales, and what is known of them for `novelty`."""

    def __init__(self, config: SpectralConfig, size: int, pooling: SpectralAttentionPooling | None = None):
        super().__init__()
        self.pooling = pooling
        # Saved with the weights; see `fit_scales`.
        self.register_buffer("feature_mean", torch.zeros(size))
        self.register_buffer("feature_scale", torch.ones(size))
        self.novelty = SpectralNovelty(config, size) if config.num_novelty_axes else None
        self.dropout = nn.Dropout(config.classifier_dropout)

    def pool(self, encoded: SpectralModelOutput) -> Tensor:
        """What is read of each spectrum, before standardisation: (batch, features) float32."""
        if self.pooling is None:
            return encoded.pooler_output.float()
        return self.pooling(encoded.last_hidden_state, encoded.token_mask).float()

    @torch.no_grad()
    def set_scales(self, mean: Tensor, spread: Tensor) -> None:
        """Standardise features (features,) by these from now on. A trained head answers as before."""
        # A feature that never changes says nothing, but must not become a division by zero.
        spread = torch.where(spread > 1e-6, spread, 1.0)
        if self.is_trained:
            self.keep_answers(mean, spread)
        self.feature_mean.copy_(mean)
        self.feature_scale.copy_(spread)

    def fit_novelty(self, config: SpectralConfig, features: Tensor) -> None:
        """Know spectra of such features, (spectra, features) float64, from now on."""
        self.novelty = SpectralNovelty(config, features.shape[1]).to(features.device)
        self.novelty.fit(features)


class SpectralHead(SpectralFeatureHead):
    """Tokens -> the numbers that the targets give a meaning to. Features are standardised first: those of a
    self-supervised encoder differ in spread by orders of magnitude, and a linear layer would see the largest alone."""

    def __init__(self, config: SpectralConfig, num_outputs: int):
        size = config.num_pooling_queries * config.hidden_size or config.pooled_size
        super().__init__(config, size, SpectralAttentionPooling(config) if config.num_pooling_queries else None)
        width = config.classifier_hidden_size
        self.dense = nn.Linear(size, width) if width else None
        self.out_proj = nn.Linear(width or size, num_outputs)

    @property
    def reads_tokens(self) -> bool:
        """Whether `pooler_output` alone is too little for an answer."""
        return self.pooling is not None

    @property
    def is_trained(self) -> bool:
        """A fresh head answers the same to everything."""
        return bool(self.out_proj.weight.any())

    def keep_answers(self, mean: Tensor, spread: Tensor) -> None:
        """Enter a change of scales to these into the first layer."""
        layer = self.out_proj if self.dense is None else self.dense
        weight = layer.weight.double() / self.feature_scale.double()
        layer.bias.add_(weight @ (mean - self.feature_mean.double()))
        layer.weight.copy_(weight * spread)

    def forward(self, encoded: SpectralModelOutput, wavelength=None, ivar=None) -> Tensor:
        """What the encoder says of padded spectra -> (batch, num_outputs) float32."""
        # Not under autocast: in bfloat16 a temperature would be rounded to some 20 K.
        with torch.autocast(encoded.pooler_output.device.type, enabled=False):
            features = self.pool(encoded)
            features = (features - self.feature_mean.float()) / self.feature_scale.float()
            hidden = self.dropout(features.to(input_dtype(self.out_proj)))
            if self.dense is not None:
                hidden = self.dropout(nn.functional.gelu(self.dense(hidden)))
            return self.out_proj(hidden).float()


class SpectralShiftHead(SpectralFeatureHead):
    """Tokens and their pixels -> logits of a redshift's bins; see `SpectralShift`. Features are for `novelty` alone."""

    reads_tokens = True

    def __init__(self, config: SpectralConfig, target: ShiftTarget):
        super().__init__(config, config.pooled_size)
        self.num_latents = config.num_latents
        self.shift = SpectralShift(config, target)

    @property
    def is_trained(self) -> bool:
        """A fresh head finds all redshifts alike."""
        return bool(self.shift.rest.any())

    def keep_answers(self, mean: Tensor, spread: Tensor) -> None:
        """They do not depend on scales."""

    def forward(self, encoded: SpectralModelOutput, wavelength: Tensor, ivar: Tensor) -> Tensor:
        """What the encoder says of padded spectra, and their pixels (batch, patches, patch_size) -> (batch, num_bins)
        float32."""
        with torch.autocast(encoded.pooler_output.device.type, enabled=False):
            tokens = encoded.last_hidden_state[:, self.num_latents :].to(self.shift.rest.dtype)
            is_usable = (ivar > 0) & encoded.token_mask[:, self.num_latents :, None]
            return self.shift(self.dropout(tokens), wavelength.double(), is_usable).float()


class SpectralForSequenceClassification(SpectralPreTrainedModel):
    """Encoder and a head for classes, or for numbers such as stellar labels and redshifts.

    `num_trainable_layers` in the configuration says how much of the encoder is trained with it. Its weights answer in the
    order of the labels that it was made with: in `config.id2label` these may be given other names later, and `targets`
    the same ones with them, but none another's place. `forward` and `save_pretrained` raise ValueError where one has it.
    A layer of your own in place of `head.out_proj` may have other labels: their names are set as `answers_to` too.
    """

    # Costs are sums over `num_items_in_batch`, so that accumulated gradients are exact.
    accepts_loss_kwargs = True
    _keys_to_ignore_on_load_unexpected = [r"^decoder\.", r"^label_head\."]
    # The first, which says so of bfloat16 too, is not asked by what quantises to integers.
    _keep_in_fp32_modules_strict = _keep_in_fp32_modules = ["head"]

    @classmethod
    def from_pretrained(cls, *args, **kwargs):
        """As [`SpectralPreTrainedModel.from_pretrained`]; `num_trainable_layers=0` there freezes the encoder. Where the
        head, or what it reads, is not the file's (`ignore_mismatched_sizes`, another kind of head) calibration does not outlive it.

        Raises:
            ValueError: as there; or the labels are those of the file's head in another order.
        """
        model, found = super().from_pretrained(*args, **{**kwargs, "output_loading_info": True})
        # Keys, or with the shapes beside them
        new = [
            each if isinstance(each, str) else each[0] for each in (*found["missing_keys"], *found["mismatched_keys"])
        ]
        if any(each.startswith(("head.", "pooling.")) and not each.startswith("head.novelty") for each in new):
            model.forget_calibration()
        elif any(kwargs.get(name) is not None for name in ("config", "id2label", "label2id")):
            saved, names = SpectralConfig.saved_names(*args[:1], **kwargs) or {}, dict(enumerate(model.answers_to))
            check_order(saved, names, "the saved model", "A new head begins from the encoder")
        model.freeze()  # again: parameters that came from a file are new ones
        return (model, found) if kwargs.get("output_loading_info") else model

    @classmethod
    def from_label_head(cls, folder, labels: str | Sequence[str] = "class", **kwargs):
        """The label head of pre-training as a head of its own, on a frozen encoder: it was told of every object that
        the encoder saw, and there is nothing to fit. What is left to do is `calibrate`.

        Args:
            folder: A saved [`SpectralForPreTraining`] with `label_weight` above 0.
            labels: "class", or one or several of its `label_targets`.
            **kwargs: As for [`SpectralPreTrainedModel.from_pretrained`], but for what the label head says itself.

        Raises:
            ValueError: there is no label head, or it was not told of such labels; or `kwargs` give a whole `config`, a
                setting that the label head says itself, or ask for `output_loading_info`.
        """
        if refused := sorted(kwargs.keys() & SAID_BY_LABEL_HEAD):
            raise ValueError(
                f"from_label_head: expected settings that the label head does not say itself, found: {', '.join(refused)}"
            )
        trained = SpectralForPreTraining.from_pretrained(folder, **kwargs)
        known, head = KnownLabels(trained.config), trained.label_head
        names = [labels] if isinstance(labels, str) else list(labels)
        is_told = names and len(set(names)) == len(names) and set(names) <= set(known.names)
        if head is None or not is_told or ("class" in names and len(names) > 1):
            told = known.names if head is not None else "no label, as label_weight is 0"
            raise ValueError(
                f"{folder}: labels: expected class alone, or others that it was told, found: {names}; it was told {told}"
            )
        is_class = names == ["class"]
        model = cls.from_pretrained(
            folder,
            problem_type="single_label_classification" if is_class else "regression",
            id2label=dict(enumerate(known.classes if is_class else names)),
            targets=None if is_class else {name: trained.config.label_targets[name] for name in names},
            classifier_hidden_size=0, num_pooling_queries=0, num_trainable_layers=0, **kwargs,
        )  # fmt: skip
        places = [known.names.index(name) for name in names]
        for ours, theirs in zip(model.head.out_proj.parameters(), head.out_proj.parameters(), strict=True):
            parts = theirs.detach().split(head.sizes)
            ours.data.copy_(torch.cat([parts[place] for place in places]))
        model.has_looked_at_scales = True  # there is nothing to be warned of
        return model

    def __init__(self, config: SpectralConfig):
        config = copy.deepcopy(config)  # scales and calibration are entered into it, and are this model's alone
        config.id2label = {int(index): name for index, name in config.id2label.items()}
        config.label2id = {name: index for index, name in config.id2label.items()}
        super().__init__(config)
        self.answers_to = config.label_names
        self.spectral = SpectralModel(config)
        shifts = [each for each in getattr(self.targets, "targets", []) if isinstance(each, ShiftTarget)]
        # One target is all that a head of shifts has; the configuration sees to it.
        self.head = SpectralShiftHead(config, shifts[0]) if shifts else SpectralHead(config, self.targets.num_outputs)
        self.has_looked_at_scales = self.has_looked_at_settings = False
        self.post_init()
        self.freeze()

    @torch.no_grad()
    def _init_weights(self, module):
        super()._init_weights(module)
        if isinstance(module, SpectralAttentionPooling):
            init.normal_(module.query, std=1.0)
        # The first answer knows nothing: all classes alike, the mean of the labels, a flat probability.
        if isinstance(module, SpectralHead):
            init.zeros_(module.out_proj.weight)
        if isinstance(module, SpectralShift):
            init.zeros_(module.rest)
        if isinstance(module, SpectralFeatureHead):
            init.zeros_(module.feature_mean)
            init.ones_(module.feature_scale)
        if isinstance(module, SpectralNovelty):
            for buffer, fresh in (
                (module.center, init.zeros_),
                (module.scale, init.ones_),
                (module.axes, init.zeros_),
            ):
                fresh(buffer)

    @property
    def targets(self):
        """What the head's outputs mean. Raises ValueError where the configuration's labels are no longer those in order."""
        # A compiler cannot follow the checks of their settings, and has nothing to gain there.
        return torch.compiler.disable(self.checked_targets)()

    def checked_targets(self):
        targets = make_targets(self.config, self.answers_to)
        self.answers_to = self.config.label_names  # by which a later change of places is told
        return targets

    def save_pretrained(self, *args, **kwargs):
        """As everywhere. Raises ValueError as `targets`: nothing could tell any more that names are others'."""
        self.checked_targets()
        return super().save_pretrained(*args, **kwargs)

    def freeze(self) -> None:
        """Train as much of the encoder as `num_trainable_layers` in the configuration says now, and no more.

        A new or loaded model has been through here; to open layers later, as in training the head first and then all,
        change the setting and call this.
        """
        encoder, opened = self.spectral, self.config.num_trainable_layers
        encoder.requires_grad_(False)
        parts = [encoder] if opened is None else []
        if opened:
            parts = [*encoder.layers[len(encoder.layers) - opened :], encoder.layernorm]
        for each in (each for part in parts for each in part.parameters()):
            each.requires_grad_(each.is_floating_point())  # weights that are quantised to integers have no gradient

    def train(self, mode: bool = True):
        """As everywhere, but parts of the encoder without a trained parameter stay as they are in evaluation: no
        dropout."""
        super().train(mode)
        for part in (self.spectral.embeddings, *self.spectral.layers):
            part.train(mode and any(each.requires_grad for each in part.parameters()))
        return self

    @can_return_tuple
    def forward(
        self,
        flux: Tensor | None = None,
        ivar: Tensor | None = None,
        wavelength: Tensor | None = None,
        attention_mask: Tensor | None = None,
        lengths: list[int] | None = None,
        labels: Tensor | None = None,
        num_items_in_batch: Tensor | int | None = None,
        scale: Tensor | None = None,
        num_pixels: Tensor | None = None,
        pooler_output: Tensor | None = None,
        last_hidden_state: Tensor | None = None,
        output_hidden_states: bool | None = None,
        segment_lengths=None,
        output_attentions: bool | None = None,
    ) -> SpectralClassifierOutput:
        r"""
        Args:
            flux, ivar, wavelength, attention_mask, lengths, scale, num_pixels, segment_lengths, output_hidden_states,
            output_attentions: As for [`SpectralModel`].
            labels (`Tensor`):
                One class: (batch,) integers, -100 where unknown. Several classes: (batch, num_labels) of 0 and 1, NaN
                where unknown. Regression: (batch, num_labels) in the labels' own units, NaN where unknown. With Trainer's
                `label_smoothing_factor`, which is for one class alone, they do not come here: it reckons the loss itself,
                and fails on numbers in `gather`.
            num_items_in_batch (`int`):
                How many labels the sum of costs is divided by: those of all micro-batches and processes, as Trainer
                counts them. Those of this batch, when absent. NaN counts, at no cost: Trainer cannot tell it from
                what is known.
            pooler_output (`Tensor` of shape `(batch, pooled_size)`):
                The encoder's answer, found before, in place of spectra. A frozen encoder gives the same every time.
            last_hidden_state (`Tensor` of shape `(batch, tokens, hidden_size)`):
                Its tokens, padded, beside `pooler_output` where the head reads tokens: in place of `flux`, with the
                spectra's `ivar`, `wavelength` and `attention_mask`.

        Raises:
            ValueError: neither spectra nor what the encoder said of them, or both; labels of another shape or type, or
                outside of what their target's transform or bins take, or, on the CPU, of the classes; `config.id2label`
                as told above.
        """
        self.config.check_attentions(output_attentions)
        encoded = self.encode(
            flux, ivar, wavelength, pooler_output, last_hidden_state, attention_mask=attention_mask, lengths=lengths,
            scale=scale, output_hidden_states=output_hidden_states,
        )  # fmt: skip
        outputs = self.outputs(encoded, wavelength, ivar, lengths)
        self.warn_of_lost_scales()
        loss = None
        if labels is not None:
            if self.training:
                self.warn_unless_fitted()
                self.warn_if_calibrated()
            labels = labels.to(outputs.device)
            count = self.targets.count(labels) if num_items_in_batch is None else num_items_in_batch
            loss = self.targets.cost(outputs, labels) / torch.as_tensor(count).clamp(min=1)  # none may be known
        return self.answer(encoded, outputs, loss)

    def answer(
        self, encoded: SpectralModelOutput, outputs: Tensor, loss: Tensor | None = None
    ) -> SpectralClassifierOutput:
        """What `outputs` of the head mean: the model's output. Heads with the same encoder can share `encoded`."""
        novelty = self.novelty(encoded)
        if encoded.token_mask is not None:
            # Of a spectrum without a valid patch nothing was seen, and a head says something of zeros too.
            is_seen = encoded.token_mask[:, self.config.num_latents :].any(1)
            outputs = torch.where(is_seen[:, None], outputs, torch.nan)
            novelty = None if novelty is None else torch.where(is_seen, novelty, torch.inf)
        return SpectralClassifierOutput(
            loss=loss, **self.targets.answer(outputs), novelty=novelty, hidden_states=encoded.hidden_states
        )

    @torch.no_grad()
    def novelty(self, encoded: SpectralModelOutput) -> Tensor | None:
        """See [`SpectralClassifierOutput`], (batch,); None where it was not fitted and calibrated, and in training, in
        which features change."""
        if self.training or self.head.novelty is None or self.config.novelty_threshold is None:
            return None
        with torch.autocast(encoded.pooler_output.device.type, enabled=False):
            return self.head.novelty(self.head.pool(encoded)) / self.config.novelty_threshold

    def encode(
        self, flux=None, ivar=None, wavelength=None, pooler_output=None, last_hidden_state=None, **inputs
    ) -> SpectralModelOutput:
        """The encoder's output, its tokens padded whether the input was padded or packed. With its answer given there is
        nothing else."""
        # A head that reads tokens is told where they stand by the pixels beside them.
        told = (last_hidden_state, ivar, wavelength) if self.head.reads_tokens else (pooler_output,)
        has_answer = all(each is not None for each in (pooler_output, *told))
        if has_answer == (flux is not None):
            found = "both" if has_answer else "neither"
            raise ValueError(
                "expected flux, ivar and wavelength, or in place of flux what the encoder said: pooler_output, and "
                f"last_hidden_state where the head reads tokens; found {found}"
            )
        if has_answer:
            if not self.head.reads_tokens:
                return SpectralModelOutput(pooler_output=pooler_output)
            token_mask = self.spectral.with_latents(read_mask(inputs.get("attention_mask"), ivar))
            return SpectralModelOutput(last_hidden_state, pooler_output, token_mask)
        encoded = self.spectral(flux, ivar, wavelength, **inputs, return_dict=True)
        if encoded.token_mask is None:
            lengths = [self.config.num_latents + each for each in inputs["lengths"]]
            encoded.last_hidden_state, encoded.token_mask = padded(encoded.last_hidden_state, lengths)
        return encoded

    def outputs(self, encoded: SpectralModelOutput, wavelength=None, ivar=None, lengths=None, **_) -> Tensor:
        """What the head says of that, (batch, num_outputs), for `targets` to read. Pixels as the encoder was given
        them."""
        if lengths is not None and isinstance(self.head, SpectralShiftHead):
            wavelength, ivar = (padded(each, lengths)[0] for each in (wavelength, ivar))
        return self.head(encoded, wavelength, ivar)

    def bin_edges(self, name: str) -> Tensor:
        """Edges of the bins of a target in its own unit, (num_bins + 1,) float64: what `probabilities` refers to."""
        binned = {each.name: each for each in getattr(self.targets, "targets", []) if isinstance(each, BinnedTarget)}
        if name not in binned:
            raise ValueError(
                f"bin_edges: expected a target that is predicted in bins, {list(binned)}, found: {name!r}"
            )
        target = binned[name]
        return target.inverse(target.edges(torch.empty((), dtype=torch.float64)))

    @torch.no_grad()
    def fit_scales(self, batches: Iterable[Mapping], num_batches: int = 64) -> None:
        """Learn the centre and spread of features, and of regression targets, from training batches with labels.

        Before training, once. Features are then standardised by buffers that are saved with the weights, and targets
        by settings in the configuration, so that predictions come out in K and dex. Targets that already have a scale
        keep it, with a warning where labels lie more than 10 scales from a centre that they have too. A head that has
        been trained answers after as before: the features' new scales go into its weights as well, and if it was
        trained without scales, its targets stay without. In several processes all of them call this, and have what the
        first one found: a loader that is cut into parts would give each another loss.

        Args:
            batches: A data loader, or a list of batches, as a collator makes them.
            num_batches: So many are looked at.
        """
        features, labels = [], []
        for inputs, known in self.labelled(islice(batches, num_batches)):
            features.append(self.head.pool(self.encode(**inputs)).double())
            labels.append(known)
        features = torch.cat(features)
        # A trained head whose features have scales, but its labels none, is one that lost its configuration.
        is_settled = self.head.is_trained and not self.head.feature_mean.any()
        found = features.mean(0).cpu(), features.std(0).cpu(), self.targets.scales(torch.cat(labels), is_settled)
        mean, spread, settings = of_first_process(found)
        self.head.set_scales(mean.to(self.device), spread.to(self.device))
        self.update(settings)

    @torch.no_grad()
    def fit_novelty(self, batches: Iterable[Mapping], num_batches: int = 64) -> None:
        """Learn what spectra look like that the head knows, for `novelty` in its output.

        After training, as features change until then, and before `calibrate`, which says how unlike is too unlike.

        Args:
            batches, num_batches: As for `fit_scales`: of the spectra that were trained on. Labels are not looked at.
        """
        seen = self.labelled(islice(batches, num_batches))
        features = [self.head.pool(self.encode(**inputs)).double() for inputs, _ in seen]
        features = of_first_process(torch.cat(features).cpu()).to(self.device)
        self.config.num_novelty_axes, self.config.novelty_threshold = SpectralNovelty.num_axes(features), None
        self.head.fit_novelty(self.config, features)

    @torch.no_grad()
    def calibrate(self, batches: Iterable[Mapping], false_alarms: float = 0.05) -> None:
        """Fit the width of what is predicted, on spectra that were not trained on; kept in the configuration.

        Classes: the temperature of least cross-entropy. Regression: the factor by which 68 % intervals hold 68 % of the
        truths, and the confidence under which a prediction is flagged. Both: where `fit_novelty` was called, how
        unlike the spectra of training is more than the part `false_alarms` of these. A head that was trained further
        needs `fit_novelty` anew before: this sets the threshold alone, on axes that were other weights' features.

        Args:
            batches: As for `fit_scales`; all are looked at. In several processes each has the settings of its own
                batches, and what is saved are the first one's.
            false_alarms: Part of the right predictions (within `tolerance` of the truth) that may be flagged.
        """
        if not 0 <= false_alarms <= 1:
            raise ValueError(f"false_alarms: expected a part between 0 and 1, found: {false_alarms}")
        outputs, labels, novelty = [], [], []
        for inputs, known in self.labelled(batches):
            encoded = self.encode(**inputs)
            outputs.append(self.outputs(encoded, **inputs))
            labels.append(known)
            if self.head.novelty is not None:
                novelty.append(self.head.novelty(self.head.pool(encoded)))
        labels = torch.cat(labels).to(self.device)
        self.update(self.targets.calibrate(torch.cat(outputs), labels, false_alarms))
        if novelty:
            threshold = torch.cat(novelty).double().quantile(1 - false_alarms).item()
            self.config.novelty_threshold = max(threshold, torch.finfo(torch.float32).tiny)  # of spectra all alike, 0

    def warn_of_lost_scales(self) -> None:
        """Weights that came without their configuration answer, but in no unit: a state_dict, an adapter, a resumed run
        whose scales were not fitted again. Looked at once: it waits for the device."""
        if self.has_looked_at_settings or torch.compiler.is_compiling() or is_recorded():
            return
        self.has_looked_at_settings = True
        targets = getattr(self.targets, "targets", [])
        lost = [each.name for each in targets if "center" not in (self.config.targets or {}).get(each.name, {})]
        if lost and self.head.feature_mean.any():
            logger.warning(
                f"the head's features have scales, but its labels {lost} have none in the configuration: their values "
                "are in no unit. Load it with its config.json, or call fit_scales again before a run goes on"
            )

    def warn_unless_fitted(self) -> None:
        """Without `fit_scales` a head trains all the same, badly. Looked at once: it waits for the device."""
        if self.has_looked_at_scales:
            return
        self.has_looked_at_scales = True
        if not self.head.feature_mean.any():
            logger.warning(
                "the head has no scales of features and labels yet: expected model.fit_scales(batches) before training"
            )

    def warn_if_calibrated(self) -> None:
        """Trained further, a head knows its errors and what is new no longer, and says both all the same."""
        if not torch.compiler.is_compiling() and self.config.is_calibrated:
            logger.warning_once(
                "a calibrated head is trained further: what it says of its errors and of novelty is of the weights before. "
                "Expected fit_novelty and calibrate afterwards, which find both anew, as training/finetune.py does"
            )

    def labelled(self, batches: Iterable[Mapping]):
        """Inputs and labels of every batch, with the model in evaluation mode meanwhile."""
        names = ("flux", "ivar", "wavelength", "attention_mask", "scale", "num_pixels")
        names += ("pooler_output", "last_hidden_state")
        was_training, found = self.training, False
        self.eval()
        try:
            for batch in batches:
                if batch.get("labels") is None:
                    raise ValueError(f"expected batches with labels, found: {sorted(batch)}")
                inputs = {name: batch[name].to(self.device) for name in names if batch.get(name) is not None}
                yield {"lengths": batch.get("lengths"), **inputs}, batch["labels"]
                found = True
            if not found:
                raise ValueError("expected batches with labels, found none: an iterator that was used up?")
        finally:
            self.train(was_training)

    def forget_calibration(self) -> None:
        """As if `calibrate` had never been called."""
        self.config.classifier_temperature, self.config.novelty_threshold = 1.0, None
        for settings in (self.config.targets or {}).values():
            settings.pop("width_factor", None)
            settings.pop("confidence_threshold", None)

    def update(self, settings: dict) -> None:
        """Enter what was learnt of the data into the configuration."""
        for name, value in settings.items():
            setattr(self.config, name, value)


def of_first_process(found):
    """What the first of several processes found, in all of them."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return found
    holder = [found]
    torch.distributed.broadcast_object_list(holder, src=0)
    return holder[0]


__all__ = ["SpectralClassifierOutput", "SpectralForSequenceClassification"]
