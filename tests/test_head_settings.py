"""What was learnt of the data, scales and calibration, belongs to one model and to its weights; names of classes to numbers."""

from functools import partial

import pytest
import torch
from test_heads import HEADS, LABELS, REDSHIFT, SIZE, close, make_model
from transformers import AutoModelForSequenceClassification
from transformers.quantizers.base import HfQuantizer

from spectral_tokenizer import (
    SpectralConfig,
    SpectralForPreTraining,
    SpectralForSequenceClassification,
)


@pytest.mark.parametrize("width", [0, 16])
@pytest.mark.parametrize("head", ["classes", "labels", "redshift"])
@pytest.mark.parametrize("was_fitted", [False, True])
def test_new_scales_do_not_change_a_trained_head(head, width, was_fitted, inputs):
    """Its features' scales are others under weights that were trained with the old ones."""
    model = make_model(head, classifier_hidden_size=width)
    if was_fitted:
        torch.nn.init.zeros_(model.head.out_proj.weight)
        model.fit_scales([{**{name: each[:3] for name, each in inputs.items()}, "labels": LABELS[head][:3]}])
        torch.nn.init.normal_(model.head.out_proj.weight, std=0.3)
    before = model(**inputs)
    mean = model.head.feature_mean.clone()
    model.fit_scales([{**{name: each[1:] for name, each in inputs.items()}, "labels": LABELS[head][1:]}])
    assert not torch.equal(model.head.feature_mean, mean)
    after = model(**inputs)
    close(after.logits, before.logits, 1e-3)
    if head != "classes":
        close(after.errors, before.errors, 1e-3)
        close(after.confidence, before.confidence, 1e-3)


def test_new_scales_leave_a_fresh_head_s_weights_alone(inputs):
    model = SpectralForSequenceClassification(SpectralConfig(**SIZE | HEADS["labels"], classifier_hidden_size=16))
    before = {name: each.clone() for name, each in model.head.named_parameters()}
    model.fit_scales([{**inputs, "labels": LABELS["labels"]}])
    assert all(torch.equal(each, before[name]) for name, each in model.head.named_parameters())
    assert model.config.targets["teff"]["center"] > 1000


def test_models_of_one_configuration_are_calibrated_apart(inputs):
    config = SpectralConfig(**SIZE | HEADS["labels"])
    one, other = (SpectralForSequenceClassification(config).eval() for _ in range(2))
    one.fit_scales([{**inputs, "labels": LABELS["labels"]}])
    errors = one(**inputs).errors
    other.fit_scales([{**inputs, "labels": LABELS["labels"] + 1000}])
    other.calibrate([{**inputs, "labels": LABELS["labels"]}])
    assert config.targets is None and one.config.targets != other.config.targets
    assert torch.equal(one(**inputs).errors, errors)
    assert one.spectral.config is one.config


@pytest.mark.parametrize("is_later", [False, True])
def test_labels_numbered_by_strings_keep_their_order(is_later, pretrained, inputs, tmp_path):
    """ "10" comes before "2" in the alphabet."""
    names = {str(number): f"label {number}" for number in range(12)}
    targets = {name: {"center": 100.0 * int(number)} for number, name in names.items()}
    settings = {"problem_type": "regression", "id2label": names, "targets": targets}
    if is_later:
        config = SpectralConfig(**SIZE)
        for name, value in settings.items():
            setattr(config, name, value)
        model = SpectralForSequenceClassification(config)
    else:
        model = AutoModelForSequenceClassification.from_pretrained(pretrained, **settings)
    before = model.eval()(**inputs).logits
    close(before[0], 100.0 * torch.arange(12))
    model.save_pretrained(tmp_path)
    close(AutoModelForSequenceClassification.from_pretrained(tmp_path)(**inputs).logits, before)


def test_names_and_numbers_of_classes_are_each_other_s(pretrained):
    load = partial(SpectralForSequenceClassification.from_pretrained, pretrained)
    assert load(label2id={"QSO": 1, "STAR": 0}).config.id2label == {1: "QSO", 0: "STAR"}
    assert load(id2label={0: "a", 1: "b", 2: "c"}).config.label2id == {"a": 0, "b": 1, "c": 2}
    for settings, message in (
        ({"id2label": {0: "a", 1: "b"}, "label2id": {"a": 1, "b": 0}}, "label2id: expected what id2label says"),
        ({"id2label": {0: "a", 1: "b"}, "num_labels": 3}, "num_labels: expected 2, .*found: 3"),
    ):
        with pytest.raises(ValueError, match=message):
            load(**settings)


