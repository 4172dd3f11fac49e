"""Published as users do it: one commit on the tests' Hub that holds everything, or a folder of the same."""

import json
import pickle
import re

import measure
import pytest
import torch
import yaml
from hub_clients import run
from publish import main, public
from recipe import ROOT, has_weights
from safetensors.torch import load_file
from test_card import EVALUATION, HEAD, METRICS
from training_runs import modes
from transformers import AutoModel, AutoModelForSequenceClassification

from spectral_tokenizer import (
    SpectralConfig,
    SpectralForPreTraining,
    SpectralForSequenceClassification,
    SpectralModel,
    SpectralProcessor,
)


SIZE = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_decoder_layers": 1,
    "num_attention_heads": 4,
    "intermediate_size": 64,
}
TEXTS = {"README.md", "LICENSE", "CITATION.cff", "example.py", "metrics.json", "reconstructions.png"}


@pytest.fixture
def trained(tmp_path):
    """What pretrain.py leaves."""
    torch.manual_seed(0)
    folder = tmp_path / "run" / "model"
    SpectralForPreTraining(SpectralConfig(**SIZE)).save_pretrained(folder)
    SpectralProcessor().save_pretrained(folder)
    (folder / "README.md").write_text("an older card")
    (folder / "reconstructions.png").write_bytes(b"a picture")
    recipe = {**METRICS["recipe"], "output": "/home/someone/runs/mine", "data": {"sdss": ["/home/someone/sdss"]}}
    recipe |= {"options": {"sdss": {"catalogue": "/home/someone/mine.fits"}}}
    streamed = {**recipe, "stream": "/home/someone/templates", "data_share": 0.5}
    metrics = {**METRICS, "recipe": recipe, "earlier": [{"recipe": streamed}]}
    (folder.parent / "metrics.json").write_text(json.dumps(metrics))
    return folder


def names(folder) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_a_dry_run_leaves_the_complete_folder(trained, tmp_path, capsys):
    (trained.parent / "evaluation.json").write_text(json.dumps(EVALUATION))
    out = tmp_path / "out"
    main([str(trained), "me/spectra", "--dry-run", str(out), "--max-shard-size", "60KB", "--datasets", "me/data"])
    assert "not uploaded" in capsys.readouterr().out
    assert TEXTS | {"evaluation.json", "config.json", "preprocessor_config.json"} <= names(out)
    assert modes(out) == {out.stat().st_mode & 0o666}
    assert {
        "modeling_spectral_tokenizer.py",
        "heads_spectral_tokenizer.py",
        "processing_spectral_tokenizer.py",
    } <= names(out)
    assert len(list(out.glob("*.safetensors"))) > 1
    card = (out / "README.md").read_text()
    assert 'pretrained_model_name_or_path="me/spectra"' in card and "an older card" not in card
    assert "genuine files" in card and "- me/data" in card
    assert "/home/someone" not in "".join((out / name).read_text() for name in ("README.md", "metrics.json"))
    assert yaml.safe_load((out / "CITATION.cff").read_text())["license"] == "Apache-2.0"
    for one, other in zip(
        AutoModel.from_pretrained(trained).parameters(), AutoModel.from_pretrained(out).parameters()
    ):
        assert torch.equal(one, other)
    # Whole or not at all: and what is there is not touched.
    with pytest.raises(FileExistsError, match="expected a new folder"):
        main([str(trained), "me/spectra", "--dry-run", str(out)])
    assert names(tmp_path) == {"run", "out"}
    # What was published can be published again.
    main([str(out), "me/copy", "--dry-run", str(tmp_path / "again")])
    assert names(tmp_path / "again") == {*names(out)} - {path.name for path in out.glob("*.safetensors*")} | {
        "model.safetensors"
    }


