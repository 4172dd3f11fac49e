"""Fine-tuning as users start it, on simulated survey files and a model of 20,000 parameters."""

import json
import math
import os
import shutil
import subprocess
import sys
from pathlib import Path

import checkpoints
import finetune
import labelled
import measure
import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from datasets import Dataset
from finetune import FineTuningArguments, parse_arguments, prepare_model
from in_process import in_this_process
from labelled import split
from recipe import ROOT
from training_runs import modes
from transformers import AutoModel, AutoModelForSequenceClassification, AutoProcessor

from spectral_tokenizer import SpectralConfig, SpectralForPreTraining, SpectralProcessor
from spectral_tokenizer.data import load_survey
from spectral_tokenizer.data.cross_match import cross_match
from spectral_tokenizer.labels_spectral_tokenizer import KnownLabels


CLASSES = ["GALAXY", "QSO", "STAR"]
RECIPES = sorted((ROOT / "training" / "recipes").glob("finetune_*.yaml"))


def write_recipe(path: Path, pretrained: Path, surveys: dict[str, Path], **settings) -> Path:
    settings = {
        "model": str(pretrained), "output_dir": str(path.parent / path.stem), "data": {k: str(v) for k, v in surveys.items()},
        "max_steps": 4, "per_device_train_batch_size": 4, "learning_rate": "1e-3", "save_steps": 2, "eval_strategy": "steps",
        "eval_steps": 2, "logging_steps": 1, "use_cpu": True, "test_fraction": 0.3, "calibration_fraction": 0.3, **settings,
    }  # fmt: skip
    path.write_text(yaml.safe_dump(settings))
    return path


def run(recipe: Path) -> str:
    """As users start it. What is not about that goes by `run_here`."""
    done = subprocess.run(
        [sys.executable, str(ROOT / "training" / "finetune.py"), "--config", str(recipe)],
        env={**os.environ, "OMP_NUM_THREADS": "1", "TQDM_DISABLE": "1"},
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return done.stdout


def run_here(recipe: Path, *arguments: str) -> str:
    return in_this_process(finetune.main, "--config", str(recipe), *arguments)


@pytest.fixture(scope="session")
def class_run(pretrained, simulated_surveys, tmp_path_factory):
    """Frozen encoder, two surveys."""
    surveys = {survey: simulated_surveys[survey] for survey in ("sdss", "desi")}
    recipe = write_recipe(
        tmp_path_factory.mktemp("class") / "run.yaml", pretrained, surveys, labels=["class"], classes=CLASSES,
        num_trainable_layers=0,
    )  # fmt: skip
    return recipe, run(recipe)


def test_pixels_of_the_parts_are_not_copied(class_run, tmp_path, monkeypatch):
    """Datasets does so to tell which values a column of rows has that were chosen among others."""

    flatten_indices = Dataset.flatten_indices

    def copy(rows, *given, **settings):
        assert "flux" not in rows.column_names
        return flatten_indices(rows, *given, **settings)

    monkeypatch.setattr(Dataset, "flatten_indices", copy)
    run_here(class_run[0], "--output", str(tmp_path / "run"))


def test_a_class_that_nothing_has_is_refused(class_run, tmp_path):
    """A head would never answer it, and its figures would not say so."""
    recipe = yaml.safe_load(class_run[0].read_text())
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(recipe | {"classes": [*CLASSES, "SUPERNOVA"]}))
    with pytest.raises(
        ValueError, match=r"classes: expected spectra of each to train on, found none of \['SUPERNOVA'\]"
    ):
        run_here(tmp_path / "run.yaml", "--output", str(tmp_path / "run"))


def test_two_runs_do_not_write_to_one_folder(class_run, tmp_path, monkeypatch):
    """Each would go on from the other's checkpoints."""
    alone_in = checkpoints.alone_in
    monkeypatch.setattr(checkpoints, "alone_in", lambda output: alone_in(output, patience=0.1))
    lock = alone_in(tmp_path)
    with pytest.raises(RuntimeError, match="another run writes there"):
        run_here(class_run[0], "--output", str(tmp_path))
    lock.release()
    with pytest.raises(FileNotFoundError):  # and what fails holds nothing
        run_here(class_run[0], "--output", str(tmp_path), "--resume", str(tmp_path / "checkpoint-7"))
    alone_in(tmp_path, patience=0.1).release()


