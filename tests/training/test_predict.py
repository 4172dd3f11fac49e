"""The catalogue script as users start it."""

import embed
import measure
import numpy as np
import predict
import pyarrow as pa
import pytest
import torch
from astropy.table import Table
from datasets import Dataset
from in_process import in_this_process
from recipe import ROOT
from test_embed import run as run_embed
from transformers import AutoModelForSequenceClassification, AutoProcessor

from spectral_tokenizer import SpectralProcessor
from spectral_tokenizer.data import load_survey
from spectral_tokenizer.data.catalogue import read_catalogue
from spectral_tokenizer.data.shards import Shards, write_answers


HEADS = [str(ROOT / "hub_configs" / f"released_{name}") for name in ("class", "redshift")]


def test_survey_files_become_a_catalogue(simulated_surveys, tmp_path):
    """Two surveys; then on two processes, with FITS: what the heads say of the rows themselves."""
    data = [f"{survey}={simulated_surveys[survey]}" for survey in ("sdss", "desi")]
    arguments = ["--heads", *HEADS, "--data", *data, "--shard-rows", "8"]
    printed = in_this_process(predict.main, *arguments, "--output", str(tmp_path / "one"), "--fits")
    table = read_catalogue(tmp_path / "one")
    rows = load_survey("sdss", simulated_surveys["sdss"])
    assert len(table) > len(rows) and table["object_id"][: len(rows)] == rows["object_id"][:]
    assert table["redshift"][: len(rows)] == pytest.approx(rows["redshift"][:], nan_ok=True)  # the survey's own
    assert f"{len(table)} spectra, 0 without an answer" in printed
    flagged = sum(table["predicted_redshift_is_flagged"][:])
    assert f"redshift{len(table):29} answers, {flagged:8} flagged" in printed
    assert (tmp_path / "one" / "catalogue.png").stat().st_size > 10_000
    model, processor = (each.from_pretrained(HEADS[1]) for each in (AutoModelForSequenceClassification, AutoProcessor))
    with torch.no_grad():
        alone = model.eval()(**processor(rows[:5], return_tensors="pt"))
    assert table["predicted_redshift"][:5] == pytest.approx(alone.logits[:, 0].tolist(), rel=1e-4, abs=1e-4)

    found = Table.read(tmp_path / "one" / "catalogue.fits")
    assert list(found.colnames) == table.column_names and len(found) == len(table)
    assert list(found["predicted_class"]) == table["predicted_class"][:]
    assert list(found["object_id"]) == table["object_id"][:]
    np.testing.assert_array_equal(found["predicted_redshift"], np.array(table["predicted_redshift"][:], np.float32))
    np.testing.assert_array_equal(found["predicted_redshift_is_flagged"], table["predicted_redshift_is_flagged"][:])


def test_two_processes_write_the_same(simulated_surveys, tmp_path):
    arguments = ["--heads", *HEADS, "--data", f"desi={simulated_surveys['desi']}", "--shard-rows", "8"]
    printed = run_embed(
        *arguments, "--output", tmp_path / "two", script="predict.py",
        launch=("-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "--main_process_port", "0"),
        ACCELERATE_USE_CPU="true",
    )  # fmt: skip
    assert printed.count("without an answer") == 1  # one of the two says so, for both
    in_this_process(predict.main, *arguments, "--output", str(tmp_path / "one"))
    one, two = (read_catalogue(tmp_path / name) for name in ("one", "two"))
    assert one["predicted_class"][:] == two["predicted_class"][:]
    for name in ("predicted_redshift", "predicted_redshift_novelty", "probability_QSO"):
        np.testing.assert_allclose(one[name][:], two[name][:], rtol=1e-4, atol=1e-5)


def test_half_the_digits_in_the_encoder_are_enough(simulated_surveys, tmp_path):
    """Of the head's own numbers none is rounded: in bfloat16 a redshift of 2 would be one of 2.00 or 2.02."""
    arguments = ["--heads", *HEADS, "--data", f"desi={simulated_surveys['desi']}", "--output"]
    for dtype in ("float32", "bfloat16"):
        in_this_process(predict.main, *arguments, str(tmp_path / dtype), "--dtype", dtype)
    full, half = (read_catalogue(tmp_path / dtype) for dtype in ("float32", "bfloat16"))
    is_sure = ~np.array(full["predicted_redshift_is_flagged"][:])
    change = np.array(half["predicted_redshift"][:]) - np.array(full["predicted_redshift"][:])
    assert is_sure.sum() > 5 and 0 < np.median(np.abs(change[is_sure])) < 1e-3


def test_heads_with_unlike_processors_are_asked_in_two_runs(tmp_path):
    for each in (AutoModelForSequenceClassification.from_pretrained(HEADS[1]), SpectralProcessor(patch_size=16)):
        each.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="expected heads with the same processor, found others in"):
        predict.load_heads([HEADS[0], str(tmp_path)], torch.float32, "cpu")


def test_only_trained_heads_are_asked(tmp_path):
    """An encoder alone would get a head of random numbers. Before any spectrum is read: that can take hours."""
    for folders, message in (
        (("released_base",), r"released_base: expected a trained head \(SpectralForSequenceClassification\), found "
                             r"\['SpectralForPreTraining'\] without .*head.out_proj.weight"),
        (("released_class", "released_class"), r"each label of one head alone, found several for \['class'\]"),
    ):  # fmt: skip
        heads = [str(ROOT / "hub_configs" / name) for name in folders]
        with pytest.raises(ValueError, match=message):
            in_this_process(
                predict.main, "--heads", *heads, "--data", "desi=nowhere", "--output", str(tmp_path / "no")
            )
    assert not (tmp_path / "no").exists()


