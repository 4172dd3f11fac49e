"""Runs that are killed, or that have nowhere to write: nothing is lost, and the end is the uninterrupted run's."""

import json
import os
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import checkpoints
import pretrain
import pytest
import torch
import yaml
from journal import lines_of
from recipe import ROOT, Recipe
from training_runs import STEPS, command, environment, losses, run_here, weights


#: Says whether it was to leave while its parent was there, and after that.
ORPHAN = """
import os, sys, time
from pathlib import Path
from journal import Interruption

folder, parent, interruption = Path(sys.argv[1]), os.getppid(), Interruption()
before = interruption.requested
(folder / "begun").touch()
while os.getppid() == parent:
    time.sleep(0.01)
(folder / "aside").write_text(f"{before} {interruption.requested}")
(folder / "aside").rename(folder / "alone")
"""


def start(recipe, output, **keywords) -> subprocess.Popen:
    line = [sys.executable, *command(recipe, output, "--resume", "auto")[3:]]
    return subprocess.Popen(
        line, env=environment(), cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, **keywords
    )


def kill_when(process: subprocess.Popen, is_time) -> None:
    """SIGKILL, as an out-of-memory killer or a power cut sends it: no handler, no last words."""
    deadline = time.monotonic() + 300
    while process.poll() is None and not is_time():
        assert time.monotonic() < deadline
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.communicate()


def assert_same_end(output, expected) -> None:
    assert losses(output) == losses(expected)
    for name, each in weights(expected).items():
        assert torch.equal(weights(output)[name], each), name


def test_killed_at_random_moments_a_run_goes_on_to_the_same_end(recipe, uninterrupted, tmp_path, pytestconfig):
    expected, _ = uninterrupted
    output, moments = tmp_path / "killed", random.Random(0)
    for turn in range(pytestconfig.getoption("--kills")):
        process = start(recipe, output)
        if turn % 2 == 0:  # while a checkpoint is being written
            kill_when(process, lambda: any((output / "checkpoints").glob(".writing-*/*")))
        else:
            lines, wait = len(lines_of(output / "log.jsonl")), moments.randint(1, 3)
            kill_when(process, lambda lines=lines, wait=wait: len(lines_of(output / "log.jsonl")) >= lines + wait)
        assert all((each / "run.json").exists() for each in checkpoints.complete(output / "checkpoints"))
    run_here(recipe, output, "--resume", "auto")
    assert_same_end(output, expected)
    assert not list((output / "checkpoints").glob(".writing-*"))


def test_told_to_leave_while_it_measures_a_run_leaves_and_keeps_its_model(recipe, uninterrupted, tmp_path):
    """After the last step there is nothing to finish: SIGTERM ends the process, and the weights are saved already."""
    expected, _ = uninterrupted
    output = tmp_path / "measuring"
    process, deadline = start(recipe, output), time.monotonic() + 300
    while not (output / "model" / "preprocessor_config.json").exists():
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.002)
    process.terminate()
    process.communicate(timeout=60)
    assert process.returncode == -signal.SIGTERM and not (output / "metrics.json").exists()
    assert_same_end(output, expected)
    run_here(recipe, output, "--resume", "auto")
    assert (output / "metrics.json").exists() and (output / "model" / "README.md").exists()


@pytest.mark.parametrize(
    ("launcher", "leaves"),
    [
        ([sys.executable, "-m", "accelerate.commands.launch", "--cpu"], True),
        (["sh", "-c", '"$@"; true', "sh", sys.executable], False),  # as after `nohup` and a logout
    ],
)
def test_a_run_leaves_with_its_launcher_and_not_with_a_shell(tmp_path, launcher, leaves):
    (tmp_path / "run.py").write_text(ORPHAN)
    line = [*launcher, str(tmp_path / "run.py"), str(tmp_path)]
    process, deadline = subprocess.Popen(line, env=environment(PYTHONPATH=ROOT / "training")), time.monotonic() + 60
    for name in ("begun", "alone"):
        while not (tmp_path / name).exists():
            assert time.monotonic() < deadline
            time.sleep(0.01)
        process.terminate()
        process.communicate(timeout=60)
    assert (tmp_path / "alone").read_text() == f"False {leaves}"


def test_figures_of_other_weights_do_not_stand_beside_new_ones(recipe, uninterrupted, tmp_path, monkeypatch):
    """Killed while it measures, a lengthened run left the figures of the weights before; one that only ended keeps them."""
    expected, _ = uninterrupted
    shutil.copytree(expected, tmp_path / "run")
    files = [tmp_path / "run" / name for name in ("metrics.json", "evaluation.json", "model/README.md")]
    files[1].write_text("{}")

    def killed(*_):
        raise InterruptedError

    monkeypatch.setattr(pretrain, "measure", killed)
    for steps, is_kept in ((STEPS, True), (STEPS + 1, False)):
        with pytest.raises(InterruptedError):
            run_here(recipe, tmp_path / "run", "--resume", "auto", "--num-steps", str(steps))
        assert [each.exists() for each in files] == [is_kept] * 3


