import math

import pytest
import torch
from datasets import Dataset
from spectra import spectrum
from transformers import AutoModelForSequenceClassification, Trainer, TrainingArguments

from spectral_tokenizer import (
    SpectralConfig,
    SpectralForPreTraining,
    SpectralForSequenceClassification,
    SpectralModel,
    SpectralProcessor,
)
from spectral_tokenizer.data.collator import SpectralCollator
from spectral_tokenizer.targets_spectral_tokenizer import ONE_SIGMA, ClassTarget


SIZE = {
    "hidden_size": 32, "num_hidden_layers": 2, "num_decoder_layers": 1, "num_attention_heads": 4,
    "intermediate_size": 64, "num_latents": 4,
}  # fmt: skip
REDSHIFT = {"distribution": "bins", "transform": "log1p", "range": [0, 5], "num_bins": 128, "tolerance": 0.05}
SHIFT = REDSHIFT | {"distribution": "shift", "num_channels": 2, "wavelengths": [3500, 20000]}
NAN = float("nan")
HEADS = {
    "classes": {"problem_type": "single_label_classification", "num_labels": 3},
    "tags": {"problem_type": "multi_label_classification", "num_labels": 3},
    "labels": {"problem_type": "regression", "id2label": {0: "teff", 1: "logg"}},
    "redshift": {"problem_type": "regression", "id2label": {0: "redshift"}, "targets": {"redshift": REDSHIFT}},
    "mixed": {
        "problem_type": "regression", "id2label": {0: "redshift", 1: "teff"},
        "targets": {"redshift": REDSHIFT, "teff": {"transform": "log"}},
    },
    "shift": {"problem_type": "regression", "id2label": {0: "redshift"}, "targets": {"redshift": SHIFT}},
}  # fmt: skip
LABELS = {
    "classes": torch.tensor([0, 2, -100, 1]),
    "tags": torch.tensor([[0, 1, NAN], [NAN, NAN, NAN], [1, 1, 0], [0, NAN, 1]]),
    "labels": torch.tensor([[4500, 2.0], [6000, NAN], [NAN, NAN], [5200, 4.4]]),
    "redshift": torch.tensor([[0.3], [NAN], [2.5], [0.9]]),
    "mixed": torch.tensor([[0.3, NAN], [NAN, 1.5], [2.5, NAN], [NAN, NAN]]),
    "shift": torch.tensor([[0.3], [NAN], [2.5], [0.9]]),
}
POOLINGS = {
    "latents": {},
    "segments": {"pooling": "segments", "num_segments": 4},
    "mean": {"pooling": "mean"},
    "attention": {"num_pooling_queries": 3},
    "attention without latents": {"num_pooling_queries": 3, "num_latents": 0, "pooling": "mean",
                                  "decoder_reads": "tokens"},
}  # fmt: skip


def make_model(head="labels", **settings):
    """A model whose head has been trained: a fresh one answers the same to everything."""
    torch.manual_seed(0)
    model = SpectralForSequenceClassification(SpectralConfig(**SIZE | HEADS[head] | settings)).eval()
    answer = model.head.shift.rest if head == "shift" else model.head.out_proj.weight
    torch.nn.init.normal_(answer, std=0.3)
    return model


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pretrained") / "model"
    torch.manual_seed(1)
    model = SpectralForPreTraining(SpectralConfig(**SIZE))
    model.save_pretrained(folder)
    return folder, model.state_dict()


def close(one, other, tolerance=1e-5):
    torch.testing.assert_close(one, other, rtol=tolerance, atol=tolerance)


# What a head costs


def test_classes_cost_their_cross_entropy(inputs):
    model = make_model("classes")
    output = model(**inputs, labels=LABELS["classes"])
    probability = output.logits.softmax(-1)
    expected = -(probability[0, 0].log() + probability[1, 2].log() + probability[3, 1].log()) / 3
    close(output.loss, expected)


def test_tags_cost_what_is_known_of_them(inputs):
    output = make_model("tags")(**inputs, labels=LABELS["tags"])
    probability = output.logits.sigmoid()
    known = [(0, 0, 0), (0, 1, 1), (2, 0, 1), (2, 1, 1), (2, 2, 0), (3, 0, 0), (3, 2, 1)]
    cost = sum(-(probability[row, tag] if is_set else 1 - probability[row, tag]).log() for row, tag, is_set in known)
    close(output.loss, cost / 12)


