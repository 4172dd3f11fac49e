import math

import numpy as np
import pytest
import torch
from spectra import FULL_GRIDS, spectrum

from spectral_tokenizer import (
    SpectralConfig,
    SpectralForPreTraining,
    SpectralForSequenceClassification,
    SpectralModel,
    SpectralProcessor,
)
from spectral_tokenizer.embeddings_spectral_tokenizer import wavelength_basis, wavelength_code
from spectral_tokenizer.packing_spectral_tokenizer import PackedPatches


SURVEYS = ["sdss", "desi", "galah", "apogee"]
SIZE = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_decoder_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
}
PAPER = {"num_latents": 0, "decoder_reads": "tokens", "patch_inputs": "flux_and_error", "patch_outputs": "flux", "pooling": "mean",
         "objective": "autoencoding", "spectrum_loss": "gaussian", "residual_cap": None, "num_periods": 256,
         "min_period": 0.1, "max_period": 1e6, "num_pixel_periods": 0}  # fmt: skip
VARIANTS = {
    "default": {},
    "open decoder": {"decoder_reads": "tokens"},
    "segments": {"pooling": "segments", "decoder_reads": "tokens", "num_latents": 0, "num_segments": 4},
    "no functions of wavelength": {"num_pixel_periods": 0},
    "paper": PAPER,
}


@pytest.fixture(scope="module", params=VARIANTS)
def model(request):
    return make_model(**VARIANTS[request.param])


def make_model(**settings):
    torch.manual_seed(0)
    model = SpectralForPreTraining(SpectralConfig(**SIZE, **settings)).eval()
    # A fresh decoder answers with a flat spectrum: what it makes of its input would not show.
    for name, parameter in model.decoder.named_parameters():
        if name in ("head.weight", "amplitudes.weight"):
            torch.nn.init.normal_(parameter, std=0.2)
    return model


def close(one, other, tolerance=1e-5):
    torch.testing.assert_close(one, other, rtol=tolerance, atol=tolerance)


# Wavelengths


@pytest.mark.parametrize("survey", SURVEYS)
@pytest.mark.parametrize("how", ["fp32", "autocast", "bf16 model"])
def test_phases_are_exact_at_the_shortest_period(survey, how):
    """A patch of 32 equal pixels has one phase: the code's angle, against float64."""
    model = SpectralModel(SpectralConfig(**SIZE, num_periods=16, min_period=0.1, max_period=1e6))
    if how == "bf16 model":
        model = model.to(torch.bfloat16)
    wavelength = torch.from_numpy(FULL_GRIDS[survey])[:, None].expand(-1, 32)
    num_periods, projected = 16, []
    model.wavelength_projection.register_forward_hook(lambda module, inputs, output: projected.append(inputs[0]))
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=how == "autocast"):
        code = wavelength_code(wavelength, num_periods, 0.1, 1e6)
        model.locate(PackedPatches(wavelength, wavelength, wavelength, [len(wavelength)]))
    assert code.dtype == torch.float32
    # The model is given this code and casts it last.
    torch.testing.assert_close(projected[0], code.to(model.dtype))
    period = np.exp(np.linspace(math.log(1e6), math.log(0.1), num_periods))
    phase = 2 * np.pi * FULL_GRIDS[survey][:, None] / period
    found = np.arctan2(code[:, :num_periods].double().numpy(), code[:, num_periods:].double().numpy())
    error = np.abs(np.angle(np.exp(1j * (found - phase))))
    assert error.max() < 1e-5


