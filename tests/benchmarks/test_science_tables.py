"""Heads, scores and tables of the science benchmark."""

import copy
import json
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pretrain
import pytest
import torch
from in_process import in_this_process

from benchmarks.science import __main__ as command
from benchmarks.science import ablations, heads
from benchmarks.science import bench as bench_module
from benchmarks.science import curve as curve_module
from benchmarks.science import real as real_module
from benchmarks.science.bench import TOLD, Bench, Budget, joined, own_columns
from benchmarks.science.cannon import Quadratic
from benchmarks.science.comparisons import (
    directions,
    efficiency,
    half_covered,
    leak,
    middle_of_shortest_half,
    recall_at_one,
    retrieval,
    transfer,
)
from benchmarks.science.components import ToldComponents
from benchmarks.science.curve import curve, per_doubling, probes, spectra_seen
from benchmarks.science.features import KeptFeatures, ModelEncoder, bin_centers, raw, resampled
from benchmarks.science.limits import cramer_rao, median_error
from benchmarks.science.real import real
from benchmarks.science.reconstruction import hide, in_units_of, interpolation, measure, reconstruction
from benchmarks.science.redrock_fits import seconds_per_spectrum
from benchmarks.science.report import json_line, markdown
from benchmarks.science.scores import class_scores, nmad, redshift_scores
from benchmarks.science.supervised import supervised
from benchmarks.science.tables import classes, labels, redshift
from spectral_tokenizer import (
    SpectralConfig,
    SpectralForPreTraining,
    SpectralForSequenceClassification,
    SpectralProcessor,
)
from training.recipe import Recipe
from training.simulated.observing import observe
from training.simulated.patches import rows, to_spectra
from training.simulated.populations import KINDS, population


LITTLE = Budget("tiny", 64, 64, 2, {"linear": 2, "mlp": 1})


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return SpectralForPreTraining(
        SpectralConfig(hidden_size=16, num_hidden_layers=1, num_decoder_layers=1, num_attention_heads=2,
                       intermediate_size=16, num_latents=2, num_pixel_periods=4)
    ).eval()  # fmt: skip


@pytest.fixture(scope="module")
def bench(model):
    """Features of a few spectra, shared by all tables."""
    return Bench(
        {"model": model, "pca16": "pca16", "pca16+errors": "pca16+errors", "raw": "raw"}, LITTLE, templates="none"
    )


@pytest.fixture
def few_objects(monkeypatch):
    """Where a budget is less than a batch of objects: they would all be made, and seen by all surveys."""
    monkeypatch.setattr(bench_module, "BATCH", 32)


def test_probabilities_in_bins_tell_two_peaks_from_their_mean():
    """A redshift that may be one of two is neither of them on average."""
    generator = np.random.default_rng(0)
    features = generator.normal(size=(2000, 8)).astype(np.float32)
    lower, upper = 0.2 + 0.02 * features[:, 0], 1.2 + 0.02 * features[:, 0]
    targets = np.where(generator.random(2000) < 0.3, upper, lower)[:, None]  # nothing tells which
    found = {kind: heads.regression(kind, features, targets, 0)(features)[:, 0] for kind in ("mlp", "mlp + bins")}
    assert np.median(np.abs(found["mlp + bins"] - lower)) < 0.01 < np.median(np.abs(found["mlp"] - lower))
    with pytest.raises(ValueError, match="expected linear, mlp or cnn"):
        heads.regression("tree + bins", features, targets)


def test_a_head_by_signal_to_noise_is_the_better_for_bright_spectra():
    """Noise in features flattens a linear head; what bright spectra tell is lost among faint ones."""
    generator = np.random.default_rng(0)
    targets, snr = generator.normal(size=(900, 1)), np.where(np.arange(900) % 3 == 0, 200.0, 3.0)
    features = (targets + 5.0 * generator.normal(size=(900, 4)) / snr[:, None]).astype(np.float32)
    is_bright = np.arange(900) % 3 == 0
    errors = {}
    for kind in ("linear", heads.WEIGHTED):
        predict = heads.regression(kind, features[:600], targets[:600], 0, snr[:600])
        errors[kind] = np.abs(predict(features[600:]) - targets[600:])[is_bright[600:]].mean()
    assert errors[heads.WEIGHTED] < 0.6 * errors["linear"]


