"""A saved model opens where this package is not installed, and gives the same numbers."""

import importlib
import json
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file
from spectra import spectrum
from transformers import (
    AutoFeatureExtractor,
    AutoModel,
    AutoModelForPreTraining,
    AutoModelForSequenceClassification,
    AutoProcessor,
)

from spectral_tokenizer import (
    SpectralConfig,
    SpectralForPreTraining,
    SpectralForSequenceClassification,
    SpectralModel,
    SpectralProcessor,
)


# The package is hidden, as if it had never been installed.
HIDE = """
import importlib.abc, sys

class Hide(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"spectral_tokenizer", "datasets", "astropy"}:
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Hide())
"""
STRANGER = """
import json, torch
from safetensors.torch import save_file
from transformers import AutoFeatureExtractor, AutoModel, AutoModelForPreTraining, AutoProcessor

folder, rows, out = sys.argv[1:]
rows = json.load(open(rows))
processor = AutoProcessor.from_pretrained(folder, trust_remote_code=True)
AutoFeatureExtractor.from_pretrained(folder, trust_remote_code=True)
inputs = processor(rows, return_tensors="pt")
encoder = AutoModel.from_pretrained(folder, trust_remote_code=True)
model = AutoModelForPreTraining.from_pretrained(folder, trust_remote_code=True)
assert type(encoder).__name__ == "SpectralModel" and "spectral_tokenizer" not in sys.modules
encoded = encoder(**inputs)
save_file({
    "tokens": encoded.last_hidden_state, "pooled": encoded.pooler_output, "reconstruction": model(**inputs).reconstruction,
}, out)
encoder.save_pretrained(folder + "-again")  # a user's fine-tuned copy takes the code along
processor.save_pretrained(folder + "-again")
AutoModel.from_pretrained(folder + "-again", trust_remote_code=True)
"""


HEAD_STRANGER = """
import json, torch
from safetensors.torch import save_file
from transformers import AutoModel, AutoModelForSequenceClassification, AutoProcessor

folder, pretrained, rows, out = sys.argv[1:]
inputs = AutoProcessor.from_pretrained(pretrained, trust_remote_code=True)(json.load(open(rows)), return_tensors="pt")
model = AutoModelForSequenceClassification.from_pretrained(folder, trust_remote_code=True)
output = model(**inputs)
save_file({"values": output.logits, "errors": output.errors, "redshift": output.probabilities["redshift"]}, out)
trained = {name for name, each in model.named_parameters() if each.requires_grad}
assert trained and not any("spectral." in name for name in trained)

# A head of their own on a pre-training checkpoint, saved and opened again.
fresh = AutoModelForSequenceClassification.from_pretrained(
    pretrained, trust_remote_code=True, problem_type="regression", id2label={0: "teff"}, num_trainable_layers=1,
    num_labels=1,
)
assert (fresh.head.out_proj.weight == 0).all() and "spectral_tokenizer" not in sys.modules
labels = torch.full((len(inputs["flux"]), 1), 5000.0)
fresh.fit_scales([{**inputs, "labels": labels + torch.arange(len(labels))[:, None]}])
fresh.train()(**inputs, labels=labels).loss.backward()
fresh.eval().save_pretrained(folder + "-again")
again = AutoModelForSequenceClassification.from_pretrained(folder + "-again", trust_remote_code=True)
assert torch.equal(again(**inputs).logits, fresh(**inputs).logits) and again.config.num_trainable_layers == 1
AutoModel.from_pretrained(folder + "-again", trust_remote_code=True)
"""