def test_labels_cost_their_gaussian_likelihood(inputs):
    scales = {"teff": {"center": 5000, "scale": 800}, "logg": {"center": 3, "scale": 1.5}}
    model = make_model("labels", targets=scales)
    output = model(**inputs, labels=LABELS["labels"])
    cost = 0
    for row, column, scale in ((0, 0, 800), (0, 1, 1.5), (1, 0, 800), (3, 0, 800), (3, 1, 1.5)):
        mean, error, label = output.logits[row, column], output.errors[row, column], LABELS["labels"][row, column]
        cost += ((error / scale).log() + 0.5 * ((label - mean) / error) ** 2) / 8
    close(output.loss, cost)


def test_a_redshift_costs_the_cross_entropy_of_its_bin(inputs):
    """A label in the middle of a bin is spread over it and its neighbours by a Gaussian of two bins."""
    model = make_model("redshift")
    edges = model.bin_edges("redshift").log1p()
    label = (0.5 * (edges[40] + edges[41])).expm1().float()
    output = model(**inputs, labels=label.expand(4, 1))
    log_probability = output.probabilities["redshift"].log()
    steps = torch.arange(-9, 10)
    weights = torch.special.ndtr((steps + 0.5) / 2) - torch.special.ndtr((steps - 0.5) / 2)
    expected = -(weights * log_probability[:, 40 - 9 : 40 + 10]).sum(1).mean()
    close(output.loss, expected, 1e-3)


@pytest.mark.parametrize("head", ["labels", "redshift", "mixed", "tags"])
def test_an_unknown_label_teaches_nothing(head, inputs):
    model = make_model(head)
    labels = torch.full_like(LABELS[head], NAN)
    loss = model(**inputs, labels=labels).loss
    loss.backward()
    assert loss == 0
    assert all(each.grad is None or (each.grad == 0).all() for each in model.parameters())
    labels[0] = LABELS[head][0]
    model(**inputs, labels=labels).loss.backward()
    assert all(each.grad is None or each.grad.isfinite().all() for each in model.parameters())
    assert model.head.out_proj.weight.grad.abs().sum() > 0


@pytest.mark.parametrize("head", HEADS)
def test_accumulated_gradients_are_those_of_the_whole_batch(head, rows, tmp_path):
    """One step of four spectra, and four of one: labels are unknown here and there, so no mean of means would do."""
    scales = {name: {"center": 5000, "scale": 800} if name == "teff" else {} for name in ("teff", "logg")}
    settings = {"targets": scales} if head == "labels" else {}
    steps = {}
    for accumulation in (1, 4):
        model = make_model(head, **settings)
        before = {name: each.clone() for name, each in model.named_parameters()}
        arguments = TrainingArguments(
            tmp_path, per_device_train_batch_size=4 // accumulation, gradient_accumulation_steps=accumulation,
            max_steps=1, optim="sgd", learning_rate=1.0, max_grad_norm=0, remove_unused_columns=False,
            lr_scheduler_type="constant", use_cpu=True, disable_tqdm=True, save_strategy="no",
        )  # fmt: skip
        labelled = [{**row, "labels": label} for row, label in zip(rows, LABELS[head])]
        Trainer(model, arguments, data_collator=collate, train_dataset=labelled).train()
        steps[accumulation] = torch.cat([(each - before[name]).flatten() for name, each in model.named_parameters()])
    assert steps[1].norm() > 1e-2
    assert (steps[4] - steps[1]).norm() < 1e-4 * steps[1].norm()


def collate(rows):
    batch = SpectralCollator(SpectralProcessor())(rows)
    return {**batch, "labels": torch.stack([row["labels"] for row in rows])}


@pytest.mark.parametrize(
    ("head", "labels", "message"),
    [
        ("classes", torch.zeros(4), "expected 4 integers"),
        ("classes", torch.zeros(4, 3, dtype=torch.long), "expected 4 integers"),
        ("classes", torch.tensor([0, 3, -100, 1]), "expected 0 to 2, of 3 classes, and -100 where unknown, found: 3"),
        ("classes", torch.tensor([0, -1, 2, 1]), "expected 0 to 2, of 3 classes, and -100 where unknown, found: -1"),
        ("tags", torch.zeros(4), r"expected shape \(4, 3\)"),
        ("labels", torch.zeros(4), r"expected shape \(4, 2\)"),
        ("redshift", torch.tensor([[0.1], [0.2], [7.0], [0.3]]), "redshift: expected values from 0 to 5.*found: 7"),
        ("mixed", torch.tensor([[0.1, -5.0]] * 4), "teff: expected values that log takes, found: -5"),
        ("labels", torch.tensor([[math.inf, 1.0]] * 4), "teff: expected values that identity takes, found: inf"),
    ],
)
def test_wrong_labels_are_named(head, labels, message, inputs):
    with pytest.raises(ValueError, match=message):
        make_model(head)(**inputs, labels=labels)