def test_a_release_is_a_folder_of_this_project(trained, tmp_path, monkeypatch, capsys):
    (trained.parent / "evaluation.json").write_text(json.dumps(EVALUATION))
    (trained.parent / "evaluation.png").write_bytes(b"another picture")
    settings = json.loads((trained / "config.json").read_text())
    (trained / "config.json").write_text(json.dumps(settings | {"use_cache": False}))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit):
        main([str(trained), "hub_configs/mine", "--release", "--tag", "v1"])
    main([str(trained), "hub_configs/mine", "--release"])
    assert "not uploaded" in capsys.readouterr().out
    folder = tmp_path / "hub_configs" / "mine"
    assert names(folder) == {
        "README.md", "config.json", "preprocessor_config.json", "model.safetensors", "metrics.json", "reconstructions.png",
        "evaluation.json", "evaluation.png",
    }  # fmt: skip
    assert all(path.stat().st_mode & 0o044 == 0o044 for path in folder.iterdir())
    # As it is in the folders that are there.
    for name in ("config.json", "preprocessor_config.json"):
        assert not {"auto_map", "use_cache"} & set(json.loads((folder / name).read_text()))
    assert json.loads((folder / "config.json").read_text()).items() <= settings.items()
    written = load_file(folder / "model.safetensors")
    assert all(torch.equal(written[name], each) for name, each in load_file(trained / "model.safetensors").items())
    card = (folder / "README.md").read_text()
    assert "/home/someone" not in card + (folder / "metrics.json").read_text()
    assert "![reconstructions](reconstructions.png)" in card and "trust_remote_code" not in card
    exec(re.search(r"```python\n(.*?)```", card, re.DOTALL)[1], {})
    assert capsys.readouterr().out.strip() == "torch.Size([1, 512])"
    # On the Hub it has its code, and the same picture.
    main([str(folder), "me/mine", "--dry-run", str(tmp_path / "out")])
    assert names(folder) | TEXTS | {"modeling_spectral_tokenizer.py"} <= names(tmp_path / "out")
    assert "![reconstructions](reconstructions.png)" in (tmp_path / "out" / "README.md").read_text()


def measured(monkeypatch, folder, output, surveys, *options) -> dict:
    """What measure.py says of a model on simulated spectra."""
    line = ["measure.py", "--model", str(folder), "--data", f"sdss={surveys['sdss']}", "--simulated", "--spectra", "6"]
    monkeypatch.setattr("sys.argv", [*line, "--output", str(output), *options])
    measure.main()
    return json.loads((output / "evaluation.json").read_text())


def test_figures_of_other_weights_are_refused(trained, tmp_path, simulated_surveys, monkeypatch):
    """As where a run went on after it was measured."""
    measured(monkeypatch, trained, trained.parent, simulated_surveys)
    main([str(trained), "me/spectra", "--dry-run", str(tmp_path / "out"), "--max-shard-size", "60KB"])
    main([str(tmp_path / "out"), "me/copy", "--dry-run", str(tmp_path / "again")])
    model = SpectralForPreTraining.from_pretrained(trained)
    model.config.use_cache = False  # as Trainer leaves it: nothing of the weights
    model.save_pretrained(trained)
    main([str(trained), "me/spectra", "--dry-run", str(tmp_path / "same")])
    torch.nn.init.normal_(next(model.parameters()))
    model.save_pretrained(trained)
    with pytest.raises(ValueError, match="expected an evaluation of this model, .*, found one of another"):
        main([str(trained), "me/spectra", "--dry-run", str(tmp_path / "other")])
    assert not (tmp_path / "other").exists()
    measured(monkeypatch, trained, trained.parent, simulated_surveys)
    main([str(trained), "me/spectra", "--dry-run", str(tmp_path / "other")])


def test_figures_of_another_calibration_are_refused(trained, tmp_path, simulated_surveys, monkeypatch):
    head, calibrated = tmp_path / "head" / "model", tmp_path / "calibrated"
    config = SpectralConfig(**SIZE, problem_type="regression", id2label={0: "redshift"})
    SpectralForSequenceClassification(config).save_pretrained(head)
    SpectralProcessor().save_pretrained(head)
    arguments = {**HEAD["arguments"], "labels": ["redshift"], "classes": []}
    (tmp_path / "head.json").write_text(json.dumps({**HEAD, "arguments": arguments}))
    measured(monkeypatch, head, calibrated, simulated_surveys, "--calibrate", "0.5", "--spectra", "60")
    line = ["me/head", "--metrics", str(tmp_path / "head.json"), "--dry-run", str(tmp_path / "out")]
    with pytest.raises(ValueError, match="expected an evaluation of this model"):
        main([str(head), *line, "--evaluation", str(calibrated / "evaluation.json")])
    main([str(calibrated / "model"), *line])
    assert json.loads((tmp_path / "out" / "evaluation.json").read_text())["num_calibrated"]


def test_a_folder_of_this_project_is_named_and_none_of_a_machine():
    given = {"arguments": {"model": "hub_configs/released", "output": "/home/someone/runs/mine", "stream": "../there"}}
    found = public(given)["arguments"]
    assert found["model"] == "hub_configs/released" and found["output"] == "mine" and found["stream"] == "there"
    assert public({"arguments": {"model": "/home/hub_configs/mine"}})["arguments"]["model"] == "mine"
    for resume, expected in (("/home/someone/runs/mine/checkpoint-3", "checkpoint-3"), ("auto", "auto"), (None, None)):
        assert public({"arguments": {"resume": resume}})["arguments"]["resume"] == expected
    own = public({"arguments": {"label_table": {"table": "/home/someone/ages.csv", "key": "id"}}})["arguments"]
    assert own["label_table"] == {"table": "ages.csv", "key": "id"}