def test_runs_are_not_mixed(tmp_path):
    """What lies there of another run would be kept, and gone on from, in place of the new one's."""
    for step in (2, 4):
        (tmp_path / f"step-{step:08d}").mkdir()
        state = {"step": step, "run": {"seed": 0, "rows": {"sdss": 10}}}
        (tmp_path / f"step-{step:08d}" / "run.json").write_text(json.dumps(state))
    accelerator, run = SimpleNamespace(load_state=lambda _: None), {"seed": 0, "rows": {"sdss": 10}}
    assert checkpoints.load(accelerator, tmp_path, "auto", run)["step"] == 4
    assert checkpoints.load(accelerator, tmp_path / "new", None, run) is None
    assert checkpoints.load(accelerator, tmp_path / "new", "auto", run) is None
    with pytest.raises(ValueError, match="found step-00000004 of an earlier run, expected none: --resume auto"):
        checkpoints.load(accelerator, tmp_path, None, run)
    with pytest.raises(ValueError, match="step-00000002: found .*step-00000004, which would win later"):
        checkpoints.load(accelerator, tmp_path, str(tmp_path / "step-00000002"), run)
    shutil.copytree(tmp_path / "step-00000002", tmp_path / "other" / "step-00000008")
    with pytest.raises(ValueError, match=r"other/step-00000008: found .*step-00000004, which would win later"):
        checkpoints.load(accelerator, tmp_path, str(tmp_path / "other" / "step-00000008"), run)
    assert checkpoints.load(accelerator, tmp_path / "new", str(tmp_path / "step-00000004"), run)["step"] == 4
    with pytest.raises(ValueError, match=r"the run was of {'rows': {'sdss': 10}}, found: {'rows': {'sdss': 11}}"):
        checkpoints.load(accelerator, tmp_path, "auto", {**run, "rows": {"sdss": 11}})


def test_a_run_that_goes_on_learns_as_it_began():
    """Accelerate brings the old rates back with the optimisers: other ones in the recipe would only be said."""
    began, other = Recipe(), Recipe(learning_rate=1e-6, model_options={"residual_cap": 3.0}, num_steps=2000)
    differing = {name for name, value in began.identity().items() if other.identity()[name] != value}
    assert differing == {"learning_rate", "model_options"}


def test_a_checkpoint_from_before_a_setting_was_written_down_still_serves(tmp_path):
    (tmp_path / "step-00000002").mkdir()
    (tmp_path / "step-00000002" / "run.json").write_text(json.dumps({"step": 2, "run": {"seed": 0}}))
    accelerator = SimpleNamespace(load_state=lambda _: None)
    assert checkpoints.load(accelerator, tmp_path, "auto", {"seed": 0, "optimizer": "muon"})["step"] == 2


@pytest.mark.parametrize(("name", "before", "now"), [("freeze_encoder", False, True), ("cool_dwarfs", 0.0, 0.1)])
def test_a_checkpoint_from_before_there_was_a_setting_is_of_a_run_without_it(tmp_path, name, before, now):
    """With the setting it would end in an optimiser of another size, called damage, or in other spectra without a word."""
    (tmp_path / "step-00000002").mkdir()
    run = {**Recipe(stream="physics").identity(), "rows": {}}
    then = {key: value for key, value in run.items() if key != name}
    (tmp_path / "step-00000002" / "run.json").write_text(json.dumps({"step": 2, "run": then}))
    accelerator = SimpleNamespace(load_state=lambda _: None)
    assert checkpoints.load(accelerator, tmp_path, "auto", {**run, name: before})["step"] == 2
    with pytest.raises(ValueError, match=f"was of {{'{name}': {before}}}, found: {{'{name}': {now}}}"):
        checkpoints.load(accelerator, tmp_path, "auto", {**run, name: now})


@pytest.mark.parametrize(
    ("setting", "then", "now"),
    [
        ("level", "given", "visible"),
        ("objective", "autoencoding", "masked"),
        ("hidden_fraction", [0.1, 0.2], [0.5, 0.9]),
    ],
)
def test_a_size_whose_settings_have_changed_is_not_gone_on_with(recipe, uninterrupted, tmp_path, setting, then, now):
    """The recipe names the size's folder, before as after."""
    expected, _ = uninterrupted
    shutil.copytree(expected / "checkpoints", tmp_path / "checkpoints")
    state = checkpoints.complete(tmp_path / "checkpoints")[-1] / "run.json"
    found = json.loads(state.read_text())
    state.write_text(json.dumps({**found, "run": {**found["run"], setting: then}}))
    with pytest.raises(
        ValueError, match=re.escape(f"was of {{{setting!r}: {then!r}}}, found: {{{setting!r}: {now!r}}}")
    ):
        run_here(recipe, tmp_path, "--resume", "auto")