def test_a_device_does_not_wait_for_the_labels_of_classes_to_be_looked_at():
    """Where nothing can be read, nothing is waited for."""
    target = ClassTarget(SpectralConfig(**SIZE | HEADS["classes"]))
    assert target.cost(torch.empty(4, 3, device="meta"), LABELS["classes"].to("meta")).is_meta


# What a head says


@pytest.mark.parametrize("head", HEADS)
def test_a_fresh_head_knows_nothing(head, inputs):
    targets = {name: {**each, "center": 1.0, "scale": 0.5} for name, each in HEADS[head].get("targets", {}).items()}
    config = SpectralConfig(**SIZE | HEADS[head] | ({"targets": targets} if targets else {}))
    output = SpectralForSequenceClassification(config).eval()(**inputs)
    if head in ("classes", "tags"):
        assert (output.logits == 0).all()
    elif head == "labels":
        assert (output.logits == 0).all() and (output.errors == 1).all()
    else:
        assert output.logits.isfinite().all()
        close(output.probabilities["redshift"], torch.full((4, 128), 1 / 128))
        # 68 % of a flat probability in ln(1 + z) on each side, less what labels are spread by: two bins, the bin they are
        # in, and what is even in it.
        u, sides, width = output.logits[:, :1].log1p(), torch.tensor([-1, 1]), math.log(6) / 128
        reach = ONE_SIGMA * torch.cat([u, math.log(6) - u], dim=1) / width
        reach = (reach.square() - 4 - 2 / 12).clamp(min=1 / 12).sqrt()
        close(output.intervals[:, 0].log1p(), (u + sides * width * reach).clamp(min=0), 1e-4)


def test_a_logarithmic_target_has_errors_in_its_own_unit(inputs):
    scales = {"teff": {"transform": "log", "center": math.log(5000), "scale": 0.1}}
    model = make_model("labels", targets=scales)
    output = model(**inputs)
    low, high = output.intervals[:, 0].T
    close((low * high).sqrt(), output.logits[:, 0], 1e-4)
    close(output.errors[:, 0], (high - low) / 2)
    assert (low > 0).all() and (output.logits[:, 0] > 1000).all()


def test_scales_are_learnt_from_training_batches(inputs):
    model = make_model("mixed", targets=HEADS["mixed"]["targets"])
    torch.nn.init.zeros_(model.head.out_proj.weight)  # as of a fresh head
    labels = torch.tensor([[0.3, 4000.0], [1.0, 5000.0], [NAN, 6000.0], [NAN, NAN]])
    model.fit_scales([{**inputs, "labels": labels}])
    settings = model.config.targets["teff"]
    expected = labels[:3, 1].log()
    assert settings["center"] == pytest.approx(expected.mean().item())
    assert settings["scale"] == pytest.approx(expected.std().item(), rel=1e-5)
    assert model.config.targets["redshift"]["range"] == [0, 5]
    pooled = model.spectral(**inputs).pooler_output
    features = (pooled - model.head.feature_mean) / model.head.feature_scale
    close(features.mean(0), torch.zeros(features.shape[1]), 1e-4)
    close(features.std(0), torch.ones(features.shape[1]), 1e-3)
    close(model(**inputs).logits[:, 1], torch.full((4,), expected.mean().exp()), 1e-3)
    # A scale that was given stays.
    model.fit_scales([{**inputs, "labels": torch.tensor([[0.3, 8000.0], [1.0, 9000.0], [NAN, NAN], [NAN, NAN]])}])
    assert model.config.targets["teff"] == settings


@pytest.mark.parametrize("is_fitted", [False, True])
def test_forgotten_scales_are_remarked_on(inputs, caplog, is_fitted):
    model = make_model()
    if is_fitted:
        model.fit_scales([{**inputs, "labels": LABELS["labels"]}])
    model(**inputs, labels=LABELS["labels"])  # evaluation is no training
    assert "fit_scales" not in caplog.text
    for _ in range(2):
        model.train()(**inputs, labels=LABELS["labels"])
    assert caplog.text.count("fit_scales") == (not is_fitted)


