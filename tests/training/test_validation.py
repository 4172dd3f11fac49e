"""What a model is measured by, and what it is measured against."""

import json
import math
import sys
from types import SimpleNamespace

import measure
import numpy as np
import pretrain
import pytest
import torch
from datasets import Dataset
from publish import public
from recipe import Recipe
from test_modeling import make_model
from training_runs import modes
from transformers import AutoModelForSequenceClassification
from validation import MeanSpectrum, SurveyValidation

from spectral_tokenizer import SpectralProcessor
from spectral_tokenizer.data import load_survey
from spectral_tokenizer.data.packing import as_arrays


def rows_at(first: float, last: float, number: int, pixels: int = 640) -> list[dict]:
    """Spectra of one shape and various brightness."""
    wavelength = np.geomspace(first, last, pixels)
    shape = 1 + 0.3 * np.sin(np.linspace(0, 9, pixels))
    return [
        {
            "object_id": f"{first:g}-{each}", "survey": "any", "wavelength": wavelength, "segment_lengths": [pixels],
            "flux": (2 + each) * shape, "ivar": np.full(pixels, 1e4), "snr": 100.0, "class": None,
        }
        for each in range(number)
    ]  # fmt: skip


def test_the_mean_spectrum_is_that_of_all_rows_whichever_come_first():
    optical, infrared = rows_at(4000, 5000, 16), rows_at(15000, 17000, 16)
    for rows in (optical + infrared, infrared + optical):
        rows = Dataset.from_list(rows)
        found = SurveyValidation(rows, rows, SpectralProcessor(), 32).baselines["mean spectrum"]
        assert (
            found["random"]["mean"] < 2 and found["arm"]["mean"] < 2
        )  # 90 with the infrared in the optical's last pixel
    mean = MeanSpectrum(as_arrays(rows), list(range(32)), SpectralProcessor())
    assert np.exp(mean.log_wavelength.min()) == pytest.approx(4000, rel=1e-3)
    assert np.exp(mean.log_wavelength.max()) == pytest.approx(17000, rel=1e-3)


def test_where_nothing_can_be_hidden_nothing_is_measured():
    """0 would be perfect, and the best checkpoint of all."""
    rows = Dataset.from_list(rows_at(4000, 4100, 4, pixels=32))
    validation = SurveyValidation(rows, rows, SpectralProcessor(), 4)
    scores = {"any": validation.evaluate(make_model())}
    assert math.isnan(scores["any"]["block"]["mean"]) and math.isnan(
        validation.baselines["interpolation"]["arm"]["median"]
    )
    assert scores["any"]["visible"]["mean"] > 0
    accelerator = SimpleNamespace(is_main_process=True, reduce=lambda each: each, device="cpu")
    state = {"step": 5, "best": None}
    assert pretrain.judge(accelerator, scores, state) == (False, None)
    measured = {**scores, "other": {"block": {"mean": 2.0}}}
    assert pretrain.judge(accelerator, measured, state) == (True, {"step": 5, "chi2": 2.0})


def test_simulated_spectra_are_called_so_without_being_told(tmp_path, simulated_surveys, monkeypatch):
    model = tmp_path / "model"
    make_model().save_pretrained(model)
    SpectralProcessor().save_pretrained(model)
    files = {"sdss": str(simulated_surveys["sdss"])}
    for is_simulated in (False, True):
        recipe = Recipe(data=files, data_is_simulated=is_simulated, validation_fraction=0.3).to_dict()
        (tmp_path / "metrics.json").write_text(json.dumps({"recipe": recipe}))
        line = [
            "measure.py",
            "--model",
            str(model),
            "--held-by",
            str(tmp_path / "metrics.json"),
            "--output",
            str(tmp_path),
        ]
        monkeypatch.setattr(sys, "argv", line)
        measure.main()
        assert json.loads((tmp_path / "evaluation.json").read_text())["simulated"] is is_simulated
        split = {"validation_fraction": 0.3, "split_seed": 0}
        assert json.loads((tmp_path / "evaluation.json").read_text())["held_by"] == {
            "surveys": ["sdss"],
            "split": split,
        }
    monkeypatch.setattr(sys, "argv", [*line, "--data", f"sdss={files['sdss']}"])
    with pytest.raises(ValueError, match="which the run of --held-by has too"):  # whose spectra would be measured?
        measure.main()
    (tmp_path / "metrics.json").write_text(json.dumps({"arguments": {}}))  # as a head's
    with pytest.raises(ValueError, match="metrics.json: expected metrics of a pre-training run"):
        measure.main()