def test_a_class_run_leaves_what_it_promises(class_run, pretrained, simulated_surveys):
    recipe, printed = class_run
    output = recipe.parent / "run"
    metrics = json.loads((output / "metrics.json").read_text())
    assert "accuracy" in printed and 0 <= metrics["test"]["accuracy"] <= 1
    assert set(metrics["test_by_survey"]) == {"sdss", "desi"} and not metrics["simulated"]
    assert "test_by_class" not in metrics  # it is the label
    assert metrics["num_parameters"]["trained"] == 3 * 16 * 32 + 3
    assert 0 <= metrics["test"]["novel"] <= 1 and "novel" in metrics["test_by_survey"]["desi"]
    assert (output / "predictions.png").stat().st_size > 5_000
    for folder in (output / "model", *output.glob("checkpoint-*")):
        assert modes(folder) == {folder.stat().st_mode & 0o666}
    card = (output / "model" / "README.md").read_text()
    assert "$" not in card and "| accuracy |" in card and "The encoder was frozen." in card

    model = AutoModelForSequenceClassification.from_pretrained(output / "model")
    assert model.config.id2label == dict(enumerate(CLASSES)) and model.config.num_trainable_layers == 0
    assert model.config.classifier_temperature != 1.0
    rows = load_survey("desi", simulated_surveys["desi"])
    inputs = AutoProcessor.from_pretrained(output / "model")(rows[:3], return_tensors="pt")
    answer = model.eval()(**inputs)
    assert answer.logits.shape == (3, 3) and answer.novelty.shape == (3,) and (answer.novelty < 10).all()
    # The encoder is the one that was given.
    before, after = AutoModel.from_pretrained(pretrained), AutoModel.from_pretrained(output / "model")
    for (name, one), other in zip(before.named_parameters(), after.parameters()):
        assert torch.equal(one, other), name


@pytest.mark.parametrize("divided", [(), ("per_device_train_batch_size=1", "gradient_accumulation_steps=4")])
def test_a_run_goes_on_from_its_checkpoint(divided, class_run, pretrained, simulated_surveys, tmp_path):
    """Two steps and two more are four, however a step's spectra are divided."""
    recipe, _ = class_run
    settings = yaml.safe_load(recipe.read_text())
    again = tmp_path / "again.yaml"
    again.write_text(yaml.safe_dump({**settings, "output_dir": str(tmp_path / "again")}))
    expected = AutoModelForSequenceClassification.from_pretrained(recipe.parent / "run" / "model")
    checkpoint = recipe.parent / "run" / "checkpoint-2"
    run_here(again, "--resume", str(checkpoint), *(("--set", *divided) if divided else ()))
    found = AutoModelForSequenceClassification.from_pretrained(tmp_path / "again" / "model")
    assert found.config.to_diff_dict() == expected.config.to_diff_dict()
    for (name, one), other in zip(expected.named_parameters(), found.parameters()):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6, msg=name)
    # The first of the four steps was not taken again.
    state = json.loads((tmp_path / "again" / "checkpoint-4" / "trainer_state.json").read_text())
    assert state["global_step"] == 4


def test_a_checkpoint_of_another_run_is_refused(class_run, pretrained, tmp_path):
    """Trainer would go on with whatever labels it is given, or train nothing and say nothing of it."""
    recipe, _ = class_run
    output = recipe.parent / "run"
    before = {path: path.read_bytes() for path in output.rglob("*") if path.is_file()}
    with pytest.raises(
        ValueError, match=r"found checkpoint-4 of an earlier run, expected none: --resume auto goes on"
    ):
        run_here(recipe)
    settings = yaml.safe_load(recipe.read_text())
    other = tmp_path / "other.yaml"
    other.write_text(yaml.safe_dump({**settings, "split_seed": 1}))
    expected = r"found others: calibration rows, test rows, train rows\. With these begin a new run"
    with pytest.raises(ValueError, match=expected):
        run_here(other, "--resume", "auto")
    other.write_text(yaml.safe_dump({**settings, "head": {"classifier_hidden_size": 4}}))
    with pytest.raises(ValueError, match=r"found others: model\."):
        run_here(other, "--resume", "auto")
    assert {path: path.read_bytes() for path in output.rglob("*") if path.is_file()} == before