def test_nothing_is_calibrated_on_nothing(inputs):
    """A temperature of 0.1, the least that is looked at, would make logits ten times as sure."""
    for head, unknown in (("classes", torch.full((4,), -100)), ("tags", torch.full((4, 3), NAN))):
        model = make_model(head)
        model.calibrate([{**inputs, "labels": unknown}])
        assert model.config.classifier_temperature == 1
    right = torch.eye(3)[torch.tensor([0, 1, 2, 0])] * 5
    assert make_model("classes").targets.calibrate(right, right.argmax(-1), 0.05) == {}
    wrong = right.argmax(-1).roll(1)
    assert make_model("classes").targets.calibrate(right, wrong, 0.05)["classifier_temperature"] > 1


def test_calibration_stays_in_the_checkpoint(inputs, tmp_path):
    for head, labels in LABELS.items():
        model = make_model(head)
        before = model(**inputs)
        model.calibrate([{**inputs, "labels": labels}])
        model.save_pretrained(tmp_path / head)
        after = AutoModelForSequenceClassification.from_pretrained(tmp_path / head)(**inputs)
        close(model(**inputs).logits, after.logits)
        assert not torch.equal(before.logits, after.logits) or not torch.equal(before.errors, after.errors)


# How a head reads


@pytest.mark.parametrize("pooling", POOLINGS)
def test_padded_packed_and_alone_are_the_same(pooling, rows, inputs):
    model = make_model("labels", **POOLINGS[pooling])
    together = model(**inputs).logits
    packed = model(**SpectralProcessor()(rows, packed=True, return_tensors="pt")).logits
    close(packed, together)
    for row, expected in zip(rows, together):
        close(model(**SpectralProcessor()(row, return_tensors="pt")).logits[0], expected)


def test_minus_100_is_a_number_where_labels_are_numbers(inputs):
    labels = torch.tensor([[-100.0, 1.0], [-100.0, NAN], [2.0, 3.0], [NAN, NAN]])
    model = make_model("labels")
    cost = model.targets.cost(model.head(model.encode(**inputs)), labels)
    close(model(**inputs, labels=labels).loss, cost / 8)
    with pytest.raises(ValueError, match="expected 0 to 1, and NaN where unknown, .* found: -100.0"):
        make_model("tags")(**inputs, labels=torch.tensor([[0.0, 1.0, -100.0]] * 4))


def test_all_processes_have_the_scales_of_the_first(inputs, monkeypatch):
    """Each has seen another part of what a loader gives."""
    sent = []

    def broadcast(holder, src):
        sent.append(holder[0])
        holder[0] = sent[0]

    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "broadcast_object_list", broadcast)
    first, second = make_model("labels"), make_model("labels")
    for model in (first, second):
        torch.nn.init.zeros_(model.head.out_proj.weight)  # as of fresh heads
    first.fit_scales([{**inputs, "labels": LABELS["labels"]}])
    part = {name: each[:2] for name, each in inputs.items()}
    second.fit_scales([{**part, "labels": LABELS["labels"][:2] + 1000.0}])
    assert sent[0][2] != sent[1][2] and second.config.targets == first.config.targets
    assert torch.equal(second.head.feature_mean, first.head.feature_mean)
    assert torch.equal(second.head.feature_scale, first.head.feature_scale)


@pytest.mark.parametrize("pooling", POOLINGS)
def test_every_pooling_trains(pooling, inputs):
    model = make_model("labels", **POOLINGS[pooling]).train()
    model(**inputs, labels=LABELS["labels"]).loss.backward()
    assert all(each.grad is not None and each.grad.isfinite().all() for each in model.parameters())


@pytest.mark.parametrize("kind", ["labels", "classes", "redshift"])
@pytest.mark.parametrize("pooling", POOLINGS)
def test_of_a_spectrum_without_valid_patches_nothing_is_said(kind, pooling, inputs):
    """A head answers zeros too, and may be sure of it."""
    model = make_model(kind, **POOLINGS[pooling])
    expected = model(**inputs).logits
    inputs = {**inputs, "attention_mask": inputs["attention_mask"].clone()}
    inputs["attention_mask"][1] = 0
    output = model(**inputs, labels=LABELS[kind])
    assert output.logits[1].isnan().all() and (kind == "classes" or output.is_flagged[1].all())
    others = [0, *range(2, len(expected))]
    close(output.logits[others], expected[others])
    output.loss.backward()
    assert all(each.grad is None or each.grad.isfinite().all() for each in model.parameters())


