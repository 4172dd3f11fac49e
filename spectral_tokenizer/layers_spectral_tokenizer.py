# Copyright 2026 The spectral_tokenizer authors. Licensed under the Apache License, Version 2.0.
"""Attention inside packed sequences, the encoder's and decoder's layers, and the decoder."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from transformers.activations import ACT2FN
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from .configuration_spectral_tokenizer import SpectralConfig
from .packing_spectral_tokenizer import PackedPatches, PaddedSequences, Sequences, equal_runs, leading


try:
    from torch.nn.attention.varlen import varlen_attn
except ImportError:  # before torch 2.10
    varlen_attn = None

HALF = (torch.float16, torch.bfloat16)


def eager_attention_forward(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float,
    dropout: float = 0.0,
    **kwargs,
) -> tuple[Tensor, Tensor]:
    weights = query @ key.transpose(-1, -2) * scaling
    if attention_mask is not None:
        weights = weights.masked_fill(~attention_mask, -torch.inf)
    weights = weights.softmax(dim=-1, dtype=torch.float32).to(query.dtype)
    weights = nn.functional.dropout(weights, p=dropout, training=module.training)
    return (weights @ value).transpose(1, 2).contiguous(), weights


def input_dtype(layer: nn.Linear) -> torch.dtype:
    """What a layer's input is cast to: its weights' dtype, or float32 where these are quantised to integers, or packed
    behind a method, as by `quantize_dynamic`."""
    dtype = getattr(layer.weight, "dtype", torch.float32)
    return dtype if dtype.is_floating_point else torch.float32


class LinearInFloat32(nn.Linear):
    """A last step in float32, whatever the weights are kept in: in bfloat16 a number is rounded by 0.4 %. Callers
    switch autocast off, which would cast it back."""

    def forward(self, hidden_states: Tensor) -> Tensor:
        return nn.functional.linear(hidden_states.float(), self.weight.float(), self.bias.float())


class SpectralAttention(nn.Module):
    """Multi-head attention from each sequence of packed queries to the same sequence of packed context."""

    def __init__(self, config: SpectralConfig):
        super().__init__()
        self.config = config
        self.head_dim = config.hidden_size // config.num_attention_heads
        self.scaling = self.head_dim**-0.5
        self.is_causal = False
        self.q_proj = nn.Linear(config.hidden_size, config.hidden_size)
        self.k_proj = nn.Linear(config.hidden_size, config.hidden_size)
        self.v_proj = nn.Linear(config.hidden_size, config.hidden_size)
        self.o_proj = nn.Linear(config.hidden_size, config.hidden_size)

    def forward(
        self, hidden_states: Tensor, sequences: Sequences, context: Tensor, context_sequences: Sequences
    ) -> Tensor:
        # (total, hidden_size) -> (total, heads, head_dim); padded, (batch, positions, ...) likewise
        query = self.q_proj(hidden_states).unflatten(-1, (-1, self.head_dim))
        key = self.k_proj(context).unflatten(-1, (-1, self.head_dim))
        value = self.v_proj(context).unflatten(-1, (-1, self.head_dim))
        attend = self.padded_attention if isinstance(sequences, PaddedSequences) else self.how_to_attend(query)
        output = attend(query, key, value, sequences, context_sequences)
        return self.o_proj(output.flatten(-2))

    def how_to_attend(self, query: Tensor) -> Callable:
        implementation = self.config._attn_implementation or "sdpa"
        if "flash" in implementation:
            return self.flash_attention
        # What torch brings along needs no package, but knows half precision on CUDA alone, and no dropout.
        is_for_varlen = query.is_cuda and query.dtype in HALF and not (self.training and self.config.attention_dropout)
        if implementation == "sdpa" and is_for_varlen and varlen_attn is not None:
            return self.varlen_attention
        return self.attention_by_sequence

    def attend(self, query: Tensor, key: Tensor, value: Tensor, **kwargs) -> Tensor:
        attention: Callable = ALL_ATTENTION_FUNCTIONS.get_interface(
            self.config._attn_implementation, eager_attention_forward
        )
        dropout = self.config.attention_dropout if self.training else 0.0
        kwargs = {"attention_mask": None, "scaling": self.scaling, "dropout": dropout, "is_causal": False, **kwargs}
        return attention(self, query, key, value, **kwargs)[0]

    def attention_by_sequence(
        self, query: Tensor, key: Tensor, value: Tensor, sequences: Sequences, context_sequences: Sequences
    ) -> Tensor:
        # An explicit split: kernels that are handed cumulative lengths they do not know attend across spectra.
        # `split`, not slices: the gradient of each slice would be a tensor as large as the whole batch.
        shapes = list(equal_runs(sequences.lengths, context_sequences.lengths))
        queries = query.split([count * length for count, length, _ in shapes])
        keys, values = (part.split([count * length for count, _, length in shapes]) for part in (key, value))
        outputs = []
        for (count, length, context_length), *parts in zip(shapes, queries, keys, values):
            if length == 0 or context_length == 0:
                outputs.append(torch.zeros_like(parts[0]))
                continue
            # (count * length, heads, head_dim) -> (count, heads, length, head_dim)
            parts = [part.unflatten(0, (count, -1)).transpose(1, 2) for part in parts]
            outputs.append(self.attend(*parts).flatten(0, 1))
        return torch.cat(outputs)

    def padded_attention(
        self, query: Tensor, key: Tensor, value: Tensor, sequences: PaddedSequences, context_sequences: PaddedSequences
    ) -> Tensor:
        # (batch, positions, heads, head_dim) -> (batch, heads, positions, head_dim)
        parts = (part.transpose(1, 2) for part in (query, key, value))
        return self.attend(*parts, attention_mask=context_sequences.is_present[:, None, None])

    def varlen_attention(
        self, query: Tensor, key: Tensor, value: Tensor, sequences: Sequences, context_sequences: Sequences
    ) -> Tensor:
        return varlen_attn(
            query, key, value, sequences.boundaries, context_sequences.boundaries,
            sequences.longest, context_sequences.longest, scale=self.scaling,
        )  # fmt: skip

    def flash_attention(
        self, query: Tensor, key: Tensor, value: Tensor, sequences: Sequences, context_sequences: Sequences
    ) -> Tensor:
        # Flash attention takes all four as its sign that the batch is packed; with fewer it would run them together.
        output = self.attend(
            *(part.transpose(0, 1)[None] for part in (query, key, value)),
            cu_seq_lens_q=sequences.boundaries,
            cu_seq_lens_k=context_sequences.boundaries,
            max_length_q=sequences.longest,
            max_length_k=context_sequences.longest,
        )
        return output[0]


class SpectralMLP(nn.Module):
    def __init__(self, config: SpectralConfig):
        super().__init__()
        self.activation = ACT2FN[config.hidden_act]
        self.up_proj = nn.Linear(config.hidden_size, config.intermediate_size)
        self.down_proj = nn.Linear(config.intermediate_size, config.hidden_size)

    def forward(self, hidden_states: Tensor) -> Tensor:
        return self.down_proj(self.activation(self.up_proj(hidden_states)))


class SpectralLayer(GradientCheckpointingLayer):
    """A pre-norm block: attention, then a perceptron, each added to what came in."""

    def __init__(self, config: SpectralConfig):
        super().__init__()
        self.layernorm_before = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.attention = SpectralAttention(config)
        self.layernorm_after = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.mlp = SpectralMLP(config)
        self.dropout = nn.Dropout(config.hidden_dropout)

    def add(self, hidden_states: Tensor, attended: Tensor) -> Tensor:
        hidden_states = hidden_states + self.dropout(attended)
        return hidden_states + self.dropout(self.mlp(self.layernorm_after(hidden_states)))


class SpectralEncoderLayer(SpectralLayer):
    """Tokens of one spectrum look at each other."""

    def forward(self, hidden_states: Tensor, sequences: Sequences) -> Tensor:
        normed = self.layernorm_before(hidden_states)
        return self.add(hidden_states, self.attention(normed, sequences, normed, sequences))


class SpectralDecoderLayer(SpectralLayer):
    """Queries look at the tokens and never at each other, so no answer depends on what else was asked."""

    def forward(
        self, hidden_states: Tensor, sequences: Sequences, tokens: Tensor, token_sequences: Sequences
    ) -> Tensor:
        normed = self.layernorm_before(hidden_states)
        return self.add(hidden_states, self.attention(normed, sequences, tokens, token_sequences))


class SpectralDecoder(nn.Module):
    """Wavelengths asked for look at a spectrum's tokens and answer with flux."""

    def __init__(self, config: SpectralConfig):
        super().__init__()
        self.config = config
        self.query = nn.Parameter(torch.empty(config.hidden_size))
        self.code_projection = nn.Linear(config.hidden_size, config.hidden_size)
        self.layers = nn.ModuleList([SpectralDecoderLayer(config) for _ in range(config.num_decoder_layers)])
        self.layernorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        num_outputs = config.patch_size + (config.patch_outputs == "level_and_residual")
        self.head = LinearInFloat32(config.hidden_size, num_outputs)
        # Only where it is used: distributed training waits for the gradient of every parameter.
        has_amplitudes = config.num_pixel_periods > 0 and config.patch_outputs == "level_and_residual"
        self.amplitudes = LinearInFloat32(config.hidden_size, 2 * config.num_pixel_periods) if has_amplitudes else None

    def forward(self, asked: PackedPatches, tokens: Tensor, sequences: Sequences) -> Tensor:
        """Located patches, of which only wavelengths are looked at, and packed tokens -> flux (total, patch_size) in
        the scale's unit."""
        if self.config.decoder_reads == "latents":
            num_latents = self.config.num_latents
            tokens = leading(tokens, sequences.lengths, num_latents).flatten(0, 1)
            sequences = Sequences([num_latents] * len(sequences.lengths), tokens.device)
        queries = Sequences(asked.lengths, tokens.device)
        hidden_states = asked.code + self.code_projection(asked.code) + self.query
        for layer in self.layers:
            hidden_states = layer(hidden_states, queries, tokens, sequences)
        # In bfloat16 a flux is wrong by 0.4 %, which is many sigma of a bright spectrum: the last step is in float32.
        with torch.autocast(hidden_states.device.type, enabled=False):
            return self.answer(self.layernorm(hidden_states).float(), asked.basis)

    def answer(self, hidden_states: Tensor, basis: Tensor) -> Tensor:
        output = self.head(hidden_states)
        # Fluxes are in units of their median: an untrained decoder answers about 1.
        if self.config.patch_outputs == "flux":
            return 1 + output
        level, residual = output[:, :1], output[:, 1:]
        if self.amplitudes is not None:
            residual = residual + (basis @ self.amplitudes(hidden_states)[:, :, None])[:, :, 0]
        return 1 + level + residual - residual.mean(-1, keepdim=True)