def test_a_checkpoint_is_not_gone_on_from_with_another_rate_or_batch(class_run, tmp_path):
    """The optimiser's state would bring the rate of before back without a word."""
    recipe, _ = class_run
    given = ("--output", str(tmp_path), "--resume", str(recipe.parent / "run" / "checkpoint-2"))
    for settings, found in (
        (["learning_rate=1e-2", "weight_decay=0.5"], r"learning_rate 0\.01 for 0\.001, weight_decay 0\.5 for 0\.0\."),
        (["per_device_train_batch_size=2", "seed=1"], r"seed 1 for 42, spectra_per_step 2 for 4\."),
    ):
        with pytest.raises(ValueError, match=f"checkpoint-2: expected what .*run.json says, found others: {found}"):
            run_here(recipe, *given, "--set", *settings)
    # A file from before settings were written down does not know them.
    before = json.loads((recipe.parent / "run" / "run.json").read_text())
    earlier = {name: value for name, value in before.items() if name not in finetune.LEARNT_BY}
    (tmp_path / "run.json").write_text(json.dumps(earlier))
    finetune.check_run(tmp_path / "checkpoint-2", before | {"learning_rate": 1.0})
    (tmp_path / "run.json").write_text(json.dumps({"model": before["model"]}))  # but all know their rows
    with pytest.raises(ValueError, match="found others: calibration rows, test rows, train rows"):
        finetune.check_run(tmp_path / "checkpoint-2", before)


def test_metrics_hold_trainers_settings_and_no_place(class_run):
    recipe, _ = class_run
    text = (recipe.parent / "run" / "metrics.json").read_text()
    training = json.loads(text)["training"]
    expected = {"learning_rate": 1e-3, "max_steps": 4, "per_device_train_batch_size": 4, "lr_scheduler_type": "linear"}
    assert training | expected == training
    assert str(recipe.parent / "run") not in text and "output_dir" not in training and "hub_token" not in training


def test_a_run_goes_on_though_trainer_removes_where_it_went_on_from(class_run, tmp_path):
    """As all recipes' `save_total_limit` makes it; and a run that is over says that nothing was left."""
    recipe, _ = class_run
    settings = yaml.safe_load(recipe.read_text())
    limited = tmp_path / "limited.yaml"
    again = ("--resume", "auto")  # which also begins a run
    # Trainer takes another step where the last one is not the last of its epoch, which has five.
    for steps, left in ((2, ["checkpoint-2"]), (5, ["checkpoint-5"])):
        output = {"output_dir": str(tmp_path / "limited"), "save_total_limit": 1, "max_steps": steps}
        limited.write_text(yaml.safe_dump({**settings, **output}))
        assert "nothing was left" not in run_here(limited, *again)
        assert [path.name for path in (tmp_path / "limited").glob("checkpoint-*")] == left
        assert (tmp_path / "limited" / "model").is_dir()
    assert "checkpoint-5 is of the last of 5 steps: nothing was left to train" in run_here(limited, *again)


def test_checkpoints_that_are_none_or_nobody_knows_whose(class_run, tmp_path):
    recipe, _ = class_run
    first, other = recipe.parent / "run", tmp_path / "other"
    with pytest.raises(FileNotFoundError, match="expected a checkpoint with trainer_state.json, found none"):
        run_here(recipe, "--output", str(other), "--resume", str(tmp_path / "checkpoint-7"))
    shutil.copytree(first / "checkpoint-4", other / "checkpoint-4")
    (other / "checkpoint-99").mkdir()  # by a kill while Trainer wrote it
    with pytest.raises(ValueError, match="checkpoint-2: found .*checkpoint-4, which would win later"):
        run_here(recipe, "--output", str(other), "--resume", str(first / "checkpoint-2"))
    printed = run_here(recipe, "--output", str(other), "--resume", "auto")
    assert f"whether {other / 'checkpoint-4'} is of these rows is not known" in printed