@pytest.mark.parametrize("kind", ["linear", "mlp", "cnn"])
def test_heads_learn_what_there_is_to_learn(kind):
    generator = np.random.default_rng(0)
    features = generator.normal(size=(400, 64)).astype(np.float32)
    targets = features[:, :1] * 3.0 + 100.0  # one target alone: its axis must not be lost
    predicted = heads.regression(kind, features, targets, 0)(features)
    assert predicted.shape == targets.shape
    assert np.median(np.abs(predicted - targets)) < 1.0
    assert predicted.min() >= targets.min() and predicted.max() <= targets.max()
    is_high = (features[:, 0] > 0).astype(int)
    assert np.mean(heads.classification(kind, features, is_high, 0)(features) == is_high) > 0.85


def test_heads_refuse_what_they_do_not_know():
    with pytest.raises(ValueError, match="expected linear, mlp or cnn"):
        heads.regression("tree", np.zeros((20, 3), np.float32), np.zeros((20, 1)))


def test_a_head_on_one_class_says_that_class():
    predict = heads.classification("linear", np.zeros((9, 2), np.float32), np.full(9, 2))
    assert (predict(np.zeros((3, 2), np.float32)) == 2).all()


def test_scores():
    assert nmad(np.array([-1.0, 1.0, 1.0, 50.0])) == pytest.approx(1.4826)
    scores = redshift_scores(np.array([0.0, 1.0, 2.004]), np.array([0.0, 0.5, 2.0]))
    assert scores["outliers_0.0033"] == pytest.approx(1 / 3) and scores["outliers_0.15"] == pytest.approx(1 / 3)
    found = class_scores(np.array([0, 1, 1]), np.array([0, 1, 0]), ("GALAXY", "QSO", "STAR"))
    assert found["accuracy"] == pytest.approx(2 / 3)
    assert found["GALAXY_completeness"] == 0.5 and found["QSO_purity"] == 0.5
    assert np.isnan(found["STAR_completeness"])


def test_resampling_keeps_the_flux():
    spectra = to_spectra(observe(population("stars", None).draw("test", 0, 4), "apogee", snr=torch.full((4,), 200.0)))
    values = resampled(spectra, "truth")
    assert values.shape == (4, len(bin_centers("apogee"))) and np.isfinite(values).all()
    wavelength, truth = (
        each[0].split(spectra.lengths)[0].flatten().numpy() for each in (spectra.wavelength, spectra.truth)
    )
    expected = np.interp(bin_centers("apogee"), wavelength, truth)
    assert np.median(np.abs(values[0] - expected)) < 0.01
    assert np.abs(raw(spectra)).max() < 5.0


def test_features_do_not_depend_on_company(model):
    spectra = to_spectra(observe(population("stars", None).draw("test", 0, 5), "apogee"))
    encoder = ModelEncoder(model, batch_size=2)
    together = encoder(spectra)
    alone = np.concatenate([encoder(each) for each in spectra.split(1)])
    np.testing.assert_allclose(together, alone, atol=1e-5)


def test_kept_features_are_those_of_this_model_and_these_pixels(model, tmp_path):
    """Found again by another run; made anew for another pixel and another weight."""
    spectra = to_spectra(observe(population("optical", None, "cpu").draw("test", 0, 4, 0), "sdss", 0))
    first = KeptFeatures(ModelEncoder(model), tmp_path)
    expected = first(spectra)
    again = KeptFeatures(ModelEncoder(model), tmp_path)
    again.encoder = None  # would be called in vain
    np.testing.assert_array_equal(again(spectra), expected)

    flux = spectra.flux.clone()
    flux[0, 3, 5] += 0.5
    touched = first(replace(spectra, flux=flux))
    assert not np.array_equal(touched, expected) and np.array_equal(touched[1:], expected[1:])
    other = copy.deepcopy(model)
    with torch.no_grad():
        next(other.parameters()).mul_(1.5)
    assert not np.array_equal(KeptFeatures(ModelEncoder(other), tmp_path)(spectra), expected)
    assert len(list(tmp_path.glob("*.npy"))) == 3 == len(list(tmp_path.iterdir()))


