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
from recipe import ROOT
from safetensors.torch import load_file
from transformers import AutoModel, AutoModelForPreTraining, AutoProcessor

from spectral_tokenizer.data import load_survey


STEPS = 8
SURVEYS = ("sdss", "desi", "galah", "apogee")


@pytest.fixture(scope="session")
def recipe(tmp_path_factory, simulated_surveys):
    """A recipe of seconds: a model of 20,000 parameters on some simulated spectra of each survey."""
    folder = tmp_path_factory.mktemp("recipe")
    config = json.loads((ROOT / "hub_configs" / "tiny" / "config.json").read_text())
    config |= {"hidden_size": 32, "num_hidden_layers": 1, "num_decoder_layers": 1, "intermediate_size": 64}
    (folder / "size").mkdir()
    (folder / "size" / "config.json").write_text(json.dumps(config))
    preprocessor = (ROOT / "hub_configs" / "tiny" / "preprocessor_config.json").read_text()
    (folder / "size" / "preprocessor_config.json").write_text(preprocessor)
    settings = {
        "model": str(folder / "size"), "data": {survey: str(simulated_surveys[survey]) for survey in SURVEYS},
        "num_steps": STEPS, "max_spectra": 6, "learning_rate": 1e-3, "warmup_steps": 2, "validation_spectra": 4,
        "log_every": 1, "validate_every": 4, "checkpoint_every": 3, "keep_checkpoints": 5,
    }  # fmt: skip
    (folder / "recipe.yaml").write_text(yaml.safe_dump(settings))
    return folder / "recipe.yaml"


def environment(**variables):
    return {**os.environ, "OMP_NUM_THREADS": "1", "TQDM_DISABLE": "1", **variables}


def command(recipe: Path, output: Path, *arguments: str, launch: tuple[str, ...] = ()) -> list[str]:
    launcher = [sys.executable, "-m", "accelerate.commands.launch", *launch]
    script = [str(ROOT / "training" / "pretrain.py"), "--config", str(recipe), "--output", str(output)]
    return [*launcher, *script, *arguments]


def run(*arguments, **keywords) -> str:
    variables = keywords.pop("variables", {})
    done = subprocess.run(
        command(*arguments, **keywords), env=environment(**variables), cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return done.stdout


@pytest.fixture(scope="session")
def uninterrupted(recipe, tmp_path_factory):
    output = tmp_path_factory.mktemp("run") / "whole"
    return output, run(recipe, output)


def losses(output: Path) -> dict[int, float]:
    lines = [json.loads(line) for line in (output / "log.jsonl").read_text().splitlines()]
    return {line["step"]: line["loss"] for line in lines if "loss" in line}


def weights(output: Path) -> dict[str, torch.Tensor]:
    return load_file(output / "model" / "model.safetensors")


def test_a_run_leaves_what_it_promises(uninterrupted, simulated_surveys):
    output, printed = uninterrupted
    assert sorted(losses(output)) == list(range(1, STEPS + 1))
    metrics = json.loads((output / "metrics.json").read_text())
    assert set(metrics["chi2"]) == {"model", "interpolation", "mean spectrum"}
    assert set(metrics["chi2"]["model"]) == set(SURVEYS)
    assert "interpolation" in printed and "untrained" in printed
    assert (output / "reconstructions.png").stat().st_size > 20_000
    card = (output / "model" / "README.md").read_text()
    assert "$" not in card and "| galah | block |" in card

    model = AutoModelForPreTraining.from_pretrained(output / "model")
    processor = AutoProcessor.from_pretrained(output / "model")
    rows = load_survey("desi", simulated_surveys["desi"])
    inputs = processor(rows[:2], return_tensors="pt")
    flux = processor.post_process_reconstruction(
        model.eval()(**inputs).reconstruction, inputs["scale"], inputs["num_pixels"]
    )
    assert [len(each) for each in flux] == [len(each) for each in rows[:2]["flux"]]
    assert AutoModel.from_pretrained(output / "model")(**inputs).pooler_output.isfinite().all()


def test_an_interrupted_run_goes_on_to_the_same_end(recipe, uninterrupted, tmp_path):
    """SIGTERM writes a checkpoint and exits cleanly; resumed, losses and weights are those of the whole run."""
    expected, _ = uninterrupted
    output = tmp_path / "interrupted"
    process = subprocess.Popen(
        [sys.executable, *command(recipe, output)[3:]], env=environment(), cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    log = output / "log.jsonl"
    deadline = time.monotonic() + 300
    while not (log.exists() and log.read_text().count("\n") >= 2):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    printed, _ = process.communicate(timeout=300)
    assert process.returncode == 0 and "--resume auto" in printed
    assert 0 < len(losses(output)) < STEPS and not (output / "model").exists()

    run(recipe, output, "--resume", "auto")
    assert losses(output) == losses(expected)
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
    run(recipe, output, "--resume", "auto")
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
        torch.testing.assert_close(weights(output)[name], each, rtol=1e-3, atol=1e-5)


def test_an_unknown_survey_is_named(recipe, tmp_path):
    done = subprocess.run(
        [sys.executable, *command(recipe, tmp_path / "out", "--data", "lamost=somewhere")[3:]],
        env=environment(), cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode != 0 and "lamost" in done.stderr and "expected some of" in done.stderr