@pytest.mark.parametrize("load", [SpectralForSequenceClassification, AutoModelForSequenceClassification])
def test_calibration_goes_with_the_layer_it_was_of(load, tmp_path):
    settings = {"width_factor": 2.0, "confidence_threshold": 0.9, "scale": 3.0}
    make_model("classes", classifier_temperature=2.5).save_pretrained(tmp_path / "classes")
    make_model("redshift", targets={"redshift": {**REDSHIFT, **settings}}).save_pretrained(tmp_path / "redshift")
    fresh = {"ignore_mismatched_sizes": True}
    assert load.from_pretrained(tmp_path / "classes", num_labels=5, **fresh).config.classifier_temperature == 1
    assert load.from_pretrained(tmp_path / "classes", **fresh).config.classifier_temperature == 2.5
    assert load.from_pretrained(tmp_path / "redshift").config.targets["redshift"]["width_factor"] == 2
    targets = {"redshift": {**REDSHIFT, **settings, "num_bins": 64}}
    model, found = load.from_pretrained(tmp_path / "redshift", targets=targets, output_loading_info=True, **fresh)
    assert found["mismatched_keys"] and model.config.targets == {
        "redshift": {**REDSHIFT, "num_bins": 64, "scale": 3.0}
    }


@pytest.mark.parametrize(
    ("head", "given"),
    [
        ("shift", {"id2label": {0: "teff", 1: "logg"}, "problem_type": "regression"}),  # another kind of head
        ("classes", {"pooling": "segments"}),  # other features, and the last layer stays
        ("classes", {"num_pooling_queries": 2}),
    ],
)
def test_calibration_does_not_outlive_what_the_head_reads(head, given, inputs, tmp_path):
    """Such heads answered from random features with the errors, the flags and the novelty of the trained one."""
    model = make_model(head, classifier_hidden_size=16 * (head == "classes"), novelty_threshold=0.2)
    model.config.classifier_temperature = 2.0
    model.save_pretrained(tmp_path)
    load = partial(AutoModelForSequenceClassification.from_pretrained, tmp_path, ignore_mismatched_sizes=True)
    assert load().config.novelty_threshold == 0.2
    fresh = load(**given)
    assert fresh.config.novelty_threshold is None and fresh.config.classifier_temperature == 1
    assert fresh(**inputs).novelty is None


def test_classes_may_be_any_integers(inputs):
    model = make_model("classes")
    expected = model(**inputs, labels=LABELS["classes"]).loss
    assert model(**inputs, labels=LABELS["classes"].int()).loss == expected


def test_several_targets_are_numbers_whether_or_not_it_is_said(inputs, pretrained):
    """They were taken for classes, as whose names their labels stood."""
    targets = {"teff": {"center": 5000.0, "scale": 800.0}, "logg": {"center": 3.0, "scale": 1.0}}
    settings = {"id2label": {0: "teff", 1: "logg"}, "targets": targets}
    said, unsaid = (
        AutoModelForSequenceClassification.from_pretrained(pretrained, **settings, problem_type=problem)
        for problem in ("regression", None)
    )
    expected, found = (model(**inputs, labels=LABELS["labels"]) for model in (said, unsaid))
    assert unsaid.config.problem_type is None and found.logits.tolist() == [[5000, 3]] * 4
    assert found.loss == expected.loss and torch.equal(found.errors, expected.errors)


def test_numbers_that_nobody_named_as_such_are_no_classes(inputs):
    model = make_model("labels", problem_type=None)
    with pytest.raises(
        ValueError, match=r"expected 4 integers.*problem_type None says, found: shape \(4, 2\) of torch.fl"
    ):
        model(**inputs, labels=LABELS["labels"])


@pytest.mark.parametrize("problem", ["regression", "single_label_classification"])
def test_every_label_has_a_name_of_its_own(problem):
    """Two targets of one name were one, without a word."""
    with pytest.raises(
        ValueError, match="id2label: expected a name of its own for each label, found: .*'teff', 1: 'teff'"
    ):
        SpectralConfig(**SIZE, problem_type=problem, id2label={0: "teff", 1: "teff"})


@pytest.mark.parametrize("labels", [[], ["teff", "teff"], ["class", "teff"], ["age"]])
def test_a_label_head_answers_for_what_it_was_told(labels, tmp_path):
    SpectralForPreTraining(SpectralConfig(**SIZE, label_weight=0.1)).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"labels: expected class alone, or others that it was told, found: \["):
        SpectralForSequenceClassification.from_label_head(tmp_path, labels)


