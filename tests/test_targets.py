"""What outputs mean: probabilities in bins, their peaks, intervals and doubts."""

import math

import pytest
import torch

from spectral_tokenizer import targets_spectral_tokenizer
from spectral_tokenizer.configuration_spectral_tokenizer import SpectralConfig, TargetConfig
from spectral_tokenizer.targets_spectral_tokenizer import (
    ONE_SIGMA,
    BinnedTarget,
    ClassTarget,
    NormalTarget,
    RegressionTargets,
)


REDSHIFT = {"distribution": "bins", "transform": "log1p", "range": [0, 5], "num_bins": 128, "tolerance": 0.05}


def redshift_target(**settings):
    return BinnedTarget("redshift", TargetConfig(**{**REDSHIFT, **settings}))


def peaks(target, *places):
    """Logits of Gaussian peaks (redshift, width in ln(1 + z), weight)."""
    edges = target.edges(torch.zeros(()))
    centers = 0.5 * (edges[1:] + edges[:-1])
    density = sum(
        weight / width * torch.exp(-0.5 * ((centers - math.log1p(redshift)) / width) ** 2)
        for redshift, width, weight in places
    )
    return outputs_of(target, (density + 1e-12).log()[None])


def outputs_of(target, logits):
    """What a head would have to give: the finest level alone."""
    return torch.cat([logits.new_zeros(len(logits), target.num_outputs - target.num_bins), logits], dim=1)


@pytest.mark.parametrize("redshift", [0.2, 0.503, 1.0, 2.0071])
def test_a_peak_is_located_inside_its_bin(redshift):
    target = redshift_target()
    prediction = target.predict(peaks(target, (redshift, 0.7 * target.width, 1.0)))
    assert abs(math.log1p(prediction.value) - math.log1p(redshift)) < 0.05 * target.width
    assert prediction.confidence > 0.99


def test_confidences_near_one_are_told_apart():
    """In float32 they would be alike, or larger than 1, and which are flagged a matter of rounding."""
    target = redshift_target()
    logits = torch.zeros(4, target.num_bins)
    logits[:, 100] = torch.tensor([30.0, 35.0, 40.0, 200.0])
    confidence = target.predict(outputs_of(target, logits)).confidence
    assert (confidence.diff() > 0).all() and confidence[-1] <= 1 and confidence[0] > 1 - 1e-6


def test_a_factor_on_the_interval_leaves_the_doubt_between_peaks():
    """Odds of 7 to 3 stay what they are."""
    target = redshift_target()
    outputs = peaks(target, (0.5, 0.01, 0.7), (2.0, 0.01, 0.3))
    plain, sharp = target.predict(outputs, 1.0), target.predict(outputs, 1 / 6)
    assert sharp.value == plain.value and sharp.confidence == plain.confidence and abs(sharp.confidence - 0.7) < 0.02
    reach = [(each.interval[0].log1p() - each.value.log1p()).abs() for each in (plain, sharp)]
    torch.testing.assert_close(reach[0], 6 * reach[1], rtol=1e-3, atol=1e-6)
    torch.testing.assert_close(sharp.probabilities, plain.probabilities)


def test_the_heavier_of_two_peaks_is_the_answer_and_the_lighter_the_doubt():
    target = redshift_target()
    # The lighter peak is the higher one.
    prediction = target.predict(peaks(target, (0.5, 0.02, 0.7), (2.0, 0.01, 0.3)))
    assert abs(prediction.value - 0.5) < 0.01 and abs(prediction.confidence - 0.7) < 0.02
    # The interval says both: more than 16 % lie in the second peak.
    assert prediction.interval[0, 0] < 0.5 and prediction.interval[0, 1] > 1.9


@pytest.mark.parametrize("scatter", [0.4, 1.0, 4.0])
@pytest.mark.parametrize("label_width", [1, 2.0])
def test_intervals_are_as_wide_as_truths_scatter_and_not_as_labels_are_spread(scatter, label_width):
    """Of a distribution that was fitted to labels of that scatter, in bins."""
    target = BinnedTarget("z", TargetConfig(**REDSHIFT | {"label_width": label_width}))
    generator = torch.Generator().manual_seed(0)
    u = 1.0 + scatter * target.width * torch.randn(4000, generator=generator, dtype=torch.float64)
    labels = torch.special.ndtr((target.edges(u) - u[:, None]) / (label_width * target.width)).diff(dim=1).mean(0)
    found = target.predict(outputs_of(target, (labels + 1e-30).log()[None].float()), 1.0)
    reach = (found.interval.log1p().double() - 1.0)[0].abs() / target.width
    torch.testing.assert_close(reach, torch.full_like(reach, scatter), rtol=0.06, atol=0.1)


def test_no_interval_is_narrower_than_a_bin_leaves_open():
    target = redshift_target()
    low, high = target.predict(peaks(target, (1.0, 0.1 * target.width, 1.0)), 1.0).interval[0].log1p()
    assert (high - low).item() == pytest.approx(2 * target.width / math.sqrt(12), rel=1e-3)