def test_redshifts_and_stellar_labels_come_out_in_their_units(pretrained, simulated_surveys, tmp_path):
    """One head for both: galaxies have no temperature, and stars of APOGEE no redshift."""
    surveys = {survey: simulated_surveys[survey] for survey in ("desi", "apogee")}
    redshift = {"distribution": "bins", "transform": "log1p", "range": [-0.01, 5.0], "num_bins": 64, "tolerance": 0.1}
    recipe = write_recipe(
        tmp_path / "run.yaml", pretrained, surveys, labels=["redshift", "teff"], num_trainable_layers=1,
        targets={"redshift": redshift, "teff": {"transform": "log"}}, head={"num_pooling_queries": 2},
    )  # fmt: skip
    printed = run_here(recipe)
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    scores, by_class = metrics["test"], metrics["test_by_class"]
    for name in ("redshift_nmad", "redshift_outliers_0.0033", "redshift_caught", "teff_mad", "teff_coverage"):
        assert name in scores and name in printed
    assert len(by_class) > 1 and set(by_class) <= set(CLASSES) and set(by_class["STAR"]) == set(scores)
    for name in ("redshift_known", "teff_known"):
        assert sum(each[name] for each in by_class.values()) == scores[name]
    assert by_class["STAR"]["teff_known"] == scores["teff_known"] > 0
    assert "### By class" in (tmp_path / "run" / "model" / "README.md").read_text()
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path / "run" / "model")
    rows = load_survey("apogee", simulated_surveys["apogee"])
    inputs = AutoProcessor.from_pretrained(tmp_path / "run" / "model")(rows[:3], return_tensors="pt")
    output = model(**inputs)
    assert (output.logits[:, 1] > 3000).all() and (output.logits[:, 1] < 9000).all()
    assert ((output.errors[:, 1] > 1) & (output.errors[:, 1] < 5000)).all()
    assert "AutoModelForSequenceClassification" in model.config.auto_map


def test_a_label_of_ones_own_is_learned_and_measured(pretrained, simulated_surveys, tmp_path):
    """From a table beside the files: no survey has ages."""
    names = load_survey("apogee", simulated_surveys["apogee"])["object_id"][:]
    pd.DataFrame({"star": names, "age": np.linspace(1.0, 12.0, len(names))}).to_csv(tmp_path / "ages.csv", index=False)
    table = {"table": str(tmp_path / "ages.csv"), "columns": ["age"], "key": "star"}
    surveys = {"apogee": simulated_surveys["apogee"]}
    recipe = write_recipe(
        tmp_path / "run.yaml", pretrained, surveys, labels=["age"], num_trainable_layers=0, label_table=table
    )
    run_here(recipe)
    scores = json.loads((tmp_path / "run" / "metrics.json").read_text())["test"]
    assert 0.0 < scores["age_mad"] < 12.0
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path / "run" / "model")
    assert model.config.id2label == {0: "age"}

    arguments = ["--model", str(tmp_path / "run" / "model"), "--data", f"apogee={simulated_surveys['apogee']}"]
    given = measure.parse_arguments([*arguments, "--output", str(tmp_path), "--label-table", yaml.safe_dump(table)])
    rows, _, _ = measure.load(given)
    found = measure.measure_head(given.model, rows, {}, tmp_path / "evaluation.png", True, given.label_table)
    assert found["num_spectra"] == {"apogee": len(names)} and np.isfinite(found["test"]["age_mad"])
    with pytest.raises(ValueError, match=r"labels, select: expected some of .*, found: \['age'\]; .*--label-table"):
        measure.measure_head(given.model, rows, {}, tmp_path / "evaluation.png", True)


def test_a_catalogue_of_labels_is_given_to_measure_as_to_others(simulated_surveys, tmp_path, capsys):
    folder = simulated_surveys["apogee"]
    arguments = ["--model", "any", "--output", str(tmp_path), "--data", f"apogee={folder}"]
    known = []
    for options in ([], ["--options", f"apogee.catalogue={folder}/allStar-simulated.fits"]):
        rows, _, _ = measure.load(measure.parse_arguments([*arguments, *options]))
        known.append(sum(value == value for value in rows["apogee"]["teff"][:]))
    assert known[0] < known[1] == len(rows["apogee"])
    with pytest.raises(SystemExit):
        measure.parse_arguments(["--model", "any", "--output", "any", "--held-by", "any", *options])
    assert "--options are of the surveys in --data" in capsys.readouterr().err


