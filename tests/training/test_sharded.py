"""Runs with weights sharded over processes, as on GPUs that do not hold them whole."""

import shutil
import subprocess
from pathlib import Path

import pytest
import torch
from training_runs import STEPS, command, environment, losses, run, weights
from transformers import AutoModel


TWO = ("--multi_gpu", "--num_processes", "2", "--main_process_port", "0")
SCRIPT = Path(__file__).with_name("sharded_pretrain.py")
FSDP = {
    "ACCELERATE_USE_CPU": "true", "ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2",
    "FSDP_AUTO_WRAP_POLICY": "TRANSFORMER_BASED_WRAP", "FSDP_RESHARD_AFTER_FORWARD": "true",
    "FSDP_TRANSFORMER_CLS_TO_WRAP": "SpectralEncoderLayer,SpectralDecoderLayer",
    "FSDP_STATE_DICT_TYPE": "FULL_STATE_DICT",
}  # fmt: skip


def test_sharded_weights_learn_the_same_and_are_saved_whole(recipe, uninterrupted, tmp_path):
    output, (whole, _) = tmp_path / "sharded", uninterrupted
    run(recipe, output, launch=TWO, script=SCRIPT, variables=FSDP)
    plain = losses(whole)
    assert losses(output) == pytest.approx(plain, rel=1e-5)
    ended = weights(output)
    for name, expected in weights(whole).items():
        torch.testing.assert_close(ended[name], expected, rtol=1e-3, atol=1e-5)
    assert AutoModel.from_pretrained(output / "model").config.hidden_size == 32

    # Killed after its first checkpoint, say.
    (first, *later) = sorted((output / "checkpoints").iterdir())
    for each in (*later, output / "model"):
        shutil.rmtree(each)
    (output / "log.jsonl").unlink()
    run(recipe, output, "--resume", "auto", launch=TWO, script=SCRIPT, variables=FSDP)
    assert list(losses(output)) == list(range(int(first.name[-8:]) + 1, STEPS + 1))
    resumed = weights(output)
    assert all(torch.equal(resumed[name], each) for name, each in ended.items())


@pytest.mark.parametrize("is_sharded", [False, True], ids=["whole", "sharded"])
def test_two_processes_train_a_decoder_on_an_encoder_that_stays(uninterrupted, frozen, tmp_path, is_sharded):
    """Weights without a gradient are among those that processes share out, or wait for each other's gradients of."""
    (recipe, expected), before = frozen, weights(uninterrupted[0])
    settings = {"script": SCRIPT, "variables": FSDP} if is_sharded else {"variables": {"ACCELERATE_USE_CPU": "true"}}
    run(recipe, tmp_path / "two", launch=TWO, **settings)
    assert losses(tmp_path / "two") == pytest.approx(losses(expected), rel=1e-5)
    for name, each in weights(tmp_path / "two").items():
        assert torch.equal(each, before[name]) == name.startswith("spectral."), name


def test_two_optimizers_are_refused_before_the_first_step(recipe, tmp_path):
    lines = recipe.read_text() + "optimizer: muon\n"
    (tmp_path / "muon.yaml").write_text(lines)
    asked = command(tmp_path / "muon.yaml", tmp_path / "out", launch=TWO, script=SCRIPT)
    done = subprocess.run(asked, env=environment(**FSDP), capture_output=True, text=True)
    assert done.returncode and "optimizer: found muon, expected adamw where weights are sharded" in done.stderr
    assert not (tmp_path / "out" / "checkpoints").exists()
