# Copyright 2026 The spectral_tokenizer authors. Licensed under the Apache License, Version 2.0.
"""The spectral tokenizer: patches of a spectrum -> tokens -> flux at any wavelengths.

After "Universal Spectral Tokenization via Self-Supervised Panchromatic Representation Learning" (arXiv 2510.17959).
Nothing here knows a survey: positions are vacuum wavelengths, noise enters as inverse variance.
"""

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel
from transformers import initialization as init
from transformers.utils import ModelOutput, can_return_tuple, logging

from .configuration_spectral_tokenizer import AUTO_MAP, SpectralConfig
from .embeddings_spectral_tokenizer import SpectralPatchEmbeddings, wavelength_basis, wavelength_code
from .labels_spectral_tokenizer import SpectralLabelHead
from .layers_spectral_tokenizer import SpectralDecoder, SpectralDecoderLayer, SpectralEncoderLayer, input_dtype
from .objectives_spectral_tokenizer import OBJECTIVES, cost_of, joined, mean_chi2, residual_chi2
from .packing_spectral_tokenizer import (
    PackedPatches,
    PaddedSequences,
    Sequences,
    check_patches,
    check_precision,
    interleave,
    is_recorded,
    leading,
    pack_tokens,
    pad,
    read_mask,
    segment_means,
    sequence_of,
    to_device,
    trailing,
    valid_targets,
)


logger = logging.get_logger(__name__)


@dataclass
class SpectralModelOutput(ModelOutput):
    r"""
    Output of [`SpectralModel`]. With packed input the first two dimensions are (1, all tokens of all spectra).

    Args:
        last_hidden_state (`Tensor` of shape `(batch, num_latents + patches, hidden_size)`):
            The tokens: the latents, then one token per patch, zero where `token_mask` is false.
        pooler_output (`Tensor` of shape `(batch, pooled_size)`):
            One vector of fixed size per spectrum, whatever the survey: see `pooling` in the configuration.
        token_mask (`Tensor` of shape `(batch, num_latents + patches)`):
            True where a token exists. Hand it to `decode`.
        hidden_states (`tuple[Tensor]`): The tokens before the first layer and after each, if asked for.
    """

    last_hidden_state: Tensor | None = None
    pooler_output: Tensor | None = None
    token_mask: Tensor | None = None
    hidden_states: tuple[Tensor, ...] | None = None


@dataclass
class SpectralForPreTrainingOutput(ModelOutput):
    r"""
    Output of [`SpectralForPreTraining`]. Fluxes are in units of each spectrum's scale.

    Args:
        loss (`Tensor`, scalar): Mean cost, see `objectives_spectral_tokenizer.py`.
        loss_terms (`Tensor`, scalar): How many terms (spectra or pixels) the mean was taken over.
        reconstruction (`Tensor` of shape `(batch, patches, patch_size)`): Predicted flux, zero where not asked for.
        masked_patches (`Tensor` of shape `(batch, patches)`): True where the encoder did not see the patch.
        target_patches (`Tensor` of shape `(batch, patches)`): True where the decoder was asked.
        chi2_hidden, chi2_visible (`Tensor`, scalar):
            Mean squared residual in sigma (capped) over usable pixels of asked patches, hidden and visible apart. NaN
            where there is none.
        hidden_states (`tuple[Tensor]`): The encoder's, if asked for, zero where a patch is hidden from it.
    """

    loss: Tensor | None = None
    loss_terms: Tensor | None = None
    reconstruction: Tensor | None = None
    masked_patches: Tensor | None = None
    target_patches: Tensor | None = None
    chi2_hidden: Tensor | None = None
    chi2_visible: Tensor | None = None
    hidden_states: tuple[Tensor, ...] | None = None


