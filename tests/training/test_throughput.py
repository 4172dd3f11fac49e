import pytest
import torch
from spectra import spectrum
from test_modeling import VARIANTS, make_model
from throughput import encoding_flops, matmul_peak, step_flops
from torch.utils.flop_counter import FlopCounterMode

from spectral_tokenizer import SpectralProcessor


@pytest.mark.parametrize("is_frozen", [False, True])
@pytest.mark.parametrize("variant", VARIANTS)
def test_a_steps_products_are_those_that_torch_counts(variant, is_frozen):
    """Attention by sequence is not in torch's count on the CPU, so its kernel is replaced by plain products."""
    model = make_model(**VARIANTS[variant]).train()
    model.spectral.requires_grad_(not is_frozen)
    model.set_attn_implementation("eager")
    inputs = SpectralProcessor()([spectrum(each) for each in ("sdss", "desi")], packed=True, return_tensors="pt")
    hidden = torch.arange(inputs["flux"].shape[1])[None] % 3 == 0
    asked = torch.arange(inputs["flux"].shape[1])[None] % 2 == 0
    with FlopCounterMode(display=False) as counter:
        model(**inputs, masked_patches=hidden, target_patches=asked).loss.backward()
    visible, targets = ([int(part.sum()) for part in each[0].split(inputs["lengths"])] for each in (~hidden, asked))
    # The inputs of the first products need no gradient, which torch does not count and we do; the basis is not
    # counted.
    assert step_flops(model.config, visible, targets, is_frozen) == pytest.approx(counter.get_total_flops(), rel=0.2)


@pytest.mark.parametrize("variant", VARIANTS)
def test_an_embeddings_products_are_those_that_torch_counts(variant):
    model = make_model(**VARIANTS[variant])
    model.set_attn_implementation("eager")
    inputs = SpectralProcessor()([spectrum(each) for each in ("sdss", "desi")], packed=True, return_tensors="pt")
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model.encode(**inputs)
    assert encoding_flops(model.config, inputs["lengths"]) == pytest.approx(counter.get_total_flops(), rel=0.1)


def test_the_peak_is_a_speed():
    assert 1e6 < matmul_peak(make_model().config, torch.device("cpu"), torch.float32, 256, seconds=0.05) < 1e16
