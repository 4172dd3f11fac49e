"""The README's Python, run as it stands: on a model of 20,000 parameters and a few simulated spectra."""

import re

import pytest
import torch
from recipe import ROOT
from transformers import AutoModelForSequenceClassification, AutoProcessor

from spectral_tokenizer import SpectralConfig, SpectralForPreTraining, SpectralProcessor
from spectral_tokenizer.data import load_survey


BLOCKS = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)


@pytest.fixture
def demo(tmp_path, simulated_surveys, monkeypatch):
    """What `make pretrain` leaves, in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TQDM_DISABLE", "1")
    (tmp_path / "runs" / "simulated").mkdir(parents=True)
    (tmp_path / "runs" / "simulated" / "seed0").symlink_to(simulated_surveys["sdss"].parent)
    torch.manual_seed(0)
    config = SpectralConfig(
        hidden_size=32, num_hidden_layers=2, num_decoder_layers=1, num_attention_heads=4, intermediate_size=64
    )
    model = SpectralForPreTraining(config)
    model.save_pretrained(tmp_path / "runs" / "demo" / "model")
    SpectralProcessor().save_pretrained(tmp_path / "runs" / "demo" / "model")
    return model


def test_spectra_are_embedded_and_decoded(demo, capsys):
    names = {}
    for block in BLOCKS[:2]:
        exec(block, names)
    assert "torch.Size([4, " in capsys.readouterr().out
    assert [len(each) for each in names["flux"]] == [1000] * 4
    assert all(torch.isfinite(torch.as_tensor(each)).all() for each in names["flux"])


def test_a_classifier_is_fine_tuned(demo):
    names = {}
    exec(BLOCKS[2], names)
    # Whoever comes later needs no more than this.
    model = AutoModelForSequenceClassification.from_pretrained("runs/classes/model")
    rows = load_survey("sdss", "runs/simulated/*/sdss")[:5]
    output = model(**AutoProcessor.from_pretrained("runs/classes/model")(rows, return_tensors="pt"))
    assert output.logits.shape == (5, 3) and model.config.id2label[1] == "QSO"
    torch.testing.assert_close(
        output.logits, names["model"].cpu().eval()(**names["processor"](rows, return_tensors="pt")).logits
    )
    assert not torch.equal(model.head.out_proj.weight, torch.zeros_like(model.head.out_proj.weight))
    before, after = demo.spectral.state_dict(), model.spectral.state_dict()
    moved = {name.split(".")[1] for name in before if "layers." in name and not torch.equal(before[name], after[name])}
    assert moved == {"0", "1"}