@pytest.mark.parametrize("survey", SURVEYS)
def test_every_pixel_of_a_patch_enters_with_its_own_phase(survey):
    grid = FULL_GRIDS[survey][: len(FULL_GRIDS[survey]) // 32 * 32].reshape(-1, 32)
    code = wavelength_code(torch.from_numpy(grid), 64, 0.1, 1e6, average="pixels")
    period = np.exp(np.linspace(math.log(1e6), math.log(0.1), 64))
    # A pixel's phase errs most at the patch's edge, where all else has been added to the middle.
    middle = grid[:, 16, None]
    exact = 2 * np.pi * (grid - middle) / 0.1
    rounded = 2 * np.pi * ((grid - middle).astype(np.float32) * np.float32(10)).astype(np.float64)
    assert np.abs(exact - rounded).max() < 1e-3
    phase = 2 * np.pi * grid[:, :, None] / period
    expected = np.concatenate([np.sin(phase).mean(1), np.cos(phase).mean(1)], axis=1)
    np.testing.assert_allclose(code.numpy(), expected, atol=2e-4)


@pytest.mark.parametrize("survey", SURVEYS)
def test_the_interval_code_is_the_average_over_all_wavelengths_of_a_patch(survey):
    grid = FULL_GRIDS[survey][: 32 * 40].reshape(-1, 32)
    code = wavelength_code(torch.from_numpy(grid), 64, 0.1, 1e6)
    half = (grid[:, -1] - grid[:, 0]) / 62  # half a pixel
    fraction = (np.arange(20_000) + 0.5) / 20_000
    start, end = (grid[:, 0] - half)[:, None], (grid[:, -1] + half)[:, None]
    dense = start + (end - start) * fraction
    for number, period in list(enumerate(np.exp(np.linspace(math.log(1e6), math.log(0.1), 64))))[::7]:
        phase = 2 * np.pi * dense / period
        np.testing.assert_allclose(code[:, number].numpy(), np.sin(phase).mean(1), atol=2e-4)
        np.testing.assert_allclose(code[:, 64 + number].numpy(), np.cos(phase).mean(1), atol=2e-4)


def test_the_interval_code_does_not_know_how_finely_a_patch_is_sampled():
    coarse, fine = (4000 + width * (np.arange(count) + 0.5) for count, width in ((32, 1.0), (128, 0.25)))
    one, other = (wavelength_code(torch.from_numpy(each[None]), 64, 0.1, 1e6) for each in (coarse, fine))
    close(one, other)
    # Sampled at 1 A, a period of 1 A looks like a constant: an average over pixels cannot tell.
    echo = wavelength_code(torch.from_numpy(coarse[None]), 1, 1.0, 1.0 + 1e-9, average="pixels")
    assert (
        echo.abs().max() > 0.9
        and wavelength_code(torch.from_numpy(coarse[None]), 1, 1.0, 1.0 + 1e-9).abs().max() < 1e-3
    )


@pytest.mark.parametrize("survey", SURVEYS)
def test_the_basis_is_a_function_of_wavelength_alone(survey):
    """Pixels have the same values wherever their patch begins."""
    grid = FULL_GRIDS[survey]
    one, other = (
        wavelength_basis(torch.from_numpy(grid[start : start + 32 * 40].reshape(-1, 32)), 32, 0.2, 50.0).flatten(0, 1)
        for start in (0, 7)
    )
    close(one[7:], other[:-7], 1e-3)
    phase = 2 * np.pi * grid[: 32 * 40, None] / np.exp(np.linspace(math.log(50.0), math.log(0.2), 32))
    np.testing.assert_allclose(one[:, :32].numpy(), np.sin(phase) / np.sqrt(32), atol=1e-3)


def test_half_precision_wavelengths_are_refused(inputs):
    model = make_model()
    with pytest.raises(ValueError, match="float64"):
        model(inputs["flux"], inputs["ivar"], inputs["wavelength"].to(torch.bfloat16))


def test_a_bf16_model_stays_near_the_fp32_one(inputs):
    model = make_model()
    reference = model(**inputs).reconstruction
    low = make_model().to(torch.bfloat16)(**inputs).reconstruction
    assert (low - reference).norm() < 0.05 * (reference - 1).norm()


# Invariances


def test_batch_company_and_padding_change_nothing(model, rows, inputs):
    processor = SpectralProcessor()
    together = model(**inputs)
    encoded = model.encode(**inputs)
    for index, row in enumerate(rows):
        alone = processor(row, return_tensors="pt")
        length = alone["flux"].shape[1]
        close(model(**alone).reconstruction[0], together.reconstruction[index, :length])
        close(model.encode(**alone).pooler_output[0], encoded.pooler_output[index])


def test_packed_equals_padded(model, rows, inputs):
    padded, encoded = model(**inputs), model.encode(**inputs)
    packed_inputs = SpectralProcessor()(rows, packed=True, return_tensors="pt")
    packed, packed_encoded = model(**packed_inputs), model.encode(**packed_inputs)
    close(packed.reconstruction[0], padded.reconstruction[inputs["attention_mask"].bool()])
    close(packed_encoded.pooler_output, encoded.pooler_output)
    close(packed_encoded.last_hidden_state[0], encoded.last_hidden_state[encoded.token_mask])
    close(packed.loss, padded.loss)


def test_changing_one_spectrum_leaves_the_others_alone(model, rows, inputs):
    changed = {name: each.clone() for name, each in inputs.items()}
    changed["flux"][1] += 1
    one, other = model.encode(**inputs), model.encode(**changed)
    keep = [0, 2, 3]
    close(one.last_hidden_state[keep], other.last_hidden_state[keep], 1e-6)
    assert (one.pooler_output[1] - other.pooler_output[1]).abs().max() > 1e-3


def test_row_order_only_reorders(model, inputs):
    order = torch.tensor([2, 0, 3, 1])
    shuffled = {name: each[order] for name, each in inputs.items()}
    close(model.encode(**shuffled).pooler_output, model.encode(**inputs).pooler_output[order])


def test_patch_order_only_reorders(model, inputs):
    single = {name: each[:1, :31] if each.ndim > 1 else each[:1] for name, each in inputs.items()}
    order = torch.randperm(31, generator=torch.Generator().manual_seed(0))
    shuffled = {name: each[:, order] if each.ndim > 1 else each for name, each in single.items()}
    close(model.encode(**shuffled).pooler_output, model.encode(**single).pooler_output)
    close(model(**shuffled).reconstruction, model(**single).reconstruction[:, order])


@pytest.mark.parametrize("rubbish", [float("nan"), float("inf"), 1e30])
def test_unusable_pixels_and_invalid_patches_are_never_looked_at(model, inputs, rubbish):
    dirty = {name: each.clone() for name, each in inputs.items()}
    dirty["flux"][inputs["ivar"] == 0] = rubbish
    clean, soiled = model(**inputs), model(**dirty)
    close(soiled.reconstruction, clean.reconstruction)
    close(soiled.loss, clean.loss)
    soiled.loss.backward()
    assert all(torch.isfinite(each.grad).all() for each in model.parameters() if each.grad is not None)
    model.zero_grad()


@pytest.mark.parametrize("factor", [1e-20, 1e20])
def test_a_factor_on_the_flux_changes_nothing(model, factor):
    row = spectrum("desi")
    scaled = {**row, "flux": row["flux"] * factor, "ivar": row["ivar"] / factor**2}
    one, other = (model(**SpectralProcessor()(each, return_tensors="pt")) for each in (row, scaled))
    close(one.reconstruction, other.reconstruction)


def test_two_spectra_do_not_get_the_same_tokens(model, inputs):
    encoded = model.encode(**inputs)
    pooled = torch.nn.functional.normalize(encoded.pooler_output - encoded.pooler_output.mean(0), dim=-1)
    distance = torch.cdist(encoded.pooler_output, encoded.pooler_output) / encoded.pooler_output.norm(dim=-1).mean()
    assert distance[~torch.eye(4, dtype=bool)].min() > 0.01
    assert (pooled @ pooled.T)[~torch.eye(4, dtype=bool)].max() < 0.99
    # The same grid and noise, other lines.
    two = model.encode(**SpectralProcessor()([spectrum("sdss", 5), spectrum("sdss", 6)], return_tensors="pt"))
    assert (two.pooler_output[0] - two.pooler_output[1]).norm() > 1e-3 * two.pooler_output[0].norm()


def test_the_wavelengths_matter(model, inputs):
    moved = {**inputs, "wavelength": inputs["wavelength"] * (1 + 1e-3)}
    one, other = model.encode(**inputs).pooler_output, model.encode(**moved).pooler_output
    assert (one - other).norm() > 1e-3 * one.norm()


# Decoder


def test_decoding_the_own_grid_is_the_reconstruction(model, inputs):
    encoded = model.encode(**inputs)
    flux = model.decode(encoded.last_hidden_state, inputs["wavelength"], encoded.token_mask)
    valid = inputs["attention_mask"].bool()
    close(flux[valid], model(**inputs).reconstruction[valid])


def test_packed_spectra_are_decoded_each_from_its_own_tokens(model, rows, inputs):
    packed = SpectralProcessor()(rows, packed=True, return_tensors="pt")
    encoded = model.encode(inputs["flux"], inputs["ivar"], inputs["wavelength"], inputs["attention_mask"])
    tokens = model.encode(**packed).last_hidden_state
    expected = model.decode(encoded.last_hidden_state, inputs["wavelength"], encoded.token_mask)
    close(model.decode(tokens, inputs["wavelength"], lengths=packed["lengths"]), expected)
    for wrong in ({}, {"lengths": packed["lengths"][:3]}, {"token_mask": encoded.token_mask}):
        with pytest.raises(ValueError, match="expected tokens and the token_mask that encode gave"):
            model.decode(tokens, inputs["wavelength"], **wrong)
    with pytest.raises(ValueError, match=r"wavelength: expected shape \(4 spectra"):
        model.decode(tokens, inputs["wavelength"][:2], lengths=packed["lengths"])


@pytest.mark.parametrize(
    ("convert", "found"),
    [
        (lambda grid: grid.numpy(), "a tensor.*found: ndarray"),
        (
            lambda grid: grid.flatten(),
            r"shape \(4 spectra, patches, 32\).*found: \(64,\).*patch_wavelength makes patches",
        ),
        (lambda grid: grid[0], r"shape \(4 spectra, patches, 32\).*found: \(2, 32\)"),
    ],
)
def test_a_grid_that_is_not_in_patches_is_named(convert, found, model, inputs):
    grid = inputs["wavelength"][:1, :2]
    encoded = model.encode(**inputs)
    with pytest.raises(ValueError, match=f"wavelength: expected {found}"):
        model.decode(encoded.last_hidden_state, convert(grid), encoded.token_mask)


@pytest.mark.parametrize("convert", [tuple, np.array, torch.tensor, lambda lengths: list(torch.tensor(lengths))])
def test_lengths_may_be_any_integers_in_a_row(convert, model, rows):
    packed = SpectralProcessor()(rows, packed=True, return_tensors="pt")
    expected = model(**packed).reconstruction
    assert torch.equal(model(**{**packed, "lengths": convert(packed["lengths"])}).reconstruction, expected)


@pytest.mark.parametrize(
    ("convert", "found"),
    [
        (lambda lengths: [float(each) for each in lengths], r"\d+\.0"),
        (lambda lengths: torch.tensor(lengths).float(), r"\d+\.0"),
        (lambda lengths: [lengths[0] + lengths[1] + 1, -1, *lengths[2:]], "-1"),
        (lambda lengths: [lengths], r"\["),
        (lambda lengths: torch.tensor([lengths]), r"\["),
        (sum, r"\d+"),
    ],
)
def test_lengths_that_are_none_are_named(convert, found, model, rows):
    packed = SpectralProcessor()(rows, packed=True, return_tensors="pt")
    wrong = convert(packed["lengths"])
    tokens, grid = model.encode(**packed).last_hidden_state, packed["wavelength"][:, :2]
    for call in (lambda: model(**{**packed, "lengths": wrong}), lambda: model.decode(tokens, grid, lengths=wrong)):
        with pytest.raises(ValueError, match=f"lengths: expected a list of whole numbers.*found: {found}"):
            call()


def test_one_grid_serves_all_spectra(model, inputs):
    encoded, grid = model.encode(**inputs), inputs["wavelength"][:1]
    expected = model.decode(encoded.last_hidden_state, grid.expand(4, -1, -1), encoded.token_mask)
    assert torch.equal(model.decode(encoded.last_hidden_state, grid, encoded.token_mask), expected)


def test_an_answer_does_not_depend_on_the_other_questions(model, inputs):
    encoded = model.encode(**inputs)
    wavelength = torch.from_numpy(5000 + 2.0 * np.arange(320)).reshape(1, 10, 32).expand(4, -1, -1)
    tokens = encoded.last_hidden_state, encoded.token_mask
    everything = model.decode(tokens[0], wavelength, tokens[1])
    some = model.decode(tokens[0], wavelength[:, [7, 2]], tokens[1])
    close(some, everything[:, [7, 2]])


def test_a_hidden_patch_does_not_reach_the_answer(inputs):
    model = make_model()
    masked = torch.zeros_like(inputs["attention_mask"], dtype=torch.bool)
    masked[:, 3:9] = True
    changed = {**inputs, "flux": inputs["flux"] + masked[..., None] * 5}
    one = model(**inputs, masked_patches=masked)
    other = model(**changed, masked_patches=masked)
    close(one.reconstruction, other.reconstruction)
    assert other.chi2_hidden > one.chi2_hidden
    close(one.chi2_visible, other.chi2_visible)


# Edges


def test_without_a_mask_the_processors_own_rule_tells_patches_from_padding(model, inputs):
    without = {name: inputs[name] for name in ("flux", "ivar", "wavelength")}
    assert not inputs["attention_mask"].all()
    expected, found = model.encode(**inputs), model.encode(**without)
    assert torch.equal(found.token_mask, expected.token_mask)
    close(found.pooler_output, expected.pooler_output)
    close(model(**without).loss, model(**inputs).loss)


def test_a_pixel_that_is_absurdly_wrong_costs_a_finite_amount(inputs):
    flux = inputs["flux"].clone()
    flux[0, 3, 5] = 1e25
    output = make_model()(**{**inputs, "flux": flux})
    assert inputs["ivar"][0, 3, 5] > 0 and output.loss.isfinite() and output.loss.item() > 1
    output.loss.backward()


def test_switches_of_the_output_are_those_of_transformers(model, inputs):
    encoder = model.spectral
    asked = encoder(**inputs, output_hidden_states=True)
    assert len(asked.hidden_states) == 3 and encoder(**inputs).hidden_states is None
    encoder.config.output_hidden_states = True
    assert len(encoder(**inputs).hidden_states) == 3
    encoder.config.output_hidden_states = False
    model.config.return_dict = False
    loss, *_ = model(**inputs)
    assert torch.equal(loss, model(**inputs, return_dict=True).loss) and len(model.encode(**inputs)) == 3
    model.config.return_dict = True
    tokens, pooled, *_ = encoder(**inputs, return_dict=False)
    assert torch.equal(tokens, asked.last_hidden_state) and torch.equal(pooled, asked.pooler_output)
    assert model.get_input_embeddings() is encoder.get_input_embeddings() is encoder.embeddings


def test_trainer_does_not_collect_what_it_would_fill_up_wrongly(inputs):
    """It pads with -100: of booleans, patches that do not exist would be called true."""
    model = make_model()
    output = model(**inputs)
    booleans = {name for name, each in output.items() if each.dtype == torch.bool}
    assert booleans and booleans <= set(model.config.keys_to_ignore_at_inference)


def test_every_module_with_weights_is_called(inputs):
    """What wraps modules, as adapters and offloading do, sees all that they do."""
    model = make_model(label_weight=0.1)
    labels = torch.full((4, 1 + len(model.config.label_targets)), torch.nan)
    called = set()
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Linear):
            module.register_forward_hook(lambda *_, name=name: called.add(name))
    model(**inputs, labels=labels)
    assert called == {name for name, each in model.named_modules() if isinstance(each, torch.nn.Linear)}
    calls = []
    model.spectral.register_forward_hook(lambda *_: calls.append(1))
    model.encode(**inputs), model.spectral.encode(**inputs), model.spectral(**inputs)
    assert len(calls) == 3