def test_the_label_head_of_pretraining_is_calibrated_and_tested_without_training(simulated_surveys, tmp_path):
    torch.manual_seed(0)
    config = SpectralConfig(hidden_size=32, num_hidden_layers=1, num_decoder_layers=1, num_attention_heads=4,
                            intermediate_size=32, label_weight=0.5)  # fmt: skip
    told = SpectralForPreTraining(config)
    with torch.no_grad():
        told.label_head.out_proj.weight.normal_(std=0.1)
    told.save_pretrained(tmp_path / "told")
    SpectralProcessor().save_pretrained(tmp_path / "told")
    surveys = {survey: simulated_surveys[survey] for survey in ("sdss", "apogee", "galah")}
    settings = {
        "num_trainable_layers": 0,
        "label_head": True,
        "max_steps": -1,
        "num_train_epochs": 0,
        "eval_strategy": "no",
    }
    recipe = write_recipe(tmp_path / "run.yaml", tmp_path / "told", surveys, labels=["teff", "fe_h"], **settings)
    assert "teff_mad" in run_here(recipe)
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path / "run" / "model")
    sizes = told.label_head.sizes
    parts = dict(zip(KnownLabels(config).names, told.label_head.out_proj.weight.split(sizes)))
    torch.testing.assert_close(model.head.out_proj.weight, torch.cat([parts["teff"], parts["fe_h"]]))
    assert not model.head.feature_mean.any() and model.config.targets["teff"]["width_factor"] != 1.0
    card = (tmp_path / "run" / "model" / "README.md").read_text()
    assert "label head that the encoder was pre-trained with" in card and "Nothing was fitted after that." in card
    assert "Trained on" not in card and "was trained on" not in card.split("## Intended use")[0]

    recipe = write_recipe(
        tmp_path / "run.yaml", tmp_path / "told", surveys, labels=["class"], classes=CLASSES[::-1], **settings
    )
    with pytest.raises(ValueError, match=r"classes: expected \['GALAXY', 'QSO', 'STAR'\], as the label head was told"):
        prepare_model(parse_arguments(["--config", str(recipe)])[0])
    recipe = write_recipe(
        tmp_path / "run.yaml", tmp_path / "told", surveys, labels=["teff"], targets={"teff": {}}, **settings
    )
    with pytest.raises(ValueError, match="label_head: expected neither targets nor head"):
        prepare_model(parse_arguments(["--config", str(recipe)])[0])


def templates_recipe(folder: Path, pretrained: Path, **settings):
    defaults = {"labels": ["redshift"], "select": {"class": ["GALAXY", "QSO"]}, "test_fraction": 0.2}
    recipe = write_recipe(folder / "run.yaml", pretrained, {}, **defaults | {"calibration_fraction": 0.3} | settings)
    return parse_arguments(["--config", str(recipe)])[0]


def test_templates_are_apart_in_all_parts_and_stand_beside_the_packages_own(
    pretrained, simulated_surveys, templates_dir, tmp_path, monkeypatch
):
    monkeypatch.setenv("TEMPLATES_DIR", str(templates_dir))
    alone = labelled.load(templates_recipe(tmp_path, pretrained, templates={"sdss": 40, "desi": 20}), str(tmp_path))
    of_file = {
        "data": {"sdss": str(simulated_surveys["sdss"])}, "data_is_simulated": True, "templates": {"sdss": 40, "desi": 20},
    }  # fmt: skip
    both = labelled.load(templates_recipe(tmp_path, pretrained, **of_file), str(tmp_path))
    of_files = labelled.load(templates_recipe(tmp_path, pretrained, **of_file | {"templates": {}}), str(tmp_path))
    drawn, redshifts = {"train": 30, "calibration": 18, "test": 12}, {}
    for part, rows in alone.items():
        assert 0 < len(rows) < drawn[part]  # without the stars
        assert set(rows["class"]) == {"GALAXY", "QSO"} and set(rows["survey"]) == {"sdss", "desi"}
        assert len(both[part]) == len(rows) + len(of_files[part])
        redshifts[part] = set(rows["redshift"])
    assert not redshifts["train"] & redshifts["test"] and not redshifts["train"] & redshifts["calibration"]