def test_components_that_are_told_errors_make_nothing_of_noise():
    """A pixel with a large error may have any flux; a spectrum of nothing else is the mean."""
    generator = np.random.default_rng(0)
    amplitude = generator.normal(size=(200, 1))
    flux = 1.0 + amplitude * np.sin(np.arange(60) / 5.0) + 0.01 * generator.normal(size=(200, 60))
    weight = np.full_like(flux, 1e4)
    components = ToldComponents(np.array(["sdss"] * 200), flux, weight, np.full(200, 100.0), 1)
    known = components(flux, weight)
    assert abs(np.corrcoef(known[:, 0], amplitude[:, 0])[0, 1]) > 0.999
    wrong, unsure = flux.copy(), weight.copy()
    wrong[:, ::2], unsure[:, ::2] = 40.0, 1e-6
    np.testing.assert_allclose(components(wrong, unsure), known, atol=0.01 * known.std())
    assert np.abs(components(wrong, np.full_like(weight, 1e-8))).max() < 0.01 * known.std()


def test_products_of_features_are_a_head_of_their_own():
    generator = np.random.default_rng(0)
    features = generator.normal(size=(600, 5)).astype(np.float32)
    targets, snr = features[:, :1] * features[:, 1:2], np.full(600, 100.0)
    error = {
        kind: np.abs(heads.regression(kind, features, targets, 0, snr)(features) - targets).mean()
        for kind in (heads.WEIGHTED, heads.PRODUCTS)
    }
    assert error[heads.PRODUCTS] < 0.2 * error[heads.WEIGHTED]


def test_unlike_raw_spectra_get_columns_of_their_own():
    first, second = own_columns([np.ones((2, 3)), np.full((1, 2), 2.0)])
    assert first.tolist() == [[1, 1, 1, 0, 0]] * 2 and second.tolist() == [[0, 0, 0, 2, 2]]


@pytest.mark.parametrize("table", [classes, redshift, labels, transfer, efficiency])
def test_tables_have_rows_for_all_features(bench, table):
    check_table(table, table(bench))


def test_retrieval_has_rows_for_all_features(bench, few_objects):
    """Which are seen again in every way: of these surveys one has no partner, and two differ in size."""
    budget = replace(LITTLE, train=32, test=32)
    rows = retrieval(Bench(bench.given, budget, "none", surveys=("sdss", "apogee", "galah")))
    check_table(retrieval, rows)
    found = {(row["survey"], row["against"]) for row in rows}
    assert {"noise", "coverage", "galah"} == {against for survey, against in found if survey == "apogee"}
    assert len(found) == 7


def check_table(table, rows: list[dict]) -> None:
    assert {"model", "pca16", "pca16+errors", "raw"} <= {row["features"] for row in rows}
    for row in rows:
        scores = {key: value["mean"] for key, value in row.items() if isinstance(value, dict)}
        # A class that is never called has no purity.
        assert scores and all(np.isfinite(value) for key, value in scores.items() if "purity" not in key)
    assert json.loads(json_line(table.__name__, rows))["table"] == table.__name__
    assert markdown(rows).count("\n") == len(rows) + 1


