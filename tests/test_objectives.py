import numpy as np
import pytest
import torch
from spectra import spectrum

from spectral_tokenizer import SpectralConfig, SpectralForPreTraining, SpectralModel, SpectralProcessor
from spectral_tokenizer.objectives_spectral_tokenizer import (
    HIDING,
    OBJECTIVES,
    arm_index,
    hide_arms,
    hide_block,
    hide_random,
)


def wavelengths(survey):
    inputs = SpectralProcessor()(spectrum(survey), packed=True)
    return inputs["wavelength"][0]


@pytest.mark.parametrize(("survey", "arms"), [("sdss", 1), ("desi", 3), ("galah", 2), ("apogee", 1)])
def test_arms_are_told_from_wavelengths_alone(survey, arms):
    assert arm_index(wavelengths(survey))[-1] + 1 == arms


def test_a_few_bad_patches_do_not_make_an_arm():
    wavelength = np.delete(wavelengths("sdss"), [10, 11], axis=0)
    assert arm_index(wavelength).max() == 0


@pytest.mark.parametrize("how", HIDING.values())
@pytest.mark.parametrize("survey", ["sdss", "desi", "galah", "apogee"])
def test_something_is_hidden_and_something_stays(how, survey):
    for seed in range(20):
        is_hidden = how(wavelengths(survey), 0.5, np.random.default_rng(seed))
        assert is_hidden.any() and not is_hidden.all()


@pytest.mark.parametrize("how", HIDING.values())
@pytest.mark.parametrize("survey", ["sdss", "desi", "galah", "apogee"])
def test_hiding_reads_the_ends_of_patches_alone(how, survey):
    """Simulated streams hand over no more, and must hide what files would."""
    wavelength = wavelengths(survey)
    whole, ends = (how(each, 0.5, np.random.default_rng(0)) for each in (wavelength, wavelength[:, [0, -1]]))
    assert (whole == ends).all()


def test_a_block_is_contiguous_and_an_arm_is_whole():
    generator = np.random.default_rng(0)
    wavelength = wavelengths("desi")
    block = hide_block(wavelength, 0.3, generator)
    assert np.abs(np.diff(block.astype(int))).sum() <= 2 and block.sum() == round(0.3 * len(block))
    arms = arm_index(wavelength)
    hidden = hide_arms(wavelength, 0.5, generator)
    assert all(len(set(hidden[arms == arm])) == 1 for arm in range(3))
    assert hide_random(wavelength, 0.5, generator).sum() == round(0.5 * len(wavelength))


def test_an_objective_is_a_class_and_a_line(monkeypatch):
    """Nothing else has to know of it; and without the line, the model says so."""
    config = SpectralConfig(hidden_size=32, num_hidden_layers=1, num_decoder_layers=1, intermediate_size=64)
    config.objective = "first half"
    with pytest.raises(
        ValueError, match=r"objective: expected one of \['autoencoding', 'masked'\], found: 'first half'"
    ):
        SpectralForPreTraining(config)
    assert SpectralModel(config).config.objective == "first half"  # the encoder needs none

    class FirstHalf(OBJECTIVES["masked"]):
        def hide(self, wavelength, generator):
            return np.arange(len(wavelength)) < len(wavelength) // 2

    monkeypatch.setitem(OBJECTIVES, "first half", FirstHalf)
    model = SpectralForPreTraining(SpectralConfig.from_dict(config.to_dict())).train()
    inputs = SpectralProcessor()(spectrum("sdss"), return_tensors="pt")
    output, half = model(**inputs), int(inputs["attention_mask"].sum()) // 2
    assert output.masked_patches.sum() == half and output.masked_patches[0, :half].all()
    assert torch.isfinite(output.loss)


def test_how_patches_are_hidden_is_what_choice_would_draw():
    """A run that goes on must draw what it drew when `generator.choice` did it."""
    weights, edges = np.array([3.0, 0.0, 1.5]), np.arange(80.0).reshape(40, 2)
    objective = OBJECTIVES["masked"](SpectralConfig(hiding_weights=tuple(weights)))
    for seed in range(100):
        found, generator = objective.hide(edges, np.random.default_rng(seed)), np.random.default_rng(seed)
        how = list(HIDING.values())[generator.choice(3, p=weights / weights.sum())]
        assert (found == how(edges, generator.uniform(*objective.config.hidden_fraction), generator)).all()