@pytest.mark.parametrize(
    "given",
    [{"output_loading_info": True}, {"config": SpectralConfig(**SIZE)}, {"num_labels": 2}, {"id2label": {0: "a"}}],
)
def test_a_label_head_is_not_told_what_it_says_itself(given, tmp_path):
    SpectralForPreTraining(SpectralConfig(**SIZE, label_weight=0.1)).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=f"the label head does not say itself, found: {next(iter(given))}"):
        SpectralForSequenceClassification.from_label_head(tmp_path, **given)
    SpectralForSequenceClassification.from_label_head(tmp_path, classifier_dropout=0.1)


@pytest.mark.parametrize("head", ["classes", "labels"])
def test_a_step_without_known_labels_costs_nothing(head, inputs):
    """Trainer then counts none: 0 / 0."""
    unknown = torch.full_like(LABELS[head], -100 if head == "classes" else torch.nan)
    loss = make_model(head)(**inputs, labels=unknown, num_items_in_batch=torch.tensor(0)).loss
    loss.backward()
    assert loss == 0


def test_weights_behind_a_method_are_taken(inputs):
    """As `quantize_dynamic` packs them."""

    class Packed(torch.nn.Module):
        def __init__(self, layer):
            super().__init__()
            self.layer, self.weight = [layer], lambda: layer.weight

        def forward(self, hidden_states):
            return self.layer[0](hidden_states)

    model = make_model("classes")
    expected = model(**inputs).logits
    model.spectral.wavelength_projection = Packed(model.spectral.wavelength_projection)
    model.spectral.embeddings.projection = Packed(model.spectral.embeddings.projection)
    assert torch.equal(model(**inputs).logits, expected)


@pytest.mark.parametrize(("head", "name"), [("redshift", "z"), ("labels", "teff"), ("classes", "STAR")])
def test_bins_that_are_none_are_named(head, name):
    with pytest.raises(
        ValueError, match=f"bin_edges: expected a target that is predicted in bins, .* found: '{name}'"
    ):
        make_model(head).bin_edges(name)


def test_an_encoder_of_whole_numbers_opens_what_is_not(inputs):
    """As bitsandbytes leaves it: whole numbers have no gradient, and asking for one stopped the load."""
    model = make_model("labels")
    layer = model.spectral.layers[1].mlp.up_proj
    layer.weight = torch.nn.Parameter(layer.weight.mul(100).to(torch.int8), requires_grad=False)
    for opened in (None, 1, 0):
        model.config.num_trainable_layers = opened
        model.freeze()
        assert not layer.weight.requires_grad and layer.bias.requires_grad == (opened != 0)


def test_quantisation_leaves_the_head_alone():
    """In whole numbers new scales would be cut off in it, and a temperature be wrong by several K."""
    model = make_model("labels")
    assert "head" in HfQuantizer.get_modules_to_not_convert(model, None, model._keep_in_fp32_modules)


@pytest.mark.parametrize("given", [{"id2label": {0: "logg", 1: "teff"}}, {"label2id": {"logg": 0, "teff": 1}}])
def test_a_trained_head_s_labels_do_not_change_places(given, inputs, tmp_path):
    """A temperature was given as a gravity, in its unit and plausible."""
    model = make_model("labels")
    model.save_pretrained(tmp_path)
    load = partial(AutoModelForSequenceClassification.from_pretrained, tmp_path)
    with pytest.raises(ValueError, match="id2label: expected the order that the saved model answers in, .*0: 'teff'"):
        load(**given)
    for same in ({"id2label": {"0": "teff", "1": "logg"}}, {"label2id": {"logg": 1, "teff": 0}}, {}):
        close(load(**same)(**inputs).logits, model(**inputs).logits)
    assert load(id2label={0: "colour", 1: "mass"}).config.label2id == {"colour": 0, "mass": 1}