@pytest.mark.parametrize("task", ["class", "redshift QSO", "labels"])
def test_the_label_head_of_pretraining_answers_as_it_does_on_spectra(tmp_path, task):
    """Whatever the order of its classes, and its redshifts as heads are asked for them."""
    torch.manual_seed(0)
    config = SpectralConfig(hidden_size=16, num_hidden_layers=1, num_decoder_layers=1, num_attention_heads=2,
                            intermediate_size=16, num_latents=2, label_weight=0.1, label_classes=["STAR", "GALAXY", "QSO"])  # fmt: skip
    model = SpectralForPreTraining(config).eval()
    with torch.no_grad():
        model.label_head.out_proj.weight.normal_(std=0.5)
    model.save_pretrained(tmp_path)
    told = Bench({"model": str(tmp_path), "raw": "raw"}, LITTLE, templates="none", surveys=("sdss", "apogee"))
    assert TOLD in told.heads("model", task) and TOLD not in told.heads("raw", task) + told.heads("model")
    (spectra,) = told.batches("sdss", "test", 64)
    names = {"class": "class", "labels": ["teff", "logg", "fe_h"]}.get(task, ["redshift"])
    head = SpectralForSequenceClassification.from_label_head(tmp_path, names).eval()
    answer = head(spectra.flux, spectra.ivar, spectra.wavelength, lengths=spectra.lengths).logits.detach().numpy()
    if task == "class":
        answer = np.array([KINDS.index(config.label_classes[each]) for each in answer.argmax(1)])
    found = told.fit("model", TOLD, task, None, None)(told.features_of(spectra).features["model"])
    np.testing.assert_allclose(found, np.log1p(answer) if task.startswith("redshift") else answer, rtol=1e-4)


def test_the_label_head_stands_in_the_tables_and_not_among_fitted_heads(tmp_path, model, monkeypatch):
    config = SpectralConfig.from_dict({**model.config.to_dict(), "label_weight": 0.1})
    SpectralForPreTraining(config).save_pretrained(tmp_path)
    told = Bench({"model": str(tmp_path)}, LITTLE, templates="none", surveys=("sdss", "apogee"))
    found = {table: table(told) for table in (classes, redshift, labels)}
    for table, lines in found.items():
        assert [row["features"] for row in lines if row["head"] == TOLD], table.__name__
    assert not [row for row in leak(told) if row["head"] == TOLD]
    monkeypatch.setattr(curve_module, "reconstruction", lambda *_, **__: [])
    (linear,) = (row for row in found[labels] if row["features"] == "model" and row["head"] == "linear")
    assert probes(told)["model"]["Teff APOGEE"] == linear["teff_mad"]["mean"]


def test_models_alone_take_time(bench, tmp_path):
    """And they take it where their features are kept: what is read from a file tells nothing."""
    assert set(seconds_per_spectrum(bench)) == {"model"}
    kept = Bench({"model": bench.given["model"]}, LITTLE, templates="none", kept_in=tmp_path)
    assert seconds_per_spectrum(kept)["model"] > 0.0 and not list(tmp_path.iterdir())


def test_labels_are_learned_from_raw_spectra(bench):
    """The instrument can tell: a linear head on raw APOGEE spectra beats a constant by far."""
    rows = {
        row["features"]: row for row in labels(bench) if row["survey"] == "apogee" and row["head"] in ("-", "linear")
    }
    assert rows["raw"]["teff_mad"]["mean"] < 0.6 * rows["constant"]["teff_mad"]["mean"]


def test_a_probe_on_shuffled_labels_knows_nothing(bench):
    for row in leak(bench):
        if row["task"] == "class":
            assert row["accuracy"]["mean"] < row["accuracy_of_the_best_constant"] + 0.12
        elif row["head"] == "linear":
            score = "nmad" if row["task"].startswith("redshift") else "teff_mad"
            assert row[score]["mean"] > 0.8 * row[f"{score}_of_the_best_constant"]


def test_training_and_test_objects_are_disjoint(bench):
    for survey in ("sdss", "desi", "apogee", "galah"):
        train, test = (bench.probe_set(survey, split).known for split in ("train", "test"))
        assert not set(train["index"]) & set(test["index"])
        assert not set(train["redshift"]) & set(test["redshift"])
    optical = [bench.probe_set(survey, "test").known for survey in ("sdss", "desi")]
    assert optical[0]["index"].tolist() == optical[1]["index"].tolist()


def test_recall_at_one():
    features = np.random.default_rng(0).normal(size=(50, 8))
    assert recall_at_one(directions(features), directions(3.0 * features + 1.0)).all()
    assert recall_at_one(directions(features), directions(features[::-1])).mean() < 0.2