class SpectralAttentionPooling(nn.Module):
    """Learned queries look at all tokens of a spectrum and answer with a vector of fixed size."""

    def __init__(self, config: SpectralConfig):
        super().__init__()
        self.num_heads = config.num_attention_heads
        self.query = nn.Parameter(torch.empty(config.num_pooling_queries, config.hidden_size))
        self.k_proj = nn.Linear(config.hidden_size, config.hidden_size)
        self.v_proj = nn.Linear(config.hidden_size, config.hidden_size)

    def forward(self, tokens: Tensor, token_mask: Tensor) -> Tensor:
        """(batch, tokens, hidden_size) and (batch, tokens) -> (batch, queries * hidden_size). Zeros for no token."""
        tokens = tokens.to(self.query.dtype)
        query = self.query.expand(len(tokens), -1, -1)
        # (batch, positions, hidden_size) -> (batch, heads, positions, head_dim)
        query, key, value = (
            each.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
            for each in (query, self.k_proj(tokens), self.v_proj(tokens))
        )
        has_token = token_mask.any(1)
        # A row without a token would be a softmax over nothing.
        is_open = token_mask | ~has_token[:, None]
        pooled = nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=is_open[:, None, None])
        return torch.where(has_token[:, None], pooled.transpose(1, 2).flatten(1), 0.0)
