"""A redshift read as a shift in ln(wavelength), held to its definition and to what follows from it."""

import math

import numpy as np
import pytest
import torch
from huggingface_hub.errors import StrictDataclassClassValidationError
from spectra import spectrum
from test_heads import HEADS, SHIFT, SIZE, close, make_model

from spectral_tokenizer import SpectralConfig, SpectralForSequenceClassification, SpectralProcessor
from spectral_tokenizer.configuration_spectral_tokenizer import TargetConfig
from spectral_tokenizer.shift_spectral_tokenizer import SpectralShift
from spectral_tokenizer.targets_spectral_tokenizer import BinnedTarget, ShiftTarget


STEP = 0.01  # ln(wavelength) from bin to bin
NUM_BINS, SHORTEST, LONGEST = 50, 4000.0, 8000.0


def make_shift(num_channels=3, patch_size=8, hidden_size=5, num_kinds=1) -> SpectralShift:
    highest = math.expm1(STEP * NUM_BINS)
    settings = TargetConfig(
        distribution="shift", transform="log1p", range=[0, highest], num_bins=NUM_BINS, num_channels=num_channels,
        num_kinds=num_kinds, wavelengths=[SHORTEST, LONGEST],
    )  # fmt: skip
    torch.manual_seed(0)
    shift = SpectralShift(
        SpectralConfig(**SIZE | {"hidden_size": hidden_size, "num_attention_heads": 1, "patch_size": patch_size}),
        ShiftTarget("redshift", settings),
    ).double()
    torch.nn.init.normal_(shift.rest)
    return shift


def make_input(shift: SpectralShift, batch=2, patches=6, lowest=4100.0, highest=7000.0):
    """Random tokens, of pixels evenly spaced in wavelength, all usable."""
    generator = torch.Generator().manual_seed(1)
    tokens = torch.randn(batch, patches, shift.projection.in_features, generator=generator, dtype=torch.float64)
    wavelength = torch.linspace(lowest, highest, patches * shift.patch_size, dtype=torch.float64)
    wavelength = wavelength.reshape(1, patches, -1).repeat(batch, 1, 1)
    return tokens, wavelength, torch.ones_like(wavelength, dtype=torch.bool)


def test_the_answer_is_the_sum_over_pixels_that_it_is_said_to_be():
    shift = make_shift()
    tokens, wavelength, is_usable = make_input(shift)
    is_usable[0, 1, 3:6] = False
    found = shift(tokens, wavelength, is_usable)
    said = shift.projection(tokens).unflatten(-1, (shift.patch_size, shift.num_channels)).detach().numpy()
    # The rest spectrum's first place is the shortest wavelength at the largest shift.
    rest_at = np.log(SHORTEST) - STEP * (NUM_BINS - 1) + STEP * np.arange(shift.rest.shape[1])
    for row in range(2):
        for number in (0, 7, NUM_BINS - 1):
            at_rest = wavelength[row].log().numpy() - STEP * number
            rest = [np.interp(at_rest, rest_at, channel.detach().numpy()) for channel in shift.rest]
            expected = (said[row] * np.stack(rest, axis=-1))[is_usable[row].numpy()].sum()
            assert found[row, number].item() == pytest.approx(expected, abs=1e-9)


def test_an_answer_of_several_kinds_is_their_mixture():
    """Each with a spectrum at rest of its own, and a share that the mean token says."""
    shift, alone = make_shift(num_kinds=3), make_shift()
    tokens, wavelength, is_usable = make_input(shift)
    tokens, is_usable[1, 2] = tokens / 30, False  # logits of a few: with larger ones the largest is all of a mixture
    alone.projection.load_state_dict(shift.projection.state_dict())
    seen = is_usable.any(-1)[..., None]
    shares = shift.kind(shift.kind_norm((tokens * seen).sum(1) / seen.sum(1))).softmax(-1)
    expected = 0.0
    for kind, rest in enumerate(shift.rest.chunk(3)):
        alone.rest.data = rest
        expected = expected + shares[:, kind, None] * alone(tokens, wavelength, is_usable).exp()
    found = shift(tokens, wavelength, is_usable)
    torch.testing.assert_close(found.exp(), expected)
    assert shares.std(0).min() > 1e-3 and found.shape == (2, NUM_BINS)


@pytest.mark.parametrize("num_kinds", [1, 3])
def test_what_moves_by_a_number_of_bins_moves_its_answer_by_as_many(num_kinds):
    shift = make_shift(num_kinds=num_kinds)
    tokens, wavelength, is_usable = make_input(shift)
    found = shift(tokens, wavelength, is_usable)
    moved = shift(tokens, wavelength * math.exp(9 * STEP), is_usable)
    torch.testing.assert_close(moved[:, 9:], found[:, :-9], rtol=0, atol=1e-9)
    assert (moved - found).abs().max() > 1