def test_a_frozen_encoder_need_answer_only_once(inputs):
    model = make_model("mixed")
    expected = model(**inputs, labels=LABELS["mixed"])
    pooled = model.spectral(**inputs).pooler_output
    found = model(pooler_output=pooled, labels=LABELS["mixed"])
    close(found.loss, expected.loss)
    close(found.logits, expected.logits)
    with pytest.raises(ValueError, match="in place of flux what the encoder said: pooler_output, .*; found both"):
        model(**inputs, pooler_output=pooled)
    for wrong in (make_model("mixed", num_pooling_queries=2), model):
        with pytest.raises(
            ValueError, match="expected flux, ivar and wavelength, or in place of flux .*found neither"
        ):
            wrong(pooler_output=None if wrong is model else pooled)


def test_a_hidden_layer_and_dropout(inputs):
    model = make_model("labels", classifier_hidden_size=16, classifier_dropout=0.5)
    close(model(**inputs).logits, model(**inputs).logits)
    model.train()
    assert not torch.equal(model(**inputs).logits, model(**inputs).logits)


def test_outputs_as_a_tuple_and_hidden_states(inputs):
    model = make_model("labels")
    output = model(**inputs, labels=LABELS["labels"], output_hidden_states=True)
    as_tuple = model(**inputs, labels=LABELS["labels"], return_dict=False)
    model.config.return_dict = False
    close(model(**inputs, labels=LABELS["labels"])[0], output.loss)
    model.config.return_dict = True
    close(as_tuple[0], output.loss)
    close(as_tuple[1], output.logits)
    assert len(output.hidden_states) == 3


# What is trained


@pytest.mark.parametrize(("opened", "expected"), [(0, set()), (1, {"layers.1", "layernorm"}), (None, None)])
def test_frozen_parts_do_not_move(opened, expected, pretrained, inputs):
    folder, weights = pretrained
    model = AutoModelForSequenceClassification.from_pretrained(folder, **HEADS["labels"], num_trainable_layers=opened)
    torch.nn.init.normal_(model.head.out_proj.weight)  # a fresh one lets no gradient through
    model.train()
    optimizer = torch.optim.AdamW(
        [each for each in model.parameters() if each.requires_grad], lr=0.1, weight_decay=0.1
    )
    model(**inputs, labels=LABELS["labels"]).loss.backward()
    optimizer.step()
    moved = {
        ".".join(name.split(".")[1:3]) if "layers" in name else name.split(".")[1]
        for name, each in model.named_parameters()
        if name.startswith("spectral.") and not torch.equal(each, weights[name])
    }
    if expected is None:
        assert moved == {"layers.0", "layers.1", "layernorm", "latents", "embeddings", "wavelength_projection"}
    else:
        assert moved == expected
    assert not torch.equal(model.head.out_proj.bias, torch.zeros(4))


def test_a_frozen_encoder_stays_frozen_when_reloaded(pretrained, tmp_path):
    model = AutoModelForSequenceClassification.from_pretrained(
        pretrained[0], **HEADS["labels"], num_trainable_layers=1
    )
    model.save_pretrained(tmp_path)
    again = AutoModelForSequenceClassification.from_pretrained(tmp_path)
    trained = {name for name, each in again.named_parameters() if each.requires_grad}
    assert trained == {name for name, each in model.named_parameters() if each.requires_grad}
    assert not any(name.startswith("spectral.layers.0") for name in trained)
    opened = AutoModelForSequenceClassification.from_pretrained(tmp_path, num_trainable_layers=None)
    assert all(each.requires_grad for each in opened.parameters())