def test_a_spectrum_without_valid_patches_gives_zeros_not_nan(model, inputs):
    attention_mask = inputs["attention_mask"].clone()
    attention_mask[2] = 0
    output = model(**{**inputs, "attention_mask": attention_mask})
    encoded = model.encode(**{**inputs, "attention_mask": attention_mask})
    assert torch.isfinite(output.loss) and torch.isfinite(output.reconstruction).all()
    assert torch.isfinite(encoded.last_hidden_state).all() and (encoded.pooler_output[2] == 0).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"flux": torch.zeros(4, 3, 31)}, "must share one shape"),
        ({"attention_mask": torch.ones(4, 3)}, "attention_mask must have shape"),
        ({"lengths": [1, 2]}, "add up to 3"),
        ({"masked_patches": torch.ones(4, 3)}, r"masked_patches: expected shape \(4, "),
        ({"target_patches": torch.ones(1, 3)}, r"target_patches: expected shape \(4, "),
        ({"target_flux": torch.ones(4, 3, 1)}, r"target_flux: expected shape \(4, "),
    ],
)
def test_wrong_shapes_say_what_was_found(inputs, change, message):
    with pytest.raises(ValueError, match=message):
        make_model()(**{**inputs, **change})


def test_lengths_of_fewer_spectra_than_there_are_scales_are_refused(model):
    packed = SpectralProcessor()([spectrum("sdss", seed) for seed in range(3)], packed=True, return_tensors="pt")
    first, second, third = packed["lengths"]
    for lengths in ([first + second, third], [1, first - 1, second, third]):
        with pytest.raises(ValueError, match=f"lengths: expected one for each of 3 scales, found: {len(lengths)}"):
            model(**{**packed, "lengths": lengths})