class SpectralPreTrainedModel(PreTrainedModel):
    config: SpectralConfig
    base_model_prefix = "spectral"
    main_input_name = "flux"
    input_modalities = ("time",)
    supports_gradient_checkpointing = True
    # The losses here are means of their own; Trainer must not divide by anything else.
    accepts_loss_kwargs = False
    _no_split_modules = ["SpectralEncoderLayer", "SpectralDecoderLayer"]
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_attention_backend = True

    def __init__(self, config: SpectralConfig, *args, **kwargs):
        super().__init__(config, *args, **kwargs)
        config.validate()  # what `from_pretrained` was given was set one by one, and unchecked together

    @classmethod
    def from_pretrained(cls, *args, **kwargs):
        """As everywhere in Transformers, but weights come from safetensors alone, also where a repository holds
        nothing but a pickle: a pickle can run any code as it is opened. A class of one's own that opens as another is
        warned of.

        Raises:
            OSError: there are no weights in safetensors.
            ValueError: `use_safetensors=False` was given.
        """
        if kwargs.setdefault("use_safetensors", True) is False:
            raise ValueError("use_safetensors: found False; expected True, as pickles are never opened")
        try:
            opened = super().from_pretrained(*args, **{**kwargs, "use_safetensors": True})
        except OSError as error:
            if "safetensors" not in str(error):
                raise
            raise OSError(
                f"expected weights as .safetensors; a pickle (.bin, .pt) is never opened: {error}"
            ) from error
        cls.warn_of_others((opened[0] if isinstance(opened, tuple) else opened).config.architectures)
        return opened

    @classmethod
    def warn_of_others(cls, architectures: list[str] | None) -> None:
        """A checkpoint may open as any class of this package, or as one that stands on its own; of another nothing is
        left but the weights that are called alike. Of classes with a configuration of their own it is not known."""
        if cls.config_class is not SpectralConfig:
            return
        known = {each.rpartition(".")[2] for each in AUTO_MAP.values()} | {each.__name__ for each in cls.__mro__}
        if others := [name for name in architectures or [] if name not in known]:
            logger.warning(
                f"architectures: expected {cls.__name__} or a class of spectral_tokenizer, found: {', '.join(others)}, "
                f"which opens as {cls.__name__}, without what is its own. Open it by its own class, or give it a "
                "configuration of its own"
            )

    def get_input_embeddings(self) -> nn.Module:
        """What turns patches into vectors, where others look up words."""
        return self.base_model.embeddings

    def to(self, *args, **kwargs):
        """As everywhere.

        Raises:
            ValueError: the device is Apple's GPU: it has no float64, which wavelengths are in.
        """
        places = (each for each in (*args, *kwargs.values()) if isinstance(each, (str, torch.device)))
        if any(torch.device(each).type == "mps" for each in places):
            raise ValueError(
                "device: found mps; expected cpu or cuda, as wavelengths need float64, which Apple's GPUs do not have. "
                "Trainer stays on the CPU with TrainingArguments(use_cpu=True)"
            )
        return super().to(*args, **kwargs)

    @classmethod
    def _can_set_attn_implementation(cls) -> bool:
        return True  # Transformers guesses from the names in a class's file, and passes over heads

    def _set_gradient_checkpointing(self, enable=True, gradient_checkpointing_func=checkpoint, **kwargs):
        super()._set_gradient_checkpointing(enable, gradient_checkpointing_func, **kwargs)
        # Behind frozen parts nothing has a gradient, and what is checkpointed by reentering then trains nothing.
        if enable and getattr(gradient_checkpointing_func, "keywords", {}).get("use_reentrant") is not False:
            self.enable_input_require_grads()

    def _initialize_weights(self, module, *args, **kwargs):
        # Transformers passes over modules of custom code that hold no parameter themselves, as a layer does, for fear
        # that their `_init_weights` overwrites loaded weights. Ours looks at each parameter's flag, as
        # `initialization` does.
        super()._initialize_weights(module)

    @torch.no_grad()
    def _init_weights(self, module):
        super()._init_weights(module)
        if isinstance(module, nn.Linear) and self.config.initializer_range is None:
            init.normal_(module.weight, std=module.in_features**-0.5)
        if isinstance(module, (SpectralEncoderLayer, SpectralDecoderLayer)):
            self._init_layer(module)
        if isinstance(module, SpectralModel) and self.config.num_latents:
            # Latents must differ from each other at once, on the scale of the codes they stand beside.
            init.normal_(module.latents, std=1.0)
        if isinstance(module, SpectralLabelHead):
            module.reset()
        if isinstance(module, SpectralDecoder):
            init.zeros_(module.query)
            # The first answer is a flat spectrum. A random one is forgotten in a hundred steps that are better used.
            init.zeros_(module.head.weight)
            if module.amplitudes is not None:
                init.zeros_(module.amplitudes.weight)

    def _init_layer(self, layer: nn.Module) -> None:
        attention, config = layer.attention, self.config
        # Queries and keys start as the same projection, so that attention starts where the codes agree: at nearby
        # wavelengths. Started at random, the decoder spends most of a short run finding out where to look.
        init.copy_(attention.k_proj.weight, attention.q_proj.weight)
        # Each layer adds to the residual stream: together they start at the size of one.
        depth = (2 * max(config.num_hidden_layers, config.num_decoder_layers)) ** -0.5
        for projection in (attention.o_proj, layer.mlp.down_proj):
            std = config.initializer_range or projection.in_features**-0.5
            init.normal_(projection.weight, std=std * depth)