def test_reconstruction_is_measured_against_the_truth(bench, few_objects):
    few = Bench(bench.given, LITTLE, "none", surveys=("desi", "apogee"))
    rows = reconstruction(few, styles=("nothing", "block"))
    by_method = {(row["survey"], row["hidden"], row["method"]): row for row in rows}
    for survey in few.chosen:
        truth = by_method[survey, "block", "truth"]
        assert 0.9 < truth["chi2"]["mean"] < 1.2 and truth["error_middle_snr"]["mean"] == 0.0
        assert by_method[survey, "block", "model"]["chi2"]["mean"] > truth["chi2"]["mean"]
        visible, hidden = (by_method[survey, style, "interpolation"]["chi2"]["mean"] for style in ("nothing", "block"))
        assert visible < hidden


def test_hidden_pixels_are_not_looked_at(bench):
    spectra = next(bench.batches("desi", "test", 64)).choose(torch.arange(64) < 4)
    is_hidden = hide(spectra, "block", np.random.default_rng(0))
    spoiled = spectra.flux.clone()
    spoiled[:, is_hidden] = 99.0
    first, second = (interpolation(each, is_hidden) for each in (spectra, replace(spectra, flux=spoiled)))
    assert torch.equal(first, second)
    chi2, error, band = measure(spectra.truth[0], spectra, is_hidden)
    assert (error == 0).all() and (chi2 < 2.5).all() and set(band) <= {0, 1, 2}


def test_a_level_that_is_not_given_is_that_of_what_is_visible(bench):
    """The median of all pixels tells the mean of those that are hidden."""
    spectra = next(bench.batches("desi", "test", 64)).choose(torch.arange(64) < 4)
    is_hidden = hide(spectra, "block", np.random.default_rng(0))
    other = spectra.flux.clone()
    other[:, is_hidden] *= 5.0
    first, second = (in_units_of(each, ~is_hidden) for each in (spectra, replace(spectra, flux=other)))
    assert torch.equal(first.flux[:, ~is_hidden], second.flux[:, ~is_hidden]) and torch.equal(
        first.scale, second.scale
    )
    for start, flux, ivar, seen in zip(
        range(4),
        *(each[0].split(spectra.lengths) for each in (first.flux, first.ivar)),
        (~is_hidden).split(spectra.lengths),
    ):
        known = flux[seen][ivar[seen] > 0]
        level, error = known.median().item(), ivar[seen][ivar[seen] > 0].rsqrt().median().item()
        assert max(level, error) == pytest.approx(1, abs=0.01), start
    # What is measured in sigma is as before, and so are straight lines.
    factor = (first.scale / spectra.scale)[spectra.spectrum()][:, None].float()
    torch.testing.assert_close(first.ivar[0] / factor**2, spectra.ivar[0], rtol=1e-4, atol=1e-3)
    lines = interpolation(first, is_hidden) * factor
    torch.testing.assert_close(lines, interpolation(spectra, is_hidden), rtol=1e-4, atol=1e-4)