def test_what_is_added_to_a_frozen_encoder_trains(inputs):
    """As adapters do, and as one opens the encoder once the head is right."""
    model = make_model("labels", num_trainable_layers=0)
    model.spectral.layers[0].adapter = torch.nn.Linear(2, 2)
    open_ones = lambda: {name for name, each in model.spectral.named_parameters() if each.requires_grad}  # noqa: E731
    model.train().eval().train()
    assert open_ones() == {"layers.0.adapter.weight", "layers.0.adapter.bias"}
    assert model.spectral.layers[0].training and not model.spectral.layers[1].training
    model.config.num_trainable_layers = 1
    model.freeze()
    assert {name.split(".")[1] for name in open_ones() if "layers" in name} == {"1"}
    model.config.num_trainable_layers = None
    model.freeze()
    assert open_ones() == {name for name, _ in model.spectral.named_parameters()}
    model.train()(**inputs, labels=LABELS["labels"]).loss.backward()
    assert model.spectral.layers[0].mlp.up_proj.weight.grad.abs().sum() > 0


def test_frozen_layers_do_not_drop_anything_out(inputs):
    model = make_model("labels", num_trainable_layers=0, hidden_dropout=0.5).train()
    close(model(**inputs).logits, model(**inputs).logits)
    model = make_model("labels", num_trainable_layers=1, hidden_dropout=0.5).train()
    assert not torch.equal(model(**inputs).logits, model(**inputs).logits)
    assert not model.spectral.layers[0].training and model.spectral.layers[1].training and model.training


# From a pre-training checkpoint


def test_a_head_on_a_pretraining_checkpoint(pretrained, caplog, inputs):
    folder, weights = pretrained
    model = AutoModelForSequenceClassification.from_pretrained(
        folder, **HEADS["mixed"], num_pooling_queries=2, classifier_hidden_size=8
    )
    text = " ".join(record.message for record in caplog.records)
    assert "UNEXPECTED" not in text and "decoder" not in text
    for name, each in model.spectral.state_dict().items():
        assert torch.equal(each, weights["spectral." + name]), name
    state = model.head.state_dict()
    assert all(each.isfinite().all() for each in state.values())
    assert (state["out_proj.weight"] == 0).all() and (state["feature_mean"] == 0).all()
    assert (state["feature_scale"] == 1).all() and (state["dense.bias"] == 0).all()
    assert state["dense.weight"].std() == pytest.approx(64**-0.5, rel=0.2)
    assert state["pooling.query"].std() == pytest.approx(1.0, rel=0.3)
    assert model(**inputs).logits.isfinite().all()


def test_the_encoder_alone_takes_a_head_too_and_gives_itself_back(tmp_path, inputs):
    torch.manual_seed(2)
    encoder = SpectralModel(SpectralConfig(**SIZE)).eval()
    encoder.save_pretrained(tmp_path / "encoder")
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path / "encoder", num_labels=3)
    model.save_pretrained(tmp_path / "model")
    again = SpectralModel.from_pretrained(tmp_path / "model")
    close(again(**inputs).pooler_output, encoder(**inputs).pooler_output)


def test_half_precision_leaves_the_head_alone(inputs, tmp_path):
    model = make_model("labels", targets={"teff": {"center": 5000, "scale": 800}, "logg": {"center": 3, "scale": 1}})
    expected = model(**inputs)
    model.save_pretrained(tmp_path)
    low = AutoModelForSequenceClassification.from_pretrained(tmp_path, dtype=torch.bfloat16)
    assert {each.dtype for each in low.head.parameters()} == {torch.float32}
    assert {each.dtype for each in low.spectral.parameters()} == {torch.bfloat16}
    spread = expected.logits.std(0)
    assert ((low(**inputs).logits - expected.logits).abs() < 0.1 * spread).all()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = model(**inputs, labels=LABELS["labels"])
    assert output.logits.dtype == torch.float32 and output.loss.dtype == torch.float32
    assert ((output.logits - expected.logits).abs() < 0.1 * spread).all()


# Configuration


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_trainable_layers": 3}, "None or 0 to 2"),
        ({"targets": {"age": {}}}, "'age' is none of the labels"),
        ({"targets": {"teff": {"scal": 1.0}}}, "teff.*scal"),
        ({"targets": {"teff": {"scale": 0.0}}}, "scale: expected a positive number"),
        ({"targets": {"teff": {"distribution": "bins"}}}, "needs a range"),
        ({"targets": {"teff": {"distribution": "bins", "transform": "log", "range": [0, 5]}}}, "above 0.0"),
        ({"targets": {"teff": {"transform": "sqrt"}}}, "transform"),
        ({"problem_type": "classification"}, "problem_type: expected None or one of .*found: 'classification'"),
        (
            {"problem_type": "single_label_classification", "targets": {"teff": {}}},
            "targets: .*'regression', found: 'single",
        ),
        ({"label2id": {"teff": 1, "logg": 0}}, "label2id: expected what id2label says, .*'teff': 0"),
    ],
)
def test_a_wrong_setting_is_refused(settings, message, pretrained):
    with pytest.raises(Exception, match=message):
        SpectralConfig(**SIZE | HEADS["labels"] | settings)
    with pytest.raises(Exception, match=message):
        AutoModelForSequenceClassification.from_pretrained(pretrained[0], **HEADS["labels"] | settings)


