"""Compiled parts: whole, and once for spectra of all lengths."""

import pytest
import torch
from recipe import ROOT
from simulated.stream import MODEL_INPUTS, SimulatedStream
from spectra import spectrum
from test_modeling import make_model
from throughput import compile_parts
from torch._dynamo.utils import counters
from transformers import AutoConfig, AutoModelForPreTraining

from spectral_tokenizer import SpectralProcessor
from spectral_tokenizer import layers_spectral_tokenizer as layers


@torch.library.custom_op("spectral_tokenizer_tests::attention", mutates_args=())
def attention(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, starts: torch.Tensor, key_starts: torch.Tensor,
    longest: int, longest_key: int,
) -> torch.Tensor:  # fmt: skip
    """Stands for the CUDA kernel of variable lengths, with its arguments: each query takes its sequence's mean
    value."""
    sequence = torch.bucketize(torch.arange(len(query)), starts[1:], right=True)
    means = torch.stack([part.mean(0) for part in value.tensor_split(key_starts[1:-1].long())])
    return means[sequence]


@attention.register_fake
def _(query, key, value, starts, key_starts, longest, longest_key):
    return torch.empty_like(query)


@pytest.fixture
def inputs():
    return SpectralProcessor()([spectrum("sdss", 1), spectrum("apogee", 2)], return_tensors="pt")


@pytest.fixture
def variable_lengths(monkeypatch):
    monkeypatch.setattr(layers, "varlen_attn", lambda *arguments, scale: attention(*arguments))
    monkeypatch.setattr(layers.SpectralAttention, "how_to_attend", lambda self, query: self.varlen_attention)
    torch._dynamo.reset()
    counters.clear()
    yield
    torch._dynamo.reset()


def test_a_compiled_model_trains_as_it_does_plain(inputs):
    """As `TrainingArguments(torch_compile=True)` makes it: what numpy draws and counts stays outside of the graphs."""
    torch._dynamo.reset()
    plain, compiled = make_model().train(), torch.compile(make_model().train(), backend="aot_eager")
    found = []
    for model in (plain, compiled):
        torch.manual_seed(3)
        output = model(**inputs)
        output.loss.backward()
        found.append((output.loss.detach(), output.masked_patches))
    assert torch.equal(found[0][1], found[1][1])
    torch.testing.assert_close(found[0][0], found[1][0])
    for one, other in zip(plain.parameters(), compiled.parameters()):
        torch.testing.assert_close(one.grad, other.grad, rtol=1e-4, atol=1e-5)
    torch._dynamo.reset()


@torch.no_grad()
def test_parts_compile_whole_and_once_for_all_lengths(variable_lengths):
    torch.manual_seed(0)
    config = AutoConfig.from_pretrained(ROOT / "hub_configs" / "tiny", num_hidden_layers=2)
    model = AutoModelForPreTraining.from_config(config).eval()
    stream = SimulatedStream(model.objective, spectra_per_step=3, templates="none")
    batches = [stream.step(number)["micro_batches"][0] for number in range(4)]
    assert len({tuple(batch["lengths"]) for batch in batches}) == len(batches)
    inputs = [{name: batch[name] for name in MODEL_INPUTS} for batch in batches]
    expected = [model(**each).reconstruction for each in inputs]
    # `fullgraph`: a break in the graph is an error.
    compile_parts(model, backend="eager", fullgraph=True)
    for each, plain in zip(inputs, expected):
        torch.testing.assert_close(model(**each).reconstruction, plain)
    # The encoder's layers, the decoder's, the vectors of pixels, of wavelengths, and the pixels of vectors.
    assert counters["stats"]["unique_graphs"] == 5