def test_names_that_were_changed_in_place_are_saved_in_both_directions(inputs, tmp_path):
    """They contradicted the numbers that the model was loaded with, and nothing opened it again."""
    model = make_model("classes", id2label={0: "GALAXY", 1: "QSO", 2: "STAR"})
    model.config.id2label = {0: "galaxy", 1: "quasar", 2: "star"}
    model.save_pretrained(tmp_path)
    model.config.id2label[2] = "STAR"
    model.config.save_pretrained(tmp_path)
    loaded = AutoModelForSequenceClassification.from_pretrained(tmp_path)
    assert loaded.config.id2label == {0: "galaxy", 1: "quasar", 2: "STAR"}
    assert loaded.config.label2id == model.config.label2id == {"galaxy": 0, "quasar": 1, "STAR": 2}
    close(loaded(**inputs).logits, model(**inputs).logits)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ({0: "z"}, "targets: 'redshift' is none of the labels in id2label: .*'z'"),
        (
            {0: "redshift", 1: "redshift"},
            "id2label: expected a name of its own for each label, found: .*1: 'redshift'",
        ),
    ],
)
def test_names_that_could_not_be_opened_are_not_saved(names, message, tmp_path):
    model = make_model("redshift")
    model.save_pretrained(tmp_path)
    saved = (tmp_path / "config.json").read_text()
    model.config.id2label = names
    with pytest.raises(Exception, match=message):
        model.save_pretrained(tmp_path)
    assert (tmp_path / "config.json").read_text() == saved


TEFF, LOGG = {"transform": "log", "center": 8.5, "scale": 0.1, "width_factor": 2.0}, {"center": 3.0, "scale": 1.0}


@pytest.fixture(params=["regression", None])
def load_labels(request, tmp_path):
    """A head whose labels have scales, and ways to open it. Its targets alone may say that they are numbers."""
    targets = {"teff": TEFF, "logg": LOGG}
    make_model("labels", targets=targets, problem_type=request.param).save_pretrained(tmp_path)
    return partial(AutoModelForSequenceClassification.from_pretrained, tmp_path, ignore_mismatched_sizes=True)


@pytest.mark.parametrize("given", [{"id2label": {"0": "Teff", "1": "logg"}}, {"label2id": {"logg": 1, "Teff": 0}}])
def test_labels_under_other_names_are_the_same_labels(given, inputs, load_labels):
    """The file's targets were those of labels that are none any more, which nobody had given."""
    renamed, model = load_labels(**given), load_labels()
    assert renamed.config.targets == {"Teff": TEFF, "logg": LOGG} and model.config.targets["teff"] == TEFF
    found, expected = renamed(**inputs), model(**inputs)
    assert torch.equal(found.logits, expected.logits) and torch.equal(found.errors, expected.errors)


def test_a_shift_under_another_name_is_the_same_shift(inputs, tmp_path):
    model = make_model("shift")
    model.save_pretrained(tmp_path)
    renamed = AutoModelForSequenceClassification.from_pretrained(tmp_path, id2label={0: "z"})
    assert torch.equal(renamed(**inputs).probabilities["z"], model(**inputs).probabilities["redshift"])


def test_labels_without_names_of_their_own_can_be_given_some(tmp_path):
    """Transformers leaves the names of two out of a file, as they are what it would give them."""
    model = make_model("labels", id2label=None, num_labels=2, targets={"LABEL_0": TEFF, "LABEL_1": LOGG})
    model.save_pretrained(tmp_path)
    named = AutoModelForSequenceClassification.from_pretrained(tmp_path, id2label={0: "teff", 1: "logg"})
    assert named.config.targets == {"teff": TEFF, "logg": LOGG}


@pytest.mark.parametrize(
    ("given", "targets"),
    [
        ({"num_labels": 4}, None),
        ({"num_labels": 1}, None),
        ({"num_labels": 2}, {"teff": TEFF, "logg": LOGG}),
        ({"id2label": {0: "mass", 1: "age", 2: "logg"}}, {"logg": LOGG}),
        ({"id2label": {0: "teff"}}, {"teff": {name: TEFF[name] for name in ("transform", "center", "scale")}}),
    ],
)
def test_of_another_number_of_labels_those_that_are_there_keep_their_targets(given, targets, inputs, load_labels):
    model = load_labels(**given)
    assert model.config.targets == targets and model.config.is_regression
    assert model.head.is_trained == (model.config.num_labels == 2)
    assert model(**inputs).logits.shape == (4, model.config.num_labels)


@pytest.mark.parametrize(
    "given",
    [
        {"targets": {"teff": TEFF}},
        {"targets": {"mass": {}}, "num_labels": 4},
        {"targets": {"teff": TEFF}, "id2label": {0: "Teff", 1: "logg"}},
    ],
)
def test_targets_that_are_given_are_checked(given, load_labels):
    if set(given) == {"targets"}:
        assert load_labels(**given).config.targets == given["targets"]
    else:
        with pytest.raises(Exception, match="targets: '(mass|teff)' is none of the labels in id2label"):
            load_labels(**given)