@pytest.mark.parametrize("method", ["hide", "ask"])
@pytest.mark.parametrize(
    "as_what", [lambda chosen: chosen.astype(int), np.uint8, np.flatnonzero, lambda chosen: chosen[:-1]]
)
def test_what_an_objective_says_of_patches_is_booleans(method, as_what, monkeypatch):
    """Integers of `ask` gave patches to the spectra beside, and so another loss, silently."""
    said = getattr(OBJECTIVES["masked"], method)
    monkeypatch.setattr(OBJECTIVES["masked"], method, lambda *arguments: as_what(said(*arguments)))
    config = SpectralConfig(hidden_size=32, num_hidden_layers=1, num_decoder_layers=1, intermediate_size=64)
    inputs = SpectralProcessor()([spectrum("sdss"), spectrum("galah")], return_tensors="pt")
    with pytest.raises(
        ValueError, match=rf"objective: {method}: expected \(\d+,\) booleans, one for each patch, found: "
    ):
        SpectralForPreTraining(config).train()(**inputs)


def make_loss(num_spectra=2, **settings):
    objective = OBJECTIVES["masked"](SpectralConfig(**settings))
    generator = torch.Generator().manual_seed(0)
    flux = torch.randn(6, 32, generator=generator)
    spectrum_index = torch.tensor([0, 0, 0, 0, 1, 1])

    def loss(prediction, ivar=None):
        ivar = torch.ones(6, 32) if ivar is None else ivar
        return objective.loss(prediction, flux, ivar, spectrum_index, num_spectra)

    return loss, flux


def test_gaussian_loss_is_chi2_over_valid_pixels():
    loss, flux = make_loss(spectrum_loss="gaussian", residual_cap=None)
    ivar = torch.full((6, 32), 4.0)
    ivar[0, :10] = 0
    cost, terms = loss(flux + 0.5, ivar=ivar)
    assert terms == 6 * 32 - 10 and cost / terms == pytest.approx(1.0, rel=1e-5)


def test_log_loss_weighs_spectra_alike():
    loss, flux = make_loss()
    error = torch.zeros(6, 32)
    error[:4] = 3.0
    one, terms = loss(flux + error)
    assert terms == 2
    tripled = flux.clone(), torch.ones(6, 32)
    tripled[1][:4] = 4.0
    other, _ = loss(flux + error, ivar=tripled[1])
    # Four times the chi2 of one spectrum adds log 4, however bright it is.
    assert other - one == pytest.approx(np.log(4), abs=0.1)


def test_a_spectrum_without_targets_costs_nothing():
    loss, flux = make_loss(num_spectra=3)
    cost, terms = loss(flux + 1)
    assert terms == 2 and torch.isfinite(cost)


def test_far_residuals_count_linearly():
    loss, flux = make_loss(spectrum_loss="gaussian", residual_cap=10.0)
    far, farther = loss(flux + 1000)[0], loss(flux + 2000)[0]
    assert farther / far == pytest.approx(2, rel=0.02)


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (lambda cost, terms: cost, "Tensor"),
        (lambda cost, terms: (cost.expand(3), terms), r"\[torch.Size\(\[3\]\), torch.Size\(\[\]\)\]"),
        (lambda cost, terms: (float(cost), terms), r"\[\(\), torch.Size\(\[\]\)\]"),
    ],
)
def test_a_cost_of_another_form_is_named(monkeypatch, change, found):
    loss = OBJECTIVES["masked"].loss
    monkeypatch.setattr(OBJECTIVES["masked"], "loss", lambda *arguments: change(*loss(*arguments)))
    model = SpectralForPreTraining(SpectralConfig(hidden_size=32, num_attention_heads=2, intermediate_size=64))
    with pytest.raises(ValueError, match=f"objective: loss: expected the sum of the costs, .*found: {found}"):
        model(**SpectralProcessor()(spectrum("desi"), return_tensors="pt"))


def test_the_number_of_terms_may_be_a_plain_one(monkeypatch):
    loss = OBJECTIVES["masked"].loss
    model = SpectralForPreTraining(SpectralConfig(hidden_size=32, num_attention_heads=2, intermediate_size=64)).eval()
    inputs = SpectralProcessor()(spectrum("desi"), return_tensors="pt")
    torch.manual_seed(0)
    expected = model(**inputs).loss
    monkeypatch.setattr(
        OBJECTIVES["masked"], "loss", lambda *arguments: (loss(*arguments)[0], int(loss(*arguments)[1]))
    )
    torch.manual_seed(0)
    torch.testing.assert_close(model(**inputs).loss, expected)


@pytest.mark.parametrize("value", [-1.0, float("nan"), float("-inf")])
@pytest.mark.parametrize("spectrum_loss", ["log", "gaussian"])
def test_unusable_pixels_have_no_gradient_whatever_their_ivar_is(value, spectrum_loss):
    loss, flux = make_loss(spectrum_loss=spectrum_loss)
    ivar = torch.ones(6, 32)
    ivar[0, :3] = value
    prediction = (flux + 0.5).requires_grad_()
    cost, _ = loss(prediction, ivar=ivar)
    cost.backward()
    assert cost.isfinite() and prediction.grad.isfinite().all() and not prediction.grad[0, :3].any()