def run_stranger(script: str, rows, expected, tmp_path, *folders) -> None:
    """Run a script in a process without the package, and compare the tensors that it writes."""
    columns = [{name: list(map(float, row[name])) for name in ("flux", "ivar", "wavelength")} for row in rows]
    for row, each in zip(columns, rows):
        row["segment_lengths"] = each["segment_lengths"]
    (tmp_path / "rows.json").write_text(json.dumps(columns))
    arguments = [*map(str, folders), str(tmp_path / "rows.json"), str(tmp_path / "out")]
    done = subprocess.run(
        [sys.executable, "-I", "-c", HIDE + script, *arguments],
        cwd=tmp_path,
        # The same number of threads: another one adds up in another order.
        env={
            "HF_HOME": str(tmp_path / "home"),
            "HF_HUB_OFFLINE": "1",
            "PATH": "",
            "OMP_NUM_THREADS": str(torch.get_num_threads()),
        },
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    found = load_file(tmp_path / "out")
    for name, each in expected.items():
        torch.testing.assert_close(found[name], each, rtol=1e-5, atol=1e-6)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoint") / "model"
    torch.manual_seed(0)
    config = SpectralConfig(
        hidden_size=32, num_hidden_layers=2, num_decoder_layers=1, num_attention_heads=4, intermediate_size=64
    )  # fmt: skip
    model = SpectralForPreTraining(config).eval()
    torch.nn.init.normal_(model.decoder.head.weight)  # a fresh decoder answers the same to everything
    model.save_pretrained(folder)
    SpectralProcessor().save_pretrained(folder)
    rows = [spectrum("sdss", 1), spectrum("apogee", 2)]
    inputs = SpectralProcessor()(rows, return_tensors="pt")
    encoded = model.encode(**inputs)
    expected = {
        "tokens": encoded.last_hidden_state,
        "pooled": encoded.pooler_output,
        "reconstruction": model(**inputs).reconstruction,
    }
    return folder, rows, inputs, expected


def test_loads_without_the_package(saved, tmp_path):
    folder, rows, _, expected = saved
    run_stranger(STRANGER, rows, expected, tmp_path, folder)


def test_a_head_loads_without_the_package(saved, tmp_path):
    """A fine-tuned head gives the same numbers, and a pre-training checkpoint takes a new one."""
    folder, rows, inputs, _ = saved
    redshift = {"distribution": "bins", "transform": "log1p", "range": [0, 4], "num_bins": 64}
    model = SpectralForSequenceClassification.from_pretrained(
        folder,
        problem_type="regression",
        id2label={0: "redshift", 1: "teff"},
        targets={"redshift": redshift, "teff": {"center": 5000, "scale": 500}},
        num_trainable_layers=0,
        num_pooling_queries=2,
    )
    torch.nn.init.normal_(model.head.out_proj.weight, std=0.1)
    torch.nn.init.normal_(model.head.feature_mean)  # what `fit_scales` fills travels as well
    model.save_pretrained(tmp_path / "head")
    output = model.eval()(**inputs)
    expected = {
        "values": output.logits, "errors": output.errors, "redshift": output.probabilities["redshift"],
    }  # fmt: skip
    run_stranger(HEAD_STRANGER, rows, expected, tmp_path, tmp_path / "head", folder)


def test_loads_with_the_package_and_no_remote_code(saved):
    folder, _, inputs, expected = saved
    model, encoder = AutoModelForPreTraining.from_pretrained(folder), AutoModel.from_pretrained(folder)
    assert type(model) is SpectralForPreTraining and type(encoder) is SpectralModel
    assert type(AutoProcessor.from_pretrained(folder)) is SpectralProcessor
    assert type(AutoFeatureExtractor.from_pretrained(folder)) is SpectralProcessor
    torch.testing.assert_close(model(**inputs).reconstruction, expected["reconstruction"], rtol=0, atol=1e-6)
    torch.testing.assert_close(encoder(**inputs).pooler_output, expected["pooled"], rtol=0, atol=1e-6)


def test_a_pretraining_checkpoint_gives_the_encoder_without_complaint(saved, caplog):
    AutoModel.from_pretrained(saved[0])
    assert not any("UNEXPECTED" in record.message or "MISSING" in record.message for record in caplog.records)


def test_survives_half_precision_on_disk(saved, tmp_path):
    folder, _, inputs, expected = saved
    AutoModel.from_pretrained(folder, dtype=torch.bfloat16).save_pretrained(tmp_path)
    model = AutoModel.from_pretrained(tmp_path)
    assert model.dtype == torch.bfloat16
    pooled = AutoModel.from_pretrained(tmp_path, dtype=torch.float32)(**inputs).pooler_output
    assert (pooled - expected["pooled"]).norm() < 0.05 * expected["pooled"].norm()


def test_only_safetensors_are_written(saved):
    assert {path.suffix for path in saved[0].iterdir()} == {".json", ".py", ".safetensors"}


SUBCLASS = """
from spectral_tokenizer import SpectralConfig, SpectralModel


class OwnConfig(SpectralConfig):
    model_type = "own_spectral_tokenizer"


class OwnModel(SpectralModel):
    config_class = OwnConfig
"""


@pytest.mark.parametrize("is_fresh", [True, False])
def test_a_subclass_of_ones_own_names_no_file_that_is_not_saved_with_it(is_fresh, saved, tmp_path, monkeypatch):
    (tmp_path / "own_spectral.py").write_text(SUBCLASS)
    monkeypatch.syspath_prepend(tmp_path)
    own = importlib.import_module("own_spectral")
    settings = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}
    # Or on a tokenizer, whose file names this package's own
    model = own.OwnModel(own.OwnConfig(**settings)) if is_fresh else own.OwnModel.from_pretrained(saved[0])
    model.save_pretrained(tmp_path / "saved")
    classes = json.loads((tmp_path / "saved" / "config.json").read_text())["auto_map"]
    assert classes == {"AutoConfig": "own_spectral.OwnConfig", "AutoModel": "own_spectral.OwnModel"}
    files = {path.stem for path in (tmp_path / "saved").glob("*.py")}
    assert {name.partition(".")[0] for name in classes.values()} <= files
    opened = AutoModel.from_pretrained(tmp_path / "saved", trust_remote_code=True)
    assert type(opened).__name__ == "OwnModel"