@pytest.mark.parametrize(
    ("write", "found"),
    [
        (lambda valid: torch.where(valid, 0.0, -torch.inf), "-inf to 0"),
        (lambda valid: torch.where(valid, 0.0, torch.finfo(torch.float32).min), "-3.4.*e\\+38 to 0"),
        (lambda valid: torch.zeros(valid.shape), "0.0 everywhere"),  # such a one where all patches are valid
        (lambda valid: torch.where(valid, 0, -10000), "-10000 to 0"),
        (lambda valid: torch.where(valid, 1.0, torch.nan), "nan"),
    ],
    ids=["infinite", "float32", "nothing hidden", "integers", "nan"],
)
def test_a_mask_to_be_added_to_logits_is_refused(inputs, write, found):
    """Its 0 is a valid patch: what does not exist would be looked at, and nothing else."""
    valid = inputs["attention_mask"].bool()
    with pytest.raises(ValueError, match=f"attention_mask: expected 1 for a valid patch.*found: .*{found}"):
        make_model().encode(**{**inputs, "attention_mask": write(valid)})


@pytest.mark.parametrize("dtype", [torch.bool, torch.int32, torch.float32, torch.bfloat16])
def test_a_mask_of_ones_and_zeros_is_read_in_any_type(inputs, dtype):
    model, mask = make_model(), inputs["attention_mask"].to(dtype)
    found = model.encode(**{**inputs, "attention_mask": mask})
    assert torch.equal(found.pooler_output, model.encode(**inputs).pooler_output)