class SpectralModel(SpectralPreTrainedModel):
    """The encoder: a spectrum on its native grid -> tokens, and one vector of fixed size."""

    # A pre-training checkpoint also holds what this class has no use for, and so does one with a head.
    _keys_to_ignore_on_load_unexpected = [r"^decoder\.", r"^label_head\.", r"^head\."]

    def __init__(self, config: SpectralConfig):
        super().__init__(config)
        self.embeddings = SpectralPatchEmbeddings(config)
        self.wavelength_projection = nn.Linear(2 * config.num_periods, config.hidden_size, bias=False)
        self.latents = (
            nn.Parameter(torch.empty(config.num_latents, config.hidden_size)) if config.num_latents else None
        )
        self.layers = nn.ModuleList([SpectralEncoderLayer(config) for _ in range(config.num_hidden_layers)])
        self.layernorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        flux: Tensor,
        ivar: Tensor,
        wavelength: Tensor,
        attention_mask: Tensor | None = None,
        lengths: list[int] | None = None,
        scale: Tensor | None = None,
        num_pixels: Tensor | None = None,
        output_hidden_states: bool | None = None,
        segment_lengths=None,
        output_attentions: bool | None = None,
    ) -> SpectralModelOutput:
        r"""
        Args:
            flux, ivar (`Tensor` of shape `(batch, patches, patch_size)`):
                Normalised flux and its inverse variance; ivar = 0 is unusable and its flux is never looked at.
            wavelength (`Tensor` of shape `(batch, patches, patch_size)`): float64, vacuum Angstrom.
            attention_mask (`Tensor` of shape `(batch, patches)`):
                1 for a valid patch, 0 for one that does not exist. What the processor says, when absent: a patch is
                valid if at least half of its pixels are usable.
            lengths (`list[int]`): For packed input of shape (1, total, patch_size): valid patches of each spectrum.
            scale, num_pixels: Not read but for how many scales there are: accepted so that a processor's whole output can
                be handed over.
            segment_lengths: Not read: accepted so that Trainer, which drops what is not, leaves the column to a collator.
            output_hidden_states: Also return the tokens before the first layer and after each. None: as configured.
            output_attentions: Not True: nothing keeps attention's weights.

        Raises:
            ValueError: shapes do not go together, the mask is none of 1 and 0, wavelengths are in half precision, or what
                is exported is packed. Says what was found and what was expected.
        """
        self.config.check_attentions(output_attentions)
        if output_hidden_states is None:
            output_hidden_states = self.config.output_hidden_states
        if isinstance(flux, PackedPatches):  # by pre-training; through this door hooks see it, as offloading's must
            return self.encode_packed(flux, output_hidden_states)
        if is_recorded():
            return self.encode_padded(flux, ivar, wavelength, attention_mask, lengths, output_hidden_states)
        patches, is_valid = self.pack(flux, ivar, wavelength, attention_mask, lengths, scale)
        tokens, sequences, hidden_states = self.encode_packed(self.locate(patches), output_hidden_states)
        pooled = self.pool(tokens, sequences.lengths, patches)
        token_mask = self.with_latents(is_valid)
        return SpectralModelOutput(
            last_hidden_state=pad(tokens, token_mask),
            pooler_output=pooled,
            token_mask=token_mask,
            hidden_states=tuple(pad(each, token_mask) for each in hidden_states) or None,
        )

    def encode(self, *args, **kwargs) -> SpectralModelOutput:
        """`forward` by the name that says what it does, beside `decode`."""
        return self(*args, **kwargs)

    def pack(
        self,
        flux: Tensor,
        ivar: Tensor,
        wavelength: Tensor,
        attention_mask: Tensor | None = None,
        lengths: list[int] | None = None,
        scale: Tensor | None = None,
    ) -> tuple[PackedPatches, Tensor | None]:
        """Padded or packed input -> packed patches, and (batch, patches) booleans that say where they stood (None for
        packed input, which stays as it is)."""
        check_patches(flux, ivar, wavelength, self.config.patch_size, attention_mask, lengths, scale)
        if lengths is not None:
            return PackedPatches(flux[0], ivar[0], wavelength[0].double(), list(lengths)), None
        is_valid = read_mask(attention_mask, ivar)
        lengths = is_valid.sum(1).tolist()
        return PackedPatches(flux[is_valid], ivar[is_valid], wavelength.double()[is_valid], lengths), is_valid

    def with_latents(self, is_present: Tensor | None) -> Tensor | None:
        """Which patches (batch, patches) exist -> which tokens do; None, of packed spectra, stays None."""
        if is_present is None:
            return None
        return torch.cat([is_present.new_ones(is_present.shape[0], self.config.num_latents), is_present], dim=1)

    def locate(self, patches: PackedPatches) -> PackedPatches:
        """Add what is known of patches by their wavelengths alone: see `code_and_basis`."""
        code, basis = self.code_and_basis(patches.wavelength)
        return replace(patches, code=code, basis=basis)

    def code_and_basis(self, wavelength: Tensor) -> tuple[Tensor, Tensor]:
        """(total, patch_size) wavelengths -> the patches' code (total, hidden_size), in the model's dtype, and the basis
        at their pixels (total, patch_size, functions), float32."""
        config = self.config
        code = wavelength_code(
            wavelength, config.num_periods, config.min_period, config.max_period, config.code_average
        )
        code = self.wavelength_projection(code.to(input_dtype(self.wavelength_projection)))
        return code, wavelength_basis(
            wavelength, config.num_pixel_periods, config.min_pixel_period, config.max_pixel_period
        )

    def encode_packed(
        self, patches: PackedPatches, output_hidden_states: bool = False
    ) -> tuple[Tensor, Sequences, list[Tensor]]:
        """Located patches -> packed tokens (latents first in each sequence), their sequences, hidden states if
        asked."""
        hidden_states = self.embeddings(patches.flux, patches.ivar, patches.basis) + patches.code
        lengths = patches.lengths
        if self.latents is not None:
            latents = self.latents.repeat(len(lengths), 1)
            hidden_states = interleave(latents, [len(self.latents)] * len(lengths), hidden_states, lengths)
            lengths = [len(self.latents) + length for length in lengths]
        sequences = Sequences(lengths, hidden_states.device)
        collected = [hidden_states]
        for layer in self.layers:
            hidden_states = layer(hidden_states, sequences)
            collected.append(hidden_states)
        return self.layernorm(hidden_states), sequences, collected if output_hidden_states else []

    def encode_padded(
        self, flux: Tensor, ivar: Tensor, wavelength: Tensor, attention_mask: Tensor | None, lengths: list[int] | None,
        output_hidden_states: bool,
    ) -> SpectralModelOutput:  # fmt: skip
        """`forward` on padded patches, with the same numbers: what `torch.export` and `torch.jit.trace` record, as they
        cannot follow lengths that are read from the data into Python.

        Raises:
            NotImplementedError: `pooling` is `"segments"`, which cuts each spectrum at places of its own; or spectra
                come packed.
        """
        config, batch = self.config, flux.shape[0]  # `len` would fix it
        if config.pooling == "segments":
            raise NotImplementedError("export: expected pooling 'latents' or 'mean', found: 'segments'")
        if lengths is not None:
            raise NotImplementedError("export: expected padded spectra, found: packed ones, with lengths")
        is_valid = read_mask(attention_mask, ivar)
        flat = (each.flatten(0, 1) for each in (flux, ivar, wavelength.double()))
        patches = self.locate(PackedPatches(*flat, lengths=[]))
        hidden_states = self.embeddings(patches.flux, patches.ivar, patches.basis) + patches.code
        # Where, not times zero: patches that do not exist may hold anything.
        hidden_states = torch.where(is_valid[..., None], hidden_states.unflatten(0, flux.shape[:2]), 0.0)
        token_mask = self.with_latents(is_valid)
        if self.latents is not None:
            hidden_states = torch.cat([self.latents.expand(batch, -1, -1), hidden_states], dim=1)
        sequences, collected = PaddedSequences(token_mask), [hidden_states]
        for layer in self.layers:
            hidden_states = layer(hidden_states, sequences)
            collected.append(hidden_states)
        tokens = torch.where(token_mask[..., None], self.layernorm(hidden_states), 0.0)
        if config.pooling == "latents":
            pooled = tokens[:, : config.num_latents].flatten(1)
        else:
            pooled = tokens[:, config.num_latents :].sum(1) / is_valid.sum(1, keepdim=True).clamp(min=1)
        pooled = torch.where(is_valid.any(1, keepdim=True), pooled, 0.0)
        shown = tuple(torch.where(token_mask[..., None], each, 0.0) for each in collected if output_hidden_states)
        return SpectralModelOutput(tokens, pooled, token_mask, shown or None)

    def pool(self, tokens: Tensor, lengths: list[int], patches: PackedPatches) -> Tensor:
        """Packed tokens -> (batch, pooled_size). A spectrum without a valid patch gets zeros."""
        config = self.config
        if config.pooling == "latents":
            pooled = leading(tokens, lengths, config.num_latents).flatten(1)
        else:
            patch_tokens = trailing(tokens, lengths, config.num_latents)
            num_segments = config.num_segments if config.pooling == "segments" else 1
            pooled = torch.stack(
                [
                    segment_means(part, wavelength, num_segments)
                    for part, wavelength in zip(
                        patch_tokens.split(patches.lengths), patches.wavelength.split(patches.lengths)
                    )
                ]
            )
        if all(patches.lengths):
            return pooled
        is_empty = torch.tensor([length == 0 for length in patches.lengths], device=pooled.device)
        return pooled.masked_fill(is_empty[:, None], 0)