OWN_HEAD = """
from spectral_tokenizer import SpectralConfig, SpectralForSequenceClassification, SpectralModel


class OwnHead(SpectralForSequenceClassification):
    pass


class OwnNextHead(OwnHead):
    pass


class OwnConfig(SpectralConfig):
    model_type = "own"


class OwnModel(SpectralModel):
    config_class = OwnConfig


class OwnRelated(SpectralModel):
    config_class = OwnConfig
"""


def test_a_class_of_ones_own_that_opens_as_another_is_told_of(saved, tmp_path, monkeypatch, caplog):
    """With this package's own configuration the Auto classes open it as one of this package's, without a word."""
    (tmp_path / "own_head.py").write_text(OWN_HEAD)
    monkeypatch.syspath_prepend(tmp_path)
    own = importlib.import_module("own_head")
    folder = saved[0]
    own.OwnHead.from_pretrained(folder).save_pretrained(tmp_path / "own")
    for load in (own.OwnHead, own.OwnNextHead, SpectralForPreTraining, SpectralModel):
        load.from_pretrained(tmp_path / "own" if issubclass(load, own.OwnHead) else folder)
    SpectralForSequenceClassification.from_pretrained(folder).save_pretrained(tmp_path / "head")
    for each in (SpectralModel, SpectralForPreTraining, own.OwnHead):
        each.from_pretrained(tmp_path / "head")
    own.OwnModel(own.OwnConfig(hidden_size=32, num_attention_heads=2, intermediate_size=64)).save_pretrained(
        tmp_path / "family"
    )
    own.OwnRelated.from_pretrained(
        tmp_path / "family"
    )  # with a configuration of their own, whose classes are not known
    assert "architectures" not in caplog.text
    for load in (AutoModelForSequenceClassification, AutoModel):
        caplog.clear()
        opened = load.from_pretrained(tmp_path / "own", trust_remote_code=True)
        assert type(opened).__module__.startswith("spectral_tokenizer")
        assert f"expected {type(opened).__name__} or a class of spectral_tokenizer, found: OwnHead" in caplog.text
