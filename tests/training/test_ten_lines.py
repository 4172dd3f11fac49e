"""The README's lines on fine-tuning, run as they stand: on a model of 20,000 parameters and a few simulated spectra."""

import pytest
import torch
from recipe import ROOT
from transformers import AutoModelForSequenceClassification, AutoProcessor

from spectral_tokenizer import SpectralConfig, SpectralForPreTraining, SpectralProcessor
from spectral_tokenizer.data import load_survey


LINES = """\
from transformers import AutoModelForSequenceClassification, AutoProcessor, Trainer, TrainingArguments

from spectral_tokenizer.data import load_survey
from spectral_tokenizer.data.collator import SpectralCollator

folder, classes = "runs/demo/model", ["GALAXY", "QSO", "STAR"]
rows = load_survey("sdss", "runs/simulated/*/sdss").train_test_split(0.2, seed=0)
processor = AutoProcessor.from_pretrained(folder)
model = AutoModelForSequenceClassification.from_pretrained(
    folder, id2label=dict(enumerate(classes)), num_trainable_layers=None  # 0: a frozen encoder; n: its last n layers
)
arguments = TrainingArguments("runs/classes", num_train_epochs=3, learning_rate=5e-4, remove_unused_columns=False)
collator = SpectralCollator(processor, "class", classes)
trainer = Trainer(model, arguments, collator, rows["train"], rows["test"], processing_class=processor)
model.fit_scales(trainer.get_train_dataloader())
trainer.train()
model.calibrate(trainer.get_eval_dataloader())
trainer.save_model("runs/classes/model")
"""


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


def test_the_ten_lines_work(demo):
    names = {}
    exec(LINES, names)
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


def test_the_readme_has_these_lines():
    readme = (ROOT / "README.md").read_text()
    if "AutoModelForSequenceClassification" not in readme:
        pytest.skip("the README says nothing of fine-tuning")
    assert LINES in readme