class SpectralForPreTraining(SpectralPreTrainedModel):
    """Encoder and decoder with a self-supervised objective and, with `label_weight`, a head for what is known.

    Raises:
        ValueError: the configuration names an objective that is not in `OBJECTIVES`.
    """

    def __init__(self, config: SpectralConfig):
        super().__init__(config)
        if config.objective not in OBJECTIVES:  # here, as the encoder alone has no use for one
            raise ValueError(f"objective: expected one of {sorted(OBJECTIVES)}, found: {config.objective!r}")
        self.spectral = SpectralModel(config)
        self.decoder = SpectralDecoder(config)
        self.label_head = SpectralLabelHead(config) if config.label_weight else None
        self.post_init()

    @property
    def objective(self):
        """Made from the configuration at each call: it holds no state."""
        return OBJECTIVES[self.config.objective](self.config)

    @can_return_tuple
    def forward(
        self,
        flux: Tensor,
        ivar: Tensor,
        wavelength: Tensor,
        attention_mask: Tensor | None = None,
        lengths: list[int] | None = None,
        masked_patches: Tensor | None = None,
        target_patches: Tensor | None = None,
        labels: Tensor | None = None,
        target_flux: Tensor | None = None,
        scale: Tensor | None = None,
        num_pixels: Tensor | None = None,
        output_hidden_states: bool | None = None,
        segment_lengths=None,
        output_attentions: bool | None = None,
    ) -> SpectralForPreTrainingOutput:
        r"""
        Args:
            flux, ivar, wavelength, attention_mask, lengths, scale, num_pixels, output_hidden_states, segment_lengths,
            output_attentions: As for [`SpectralModel`].
            masked_patches (`Tensor` of shape `(batch, patches)`):
                True for a valid patch that the encoder does not see. Drawn by the objective in training mode and
                none otherwise, when absent.
            target_patches (`Tensor` of shape `(batch, patches)`):
                True for a valid patch that the decoder is asked for. Drawn by the objective in training mode and all
                otherwise, when absent.
            labels (`Tensor` of shape `(batch, labels)`):
                What is known of each object, see `KnownLabels`. Only looked at with `label_weight`.
            target_flux (`Tensor` of shape `(batch, patches, patch_size)`):
                What the decoder should answer, where a simulator knows better than `flux`.

        Raises:
            ValueError: as [`SpectralModel`], or masks or labels have another shape; NotImplementedError: in an export.
        """
        self.config.check_attentions(output_attentions)
        if is_recorded():
            raise NotImplementedError(
                "export: expected the encoder, as AutoModel opens it, found: SpectralForPreTraining, whose patches are chosen "
                "from the data"
            )
        patches, is_valid = self.spectral.pack(flux, ivar, wavelength, attention_mask, lengths, scale)
        is_hidden, is_target = self.choose(patches, is_valid, masked_patches, target_patches)
        # Located after they are chosen: a third of the patches is neither seen nor asked for.
        context, target = (self.spectral.locate(patches.select(each)) for each in (~is_hidden, is_target))
        level = context.level_beside(patches.lengths) if self.config.level == "visible" else None
        if level is not None:
            context = context.in_units_of(level)
        tokens, sequences, hidden_states = self.spectral(
            context, None, None, output_hidden_states=output_hidden_states
        )
        prediction = self.decoder(target, tokens, sequences)

        device, num_spectra = prediction.device, len(patches.lengths)
        spectrum = sequence_of(target.lengths, device)
        if level is not None:
            prediction = prediction * level[spectrum][:, None]
        where = to_device(target.where, device)
        answer = target.flux if target_flux is None else valid_targets(target_flux, flux, is_valid)[where]
        cost, terms = cost_of(self.objective, prediction, answer, target.ivar, spectrum, num_spectra)
        if self.label_head is not None and labels is not None:
            pooled = self.spectral.pool(tokens, sequences.lengths, context)
            # Costs of a spectrum and of its labels add up like log likelihoods; terms stay those of the spectra.
            cost = cost + self.config.label_weight * self.label_head(pooled, labels)
        chi2 = residual_chi2(prediction.detach(), target.flux, target.ivar, self.config.residual_cap)
        target_hidden = to_device(is_hidden[target.where], device)
        masked = pad(to_device(is_hidden, device), is_valid)
        token_mask = self.spectral.with_latents(None if is_valid is None else is_valid & ~masked)
        reconstruction = prediction.new_zeros(patches.flux.shape).index_copy(0, where, prediction)
        return SpectralForPreTrainingOutput(
            loss=cost / terms.clamp(min=1),
            loss_terms=terms,
            reconstruction=pad(reconstruction, is_valid),
            masked_patches=masked,
            target_patches=pad(to_device(is_target, device), is_valid),
            chi2_hidden=mean_chi2(chi2, target.ivar, target_hidden),
            chi2_visible=mean_chi2(chi2, target.ivar, ~target_hidden),
            hidden_states=tuple(pad(each, token_mask) for each in hidden_states) or None,
        )

    @torch.compiler.disable  # numpy draws
    def choose(
        self,
        patches: PackedPatches,
        is_valid: Tensor | None,
        masked_patches: Tensor | None,
        target_patches: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        """(total,) booleans on the CPU, where lengths are counted: hidden from the encoder, asked of the decoder."""
        shape = (1, sum(patches.lengths)) if is_valid is None else tuple(is_valid.shape)
        for name, given in (("masked_patches", masked_patches), ("target_patches", target_patches)):
            if given is not None and tuple(given.shape) != shape:
                raise ValueError(f"{name}: expected shape {shape}, one for each patch, found: {tuple(given.shape)}")
        where = torch.ones(1, sum(patches.lengths), dtype=torch.bool) if is_valid is None else is_valid.cpu()
        is_hidden = torch.zeros(sum(patches.lengths), dtype=torch.bool)
        is_target = torch.ones_like(is_hidden)
        if masked_patches is not None:
            is_hidden = masked_patches.cpu().bool()[where]
        if target_patches is not None:
            is_target = target_patches.cpu().bool()[where]
        if self.training and (masked_patches is None or target_patches is None):
            # numpy draws; its seed comes from torch, so that one seed rules and a resumed run draws the same.
            generator = np.random.default_rng(int(torch.randint(2**62, ())))
            wavelengths = np.split(patches.wavelength.cpu().numpy(), np.cumsum(patches.lengths)[:-1])
            if masked_patches is None:
                parts = [self.objective.hide(each, generator) for each in wavelengths]
                is_hidden = joined(parts, patches.lengths, "hide")
            if target_patches is None:
                parts = [self.objective.ask(each.numpy(), generator) for each in is_hidden.split(patches.lengths)]
                is_target = joined(parts, patches.lengths, "ask")
        return is_hidden, is_target

    def encode(self, *args, **kwargs) -> SpectralModelOutput:
        """The encoder alone: see [`SpectralModel.forward`]."""
        return self.spectral(*args, **kwargs)

    def decode(
        self,
        tokens: Tensor,
        wavelength: Tensor,
        token_mask: Tensor | None = None,
        lengths: list[int] | None = None,
    ) -> Tensor:
        """Flux at any wavelengths.

        Args:
            tokens: (batch, tokens, hidden_size): `last_hidden_state` of `encode`, or (1, all tokens, hidden_size)
                where spectra came packed.
            wavelength: (batch, patches, patch_size), or (1, patches, patch_size) for all spectra; float64, vacuum
                Angstrom, in pixels about as wide as the spectrum's own: `SpectralProcessor.patch_wavelength` makes them
                for any grid. Each patch is answered by itself. Beyond what a spectrum covers the answer is a guess.
            token_mask: (batch, tokens), `token_mask` of `encode`: of padded spectra.
            lengths: As `encode` was given them: of packed spectra, in place of `token_mask`.

        Returns:
            (batch, patches, patch_size) in units of each spectrum's scale.

        Raises:
            ValueError: shapes or numbers of spectra do not fit together, or neither `token_mask` nor `lengths` says
                which tokens are whose.
        """
        packed_tokens, num_tokens = pack_tokens(tokens, token_mask, lengths, self.config.num_latents)
        check_precision(wavelength)
        batch, patch_size = len(num_tokens), self.config.patch_size
        if wavelength.ndim != 3 or len(wavelength) not in (1, batch) or wavelength.shape[2] != patch_size:
            raise ValueError(
                f"wavelength: expected shape ({batch} spectra, patches, {patch_size}), or 1 for all of them, found: "
                f"{tuple(wavelength.shape)}; SpectralProcessor.patch_wavelength makes patches of a grid"
            )
        num_patches, wavelength = wavelength.shape[1], wavelength.expand(batch, -1, -1)
        wavelength = wavelength.double().flatten(0, 1)
        nothing = torch.zeros_like(wavelength, dtype=torch.float32)
        asked = self.spectral.locate(PackedPatches(nothing, nothing, wavelength, [num_patches] * batch))
        flux = self.decoder(asked, packed_tokens, Sequences(num_tokens, tokens.device))
        return flux.unflatten(0, (batch, num_patches))


def __getattr__(name: str):
    # The heads stand on this file, so it can only reach for them late. Transformers sends along with a saved model the
    # files that its own file imports anywhere: by this line a pre-training checkpoint takes the heads' code along and
    # opens with AutoModelForSequenceClassification where this package is not installed.
    if name == "SpectralForSequenceClassification":
        from .heads_spectral_tokenizer import SpectralForSequenceClassification

        return SpectralForSequenceClassification
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


__all__ = ["SpectralForPreTraining", "SpectralModel", "SpectralModelOutput", "SpectralPreTrainedModel"]