# Training


def test_the_objective_hides_in_training_only(inputs):
    model = make_model()
    shown = model(**inputs)
    assert not shown.masked_patches.any() and shown.chi2_hidden.isnan() and shown.chi2_visible > 0
    model.train()
    torch.manual_seed(1)
    output = model(**inputs)
    hidden = output.masked_patches.sum(1) / inputs["attention_mask"].sum(1)
    assert ((hidden > 0.3) & (hidden < 0.95)).all()
    asked = (output.target_patches & output.masked_patches).sum(1) / output.masked_patches.sum(1)
    assert ((asked > 0.2) & (asked < 0.8)).all()  # hidden_target_fraction
    torch.manual_seed(1)
    close(model(**inputs).loss, output.loss)
    torch.manual_seed(2)
    assert (model(**inputs).masked_patches != output.masked_patches).any()


def test_one_cosmic_ray_does_not_own_the_gradient(inputs):
    model = make_model()
    struck = {**inputs, "flux": inputs["flux"].clone()}
    row, patch, pixel = (inputs["ivar"] > 0).nonzero()[1000].tolist()
    struck["flux"][row, patch, pixel] += 1000 / inputs["ivar"][row, patch, pixel].sqrt()
    masked = torch.zeros_like(inputs["attention_mask"], dtype=torch.bool)
    masked[row, patch] = True  # as a target alone

    def gradient(batch):
        model.zero_grad()
        model(**batch, masked_patches=masked).loss.backward()
        return torch.cat([each.grad.flatten() for each in model.decoder.parameters() if each.grad is not None])

    clean, hit = gradient(inputs), gradient(struck)
    assert (hit - clean).norm() < 0.5 * clean.norm()


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
def test_attention_implementations_agree(inputs, implementation):
    model = make_model()
    reference = model(**inputs).reconstruction
    model.set_attn_implementation(implementation)
    close(model(**inputs).reconstruction, reference)