def test_faint_templates_are_other_objects_lost_in_noise(pretrained, templates_dir, tmp_path, monkeypatch):
    """A head that never saw such spectra is sure of what it says of them."""
    monkeypatch.setenv("TEMPLATES_DIR", str(templates_dir))
    asked = {"templates": {"sdss": 40}, "faint_templates": {"sdss": 40, "desi": 20}}
    both = labelled.load(templates_recipe(tmp_path, pretrained, **asked), str(tmp_path))
    bright = labelled.load(templates_recipe(tmp_path, pretrained, templates={"sdss": 40}), str(tmp_path))
    for part in ("calibration", "test"):  # or a flag would be for spectra like these alone
        for column in ("object_id", "redshift", "snr", "flux"):
            assert both[part][column][:] == bright[part][column][:]
    snr = dict(zip(both["train"]["redshift"][:], both["train"]["snr"][:]))
    known = set(bright["train"]["redshift"])
    faint = np.array([each for redshift, each in snr.items() if redshift not in known])
    assert len(both["train"]) == len(known) + len(faint) and 30 < len(faint) < 60
    assert (faint < 1.5).all() and np.median(faint) < 0.7 < np.median(bright["train"]["snr"])
    with pytest.raises(ValueError, match="expected at least 2 spectra .*'calibration': 0"):
        labelled.load(templates_recipe(tmp_path, pretrained, faint_templates={"sdss": 40}), str(tmp_path))
    # The same objects, as bright as one asks for.
    chosen = labelled.load(templates_recipe(tmp_path, pretrained, **asked, faint_snr=[2.0, 3.0]), str(tmp_path))
    snr = dict(zip(chosen["train"]["redshift"][:], chosen["train"]["snr"][:]))
    chosen = np.array([each for redshift, each in snr.items() if redshift not in known])
    assert len(chosen) >= len(faint) and 1.5 < np.median(chosen) < 3.5 and chosen.min() > 0.7
    for limits in ([3.0, 2.0], [0.0, 1.0], [1.0], 3.0, ["a", "b"], [1.0, math.inf]):
        with pytest.raises(ValueError, match="faint_snr: expected two ascending numbers above 0, found"):
            labelled.load(templates_recipe(tmp_path, pretrained, **asked, faint_snr=limits), str(tmp_path))


def test_cool_dwarfs_stand_in_every_part_and_have_a_class_alone(pretrained, templates_dir, tmp_path, monkeypatch):
    monkeypatch.setenv("TEMPLATES_DIR", str(templates_dir))
    asked = {"templates": {"sdss": 40}, "cool_dwarfs": 20, "select": {}, "labels": ["class"], "classes": CLASSES}
    found = labelled.load(templates_recipe(tmp_path, pretrained, **asked), str(tmp_path))
    for part, expected in {"train": 10, "calibration": 6, "test": 4}.items():
        of_apogee = found[part].filter(lambda row: row["survey"] == "apogee")
        assert len(of_apogee) == expected and set(of_apogee["class"]) == {"STAR"}
    asked |= {"labels": ["teff"], "classes": [], "templates": {"apogee": 40}}
    assert len(labelled.load(templates_recipe(tmp_path, pretrained, **asked), str(tmp_path))["train"]) == 20


def test_templates_beside_real_spectra_or_without_their_files_are_refused(pretrained, tmp_path, monkeypatch):
    settings = templates_recipe(tmp_path, pretrained, data={"sdss": "somewhere"}, templates={"sdss": 40})
    with pytest.raises(ValueError, match=r"templates: expected no data of real spectra beside, found: \['sdss'\]"):
        labelled.of_templates(settings)
    settings = templates_recipe(
        tmp_path, pretrained, label_table={"table": "a.csv", "columns": ["age"], "key": "id"}, templates={"sdss": 40}
    )
    with pytest.raises(ValueError, match="templates: expected no label_table"):
        labelled.of_templates(settings)
    with pytest.raises(ValueError, match=r"templates: expected some of .*found: \['lamost'\]"):
        labelled.of_templates(templates_recipe(tmp_path, pretrained, templates={"sdss": 40, "lamost": 40}))
    monkeypatch.setenv("TEMPLATES_DIR", str(tmp_path))
    with pytest.raises(FileNotFoundError, match="expected published templates"):
        labelled.of_templates(templates_recipe(tmp_path, pretrained, templates={"sdss": 40}))