def test_as_many_rows_in_another_order_are_not_gone_on_with(recipe, uninterrupted, tmp_path):
    """Other ones would come next, without a word."""
    expected, _ = uninterrupted
    shutil.copytree(expected / "checkpoints", tmp_path / "checkpoints")
    settings = yaml.safe_load(recipe.read_text())
    settings["data"] = dict(reversed(settings["data"].items()))
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(settings, sort_keys=False))
    with pytest.raises(
        ValueError, match=r"was of {'objects': \[\['apogee', '\w+'\], .*found: {'objects': \[\['sdss', "
    ):
        run_here(tmp_path / "recipe.yaml", tmp_path, "--resume", "auto")


def test_a_run_from_before_its_objects_were_written_down_goes_on_and_writes_them_down(recipe, uninterrupted, tmp_path):
    expected, _ = uninterrupted
    shutil.copytree(expected / "checkpoints", tmp_path / "checkpoints")
    earlier, last = checkpoints.complete(tmp_path / "checkpoints")[-2:]
    shutil.rmtree(last)
    state = json.loads((earlier / "run.json").read_text())
    objects = state["run"].pop("objects")
    (earlier / "run.json").write_text(json.dumps(state))
    run_here(recipe, tmp_path, "--resume", "auto")
    assert json.loads((last / "run.json").read_text())["run"]["objects"] == objects


@pytest.mark.parametrize("file", ["model.safetensors", "optimizer.bin", "run.json"])
def test_a_damaged_checkpoint_is_named_and_what_to_go_on_from(recipe, uninterrupted, tmp_path, file):
    expected, _ = uninterrupted
    shutil.copytree(expected / "checkpoints", tmp_path / "checkpoints")
    earlier, last = checkpoints.complete(tmp_path / "checkpoints")[-2:]
    os.truncate(last / file, 5)
    told = f"{last.name}: expected a whole checkpoint.*without it --resume auto goes on from {earlier.name}"
    with pytest.raises(ValueError, match=f"(?s){told}"):
        run_here(recipe, tmp_path, "--resume", "auto")


def test_two_runs_do_not_write_to_one_folder(tmp_path):
    lock = checkpoints.alone_in(tmp_path)
    with pytest.raises(RuntimeError, match="another run writes there"):
        checkpoints.alone_in(tmp_path, patience=0.1)
    lock.release()
    checkpoints.alone_in(tmp_path, patience=0.1).release()


def test_a_full_disk_is_said_and_leaves_the_last_checkpoint(recipe, uninterrupted, tmp_path):
    """Files are limited to a size that weights fit in and the optimiser's state does not."""
    expected, _ = uninterrupted
    output = tmp_path / "full"
    last = checkpoints.complete(expected / "checkpoints")[0].name
    shutil.copytree(expected / "checkpoints" / last, output / "checkpoints" / last)
    shutil.copy(expected / "log.jsonl", output / "log.jsonl")
    size = max(each.stat().st_size for each in (output / "checkpoints" / last).iterdir())

    def limit():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size - 1, size - 1))

    process = start(recipe, output, preexec_fn=limit)
    _, errors = process.communicate(timeout=300)
    assert process.returncode != 0
    assert "expected to write a checkpoint, found" in errors and last in errors
    assert [each.name for each in (output / "checkpoints").iterdir()] == [last]
    run_here(recipe, output, "--resume", "auto")
    assert_same_end(output, expected)


def test_a_read_only_folder_is_said(tmp_path):
    """With permissions that root would not notice, so the error is made by hand."""
    before = tmp_path / "step-00000001"
    before.mkdir()

    def refuse(_):
        raise OSError(30, "Read-only file system")

    accelerator = SimpleNamespace(is_main_process=True, wait_for_everyone=lambda: None, save_state=refuse)
    with pytest.raises(OSError, match="Read-only file system.*The last complete one: step-00000001"):
        checkpoints.save(accelerator, tmp_path, {"step": 2}, keep=1)
    assert list(tmp_path.iterdir()) == [before]


def test_the_best_checkpoint_outlives_the_last_ones(tmp_path):
    accelerator = SimpleNamespace(is_main_process=True, wait_for_everyone=lambda: None, save_state=lambda _: None)
    for step in range(1, 6):
        checkpoints.save(accelerator, tmp_path, {"step": step, "best": {"step": 2, "chi2": 1.0}}, keep=2)
    assert [each.name for each in checkpoints.complete(tmp_path)] == [f"step-{step:08d}" for step in (2, 4, 5)]


def test_a_line_cut_short_by_a_kill_is_dropped(tmp_path):
    (tmp_path / "log.jsonl").write_text('{"step": 1, "loss": 2.0}\n{"step": 2, "lo')
    assert lines_of(tmp_path / "log.jsonl") == [{"step": 1, "loss": 2.0}]