PUBLISH = """
import sys
from publish import main

folder, name = sys.argv[1:]
main([folder, name, "--private", "--tag", "v1", "--max-shard-size", "60KB"])
try:
    main([folder, name, "--tag", "v1"])
except ValueError as error:
    assert "found one that exists: v1" in str(error)
else:
    raise AssertionError("a tag was moved")
main([folder, name, "--revision", "next"])
main([folder, "me/public"])
try:
    main([folder, "me/public", "--private"])
except ValueError as error:
    assert "found one that is public" in str(error)
else:
    raise AssertionError("published where everyone sees it")
"""
EXAMPLE = """
import runpy, sys

runpy.run_path(sys.argv[1])
assert "spectral_tokenizer" not in sys.modules
"""


def test_one_commit_holds_everything(hub, trained, tmp_path):
    printed = run(
        hub,
        tmp_path / "home",
        f"import sys\nsys.path.insert(0, {str(ROOT / 'training')!r})\n" + PUBLISH,
        trained,
        "me/published",
    )
    repository = hub.repositories["models", "me/published"]
    assert repository.titles == ["initial commit", "Publish v1", "Publish model"] and repository.private
    commit, following = repository.branches["main"], repository.branches["next"]
    assert repository.tags == {"v1": commit} and commit in printed and following != commit
    files = repository.commits[commit]
    assert set(files) > TEXTS and sum(path.endswith(".safetensors") for path in files) > 1
    assert any("api/validate-yaml" in each for each in hub.requests)
    # On the other branch, in one file: the shards went in the same commit.
    assert [path for path in repository.commits[following] if "safetensors" in path] == ["model.safetensors"]
    assert hub.repositories["models", "me/public"].titles == ["initial commit", "Publish model"]
    # The example of the card, in a process that has this package nowhere.
    (tmp_path / "example.py").write_bytes(files["example.py"])
    ran = run(hub, tmp_path / "stranger", EXAMPLE, tmp_path / "example.py", is_stranger=True)
    assert ran.strip() == "torch.Size([1, 512])"


def test_a_fine_tuned_model_is_published(trained, tmp_path):
    folder = tmp_path / "head" / "model"
    model = SpectralForSequenceClassification.from_pretrained(trained, id2label={0: "GALAXY", 1: "STAR"}, num_labels=2)
    torch.nn.init.normal_(model.head.out_proj.weight)
    model.save_pretrained(folder)
    SpectralProcessor().save_pretrained(folder)
    (folder / "metrics.json").write_text(json.dumps(HEAD))
    main([str(folder), "me/head", "--simulated", "--dry-run", str(tmp_path / "out")])
    out = AutoModelForSequenceClassification.from_pretrained(tmp_path / "out")
    assert torch.equal(out.head.out_proj.weight, model.head.out_proj.weight) and out.config.id2label[1] == "STAR"
    assert "AutoModelForSequenceClassification" in (tmp_path / "out" / "example.py").read_text()
    assert "**The head was trained on simulated spectra alone.**" in (tmp_path / "out" / "README.md").read_text()


@pytest.mark.parametrize(
    "name", ["pytorch_model.bin", "optimizer.bin", "model.pt", "a/rng.pth", "x.pkl", "x.ckpt", "x.zip"]
)
def test_a_folder_with_anything_else_is_refused(trained, tmp_path, name):
    (trained / name).parent.mkdir(exist_ok=True)
    (trained / name).write_bytes(pickle.dumps({}))
    with pytest.raises(ValueError, match=rf"expected weights as .safetensors.*found: \['{name}'\]"):
        main([str(trained), "me/spectra", "--dry-run", str(tmp_path / "out")])
    assert names(tmp_path) == {"run"}


def test_what_trainer_leaves_beside_a_model_stays_behind(trained, tmp_path):
    (trained / "training_args.bin").write_bytes(b"no pickle: opening it would fail")
    main([str(trained), "me/spectra", "--dry-run", str(tmp_path / "out")])
    assert (tmp_path / "out" / "model.safetensors").exists()
    assert not (tmp_path / "out" / "training_args.bin").exists()