@pytest.mark.parametrize("names", [["logg", "teff"], ["logg", "mass"], ["mass", "teff"]])
def test_a_label_does_not_take_another_s_place(names, load_labels):
    """One that is renamed beside it would hide that."""
    with pytest.raises(ValueError, match="id2label: expected the order that the saved model answers in, .*found"):
        load_labels(id2label=dict(enumerate(names)))


@pytest.mark.parametrize("load", [SpectralForSequenceClassification, AutoModelForSequenceClassification])
def test_a_configuration_in_another_order_is_refused_too(load, inputs, tmp_path):
    """Each value was scaled by the other label's target."""
    targets = {"teff": TEFF, "logg": LOGG}
    model = make_model("labels", targets=targets)
    model.save_pretrained(tmp_path / "model")
    same, other = (
        SpectralConfig(**SIZE | {**HEADS["labels"], "id2label": dict(enumerate(names)), "targets": targets})
        for names in (["teff", "logg"], ["logg", "teff"])
    )
    close(load.from_pretrained(tmp_path / "model", config=same)(**inputs).logits, model(**inputs).logits)
    other.save_pretrained(tmp_path / "config")
    with pytest.raises(ValueError, match="id2label: expected the order that the saved model answers in, .*0: 'teff'"):
        load.from_pretrained(tmp_path / "model", config=other)
    with pytest.raises(ValueError, match="id2label: expected the order that the saved model answers in, .*0: 'teff'"):
        SpectralForSequenceClassification.from_pretrained(tmp_path / "model", config=tmp_path / "config")
    made = SpectralForSequenceClassification.from_pretrained(
        None, config=other, state_dict=model.state_dict()
    )  # of no file that says an order
    assert made.config.label_names == ["logg", "teff"]


@pytest.mark.parametrize("head", ["classes", "labels"])
@pytest.mark.parametrize("is_seen", [False, True])
def test_labels_do_not_change_places_in_a_model(head, is_seen, inputs, tmp_path):
    """A class was another, a temperature a gravity: without a word, before a first answer as after."""
    names = ["teff", "logg", "fe_h"][: 3 if head == "classes" else 2]
    targets = {"teff": TEFF, "logg": LOGG} if head == "labels" else None
    model = make_model(head, id2label=dict(enumerate(names)), num_labels=len(names), targets=targets)
    expected = model(**inputs).logits if is_seen else None
    for found, message in (
        (names[::-1], "id2label: expected the order that the model answers in, .*0: 'teff'"),
        ([*names, "mass"], f"id2label: expected {len(names)} labels, as .*found: .*'mass'"),
        (names[:1], f"id2label: expected {len(names)} labels, as .*found: "),
    ):
        model.config.id2label = dict(enumerate(found))
        with pytest.raises(ValueError, match=message):
            model(**inputs)
        with pytest.raises(ValueError, match=message):
            model.save_pretrained(tmp_path)
    assert not any(tmp_path.iterdir())
    model.config.id2label = {number: name.upper() for number, name in enumerate(names)}
    if head == "labels":
        with pytest.raises(ValueError, match="targets: 'teff' is none of the labels in id2label: .*'TEFF'"):
            model(**inputs)
        model.config.targets = {"TEFF": TEFF, "LOGG": LOGG}
    found = model(**inputs).logits
    assert expected is None or torch.equal(found, expected)
    model.save_pretrained(tmp_path)
    loaded = AutoModelForSequenceClassification.from_pretrained(tmp_path)
    assert loaded.config.label_names[0] == "TEFF" and torch.equal(loaded(**inputs).logits, found)


def test_labels_far_from_another_s_centre_are_remarked_on(inputs, load_labels, caplog):
    """A head that was opened for as many other labels kept the centre and scale of its own, and trained in their unit."""
    labels = LABELS["labels"]
    load_labels().fit_scales([{**inputs, "labels": labels}])
    load_labels(id2label={0: "Teff", 1: "logg"}).fit_scales([{**inputs, "labels": labels}])
    assert "around the centre" not in caplog.text
    model = load_labels(id2label={0: "teff", 1: "age"})
    model.fit_scales([{**inputs, "labels": labels * torch.tensor([1.0, 1e9])}])
    assert "label age: expected values around the centre in the configuration's targets, 3 with scale 1" in caplog.text
    assert "label teff" not in caplog.text and model.config.targets["age"] == LOGG