def test_metrics_without_the_paths_of_their_data_are_told_from_a_run_s(tmp_path, capsys):
    metrics = tmp_path / "metrics.json"
    recipe = Recipe(data={"galah": "files"}, options={"galah": {"catalogue": "stars.fits"}}).to_dict()
    metrics.write_text(json.dumps(public({"recipe": recipe})))
    line = ["--model", "hub_configs/released", "--output", str(tmp_path), "--held-by"]
    with pytest.raises(
        ValueError, match=r"metrics.json: recipe.data: expected paths, found blank ones of \['galah'\]"
    ):
        measure.load(measure.parse_arguments([*line, str(metrics)]))
    for given, found in ((tmp_path, "a folder"), (tmp_path / "other.json", "no such file")):
        with pytest.raises(SystemExit):
            measure.parse_arguments([*line, str(given)])
        assert f"expected metrics.json of a pre-training run, found {found}: {given}" in capsys.readouterr().err


def test_a_head_is_measured_on_files_whose_labels_are_known(tmp_path, simulated_surveys, monkeypatch):
    torch.manual_seed(0)
    settings = {
        "class": {"problem_type": "single_label_classification", "id2label": {0: "GALAXY", 1: "QSO"}},
        "redshift": {"problem_type": "regression", "id2label": {0: "redshift"}},
    }
    rows = load_survey("sdss", simulated_surveys["sdss"])
    classes = {f"{name}_{score}" for name in ("GALAXY", "QSO") for score in ("purity", "completeness")}
    scores = {
        "class": {"accuracy", "log_loss"} | classes,
        "redshift": {f"redshift_{score}" for score in ("known", "mad", "bias", "coverage")},
    }
    expected = {
        "class": sum(each in ("GALAXY", "QSO") for each in rows["class"][:]),
        "redshift": sum(each == "QSO" for each in rows["class"][:]),
    }
    for name, each in settings.items():
        folder = tmp_path / name
        AutoModelForSequenceClassification.from_config(make_model(**each).config).save_pretrained(folder)
        SpectralProcessor().save_pretrained(folder)
        line = ["measure.py", "--model", str(folder), "--data", f"sdss={simulated_surveys['sdss']}", "--simulated"]
        line += ["--output", str(folder), *(["--select", "class=QSO"] if name == "redshift" else [])]
        monkeypatch.setattr(sys, "argv", line)
        measure.main()
        found = json.loads((folder / "evaluation.json").read_text())
        assert found["num_spectra"] == {"sdss": expected[name]} and found["simulated"] and found["held_by"] is None
        assert set(found["test_by_survey"]["sdss"]) == set(found["test"]) == scores[name]
        assert "test_by_class" not in found  # the label itself, or of quasars alone
        assert (folder / "evaluation.png").exists()
    monkeypatch.setattr(sys, "argv", [*line[:-2], "--select", "class=COMET"])
    with pytest.raises(ValueError, match=r"expected spectra with one of \['redshift'\] and .*COMET.*, found none"):
        measure.main()