@pytest.mark.parametrize("num_kinds", [1, 3])
def test_order_of_patches_padding_and_unusable_pixels_change_nothing(num_kinds):
    shift = make_shift(num_kinds=num_kinds)
    tokens, wavelength, is_usable = make_input(shift)
    is_usable[:, 2] = False
    found = shift(tokens, wavelength, is_usable)
    order = torch.tensor([4, 0, 5, 2, 1, 3])
    torch.testing.assert_close(shift(*(each[:, order] for each in (tokens, wavelength, is_usable))), found)
    # What is not usable may hold anything; so may a patch that is not there.
    tokens[:, 2], wavelength[:, 2] = torch.nan, torch.nan
    torch.testing.assert_close(shift(tokens, wavelength, is_usable), found)
    torch.testing.assert_close(shift(tokens[1:], wavelength[1:], is_usable[1:]), found[1:])
    for _ in range(20):  # shares add up to 1 but for rounding
        assert not shift.float()(tokens.float(), wavelength, torch.zeros_like(is_usable)).any()
        if num_kinds > 1:
            torch.nn.init.normal_(shift.kind.bias)


@pytest.mark.parametrize("num_kinds", [1, 3])
def test_pixels_beyond_the_wavelengths_are_left_out(num_kinds):
    shift = make_shift(num_kinds=num_kinds)
    tokens, wavelength, is_usable = make_input(shift, lowest=3000.0, highest=9000.0)
    is_inside = (wavelength >= SHORTEST) & (wavelength < LONGEST)
    assert 0 < is_inside.sum() < is_inside.numel()
    found = shift(tokens, wavelength, is_usable)
    torch.testing.assert_close(found, shift(tokens, wavelength, is_usable & is_inside), rtol=0, atol=1e-9)
    far = shift(tokens, wavelength * 1e6, is_usable)
    assert not far.any()


def lines_at(redshift: float, seed: int) -> dict:
    """A line, always the same at rest, on a flat continuum."""
    wavelength = 10 ** (3.58 + 1e-4 * np.arange(2400))
    flux = np.ones_like(wavelength)
    flux += 3 * np.exp(-0.5 * (np.log(wavelength / 3000.0 / (1 + redshift)) / 1e-3) ** 2)
    flux += 0.1 * np.random.default_rng(seed).standard_normal(len(wavelength))
    return {"flux": flux, "ivar": np.full_like(flux, 100.0), "wavelength": wavelength}


@pytest.mark.parametrize("num_kinds", [1, 3])
def test_redshifts_are_read_at_which_nothing_was_trained(num_kinds):
    """All shifts share what is learnt: of z from 0.55 to 0.85 nothing was shown. The encoder is random, and frozen."""
    generator = np.random.default_rng(0)
    shown = np.concatenate([generator.uniform(0.35, 0.55, 96), generator.uniform(0.85, 1.05, 96)])
    asked = generator.uniform(0.57, 0.83, 32)
    target = SHIFT | {"range": [0.2, 1.3], "num_bins": 1300, "wavelengths": [3700, 7000], "num_channels": 4}
    target["num_kinds"] = num_kinds
    model = make_model("shift", targets={"redshift": target}, hidden_size=128, num_trainable_layers=0)
    torch.nn.init.zeros_(model.head.shift.rest)
    processor = SpectralProcessor()
    batch = processor([lines_at(z, seed) for seed, z in enumerate(shown)], return_tensors="pt")
    said = {name: model.spectral(**batch)[name] for name in ("pooler_output", "last_hidden_state")}
    del batch["flux"]
    labels = torch.tensor(shown)[:, None]
    steps = torch.optim.AdamW(model.head.parameters(), lr=1e-2, weight_decay=1e-2)
    for _ in range(100):
        steps.zero_grad()
        model(**batch, **said, labels=labels).loss.backward()
        steps.step()
    found = model(**processor([lines_at(z, 100 + seed) for seed, z in enumerate(asked)], return_tensors="pt"))
    error = (found.logits[:, 0].numpy(force=True) - asked) / (1 + asked)
    # A random encoder does not tell all places of a line in a patch apart.
    assert np.mean(np.abs(error) < 3e-3) > 0.9 and np.median(np.abs(error)) < 1.5e-3