@pytest.mark.parametrize("is_saved", [False, True])
@pytest.mark.parametrize("head", ["classes", "labels"])
def test_labels_that_were_renamed_do_not_change_places_either(head, is_saved, inputs, tmp_path):
    """They were none of the names that the head was made with, and their answers swapped without a word."""
    model = make_model(head, id2label={0: "teff", 1: "logg"}, num_labels=2)
    model.config.id2label = {0: "T", 1: "g"}
    model.config.targets = {"T": TEFF, "g": LOGG} if head == "labels" else None
    model.save_pretrained(tmp_path) if is_saved else model(**inputs)
    model.config.id2label = {0: "g", 1: "T"}
    for call in (lambda: model(**inputs), lambda: model.save_pretrained(tmp_path)):
        with pytest.raises(
            ValueError, match="id2label: expected the order that the model answers in, .*0: 'T', 1: 'g'"
        ):
            call()
    model.config.id2label = {0: "T", 1: "g"}
    model(**inputs)


def test_another_layer_of_more_labels_says_which_in_answers_to(inputs, tmp_path):
    model = make_model("classes")
    names = [*model.config.label_names, "STAR_CLUSTER"]
    model.head.out_proj = torch.nn.Linear(model.head.out_proj.in_features, 4)
    model.config.id2label = dict(enumerate(names))
    with pytest.raises(ValueError, match="found: .*'STAR_CLUSTER'.* set their names as model.answers_to too"):
        model(**inputs)
    model.answers_to = names
    model.save_pretrained(tmp_path)
    found = AutoModelForSequenceClassification.from_pretrained(tmp_path)
    assert found.config.label_names == names and torch.equal(found(**inputs).logits, model(**inputs).logits)


def test_a_tokenizer_answers_in_no_order(inputs, tmp_path):
    """Its file may name labels, but has no head that would answer by them."""
    named = {"problem_type": "regression", "id2label": {0: "teff", 1: "logg"}}
    SpectralForPreTraining(SpectralConfig(**SIZE, **named)).save_pretrained(tmp_path)
    config = SpectralConfig(**SIZE | named | {"id2label": {0: "logg", 1: "teff"}})
    for given in ({"config": config}, {"id2label": {0: "logg", 1: "teff"}}):
        model = SpectralForSequenceClassification.from_pretrained(tmp_path, **given)
        assert model.config.label_names == ["logg", "teff"]


def test_a_fresh_head_takes_targets_by_name(tmp_path):
    """What is saved without its head keeps the head's labels and targets, and a new head may have them anywhere."""
    targets = {"teff": {"center": 5000.0, "scale": 800.0}, "logg": {"center": 3.0, "scale": 1.0}}
    named = {"problem_type": "regression", "id2label": {0: "teff", 1: "logg"}, "targets": targets}
    SpectralForPreTraining(SpectralConfig(**SIZE, **named)).save_pretrained(tmp_path)
    swapped = {0: "logg", 1: "teff"}
    model = SpectralForSequenceClassification.from_pretrained(tmp_path, id2label=swapped)
    assert model.config.targets == targets and model.config.label_names == ["logg", "teff"]


def test_a_label_head_s_labels_are_in_the_order_asked_for(tmp_path):
    """The file's own names are of no head."""
    told = {"teff": {"center": 5000.0, "scale": 800.0}, "logg": {"center": 3.0, "scale": 1.0}}
    named = {
        "problem_type": "regression",
        "id2label": {0: "logg", 1: "teff"},
        "label_weight": 0.2,
        "label_targets": told,
    }
    SpectralForPreTraining(SpectralConfig(**SIZE, **named)).save_pretrained(tmp_path)
    model = SpectralForSequenceClassification.from_label_head(tmp_path, ["teff", "logg"])
    assert model.config.label_names == ["teff", "logg"]


def test_a_centre_alone_is_not_remarked_on(inputs, caplog):
    """Its scale is found here, and was taken for 1."""
    model = make_model("labels", targets={"teff": {"center": 5000.0, "scale": 800.0}, "logg": {"center": 3.0}})
    torch.nn.init.zeros_(model.head.out_proj.weight)  # a fresh one: a trained head's scales stay
    model.fit_scales([{**inputs, "labels": LABELS["labels"] + torch.tensor([0.0, 20.0])}])
    assert "around the centre" not in caplog.text
    assert model.config.targets["logg"]["center"] == 3 and model.config.targets["logg"]["scale"] != 1