def test_a_redshift_can_be_fitted_to_a_fraction_of_a_bin():
    """Minimising the cost puts the answer at the label, wherever in its bin that lies."""
    target = redshift_target()
    labels = torch.linspace(0.5, 0.6, 12)
    outputs = torch.zeros(12, target.num_outputs, requires_grad=True)
    optimizer = torch.optim.Adam([outputs], lr=0.3)
    for _ in range(200):
        optimizer.zero_grad()
        target.cost(outputs, labels).backward()
        optimizer.step()
    found = target.predict(outputs.detach()).value.log1p()
    assert (found - labels.log1p()).abs().max() < 0.05 * target.width


def test_coarse_levels_are_interpolated_and_added():
    """Knots at both ends and evenly between: level of 8, then 16, ..., then one a bin."""
    target = redshift_target()
    assert target.knots == [8, 16, 32, 64, 128] and redshift_target(num_bins=100).knots == [8, 16, 32, 64, 100]
    outputs = torch.zeros(1, target.num_outputs)
    outputs[0, :8] = torch.arange(8)
    outputs[0, -128:] = 1.0
    torch.testing.assert_close(target.logits(outputs)[0], torch.linspace(0, 7, 128) + 1)


@pytest.mark.parametrize("distribution", ["normal", "bins"])
@pytest.mark.parametrize("factor", [0.5, 3.0])
def test_calibration_makes_intervals_hold_68_percent(distribution, factor):
    """Truths scattered by `factor` times what the outputs say."""
    generator = torch.Generator().manual_seed(0)
    target = redshift_target() if distribution == "bins" else NormalTarget("teff", TargetConfig())
    center = 0.5 * torch.rand(4000, generator=generator) + 0.7
    truth = center + 0.04 * factor * torch.randn(4000, generator=generator)
    if distribution == "normal":
        outputs = torch.stack([center, torch.full_like(center, 2 * math.log(0.04))], dim=1)
    else:
        edges = target.edges(center)
        # As wide as labels are spread on top of it.
        width = math.hypot(0.04, target.config.label_width * target.width)
        logits = -0.5 * ((0.5 * (edges[1:] + edges[:-1]) - center[:, None]) / width) ** 2
        outputs = outputs_of(target, logits)
        truth = truth.expm1()
    truth[::7] = torch.nan
    settings = target.calibrate(outputs, truth, false_alarms=0.05)
    assert settings["width_factor"] == pytest.approx(factor, rel=0.05)
    prediction = target.predict(outputs, settings["width_factor"])
    is_known = ~truth.isnan()
    is_inside = (prediction.interval[:, 0] <= truth) & (truth <= prediction.interval[:, 1])
    assert abs(is_inside[is_known].float().mean() - ONE_SIGMA) < 0.005
    is_right = is_known & (
        (target.transform(prediction.value) - target.transform(truth.nan_to_num())).abs() <= target.tolerance
    )
    flagged = (prediction.confidence < settings["confidence_threshold"])[is_right].float().mean()
    assert flagged <= 0.06


def test_both_sides_are_calibrated_by_their_own_widths():
    """Probabilities with a long tail, and truths as far out as they say, but for a factor."""
    target = redshift_target(num_bins=512)
    generator = torch.Generator().manual_seed(0)
    start = 0.3 + torch.rand(3000, generator=generator)
    edges = target.edges(start)
    off = 0.5 * (edges[1:] + edges[:-1]) - start[:, None]
    outputs = outputs_of(target, torch.where(off > 0, -off / 0.15, off / 0.03))
    tails = torch.empty(3000).exponential_(generator=generator)
    is_above = torch.rand(3000, generator=generator) < 0.15 / 0.18
    truth = (start + torch.where(is_above, 1.8 * 0.15 * tails, -1.8 * 0.03 * tails)).clamp(0, 1.79).expm1()
    factor = target.calibrate(outputs, truth, 0.05)["width_factor"]
    interval = target.predict(outputs, factor).interval
    is_inside = (interval[:, 0] <= truth) & (truth <= interval[:, 1])
    assert abs(is_inside.float().mean() - ONE_SIGMA) < 0.003 and factor > 1.3


def test_an_interval_has_its_value_inside_and_stays_in_range():
    """Where all below the value is less than 16 %, and where a factor widens what is near the end."""
    target = redshift_target()
    lone = target.predict(peaks(target, (0.3, 0.03, 0.14), *((0.8 + 0.1 * k, 0.2, 0.86 / 40) for k in range(40))), 1.0)
    low, value, high = (each.log1p().item() for each in (lone.interval[0, 0], lone.value, lone.interval[0, 1]))
    assert abs(value - math.log1p(0.3)) < 0.01 and value - low > 0.5 * target.width and high > math.log1p(2.0)
    wide = target.predict(peaks(target, (0.05, 0.2, 1.0), (4.5, 0.2, 0.5)), 5.0).interval[0]
    assert wide[0] == 0 and wide[1].item() == pytest.approx(5)