@pytest.mark.parametrize("kind", ["labels", "redshift", "mixed"])
def test_a_head_of_numbers_compiles(kind, inputs):
    model = make_model(kind)
    expected = model(**inputs)
    torch._dynamo.reset()
    found = torch.compile(model, backend="eager")(**inputs)
    for name in ("logits", "intervals", "confidence"):
        close(found[name], expected[name])


def test_a_pixel_that_is_nan_makes_its_spectrum_s_redshift_nan(inputs):
    model = make_model("redshift")
    expected = model(**inputs).logits
    where = int(inputs["attention_mask"][1].nonzero()[0]), 0
    flux, ivar = inputs["flux"].clone(), inputs["ivar"].clone()
    flux[1][where], ivar[1][where] = torch.nan, 1.0
    output = model(**{**inputs, "flux": flux, "ivar": ivar})
    assert output.logits[1].isnan().all() and output.is_flagged[1].all()
    close(output.logits[[0, 2, 3]], expected[[0, 2, 3]])


def test_weights_without_their_configuration_are_told_of(inputs, caplog):
    """Their answers are in no unit."""
    model = make_model("labels")
    model.fit_scales([{**inputs, "labels": LABELS["labels"]}])
    other = make_model("labels")
    other.load_state_dict(model.state_dict())
    model(**inputs)
    assert "in no unit" not in caplog.text
    other(**inputs)
    assert "its labels ['teff', 'logg'] have none in the configuration" in caplog.text


def test_weights_that_are_quantised_do_not_round_the_inputs(inputs):
    """An input that is cast to the integers of such weights is lost without a word."""

    class Quantised(torch.nn.Linear):
        def forward(self, hidden_states):
            return torch.nn.functional.linear(hidden_states, self.weight.to(hidden_states) * self.step, self.bias)

    model = make_model("classes")
    expected = model(**inputs).logits
    for layer in (model.spectral.embeddings.projection, model.spectral.wavelength_projection, model.head.out_proj):
        layer.__class__, layer.step = Quantised, layer.weight.abs().max().item() / 127
        whole = (layer.weight / layer.step).round().to(torch.int8)
        del layer.weight
        layer.register_buffer("weight", whole)
    torch.testing.assert_close(model(**inputs).logits, expected, atol=0.1, rtol=0.1)


def test_batches_that_are_none_are_told(inputs):
    model = make_model("labels")
    batches = iter([{**inputs, "labels": LABELS["labels"]}])
    model.fit_scales(batches)
    with pytest.raises(ValueError, match="expected batches with labels, found none: an iterator that was used up"):
        model.calibrate(batches)
    with pytest.raises(ValueError, match="false_alarms: expected a part between 0 and 1, found: 5"):
        model.calibrate([], false_alarms=5)
    with pytest.raises(ValueError, match="expected at least one spectrum, found: an empty batch"):
        model(**{name: each[:0] for name, each in inputs.items()})
    with pytest.raises(ValueError, match='return_tensors="pt"'):
        model(**{name: each.numpy() for name, each in inputs.items()})


def test_trainer_leaves_the_segments_to_the_collator(rows, tmp_path):
    """It drops the columns that a model does not take; a chip's first patch would begin in another."""
    rows = [spectrum("apogee", seed) for seed in range(3)]
    data = Dataset.from_list([{**row, "object_id": str(number)} for number, row in enumerate(rows)])
    model, found = make_model("labels"), {}
    for is_default in (True, False):
        arguments = TrainingArguments(
            tmp_path, use_cpu=True, report_to=[], disable_tqdm=True, **({} if is_default else {"remove_unused_columns": False})
        )  # fmt: skip
        found[is_default] = (
            Trainer(model, arguments, SpectralCollator(SpectralProcessor())).predict(data).predictions[0]
        )
    assert (found[True] == found[False]).all()
    close(torch.tensor(found[True]), model(**SpectralProcessor()(rows, return_tensors="pt")).logits)
