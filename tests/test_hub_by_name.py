"""Pushed, and loaded by name: by strangers without this package and with empty caches, and with it and no remote code.

The Hub is `hub_server`, on loopback. Each client is a process of its own.
"""

import pickle

import pytest
import torch
from hub_clients import assert_same, run, write_rows
from safetensors.torch import load_file

from spectral_tokenizer import SpectralConfig, SpectralForPreTraining, SpectralModel, SpectralProcessor
from spectral_tokenizer.data import load_survey


REAL = {
    "sdss": "sdss/spec-0266-51602-0013.fits",
    "desi": "desi/fastspecfit",
    "galah": "galah/galah_workshop",
    "apogee": "apogee/apstar_data/apStar-r6-2M00005143+5615568.fits.gz",
}

PUSH = """
import sys
from transformers import AutoModelForPreTraining
from spectral_tokenizer import SpectralProcessor

model, processor = AutoModelForPreTraining.from_pretrained(sys.argv[1]), SpectralProcessor.from_pretrained(sys.argv[1])
model.push_to_hub("me/whole")
model.spectral.push_to_hub("me/sharded", max_shard_size="60KB", private=True)
for name in ("me/whole", "me/sharded"):
    processor.push_to_hub(name)
"""
FINE_TUNE = """
# A head of their own: some steps, saved, pushed.
head = AutoModelForSequenceClassification.from_pretrained(
    "me/whole", num_labels=2, id2label={0: "GALAXY", 1: "STAR"}, **remote
)
inputs, labels = processor(rows[:2], return_tensors="pt"), torch.tensor([0, 1])
head.fit_scales([{**inputs, "labels": labels}])
optimizer = torch.optim.AdamW(head.parameters(), lr=1e-3)
head.train()
for step in range(3):
    head(**inputs, labels=labels).loss.backward()
    optimizer.step()
    optimizer.zero_grad()
head.eval().save_pretrained("head")
processor.save_pretrained("head")
head = AutoModelForSequenceClassification.from_pretrained("head", **remote)
head.push_to_hub(repository, revision="trial")
processor.push_to_hub(repository, revision="trial")
with torch.no_grad():
    save_file({"logits": head(**inputs).logits}, head_out)
"""
STRANGER = (
    """
import json, torch
from safetensors.torch import save_file
from transformers import AutoModel, AutoModelForPreTraining, AutoModelForSequenceClassification, AutoProcessor

rows, out, head_out = sys.argv[1:]
rows = json.load(open(rows))
remote, repository = {"trust_remote_code": True}, "them/head"
processor = AutoProcessor.from_pretrained("me/whole", **remote)
inputs = processor(rows, return_tensors="pt")
encoder = AutoModel.from_pretrained("me/whole", **remote)
model = AutoModelForPreTraining.from_pretrained("me/whole", **remote)
with torch.no_grad():
    encoded = encoder(**inputs)
    sharded = AutoModel.from_pretrained("me/sharded", **remote)(**inputs)
    save_file({
        "tokens": encoded.last_hidden_state, "pooled": encoded.pooler_output, "sharded": sharded.pooler_output,
        "reconstruction": model(**inputs).reconstruction,
    }, out)

"""
    + FINE_TUNE
    + """
try:
    AutoModel.from_pretrained("me/pickle", **remote)
except OSError as error:
    assert "never opened" in str(error), error
else:
    raise AssertionError("a pickle was opened")
assert "spectral_tokenizer" not in sys.modules
"""
)
RELOAD = """
import json, torch
from safetensors.torch import save_file
from transformers import AutoModel, AutoModelForSequenceClassification, AutoProcessor

rows, out = sys.argv[1:]
where = {"pretrained_model_name_or_path": "them/head", "revision": "trial", "trust_remote_code": True}
inputs = AutoProcessor.from_pretrained(**where)(json.load(open(rows))[:2], return_tensors="pt")
head = AutoModelForSequenceClassification.from_pretrained(**where)
assert head.config.id2label == {0: "GALAXY", 1: "STAR"} and "spectral_tokenizer" not in sys.modules
AutoModel.from_pretrained(**where)
with torch.no_grad():
    save_file({"logits": head(**inputs).logits}, out)
"""
NATIVE_HEAD = (
    """
import json, sys, torch
from safetensors.torch import save_file
from transformers import AutoModelForSequenceClassification, AutoProcessor
import spectral_tokenizer

rows, head_out = sys.argv[1:]
rows = json.load(open(rows))
remote, repository = {}, "ours/head"
processor = AutoProcessor.from_pretrained("me/whole")
"""
    + FINE_TUNE
    + """
again = AutoModelForSequenceClassification.from_pretrained(repository, revision="trial", force_download=True)
with torch.no_grad():
    assert torch.equal(again(**inputs).logits, head(**inputs).logits)
assert "transformers_modules" not in sys.modules
"""
)
NATIVE = """
import json, sys, torch
from safetensors.torch import save_file
from transformers import AutoModel, AutoModelForPreTraining, AutoModelForSequenceClassification, AutoProcessor
import spectral_tokenizer
from spectral_tokenizer import SpectralForPreTraining, SpectralModel, SpectralProcessor

rows, out, head_out = sys.argv[1:]
processor = AutoProcessor.from_pretrained("me/sharded")
inputs = processor(json.load(open(rows)), return_tensors="pt")
encoder, model = AutoModel.from_pretrained("me/whole"), AutoModelForPreTraining.from_pretrained("me/whole")
sharded = AutoModel.from_pretrained("me/sharded")
head = AutoModelForSequenceClassification.from_pretrained("them/head", revision="trial")
assert (type(processor), type(encoder), type(model)) == (SpectralProcessor, SpectralModel, SpectralForPreTraining)
assert type(head).__module__.startswith("spectral_tokenizer.") and "transformers_modules" not in sys.modules
with torch.no_grad():
    encoded = encoder(**inputs)
    save_file({
        "tokens": encoded.last_hidden_state, "pooled": encoded.pooler_output, "sharded": sharded(**inputs).pooler_output,
        "reconstruction": model(**inputs).reconstruction,
    }, out)
    save_file({"logits": head(**processor(json.load(open(rows))[:2], return_tensors="pt")).logits}, head_out)
for name in ("me/pickle", "me/pickles"):
    try:
        AutoModel.from_pretrained(name)
    except OSError as error:
        assert "never opened" in str(error), error
    else:
        raise AssertionError("a pickle was opened")
"""