def test_a_pickle_by_another_name_is_not_opened(trained, tmp_path):
    (trained / "model.safetensors").write_bytes(pickle.dumps({}))
    with pytest.raises(Exception, match="(?i)safetensor|header"):
        main([str(trained), "me/spectra", "--dry-run", str(tmp_path / "out")])
    assert names(tmp_path) == {"run"}


def test_what_is_missing_is_named(trained, tmp_path):
    metrics = trained.parent / "metrics.json"
    metrics.rename(tmp_path / "moved.json")
    with pytest.raises(FileNotFoundError, match="expected metrics.json in it or above it"):
        main([str(trained), "me/spectra", "--dry-run", str(tmp_path / "out")])
    with pytest.raises(FileNotFoundError, match="nowhere.json"):
        main(
            [
                str(trained),
                "me/spectra",
                "--metrics",
                str(tmp_path / "nowhere.json"),
                "--dry-run",
                str(tmp_path / "out"),
            ]
        )
    main([str(trained), "me/spectra", "--metrics", str(tmp_path / "moved.json"), "--dry-run", str(tmp_path / "out")])
    with pytest.raises(SystemExit):
        main([str(trained), "spectra", "--dry-run", str(tmp_path / "other")])
    (trained / "config.json").unlink()
    with pytest.raises(FileNotFoundError, match="found no config.json"):
        main([str(trained), "me/spectra", "--dry-run", str(tmp_path / "other")])


def without(figures: dict, *names: str) -> str:
    return json.dumps({name: value for name, value in figures.items() if name not in names})


@pytest.mark.parametrize(
    ("option", "text", "message"),
    [
        ("--metrics", json.dumps(METRICS)[:90], "expected metrics of a tokenizer as JSON, found: "),
        ("--metrics", "[]", "expected metrics of a tokenizer, found: list"),
        ("--metrics", without(METRICS, "simulated", "recipe"), r"has \['simulated', 'recipe'\] too, found: \['chi2'"),
        ("--metrics", json.dumps({**METRICS, "recipe": {}}), r"has \['recipe.data'\] too"),
        ("--metrics", json.dumps(HEAD), r"expected metrics of a tokenizer, which has \['recipe'\] too"),
        ("--evaluation", json.dumps(EVALUATION)[:90], "expected an evaluation of a tokenizer as JSON, found: "),
        ("--evaluation", without(EVALUATION, "name"), r"expected an evaluation .* has \['name'\] too"),
        ("--evaluation", json.dumps({**EVALUATION, "chi2": None, "test": {}}), r"has \['chi2'\] too"),
    ],
)
def test_figures_that_are_not_whole_or_of_another_kind_are_refused(trained, tmp_path, option, text, message):
    given = tmp_path / "given.json"
    given.write_text(text)
    with pytest.raises(ValueError, match=f"given.json: .*{message}"):
        main([str(trained), "me/spectra", option, str(given), "--dry-run", str(tmp_path / "out")])
    assert not (tmp_path / "out").exists()


def test_a_head_under_a_tokenizer_s_figures_is_refused(trained, tmp_path):
    folder = tmp_path / "run" / "head"
    SpectralForSequenceClassification.from_pretrained(trained, num_labels=2).save_pretrained(folder)
    SpectralProcessor().save_pretrained(folder)
    line = [str(folder), "me/head", "--dry-run", str(tmp_path / "out")]
    with pytest.raises(ValueError, match=r"metrics.json: expected metrics of a head.* \['arguments', 'test'\] too"):
        main(line)  # those above it
    (folder / "metrics.json").write_text(json.dumps(HEAD))
    (folder / "evaluation.json").write_text(json.dumps(EVALUATION))
    with pytest.raises(ValueError, match=r"evaluation.json: expected an evaluation of a head.* \['test'\] too"):
        main(line)


def test_an_encoder_alone_is_no_publication(trained, tmp_path):
    SpectralModel.from_pretrained(trained).save_pretrained(tmp_path / "run" / "encoder")
    with pytest.raises(ValueError, match="found: SpectralModel"):
        main([str(tmp_path / "run" / "encoder"), "me/spectra", "--dry-run", str(tmp_path / "out")])


def test_training_does_not_start_from_a_pickle(trained):
    """Nor from scratch, as if there were no weights."""
    assert has_weights(trained) and not has_weights(ROOT / "hub_configs" / "tiny")
    weights = load_file(trained / "model.safetensors")
    (trained / "model.safetensors").unlink()
    torch.save(weights, trained / "pytorch_model.bin")
    with pytest.raises(ValueError, match=r"found: \['pytorch_model.bin'\], which are never opened"):
        has_weights(trained)