def test_wrong_settings_are_named(pretrained, simulated_surveys, tmp_path):
    surveys = {"desi": simulated_surveys["desi"]}
    recipe = write_recipe(tmp_path / "run.yaml", pretrained, surveys, labels=["age"])
    with pytest.raises(ValueError, match="labels, select: expected some of"):
        run_here(recipe)
    recipe = write_recipe(tmp_path / "run.yaml", pretrained, surveys, labels=["class"], classes=["GALAXY", "QSO"])
    with pytest.raises(
        ValueError, match=r"class: expected one of .*found: \['STAR'\]; `select: {class: \['GALAXY', 'QSO'\]}`"
    ):
        labelled.load(parse_arguments(["--config", str(recipe)])[0], str(tmp_path))
    with pytest.raises(ValueError, match="num_train_epoch"):
        parse_arguments(["--config", str(recipe), "--set", "num_train_epoch=3"])
    with pytest.raises(ValueError, match="NAME=VALUE"):
        parse_arguments(["--config", str(recipe), "--set", "seed"])
    with pytest.raises(ValueError, match="--set: seed: expected a number, or yes or no, found the text 'five'"):
        parse_arguments(["--config", str(recipe), "--set", "seed=five"])
    _, training = parse_arguments(["--config", str(recipe), "--set", "seed=3", "--set", "max_steps=5"])
    assert training.seed == 3 and training.max_steps == 5
    arguments = [
        "--config",
        str(recipe),
        "--set",
        "data_is_simulated=true",
        "data_description=made",
        "--data",
        "sdss=a",
    ]
    settings, _ = parse_arguments(arguments)
    assert (settings.data_is_simulated, settings.data_description) == (False, "")
    assert parse_arguments([*arguments, "--simulated"])[0].data_is_simulated


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ("labels: class", "run.yaml: labels: expected list, found: 'class'"),
        ("labels: []", r"labels: expected names of columns, found: \[\]"),
        (
            "labels: [a, b]\nclasses: [A, B]",
            r"labels: expected one column with the names of classes, found: \['a', 'b'\]",
        ),
        ("classes: [NO, YES]", r"classes: expected names, found: \[False, True\]"),
        ("label_head: 1", "run.yaml: label_head: expected bool, found: 1"),
        ("num_trainable_layers: '2'", "num_trainable_layers: expected a whole number of 0 or more, .*found: '2'"),
        ("cool_dwarfs: 0.1", "run.yaml: cool_dwarfs: expected int, found: 0.1"),
        ("split_seed: -1", "split_seed: expected a whole number of 0 or more, found: -1"),
        ("templates: {sdss: 2.5}", "templates: sdss: expected a whole number of 1 or more, found: 2.5"),
        ("targets: {teff: log}", "targets: teff: expected a mapping, found: 'log'"),
        ("data: {sdss: }", "data: sdss: expected files, found: None"),
        ("test_fraction: '0.2'", "test_fraction: expected a part between 0 and 1, found: '0.2'"),
        ("test_fraction: 0.5\ncalibration_fraction: 0.5", "expected less than 1 together, found: 0.5 and 0.5"),
        ("learning_rate: '1e-4'", "run.yaml: learning_rate: expected a number, or yes or no, found the text '1e-4'"),
        ("use_cpu: 'no'", "run.yaml: use_cpu: expected a number, or yes or no, found the text 'no'"),
        ("eval_steps: few", "run.yaml: eval_steps: expected a number, or yes or no, found the text 'few'"),
        ("label_table: {table: a.csv, key: id}", "label_table: expected table, columns .* found no columns"),
        ("label_table: {table: a, columns: age, key: id}", r"label_table: columns: expected a list .*found: 'age'"),
        ("label_table: {table: a, columns: [age]}", r"label_table: expected one of key and position, found: \['col"),
        ("label_table: {table: a, colums: [age]}", r"label_table: .* found unknown ones \['colums'\]"),
    ],
)
def test_what_would_fail_in_hours_or_mean_something_else_is_refused_by_name(tmp_path, settings, message):
    (tmp_path / "run.yaml").write_text(f"output_dir: {tmp_path}\n{settings}\n")
    with pytest.raises(ValueError, match=message):
        parse_arguments(["--config", str(tmp_path / "run.yaml")])


def test_nothing_is_the_default_and_mappings_of_trainer_may_be_text(tmp_path):
    names = ("label_table", "classes", "targets", "head", "data", "test_fraction")
    written = "".join(f"{name}:\n" for name in names) + "liger_kernel_config: '{}'\n"
    (tmp_path / "run.yaml").write_text(f"output_dir: {tmp_path}\n{written}")
    arguments, training = parse_arguments(["--config", str(tmp_path / "run.yaml")])
    assert arguments == FineTuningArguments() and training.liger_kernel_config == "{}"
    (tmp_path / "run.yaml").write_text(f"output_dir: {tmp_path}\ndata: {{sdss: a}}\nclasses: [A, B]\n")
    given = ["--config", str(tmp_path / "run.yaml"), "--set", "data=null", "classes=null", "label_table=null"]
    assert parse_arguments(given)[0] == FineTuningArguments()


@pytest.mark.parametrize(
    ("was", "now"),
    [
        ({"labels": ["age"]}, {"labels": ["class"], "classes": ["young", "old"]}),
        ({"labels": ["class"], "classes": ["young", "old"]}, {"labels": ["age"]}),
    ],
    ids=["numbers", "classes"],
)
def test_a_head_of_another_kind_is_not_gone_on_with(pretrained, tmp_path, was, now):
    """A number with its error and two classes are as many answers."""
    for each in prepare_model(FineTuningArguments(model=str(pretrained), **was)):
        each.save_pretrained(tmp_path)
    prepare_model(FineTuningArguments(model=str(tmp_path), **was))
    with pytest.raises(ValueError, match=f"{tmp_path}: expected a tokenizer or a head for .*, found a head for "):
        prepare_model(FineTuningArguments(model=str(tmp_path), **now))