def test_a_head_is_calibrated_on_some_objects_and_measured_on_the_others(tmp_path, simulated_surveys, monkeypatch):
    torch.manual_seed(0)
    model = make_model(problem_type="regression", id2label={0: "redshift"})
    head = AutoModelForSequenceClassification.from_config(model.config)
    head.save_pretrained(tmp_path)
    SpectralProcessor().save_pretrained(tmp_path)
    rows = load_survey("sdss", simulated_surveys["sdss"])
    known = int(np.isfinite(np.array(rows["redshift"])).sum())
    line = ["measure.py", "--model", str(tmp_path), "--data", f"sdss={simulated_surveys['sdss']}", "--simulated"]
    output = tmp_path / "calibrated"
    monkeypatch.setattr(sys, "argv", [*line, "--calibrate", "0.5", "--output", str(output)])
    measure.main()
    found = json.loads((output / "evaluation.json").read_text())
    assert 0 < found["num_calibrated"] < known
    assert found["num_spectra"]["sdss"] == found["test"]["redshift_known"] == known - found["num_calibrated"]
    assert found["test_before_calibration"].keys() == found["test"].keys() == found["test_by_class"]["QSO"].keys()
    counts = [each["redshift_known"] for each in found["test_by_class"].values()]
    assert len(counts) > 1 and sum(counts) == found["test"]["redshift_known"]
    assert found["test_before_calibration"]["redshift_mad"] == found["test"]["redshift_mad"]
    assert modes(output / "model") == {(output / "model").stat().st_mode & 0o666}
    calibrated = AutoModelForSequenceClassification.from_pretrained(output / "model")
    before, after = (vars(each.config.regression_targets["redshift"]) for each in (head, calibrated))
    assert {name for name in before if before[name] != after[name]} == {"width_factor", "confidence_threshold"}
    assert all(torch.equal(each, head.state_dict()[name]) for name, each in calibrated.state_dict().items())
    with pytest.raises(SystemExit):  # which would lose the model that the figures are of
        measure.main()
    folder = tmp_path / "tokenizer"
    model.save_pretrained(folder)
    SpectralProcessor().save_pretrained(folder)
    line[2] = str(folder)
    for options in (["--calibrate", "0.5"], ["--select", "class=QSO"], ["--label-table", "{table: ages.csv}"]):
        monkeypatch.setattr(sys, "argv", [*line, *options, "--output", str(tmp_path / "none")])
        with pytest.raises(ValueError, match=f"^{options[0]}: .* is a tokenizer; expected a head"):
            measure.main()
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("number", ["0", "-3"])
def test_no_spectra_at_all_are_refused(capsys, number):
    with pytest.raises(SystemExit):
        measure.parse_arguments(["--model", "any", "--data", "sdss=any", "--output", "any", "--spectra", number])
    assert f"--spectra: expected 1 or more, found: {number}" in capsys.readouterr().err


def test_stars_without_known_labels_are_drawn_too(tmp_path, simulated_surveys, monkeypatch):
    """Giants and dwarfs stand apart by physics: a picture shows what no label tells."""
    torch.manual_seed(0)
    config = make_model(problem_type="regression", id2label={0: "logg", 1: "teff", 2: "fe_h"}).config
    AutoModelForSequenceClassification.from_config(config).save_pretrained(tmp_path)
    SpectralProcessor().save_pretrained(tmp_path)
    drawn = []
    monkeypatch.setattr(
        measure.head_figures,
        "draw_stars",
        lambda *given, own=measure.head_figures.draw_stars: drawn.append((given, own(*given))),
    )
    data = [f"{name}={simulated_surveys[name]}" for name in ("galah", "apogee")]
    line = ["measure.py", "--model", str(tmp_path), "--data", *data, "--simulated", "--output", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", line)
    measure.main()
    (_, predictions, survey, path, simulated), drawn_at = drawn[0]
    assert path == drawn_at == tmp_path / "stars.png" and path.stat().st_size > 10_000 and simulated
    expected = [len(load_survey(name, simulated_surveys[name])) for name in ("galah", "apogee")]
    assert [int((survey == name).sum()) for name in ("galah", "apogee")] == expected
    assert len(predictions[0]) == sum(expected)
