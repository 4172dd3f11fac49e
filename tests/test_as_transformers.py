"""What users of Transformers do with any model: it works here too, or says why not."""

from functools import partial

import pytest
import torch
from test_heads import LABELS, collate, make_model
from test_modeling import SIZE, close
from test_modeling import make_model as make_pretraining_model
from transformers import (
    AutoModel,
    AutoModelForPreTraining,
    AutoModelForSequenceClassification,
    Trainer,
    TrainingArguments,
)

from spectral_tokenizer import SpectralConfig, SpectralModel, SpectralProcessor


def train(model, rows, folder, **settings):
    arguments = TrainingArguments(
        folder, per_device_train_batch_size=4, max_steps=1, optim="sgd", learning_rate=1e-2, max_grad_norm=0,
        remove_unused_columns=False, use_cpu=True, disable_tqdm=True, save_strategy="no", report_to=[], **settings,
    )  # fmt: skip
    labelled = [{**row, "labels": label} for row, label in zip(rows, LABELS["labels"])]
    Trainer(model, arguments, data_collator=collate, train_dataset=labelled).train()


@pytest.mark.filterwarnings("ignore:`gradient_checkpointing")
@pytest.mark.parametrize("opened", [None, 1])
def test_checkpointing_of_either_kind_trains_the_open_layers(opened, rows, tmp_path):
    """Behind a frozen layer nothing has a gradient, and reentrant checkpointing passes over what needs none."""
    scales, trained = {"teff": {"center": 5000, "scale": 800}, "logg": {"center": 3, "scale": 1.5}}, []
    for kwargs in (None, {"use_reentrant": False}, {"use_reentrant": True}):
        model = make_model(num_trainable_layers=opened, targets=scales)
        before = [each.detach().clone() for each in model.parameters()]
        train(model, rows, tmp_path, gradient_checkpointing=bool(kwargs), gradient_checkpointing_kwargs=kwargs)
        trained.append(torch.cat([(each - old).flatten() for each, old in zip(model.parameters(), before)]))
        assert all(not torch.equal(each, old) for each, old in zip(model.parameters(), before) if each.requires_grad)
    for each in trained[1:]:
        close(each, trained[0], 1e-6)


def test_a_frozen_encoder_s_checkpointed_layers_pass_gradients_on(inputs):
    model = make_pretraining_model().train()
    for part in (model.spectral.embeddings, model.spectral.wavelength_projection):
        part.requires_grad_(False)
    model.spectral.latents.requires_grad_(False)
    model.gradient_checkpointing_enable({"use_reentrant": True})
    model(**inputs).loss.backward()
    assert all(each.grad is not None for each in model.parameters() if each.requires_grad)


def test_noise_on_embeddings_is_refused_by_name(rows, tmp_path):
    with pytest.raises(ValueError, match="neftune_noise_alpha: expected None, found: 5.0"):
        train(make_model(), rows, tmp_path, neftune_noise_alpha=5.0)
    model = make_model()
    with pytest.raises(ValueError, match="neftune_noise_alpha"):  # nor passed over, where the encoder is frozen
        train(make_model(num_trainable_layers=0), rows, tmp_path, neftune_noise_alpha=5.0)
    train(model, rows, tmp_path)


# What a model gives beside its answer


@pytest.mark.parametrize("is_packed", [False, True])
def test_pretraining_gives_hidden_states_of_what_it_saw(is_packed, rows, inputs):
    model = make_pretraining_model()
    if is_packed:
        inputs = SpectralProcessor()(rows, packed=True, return_tensors="pt")
    expected = model.encode(**inputs, output_hidden_states=True).hidden_states
    found = model(**inputs, output_hidden_states=True).hidden_states
    assert len(found) == 3 and model(**inputs).hidden_states is None
    for one, other in zip(found, expected):
        close(one, other)
    model.config.output_hidden_states = True
    assert len(model(**inputs).hidden_states) == 3


def test_hidden_states_are_zero_where_a_patch_is_hidden(inputs):
    model = make_pretraining_model()
    masked = torch.zeros_like(inputs["attention_mask"], dtype=torch.bool)
    masked[:, 3:9] = True
    output = model(**inputs, masked_patches=masked, output_hidden_states=True)
    seen = inputs["attention_mask"].bool() & ~masked
    for each in output.hidden_states:
        patches = each[:, model.config.num_latents :]
        assert torch.equal(patches.abs().sum(-1) > 0, seen)


def test_an_exported_encoder_gives_hidden_states_too(inputs):
    model = make_pretraining_model().spectral
    model.config.output_hidden_states = True
    inputs = {name: inputs[name] for name in ("flux", "ivar", "wavelength", "attention_mask")}
    found, expected = torch.export.export(model, (), inputs).module()(**inputs), model(**inputs)
    assert len(found.hidden_states) == 3
    for one, other in zip(found.hidden_states, expected.hidden_states):
        close(one, other)


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
def test_weights_of_attention_are_refused_not_left_out(implementation, tmp_path):
    refused = partial(pytest.raises, ValueError, match="output_attentions: expected False.*found: True")
    model = make_model(attn_implementation=implementation)
    with refused():
        model.config.output_attentions = True
    with refused():
        SpectralConfig(output_attentions=True, attn_implementation=implementation)
    model.save_pretrained(tmp_path)
    with refused():
        AutoModel.from_pretrained(tmp_path, output_attentions=True, attn_implementation=implementation)
    model.config.output_attentions = False


@pytest.mark.parametrize("make", [make_model, make_pretraining_model, lambda: SpectralModel(SpectralConfig(**SIZE))])
def test_weights_of_attention_may_be_declined_by_argument(make, inputs):
    """As libraries do that pass it to every model; asked for, they are refused as in a configuration."""
    model = make().eval()
    for declined in (None, False):
        close(model(**inputs, output_attentions=declined)[0], model(**inputs)[0])
    with pytest.raises(ValueError, match="output_attentions: expected False.*found: True"):
        model(**inputs, output_attentions=True)


@pytest.mark.parametrize("make", [make_model, make_pretraining_model, lambda: SpectralModel(SpectralConfig(**SIZE))])
def test_every_model_takes_another_attention(make, caplog):
    model = make()
    for implementation in ("eager", "sdpa"):
        model.set_attn_implementation(implementation)
        assert {each.config._attn_implementation for each in model.modules() if hasattr(each, "config")} == {
            implementation
        }
    assert "does not support" not in caplog.text


# Where its weights are


@pytest.mark.parametrize("load", [AutoModelForPreTraining, AutoModelForSequenceClassification])
@pytest.mark.parametrize("part", ["encoder", "rest"])
def test_weights_may_stay_on_the_disk(load, part, inputs, tmp_path):
    is_head = load is AutoModelForSequenceClassification
    (make_model if is_head else make_pretraining_model)().save_pretrained(tmp_path / "model")
    encoder, rest = ("disk", "cpu") if part == "encoder" else ("cpu", "disk")
    places = {"spectral": encoder, "head" if is_head else "decoder": rest}
    model = load.from_pretrained(tmp_path / "model", device_map=places, offload_folder=tmp_path / "disk")
    assert any(each.is_meta for each in model.parameters())
    expected = load.from_pretrained(tmp_path / "model")(**inputs)
    for name, found in model(**inputs).items():
        torch.testing.assert_close(found, expected[name], equal_nan=True)