def test_folders_without_a_model_are_told_by_our_own_words(tmp_path):
    """Of a run's folder, whose model lies one below; and before spectra are read."""
    (tmp_path / "model").mkdir()
    folders = {str(tmp_path): r"found: \['model'\]", str(tmp_path / "modle"): "found: nothing",
               "hub_configs/released_clas": "found: nothing", str(ROOT / "Makefile"): "found: .*/Makefile"}  # fmt: skip
    for script, argument in ((predict, "--heads"), (embed, "--model"), (measure, "--model")):
        for folder, found in folders.items():
            message = (
                f"{argument}: {folder}: expected a model's folder, with config.json, or OWNER/NAME on the Hub, {found}"
            )
            with pytest.raises(FileNotFoundError, match=message):
                in_this_process(
                    script.main, argument, folder, "--data", "desi=nowhere", "--output", str(tmp_path / "no")
                )
    assert not (tmp_path / "no").exists()


def test_heads_on_the_hub_are_asked_by_name(monkeypatch):
    """Where there is no folder of that name."""
    asked = []
    for each in (AutoModelForSequenceClassification, AutoProcessor):
        monkeypatch.setattr(
            each,
            "from_pretrained",
            lambda name, own=each.from_pretrained, **how: asked.append(name) or own(HEADS[0], **how),
        )
    predict.load_heads(["someone/head-of.theirs"], torch.float32, "cpu")
    assert asked == ["someone/head-of.theirs"] * 2


def test_a_head_that_was_never_trained_is_refused(tmp_path):
    """It answers the same to everything, and is saved like any other."""
    fresh = AutoModelForSequenceClassification.from_pretrained(ROOT / "hub_configs" / "released", num_labels=3)
    for each in (fresh, SpectralProcessor()):
        each.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="expected a trained head, found a fresh one"):
        predict.load_heads([str(tmp_path)], torch.float32, "cpu")


def test_nothing_is_simulated_for_a_catalogue(capsys):
    with pytest.raises(SystemExit):
        predict.parse_arguments(["--heads", *HEADS])
    assert "expected --data or --rows, found neither" in capsys.readouterr().err


@pytest.mark.parametrize("setting", ["--shard-rows", "--batch-size"])
def test_numbers_that_make_no_sense_are_refused(setting, capsys):
    with pytest.raises(SystemExit):
        predict.parse_arguments(["--heads", *HEADS, setting, "0"])
    assert f"{setting}: expected 1 or more, found 0" in capsys.readouterr().err


def test_columns_of_ones_own_are_no_labels():
    """Nor do tags have a label to draw: a run over a million spectra must not end at its picture."""
    table = pa.table(
        {"flux_low": [1.0], "predicted_teff": [np.nan], "predicted_teff_low": [np.nan], "predicted_class": ["STAR"]}
    )
    assert predict.catalogue_figures.labels(table) == ["teff", "class"]
    assert predict.told(table) == {"teff": (0, 0, None), "class": (1, 0, None)}
    assert (
        predict.catalogue_figures.labels(pa.table({"probability_blue": [0.5], "predicted_class_novelty": [0.5]})) == []
    )


@pytest.mark.parametrize("script, name", [(predict, "catalogue"), (embed, "embeddings")])
def test_where_no_spectrum_at_all_was_read_the_run_fails(tmp_path, capsys, script, name):
    """A job that goes on with the catalogue is told so by the exit code."""
    said = {"predicted_teff": pa.array([np.nan, np.nan]), "problem": pa.array(["object a: found NaN", "object b"])}
    shards = Shards("rows", "model", 2, 2, name=name)
    write_answers(Dataset.from_dict({"object_id": ["a", "b"]}), tmp_path, shards, lambda rows: [said])
    line = ["--data", "sdss=none", *(["--heads", "labels"] if script is predict else [])]
    with pytest.raises(ValueError, match="expected some spectra that can be read, found 2 without an"):
        script.finish(tmp_path, script.parse_arguments(line))
    assert "object a: found NaN" in capsys.readouterr().out


def test_a_catalogue_of_tags_has_no_picture(tmp_path, capsys):
    shards = Shards("rows", "model", 1, 1, name="catalogue")
    write_answers(
        Dataset.from_dict({"object_id": ["a"]}), tmp_path, shards,
        lambda rows: [{"probability_blue": pa.array([0.5]), "problem": pa.array([None], pa.string())}],
    )  # fmt: skip
    predict.finish(tmp_path, predict.parse_arguments(["--heads", "tags", "--data", "sdss=none", "--fits"]))
    assert "1 spectra, 0 without an answer" in capsys.readouterr().out
    assert (tmp_path / "catalogue.fits").exists() and not (tmp_path / "catalogue.png").exists()


def test_values_to_select_are_read_as_they_were_meant():
    assert measure.parse_select(["class=GALAXY, QSO", "survey=sdss"]) == {
        "class": ["GALAXY", "QSO"],
        "survey": ["sdss"],
    }
    assert measure.parse_select(["class=GALAXY", "class=QSO"]) == {"class": ["GALAXY", "QSO"]}
    for wrong in ("class", "=QSO", "class=", "class=QSO,"):
        with pytest.raises(ValueError, match="--select: expected COLUMN=VALUE"):
            measure.parse_select([wrong])