def test_activation_checkpointing_gives_the_same_gradients(inputs):
    gradients = []
    for enable in (False, True):
        model = make_model().train()
        if enable:
            model.gradient_checkpointing_enable()
        masked = torch.zeros_like(inputs["attention_mask"], dtype=torch.bool)
        masked[:, ::2] = True
        model(**inputs, masked_patches=masked, target_patches=masked).loss.backward()
        gradients.append(torch.cat([each.grad.flatten() for each in model.parameters()]))
    close(*gradients)


@pytest.mark.parametrize("which", ["spectral", "decoder"])
def test_layers_start_as_they_should(which):
    """Transformers passes over modules of custom code without parameters of their own, such as these."""
    model = SpectralForPreTraining(SpectralConfig(**SIZE))
    for layer in getattr(model, which).layers:
        assert torch.equal(layer.attention.k_proj.weight, layer.attention.q_proj.weight)
        depth = (2 * max(model.config.num_hidden_layers, model.config.num_decoder_layers)) ** -0.5
        for projection in (layer.attention.o_proj, layer.mlp.down_proj):
            assert float(projection.weight.std() * projection.in_features**0.5) == pytest.approx(depth, rel=0.1)


def test_overfits_one_batch(inputs):
    torch.manual_seed(0)
    model = SpectralForPreTraining(SpectralConfig(**{**SIZE, "hidden_size": 64})).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    masked = torch.zeros_like(inputs["attention_mask"], dtype=torch.bool)
    losses = []
    for _ in range(60):
        optimizer.zero_grad()
        loss = model(**inputs, masked_patches=masked, target_patches=~masked).loss
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] - 1