@pytest.mark.parametrize("transform", ["log", "log1p"])
def test_a_spectrum_of_which_nothing_is_known_does_not_stop_calibration(transform):
    """Its interval reaches to where the logarithm has no end."""
    target = NormalTarget("x", TargetConfig(transform=transform, scale=0.5))
    outputs = torch.stack([torch.zeros(500), torch.zeros(500)], dim=1)
    outputs[0, 1] = 15.0
    truth = target.inverse(0.5 * torch.randn(500, generator=torch.Generator().manual_seed(0)))
    assert target.calibrate(outputs, truth, 0.05)["width_factor"] == pytest.approx(1, abs=0.15)


@pytest.mark.parametrize("factor", [0.02, 50.0])
def test_errors_that_are_wrong_by_far_are_calibrated_too(factor):
    generator = torch.Generator().manual_seed(0)
    target = NormalTarget("teff", TargetConfig(center=5000.0, scale=700.0))
    noise = torch.randn(2, 4000, generator=generator)
    truth = 5000 + 700 * noise[0]
    outputs = torch.stack([noise[0] + 0.04 * noise[1], torch.full((4000,), 2 * math.log(0.04 / factor))], dim=1)
    found = target.predict(outputs, target.calibrate(outputs, truth, 0.05)["width_factor"]).interval
    is_inside = (found[:, 0] <= truth) & (truth <= found[:, 1])
    assert abs(is_inside.float().mean() - ONE_SIGMA) < 0.005


def test_what_no_factor_mends_is_told(caplog):
    target = NormalTarget("teff", TargetConfig())
    outputs = torch.stack([torch.randn(500), torch.full((500,), -14.0)], dim=1)
    target.calibrate(outputs, outputs[:, 0] + 1.0, 0.05)
    assert "label teff: expected errors within a factor of 100" in caplog.text
    caplog.clear()
    chance = ClassTarget(SpectralConfig(num_labels=2, problem_type="single_label_classification"))
    chance.calibrate(torch.tensor([[9.0, 0.0], [0.0, 9.0]]), torch.tensor([1, 0]), 0.05)
    assert "expected answers better than chance, found none" in caplog.text


def test_bins_of_any_size_refuse_what_lies_outside():
    target = BinnedTarget("x", TargetConfig(distribution="bins", range=[0.0, 1e-6]))
    assert target.cost(torch.zeros(1, target.num_outputs), torch.tensor([0.9e-6])).isfinite()
    with pytest.raises(ValueError, match="label x: expected values from 0.0 to 1e-06"):
        target.cost(torch.zeros(1, target.num_outputs), torch.tensor([1.1e-6]))


def test_labels_that_float32_cannot_tell_apart_are_refused():
    """They would all have one value, and the head one answer."""
    config = SpectralConfig(problem_type="regression", id2label={0: "mjd"})
    days = 0.01 * torch.randn(20, 1, dtype=torch.float64)
    with pytest.raises(ValueError, match="label mjd: expected values that differ .*subtract a constant"):
        RegressionTargets(config).scales(2459000.5 + days)
    assert "center" in RegressionTargets(config).scales(days)["targets"]["mjd"]


def test_nan_is_no_redshift_and_flagged():
    config = SpectralConfig(problem_type="regression", id2label={0: "redshift"}, targets={"redshift": REDSHIFT})
    targets = RegressionTargets(config)
    outputs = torch.zeros(2, targets.num_outputs)
    outputs[1, 3] = torch.nan
    answer = targets.answer(outputs)
    assert answer["logits"][:, 0].isnan().tolist() == answer["is_flagged"][:, 0].tolist() == [False, True]


@pytest.mark.parametrize("distribution", ["bins", "normal"])
def test_many_spectra_are_calibrated_in_parts_as_at_once(distribution, monkeypatch):
    """Thousands of bins of all of them would not fit."""
    settings = TargetConfig(distribution=distribution, num_bins=32, range=[0, 1], tolerance=0.1)
    target = targets_spectral_tokenizer.TARGETS[distribution]("z", settings)
    generator = torch.Generator().manual_seed(0)
    outputs = torch.randn(50, target.num_outputs, generator=generator)
    labels = torch.rand(50, generator=generator)
    expected = target.calibrate(outputs, labels, 0.1)
    monkeypatch.setattr(targets_spectral_tokenizer, "AT_ONCE", 7)
    sizes, predict = [], target.predict
    monkeypatch.setattr(target, "predict", lambda part, heat: sizes.append(len(part)) or predict(part, heat))
    assert target.calibrate(outputs, labels, 0.1) == pytest.approx(expected)
    assert max(sizes) == 7 and expected["width_factor"] != 1