def test_numbers_that_yaml_takes_for_text_are_numbers_in_lists_too():
    recipe = ["--config", str(RECIPES[0])]
    settings, training = parse_arguments([*recipe, "--set", "learning_rate=1e-4", "faint_snr=[3e-2, 1]"])
    assert (training.learning_rate, settings.faint_snr) == (1e-4, [0.03, 1])


def test_a_text_among_numbers_is_named_before_anything_is_encoded(pretrained, simulated_surveys, tmp_path):
    """Of those rows alone that are chosen."""
    rows = load_survey("desi", simulated_surveys["desi"])
    ages = pd.DataFrame({"target": rows["object_id"], "age": "4.5"})
    ages.loc[3, "age"] = "n/a"
    ages.to_csv(tmp_path / "ages.csv", index=False)
    table = {"table": str(tmp_path / "ages.csv"), "columns": ["age"], "key": "target"}
    recipe = write_recipe(
        tmp_path / "run.yaml", pretrained, {"desi": simulated_surveys["desi"]}, labels=["age"], label_table=table
    )
    settings = parse_arguments(["--config", str(recipe)])[0]
    with pytest.raises(ValueError, match=f"{rows[3]['object_id']}: age: expected a number or None, found: 'n/a'"):
        labelled.load(settings, str(tmp_path))
    others = cross_match(rows.select([n for n in range(len(rows)) if n != 3]), **table)
    assert len(labelled.chosen(others, settings)) == len(others)


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_recipe_reads(path, tmp_path):
    arguments = ["--config", str(path), "--output", str(tmp_path), "--set", "learning_rate=1e-4", "seed=3"]
    settings, training = parse_arguments(arguments)
    assert training.learning_rate == 1e-4 and training.seed == 3 and training.output_dir == str(tmp_path)
    assert training.remove_unused_columns is False
    names = settings.classes or settings.labels
    SpectralConfig(id2label=dict(enumerate(names)), targets=settings.targets or None, **settings.head)


def test_one_star_is_in_one_part_wherever_it_stands():
    """Two surveys' positions differ by 0.4 arcseconds: no grid on the sky may come between them."""
    ra = np.arange(100) * 0.01 + np.linspace(0, 1e-3, 100)
    columns = {
        "ra": [*ra, *ra + 1e-4], "dec": [0.0] * 200, "survey": ["galah"] * 100 + ["apogee"] * 100,
        "object_id": [f"g{n}" for n in range(100)] + [f"a{n}" for n in range(100)],
    }  # fmt: skip
    stars = [
        {name[1:] for name in part["object_id"]} for part in split(Dataset.from_dict(columns), 0.2, 0.3, 0).values()
    ]
    assert sum(map(len, stars)) == 100 and all(len(part) > 5 for part in stars)


def test_parts_share_no_object():
    """Thirty stars, each seen by two surveys at the same place; and objects without a position, each seen twice."""
    generator = np.random.default_rng(0)
    ra, dec = generator.uniform(0, 360, 30), generator.uniform(-80, 80, 30)
    columns = {
        "ra": [*ra, *ra + 1e-6, *[np.nan] * 40], "dec": [*dec, *dec, *[np.nan] * 40],
        "survey": ["galah"] * 30 + ["apogee"] * 30 + ["sdss"] * 40,
        "object_id": [f"g{n}" for n in range(30)] + [f"a{n}" for n in range(30)] + [f"s{n // 2}" for n in range(40)],
    }  # fmt: skip
    rows = Dataset.from_dict(columns)
    parts = split(rows, 0.2, 0.3, seed=0)
    assert sum(len(part) for part in parts.values()) == 100 and all(len(part) > 5 for part in parts.values())
    objects = {name: {key.lstrip("ga") for key in part["object_id"]} for name, part in parts.items()}
    assert not objects["train"] & objects["test"] and not objects["calibration"] & objects["test"]
    assert not objects["train"] & objects["calibration"]
    assert split(rows, 0.2, 0.3, seed=1)["test"]["object_id"] != parts["test"]["object_id"]
