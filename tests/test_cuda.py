"""The CUDA paths against the CPU: the same numbers, no leak, no waiting. Skipped where there is no such device."""

import pytest
import torch
from spectra import spectrum
from test_modeling import make_model

from spectral_tokenizer import SpectralProcessor
from spectral_tokenizer import layers_spectral_tokenizer as layers


pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
SURVEYS = ("sdss", "desi", "galah", "apogee")


@pytest.fixture(scope="module")
def inputs():
    return SpectralProcessor()([spectrum(each) for each in SURVEYS], packed=True, return_tensors="pt")


def train_once(inputs, device, dtype=None, is_compiled=False, is_checkpointed=False, **settings):
    """Reconstruction and gradients of one step with every third patch hidden."""
    model = make_model(**settings).to(device).train()
    for layer in (*model.spectral.layers, *model.decoder.layers) if is_compiled else ():
        layer.compile(dynamic=True)
    if is_checkpointed:
        model.gradient_checkpointing_enable()
    hidden = torch.arange(inputs["flux"].shape[1])[None] % 3 == 0
    inputs = {name: each.to(device) if hasattr(each, "to") else each for name, each in inputs.items()}
    with torch.autocast(device, dtype=dtype, enabled=dtype is not None):
        output = model(**inputs, masked_patches=hidden, target_patches=torch.ones_like(hidden))
    output.loss.backward()
    gradient = torch.cat([each.grad.flatten() for each in model.parameters()])
    return output.reconstruction.detach().float().cpu(), gradient.float().cpu()


def relative(found, expected):
    return float((found - expected).norm() / expected.norm())


@pytest.mark.parametrize("decoder_reads", ["latents", "tokens"])
@pytest.mark.parametrize(("dtype", "tolerance"), [(None, 1e-4), (torch.bfloat16, 1e-2)])
def test_cuda_equals_cpu(inputs, decoder_reads, dtype, tolerance):
    allow, torch.backends.cuda.matmul.allow_tf32 = torch.backends.cuda.matmul.allow_tf32, False
    expected = train_once(inputs, "cpu", decoder_reads=decoder_reads)
    found = train_once(inputs, "cuda", dtype, decoder_reads=decoder_reads)
    torch.backends.cuda.matmul.allow_tf32 = allow
    assert relative(found[0] - 1, expected[0] - 1) < (tolerance if dtype is None else 5 * tolerance)
    assert relative(found[0], expected[0]) < tolerance
    assert relative(found[1], expected[1]) < 10 * tolerance


def test_compiled_layers_give_the_same(inputs):
    expected = train_once(inputs, "cuda", torch.bfloat16)
    found = train_once(inputs, "cuda", torch.bfloat16, is_compiled=True)
    assert relative(found[0], expected[0]) < 1e-2 and relative(found[1], expected[1]) < 1e-1


def test_recomputed_activations_give_the_same(inputs):
    expected = train_once(inputs, "cuda", torch.bfloat16)
    found = train_once(inputs, "cuda", torch.bfloat16, is_checkpointed=True)
    assert relative(found[0], expected[0]) < 1e-3 and relative(found[1], expected[1]) < 1e-2


def test_half_precision_takes_the_variable_length_kernel(inputs, monkeypatch):
    calls = []
    monkeypatch.setattr(layers, "varlen_attn", lambda *a, **k: calls.append(a) or varlen(*a, **k))
    train_once(inputs, "cuda", torch.bfloat16)
    assert calls


varlen = layers.varlen_attn


def test_no_layer_waits_for_the_device(inputs):
    model = make_model(label_weight=0.2).cuda().train()
    hidden = torch.arange(inputs["flux"].shape[1])[None] % 3 == 0
    # Class, redshift, labels, some of them unknown; on the CPU, where they are checked.
    labels = torch.tensor([[0.0, 0.5, *[torch.nan] * 4], [2.0, 0.0, 5000.0, 4.0, -0.3, 20.0]] * 2)
    batch = {name: each.cuda() if hasattr(each, "to") else each for name, each in inputs.items()}
    asked = torch.ones_like(hidden)
    torch.cuda.set_sync_debug_mode("error")
    try:
        with torch.autocast("cuda", dtype=torch.bfloat16):
            model(**batch, masked_patches=hidden, target_patches=asked, labels=labels).loss.backward()
    finally:
        torch.cuda.set_sync_debug_mode("default")