class Bomb:
    """A pickle of this makes a file as it is opened."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    config = SpectralConfig(
        hidden_size=32, num_hidden_layers=2, num_decoder_layers=1, num_attention_heads=4, intermediate_size=64
    )
    model = SpectralForPreTraining(config).eval()
    torch.nn.init.normal_(model.decoder.head.weight)  # a fresh decoder answers the same to everything
    return model


@pytest.fixture(scope="module")
def rows(simulated_surveys, pytestconfig, tmp_path_factory):
    """A simulated spectrum of each survey and, where real files are at hand, a real one."""
    from conftest import ROOT

    rows = [load_survey(survey, folder)[0] for survey, folder in simulated_surveys.items()]
    folder = (ROOT / pytestconfig.getoption("--spectra")).resolve()
    if folder.is_dir():
        cache = tmp_path_factory.mktemp("cache")
        rows += [load_survey(survey, str(folder / files), cache_dir=cache)[0] for survey, files in REAL.items()]
    return rows


@pytest.fixture(scope="module")
def expected(model, rows):
    inputs = SpectralProcessor()(rows, return_tensors="pt")
    with torch.no_grad():
        encoded = model.encode(**inputs)
        return {
            "tokens": encoded.last_hidden_state,
            "pooled": encoded.pooler_output,
            "sharded": encoded.pooler_output,
            "reconstruction": model(**inputs).reconstruction,
        }


@pytest.fixture(scope="module")
def bomb(tmp_path_factory):
    return tmp_path_factory.mktemp("bomb") / "exploded"


@pytest.fixture(scope="module")
def pushed(hub, model, bomb, tmp_path_factory):
    """Two repositories that were pushed, and two with pickles in place of weights."""
    folder = tmp_path_factory.mktemp("pushed")
    model.save_pretrained(folder / "model")
    SpectralProcessor().save_pretrained(folder / "model")
    run(hub, folder / "home", PUSH, folder / "model")
    whole = hub.repositories["models", "me/whole"]
    code = {
        path: content
        for path, content in whole.commits[whole.branches["main"]].items()
        if path.endswith((".py", "json"))
    }
    for name, file in (("me/pickle", "pytorch_model.bin"), ("me/pickles", "pytorch_model-00001-of-00001.bin")):
        files = {**code, file: pickle.dumps(Bomb(bomb))}
        if name == "me/pickles":
            files["pytorch_model.bin.index.json"] = (
                b'{"metadata": {}, "weight_map": {"layernorm.weight": "%s"}}' % file.encode()
            )
        hub.create("models", name).commit(files, "weights in a pickle")
    return folder


@pytest.fixture(scope="module")
def embedded(hub, pushed, rows, tmp_path_factory):
    """What a stranger with an empty cache made of the rows; its head is pushed to them/head."""
    folder = tmp_path_factory.mktemp("stranger")
    write_rows(folder / "rows", rows)
    run(hub, folder / "home", STRANGER, folder / "rows", folder / "out", folder / "head", is_stranger=True)
    return folder


def test_every_class_takes_its_code_along(hub, pushed):
    for name in ("me/whole", "me/sharded"):
        repository = hub.repositories["models", name]
        # One for the model and one for the processor.
        assert repository.titles[1:] == [
            "Upload SpectralForPreTraining" if name == "me/whole" else "Upload model",
            "Upload processor",
        ]
        files = repository.commits[repository.branches["main"]]
        assert {path.rpartition(".")[2] for path in files} == {"gitattributes", "json", "md", "py", "safetensors"}
        assert {
            "configuration_spectral_tokenizer.py", "modeling_spectral_tokenizer.py", "heads_spectral_tokenizer.py",
            "processing_spectral_tokenizer.py", "patching_spectral_tokenizer.py", "preprocessor_config.json",
        } <= set(files)  # fmt: skip
        shards = [path for path in files if path.endswith(".safetensors")]
        assert (len(shards) == 1) == (name == "me/whole")
        assert repository.private == (name == "me/sharded")


def test_a_stranger_loads_by_name(embedded, expected):
    assert_same(embedded / "out", expected)


def test_real_spectra_of_each_survey_are_embedded(spectra_dir, rows, embedded, expected):
    """The second half of the rows is real."""
    real = rows[len(rows) // 2 :]
    assert [row["survey"] for row in real] == list(REAL)
    found, pooled = load_file(embedded / "out")["pooled"][len(rows) // 2 :], expected["pooled"][len(rows) // 2 :]
    assert len(found) == 4 and found.isfinite().all()
    torch.testing.assert_close(found, pooled, rtol=0, atol=1e-6)
    assert torch.pdist(found).min() > 1e-3  # and not all alike


def test_a_strangers_head_is_loaded_by_another(hub, embedded):
    repository = hub.repositories["models", "them/head"]
    assert "heads_spectral_tokenizer.py" in repository.commits[repository.branches["trial"]]
    run(hub, embedded / "other", RELOAD, embedded / "rows", embedded / "again", is_stranger=True)
    logits = load_file(embedded / "head")
    assert_same(embedded / "again", logits)
    assert logits["logits"].abs().max() > 1e-3  # it was trained: a fresh head answers zero


def test_the_package_loads_by_name_and_runs_no_remote_code(hub, embedded, expected):
    run(hub, embedded / "native", NATIVE, embedded / "rows", embedded / "native.out", embedded / "native.head")
    assert_same(embedded / "native.out", expected)
    assert_same(embedded / "native.head", load_file(embedded / "head"))


def test_the_package_fine_tunes_and_pushes_without_remote_code(hub, embedded):
    folder = embedded / "ours"
    run(hub, folder, NATIVE_HEAD, embedded / "rows", embedded / "ours.head")
    logits = load_file(embedded / "ours.head")["logits"]
    assert logits.abs().max() > 1e-3
    torch.testing.assert_close(logits, load_file(embedded / "head")["logits"], rtol=1e-4, atol=1e-5)


def test_no_pickle_was_opened(hub, embedded, bomb):
    """Neither by the stranger nor by the package; nor is one so much as asked for."""
    assert not bomb.exists()
    assert not [each for each in hub.requests if each.endswith(".bin") and each.startswith("GET")]


@pytest.mark.parametrize("name", ["pytorch_model.bin", "pytorch_model.bin.index.json"])
def test_a_folder_of_pickles_is_refused(model, bomb, tmp_path, name):
    model.config.save_pretrained(tmp_path)
    (tmp_path / "pytorch_model.bin").write_bytes(pickle.dumps(Bomb(bomb)))
    if name.endswith("json"):
        (tmp_path / "pytorch_model.bin").rename(tmp_path / "pytorch_model-00001-of-00001.bin")
        (tmp_path / name).write_text(
            '{"metadata": {}, "weight_map": {"layernorm.weight": "pytorch_model-00001-of-00001.bin"}}'
        )
    for kind in (SpectralModel, SpectralForPreTraining):
        with pytest.raises(OSError, match="a pickle .* is never opened"):
            kind.from_pretrained(tmp_path)
        with pytest.raises(ValueError, match="use_safetensors: found False"):
            kind.from_pretrained(tmp_path, use_safetensors=False)
    assert not bomb.exists()