def test_hidden_states_are_returned_on_request(inputs):
    model = make_model()
    output = model.encode(**inputs, output_hidden_states=True)
    assert len(output.hidden_states) == model.config.num_hidden_layers + 1
    assert all(each.shape == output.last_hidden_state.shape for each in output.hidden_states)
    assert model.encode(**inputs).hidden_states is None


def test_a_device_without_float64_is_refused_with_a_way_out():
    """Trainer and `pipeline` move a model to Apple's GPU by themselves, and would fail at the first batch."""
    model = make_model()
    for place in ({"device": "mps"}, {"device": torch.device("mps")}):
        with pytest.raises(ValueError, match=r"mps.*use_cpu=True"):
            model.to(**place)
    with pytest.raises(ValueError, match="mps"):
        model.spectral.to("mps", torch.bfloat16)
    assert model.to("cpu").to(torch.float32).to(dtype=torch.float32) is model


@pytest.mark.parametrize("kind", ["encoder", "pretraining"])
def test_packed_spectra_without_their_lengths_are_not_one(kind, model, rows):
    packed = SpectralProcessor()(rows, packed=True, return_tensors="pt")
    del packed["lengths"]
    with pytest.raises(ValueError, match=f"scale: expected one, of one spectrum, found: {len(rows)}.*lengths"):
        (model.spectral if kind == "encoder" else model)(**packed)


def test_the_encoder_passes_over_a_head(tmp_path, caplog):
    SpectralForSequenceClassification(SpectralConfig(**SIZE)).save_pretrained(tmp_path)
    SpectralModel.from_pretrained(tmp_path)
    assert "UNEXPECTED" not in caplog.text and "head" not in caplog.text