def test_what_the_encoder_said_before_is_as_good_as_spectra():
    inputs = SpectralProcessor()([spectrum("sdss", 0), spectrum("desi", 1)], return_tensors="pt")
    for model in (make_model("shift"), make_model("labels", num_pooling_queries=3)):
        expected, said = model(**inputs), model.spectral(**inputs)
        answer = {"pooler_output": said.pooler_output, "last_hidden_state": said.last_hidden_state}
        pixels = {name: inputs[name] for name in ("ivar", "wavelength", "attention_mask")}
        close(model(**answer, **pixels).logits, expected.logits)
        with pytest.raises(ValueError, match="last_hidden_state where the head reads tokens; found neither"):
            model(pooler_output=said.pooler_output)
        with pytest.raises(ValueError, match="found both"):
            model(**answer, **inputs)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"targets": {"redshift": SHIFT | {"transform": "identity"}}},
            "expected transform 'log1p', found: 'identity'",
        ),
        ({"targets": {"redshift": SHIFT | {"range": None}}}, "distribution 'shift' needs a range"),
        ({"targets": {"redshift": SHIFT | {"wavelengths": [9000, 4000]}}}, "wavelengths: expected two ascending"),
        ({"targets": {"redshift": SHIFT | {"num_channels": 0}}}, "num_channels: expected a positive number"),
        ({"targets": {"redshift": SHIFT | {"num_kinds": 0}}}, "num_kinds: expected a positive number"),
        ({"id2label": {0: "redshift", 1: "teff"}}, "expected no label beside a shift, found: .*teff"),
        ({"classifier_hidden_size": 64}, "classifier_hidden_size: expected 0 with a shift, found: 64"),
        ({"num_pooling_queries": 2}, "num_pooling_queries: expected 0 with a shift, found: 2"),
        ({"label_weight": 0.1, "label_targets": {"redshift": SHIFT}}, "found: 'shift', which is for heads"),
    ],
)
def test_a_wrong_setting_is_refused(settings, message):
    with pytest.raises(StrictDataclassClassValidationError, match=message):
        SpectralConfig(**SIZE | HEADS["shift"] | settings)


@pytest.mark.parametrize("num_kinds", [1, 3])
def test_a_saved_head_answers_the_same(tmp_path, num_kinds):
    model = make_model("shift", targets={"redshift": SHIFT | {"num_kinds": num_kinds}})
    model.save_pretrained(tmp_path)
    reloaded = SpectralForSequenceClassification.from_pretrained(tmp_path).eval()
    inputs = SpectralProcessor()([spectrum("sdss", 0), spectrum("apogee", 1)], return_tensors="pt")
    assert torch.equal(reloaded(**inputs).probabilities["redshift"], model(**inputs).probabilities["redshift"])
    assert reloaded.config.targets == model.config.targets


def test_a_fresh_head_of_several_kinds_finds_all_redshifts_alike_and_learns_them_apart():
    """From one gradient: kinds that started the same would stay the same."""
    config = SpectralConfig(**SIZE | HEADS["shift"] | {"targets": {"redshift": SHIFT | {"num_kinds": 3}}})
    model = SpectralForSequenceClassification(config).eval()
    assert not model.head.is_trained
    inputs = SpectralProcessor()([spectrum("sdss", 0), spectrum("desi", 1)], return_tensors="pt")
    found = model(**inputs, labels=torch.tensor([[0.1], [0.2]]))
    assert found.probabilities["redshift"].std(-1).max() < 1e-6
    found.loss.backward()
    slopes = model.head.shift.rest.grad.chunk(3)
    assert all((slopes[0] - each).abs().max() > 1e-4 * slopes[0].abs().max() for each in slopes[1:])


@pytest.mark.parametrize("target_class", [ShiftTarget, BinnedTarget])
@pytest.mark.parametrize("width", [1, 2.0, 5])
def test_labels_are_spread_over_as_many_bins_as_is_said(target_class, width):
    settings = TargetConfig(transform="log1p", range=[0.2, 1.3], num_bins=256, label_width=width)
    target = target_class("redshift", settings)
    outputs = torch.zeros(1, target.num_outputs)
    logits = target.logits(outputs).detach().requires_grad_()
    target.logits = lambda given: logits
    target.negative_log_likelihood(outputs, torch.tensor([0.5])).sum().backward()
    label = logits.softmax(-1) - logits.grad  # of cross-entropy
    place = torch.arange(256) + 0.5
    mean = (label * place).sum()
    spread = (label * (place - mean) ** 2).sum().sqrt()
    assert mean.item() == pytest.approx((0.5 - target.low) / target.width, abs=1e-3)
    # Of the Gaussian, and of the bin itself.
    assert spread.item() == pytest.approx(math.sqrt(width**2 + 1 / 12), abs=1e-2)


@pytest.mark.parametrize("num_kinds", [1, 3])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_it_answers_in_half_precision_as_in_float32(dtype, num_kinds):
    """Fourier transforms know neither. With float32 weights that were rounded to them the answer is the same but for what
    each pixel says."""
    shift = make_shift(num_kinds=num_kinds).to(dtype)
    tokens, wavelength, is_usable = make_input(shift)
    tokens = tokens.to(dtype)
    found = shift(tokens, wavelength, is_usable)
    expected = shift.float()(tokens.float(), wavelength, is_usable)
    assert found.dtype == torch.float32
    digits = {torch.bfloat16: 8, torch.float16: 11}[dtype]
    torch.testing.assert_close(found, expected, rtol=0, atol=2.0 ** (1 - digits) * expected.abs().max().item())
