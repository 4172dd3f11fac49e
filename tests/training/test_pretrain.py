"""The training script as users start it, on simulated survey files."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml
from pretrain import earlier_runs
from recipe import ROOT, Recipe
from training_runs import STEPS, SURVEYS, command, environment, losses, modes, run, run_here, weights
from transformers import AutoModel, AutoModelForPreTraining, AutoProcessor

from spectral_tokenizer.data import load_survey


def test_a_run_leaves_what_it_promises(uninterrupted, simulated_surveys):
    output, printed = uninterrupted
    assert sorted(losses(output)) == list(range(1, STEPS + 1))
    metrics = json.loads((output / "metrics.json").read_text())
    assert set(metrics["chi2"]) == {"model", "interpolation", "mean spectrum"}
    assert set(metrics["chi2"]["model"]) == set(SURVEYS)
    assert "interpolation" in printed and "untrained" in printed
    assert (output / "reconstructions.png").stat().st_size > 20_000
    card = (output / "model" / "README.md").read_text()
    assert "$" not in card and "| galah | block |" in card and "| energy, kWh | not measured |" in card
    assert metrics["level"] == "visible" and "hidden is not told" in card
    compute = metrics["compute"]
    assert compute["device"] and compute["device_type"] == "cpu" and compute["num_processes"] == 1
    assert (
        compute["seconds"] > 0 and compute["flops"] > 1e6 and set(metrics["num_parameters"]) == {"encoder", "decoder"}
    )

    model = AutoModelForPreTraining.from_pretrained(output / "model")
    processor = AutoProcessor.from_pretrained(output / "model")
    rows = load_survey("desi", simulated_surveys["desi"])
    inputs = processor(rows[:2], return_tensors="pt")
    flux = processor.post_process_reconstruction(
        model.eval()(**inputs).reconstruction, inputs["scale"], inputs["num_pixels"]
    )
    assert [len(each) for each in flux] == [len(each) for each in rows[:2]["flux"]]
    assert AutoModel.from_pretrained(output / "model")(**inputs).pooler_output.isfinite().all()


def test_weights_are_for_whoever_reads_their_folder(recipe, tmp_path):
    """A group that works together has such an umask; safetensors writes for its owner alone."""
    before = os.umask(0o027)
    try:
        run_here(recipe, tmp_path / "run", "--num-steps", "1")
    finally:
        os.umask(before)
    for folder in (tmp_path / "run" / "model", *(tmp_path / "run" / "checkpoints").iterdir()):
        assert modes(folder) == {0o640}, folder


def test_a_run_that_starts_from_a_checkpoint_knows_what_was_before(uninterrupted):
    output, _ = uninterrupted
    (before,) = earlier_runs(Recipe(model=str(output / "model")))
    metrics = json.loads((output / "metrics.json").read_text())
    assert before == {name: metrics[name] for name in ("recipe", "simulated", "num_spectra", "labels", "compute")}
    assert before["recipe"]["num_steps"] == STEPS
    assert earlier_runs(Recipe()) == []


def test_a_decoder_is_trained_on_an_encoder_that_stays(uninterrupted, frozen):
    """Heads and embeddings that stand on the encoder hold."""
    (before, _), (_, after) = uninterrupted, frozen
    expected = weights(before)
    for name, each in weights(after).items():
        assert torch.equal(each, expected[name]) == name.startswith("spectral."), name
    assert AutoModelForPreTraining.from_pretrained(after / "model").config.level == "visible"


@pytest.mark.parametrize("num_workers", [0, 2])
def test_an_interrupted_run_goes_on_to_the_same_end(recipe, uninterrupted, tmp_path, num_workers):
    """SIGTERM writes a checkpoint and exits cleanly; resumed, losses and weights are those of the whole run. As from
    Slurm, all processes get the signal, those that make batches ahead too."""
    expected, _ = uninterrupted
    output = tmp_path / "interrupted"
    settings = yaml.safe_load(recipe.read_text()) | {"num_workers": num_workers}
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(yaml.safe_dump(settings))
    process = subprocess.Popen(
        [sys.executable, *command(recipe, output)[3:]],
        env=environment(), cwd=ROOT, stdout=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    log = output / "log.jsonl"
    deadline = time.monotonic() + 300
    while not (log.exists() and log.read_text().count("\n") >= 2):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGTERM)
    printed, _ = process.communicate(timeout=300)
    assert process.returncode == 0 and "--resume auto" in printed
    assert 0 < len(losses(output)) < STEPS and not (output / "model").exists()

    run_here(recipe, output, "--resume", "auto")
    assert losses(output) == losses(expected)
    flops = [json.loads((each / "metrics.json").read_text())["compute"]["flops"] for each in (output, expected)]
    assert flops[0] == flops[1]  # both parts of the run are counted
    for name, each in weights(expected).items():
        assert torch.equal(weights(output)[name], each), name


def test_a_half_written_checkpoint_is_not_resumed_from(recipe, uninterrupted, tmp_path):
    expected, _ = uninterrupted
    output = tmp_path / "killed"
    (output / "checkpoints").mkdir(parents=True)
    (output / "checkpoints" / "step-00000003").symlink_to(expected / "checkpoints" / "step-00000003")
    # What a kill during a write leaves behind.
    (output / "checkpoints" / ".writing-step-00000006").mkdir()
    (output / "checkpoints" / ".writing-step-00000006" / "model.safetensors").write_bytes(b"half")
    run_here(recipe, output, "--resume", "auto")
    assert sorted(losses(output)) == list(range(4, STEPS + 1))
    for name, each in weights(expected).items():
        assert torch.equal(weights(output)[name], each), name


def test_two_processes_train_as_one(recipe, uninterrupted, tmp_path):
    expected, _ = uninterrupted
    output = tmp_path / "two"
    run(
        recipe, output, launch=("--multi_gpu", "--num_processes", "2", "--main_process_port", "0"),
        variables={"ACCELERATE_USE_CPU": "true"},
    )  # fmt: skip
    assert losses(output) == pytest.approx(losses(expected), rel=1e-5)
    for name, each in weights(expected).items():
        # Over many steps AdamW turns rounding of small gradients into some hundredths of the learning rate.
        torch.testing.assert_close(weights(output)[name], each, rtol=1e-3, atol=1e-5 if STEPS <= 8 else 1e-4)


def test_micro_batches_add_up_to_the_whole_batch(recipe, uninterrupted, tmp_path):
    expected, _ = uninterrupted
    settings = yaml.safe_load(recipe.read_text()) | {"num_micro_batches": 3}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(settings))
    run_here(tmp_path / "recipe.yaml", tmp_path / "parts")
    assert losses(tmp_path / "parts") == pytest.approx(losses(expected), rel=1e-5)


@pytest.mark.parametrize("is_mixed", [False, True], ids=["alone", "with data"])
def test_a_stream_needs_no_files_and_resumes(recipe, tmp_path, is_mixed):
    settings = yaml.safe_load(recipe.read_text())
    settings |= {"stream": "physics", "weights": {"desi": 1.0, "apogee": 1.0}, "num_micro_batches": 2}
    if not is_mixed:
        settings["data"] = {}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(settings))
    run_here(tmp_path / "recipe.yaml", tmp_path / "whole")
    metrics = json.loads((tmp_path / "whole" / "metrics.json").read_text())
    streamed = {"simulated desi", "simulated apogee"} if is_mixed else {"desi", "apogee"}
    assert set(metrics["chi2"]["model"]) == streamed | set(settings["data"]) == set(metrics["num_spectra"])
    card = (tmp_path / "whole" / "model" / "README.md").read_text()
    assert ("steps were of simulated spectra" in card) == is_mixed and "- desi\n" in card.split("model-index")[0]
    assert "SIMULATED" not in card
    (tmp_path / "resumed" / "checkpoints").mkdir(parents=True)
    place = Path("checkpoints") / "step-00000003"
    (tmp_path / "resumed" / place).symlink_to(tmp_path / "whole" / place)
    run_here(tmp_path / "recipe.yaml", tmp_path / "resumed", "--resume", "auto")
    for name, each in weights(tmp_path / "whole").items():
        assert torch.equal(weights(tmp_path / "resumed")[name], each), name


def test_an_unknown_survey_is_named(recipe, tmp_path):
    with pytest.raises(ValueError, match="expected some of .*hubble"):
        run_here(recipe, tmp_path / "out", "--data", "hubble=somewhere")