def test_half_of_a_spectrum_does_not_know_the_other_half(bench):
    """Whatever the whole's scale was, on which the other half's pixels had a say."""
    spectra = next(bench.batches("desi", "test", 64)).choose(torch.arange(64) < 4)
    other = replace(spectra, flux=spectra.flux / 3.0, ivar=spectra.ivar * 9.0, scale=spectra.scale * 3.0)
    first, second = (half_covered(each, np.random.default_rng(3)) for each in (spectra, other))
    assert sum(first.lengths) < sum(spectra.lengths)
    torch.testing.assert_close(first.flux, second.flux, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(first.scale, second.scale, rtol=1e-5, atol=0.0)


def test_bounds_are_quoted_as_errors_are():
    generator = np.random.default_rng(0)
    sigma = generator.lognormal(size=200_000)
    drawn = np.median(np.abs(sigma * generator.standard_normal(len(sigma))))
    assert median_error(sigma) == pytest.approx(drawn, rel=0.01)
    assert median_error(sigma) < 0.9 * 0.6745 * np.median(sigma)  # how it was quoted
    assert median_error(np.full(7, 3.0)) == pytest.approx(3 * 0.6745, rel=1e-4)
    assert np.isnan(median_error(np.array([])))


def test_the_bound_falls_as_noise_does():
    objects = population("stars", None).draw("test", 0, 6)
    for survey in ("apogee", "galah"):
        # The same seed, so that only the noise's size differs.
        faint, bright = (cramer_rao(observe(objects, survey, 0, torch.full((6,), snr))) for snr in (20.0, 40.0))
        assert np.isfinite(faint).all() and (faint > 0).all()
        np.testing.assert_allclose(np.median(faint / bright, axis=0), 2.0, rtol=0.15)


def test_the_cannon_recovers_a_quadratic():
    generator = np.random.default_rng(0)
    stars = generator.normal(size=(200, 3)) * [300.0, 0.5, 0.3] + [4800.0, 2.5, -0.2]
    offset = (stars - stars.mean(0)) / stars.std(0)
    flux = 1.0 + Quadratic.terms(offset)[:, 1:] @ generator.normal(size=(9, 80)) * 0.03
    ivar = np.full_like(flux, 1e4)
    model = Quadratic(flux + generator.normal(size=flux.shape) * 0.01, ivar, stars)
    found, _ = model.fit(flux, ivar)
    assert (np.median(np.abs(found - stars), axis=0) < [60.0, 0.1, 0.06]).all()


def test_the_curve_follows_compute(model):
    assert spectra_seen("1.5k") == 1500.0 and spectra_seen("2M") == 2e6
    with pytest.raises(ValueError, match="named by spectra seen"):
        spectra_seen("best")
    slope = per_doubling([{"spectra": 1, "FLOP": 1.0, "features": "1", "error": 0.4},
                          {"spectra": 4, "FLOP": 4.0, "features": "4", "error": 0.1}])  # fmt: skip
    assert slope["error"] == pytest.approx(0.5)


def test_the_curve_and_supervised_networks_run(model, few_objects):
    little = replace(LITTLE, train=40, test=32)
    rows = curve(Bench({"1k": model, "2k": model}, little, "none", surveys=("sdss", "apogee")))
    assert len(rows) == 3 and rows[1]["FLOP"] == pytest.approx(2 * rows[0]["FLOP"])
    rows = supervised(Bench({"scratch:tiny": "scratch:tiny"}, little, "none", surveys=("apogee", "sdss")))
    assert {(each["task"], each["head"]) for each in rows} == {
        ("class", "all of it"), ("labels apogee", "all of it"),
        *((f"redshift {kind}", head) for kind in ("GALAXY", "QSO") for head in ("all of it", "all of it + bins")),
    }  # fmt: skip
    assert all(np.isfinite(each["nmad"]["mean"]) for each in rows if "redshift" in each["task"])


def test_the_command_ends_with_json(capsys, tmp_path):
    command.main(["labels", "--budget", "tiny", "--encoder", "raw", "--templates", "none", "--survey", "apogee",
                  "--device", "cpu", "--output", str(tmp_path)])  # fmt: skip
    figures = json.loads(capsys.readouterr().out.strip().splitlines()[-1])
    assert figures["table"] == "labels" and figures["simulated_from"] == "own physics" and figures["rows"]
    assert (tmp_path / "labels.md").read_text().startswith("| features |")


def test_encoders_are_found_or_missed_aloud():
    with pytest.raises(FileNotFoundError, match="expected a saved model's folder"):
        Bench({"nowhere": "nowhere"}, LITTLE, "none")


def test_joined_sets_stay_in_order(bench):
    both = joined([bench.probe_set("sdss", "test"), bench.probe_set("desi", "test")])
    assert both.survey[0] == "sdss" and both.survey[-1] == "desi" and len(both) == 128


def test_every_ablation_is_a_recipe_and_a_model():
    """A misspelt setting would be trained for minutes before it is noticed, or never."""
    for name, changed in ablations.VARIATIONS.items():
        recipe = Recipe(**{**ablations.RECIPE, **changed})
        options = recipe.model_options
        config = SpectralConfig.from_pretrained(recipe.model, **options)
        assert {key: getattr(config, key) for key in options} == options, name
        assert set(options) <= set(SpectralConfig().to_dict()), name
        assert (name == "default") == (changed == {}), name


def train_here(command: list[str], cwd, check: bool) -> None:
    """A run of the training script, whose imports take longer than its steps."""
    assert (command[0], Path(cwd, command[1]), check) == (sys.executable, Path(pretrain.__file__), True)
    in_this_process(pretrain.main, *command[2:])


def test_ablations_are_trained_measured_and_kept(model, few_objects, tmp_path, monkeypatch, capsys):
    for part in (model.config, SpectralProcessor()):
        part.save_pretrained(tmp_path / "size")
    monkeypatch.setitem(ablations.RECIPE, "model", str(tmp_path / "size"))
    monkeypatch.setitem(ablations.RECIPE, "validation_spectra", 2)
    monkeypatch.setitem(ablations.RECIPE, "max_spectra", 4)
    monkeypatch.setitem(ablations.RECIPE, "weights", {"desi": 1.0, "apogee": 1.0})
    monkeypatch.setattr(ablations, "subprocess", SimpleNamespace(run=train_here))
    monkeypatch.setitem(bench_module.BUDGETS, "tiny", Budget("tiny", 32, 32, 1, {"linear": 1}))
    given = ["--only", "labels and noiseless targets", "--steps", "2", "--seeds", "0", "--budget", "tiny",
             "--templates", "none", "--output", str(tmp_path)]  # fmt: skip
    ablations.main(given)
    first = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert [row["changed"] for row in first["rows"]] == given[1:2]
    assert all(row["Teff APOGEE"]["mean"] > 0 and row["chi2 block galah"]["mean"] > 0 for row in first["rows"])
    monkeypatch.setattr(ablations, "subprocess", None)  # made again, it would fail
    ablations.main(given)
    assert json.loads(capsys.readouterr().out.splitlines()[-1]) == first


def test_the_best_constant_has_the_least_median_error():
    generator = np.random.default_rng(0)
    two_kinds = np.concatenate([generator.normal(2.0, 0.3, 300), generator.normal(4.5, 0.2, 310)])
    best = middle_of_shortest_half(two_kinds)
    error = np.median(np.abs(two_kinds - best))
    assert error <= min(np.median(np.abs(two_kinds - other)) for other in np.linspace(1.0, 5.0, 400)) + 1e-3
    assert error < 0.8 * np.median(np.abs(two_kinds - np.median(two_kinds)))


@pytest.mark.parametrize("survey", ["sdss", "galah"])
def test_rows_of_files_become_the_benchmarks_own_spectra(survey):
    domain = "stars" if survey == "galah" else "optical"
    seen = observe(population(domain, None).draw("test", 0, 4), survey)
    expected, found = to_spectra(seen), real_module.to_spectra(survey, rows(seen))
    assert found.lengths == expected.lengths and found.survey == expected.survey
    for name in ("flux", "ivar", "wavelength", "scale"):
        torch.testing.assert_close(getattr(found, name), getattr(expected, name), rtol=1e-4, atol=1e-4)
    for name in ("kind", "band"):
        assert torch.equal(getattr(found, name), getattr(expected, name))
    torch.testing.assert_close(found.redshift.double(), expected.redshift.double(), rtol=1e-5, atol=1e-6)


def test_heads_of_simulated_spectra_read_files(bench, simulated_surveys, monkeypatch):
    monkeypatch.setattr(real_module, "FOLDER", simulated_surveys["sdss"].parent)
    found = {(each["features"], each["head"], each["survey"], each["task"]): each for each in real(bench)}
    constant = found["constant", "-", "sdss", "class"]["accuracy"]["mean"]
    assert found["model", "linear", "sdss", "class"]["accuracy"]["mean"] > constant
    assert np.isfinite(found["raw", "mlp", "desi", "redshift GALAXY"]["nmad"]["mean"])
    assert np.isfinite(found["pca16", "linear", "galah", "labels"]["teff_mad"]["mean"])
    assert "STAR_completeness" in found["model", "linear", "desi", "class"]
