"""Known labels and noiseless answers in pre-training: they must stand beside their own spectrum, and cost what they
say."""

import numpy as np
import pytest
import torch
from datasets import Dataset, Features
from spectra import spectrum
from transformers import AutoModel, AutoModelForPreTraining

from spectral_tokenizer import (
    SpectralConfig,
    SpectralForPreTraining,
    SpectralForSequenceClassification,
    SpectralProcessor,
)
from spectral_tokenizer.configuration_spectral_tokenizer import LABELS
from spectral_tokenizer.data.packing import PackedSteps, Step
from spectral_tokenizer.data.schema import FEATURES, SPECTRUM
from spectral_tokenizer.labels_spectral_tokenizer import KnownLabels
from training.simulated.populations import KINDS
from training.simulated.stream import SimulatedStream


LITTLE = {"hidden_size": 32, "num_hidden_layers": 1, "num_decoder_layers": 1, "num_attention_heads": 2,
          "intermediate_size": 32, "num_latents": 2}  # fmt: skip
NAMES = ["class", "fe_h", "logg", "radial_velocity", "redshift", "teff"]
UNKNOWN = [float("nan")] * 6
GALAXY = [0, *UNKNOWN[1:4], 0.5, UNKNOWN[5]]  # at redshift 0.5


def make_model(**settings):
    torch.manual_seed(0)
    return SpectralForPreTraining(SpectralConfig(**LITTLE, label_weight=0.5, **settings))


@pytest.fixture(scope="module")
def batch():
    spectra = [spectrum(survey, seed) for seed, survey in enumerate(("sdss", "desi", "apogee"))]
    return dict(SpectralProcessor()(spectra, packed=True, return_tensors="pt"))


@pytest.fixture
def hidden(batch):
    generator = np.random.default_rng(0)
    names = ("masked_patches", "target_patches")
    return {name: torch.from_numpy(generator.random(sum(batch["lengths"])) < 0.5)[None] for name in names}


def test_columns_become_numbers_and_what_cannot_be_asked_for_is_unknown():
    columns = {
        "class": ["STAR", "QSO", "BLAZAR", None, None],
        "redshift": [1e-4, 2.5, 9.0, None, None],
        "teff": torch.tensor([4500.0, float("nan"), 5000.0, 6000.0, 7000.0], dtype=torch.float64),
        "logg": [2.5, None, None, None, None],
        "fe_h": [-0.5, None, None, None, None],
        "radial_velocity": [30.0, None, -40.0, 50.0, 60.0],
        "frame": ["barycentric", "barycentric", "heliocentric", "rest", "observed"],
    }
    known = KnownLabels(SpectralConfig())
    assert known.names == NAMES
    nan = float("nan")
    expected = [
        [2, -0.5, 2.5, 30, 1e-4, 4500],
        [1, nan, nan, nan, 2.5, nan],
        [nan, nan, nan, -40, nan, 5000],
        [nan, nan, nan, nan, nan, 6000],  # at rest, a spectrum does not show a velocity
        [nan, nan, nan, nan, nan, 7000],  # as observed, it shows the Earth's as well
    ]
    labels = known(columns)
    torch.testing.assert_close(labels, torch.tensor(expected), equal_nan=True)


def test_a_redshift_is_unknown_in_a_spectrum_at_rest():
    known = KnownLabels(SpectralConfig(label_targets={"redshift": {"range": [-0.5, 7.0], "distribution": "bins"}}))
    columns = {
        "class": ["QSO"] * 4,
        "redshift": [2.0] * 4,
        "frame": ["rest", "observed", "heliocentric", "barycentric"],
    }
    assert known(columns)[:, 1].isnan().tolist() == [True, False, False, False]
    with pytest.raises(
        ValueError, match=r"label_targets: expected some of the columns \['class', 'frame'\], found: \['redsh"
    ):
        known({name: columns[name] for name in ("class", "frame")})
    with pytest.raises(
        ValueError, match="frame: expected this column too, .* show redshift, found: .'class', 'redshift'.$"
    ):
        known({name: columns[name] for name in ("class", "redshift")})


def test_each_label_costs_by_itself_and_unknown_ones_nothing(batch, hidden):
    model = make_model()
    with torch.no_grad():
        model.label_head.out_proj.weight.normal_(std=0.1)
    known = torch.tensor([GALAXY, UNKNOWN, [2, -0.3, 2.0, 35.0, float("nan"), 4800.0]])

    def cost(labels):
        output = model(**batch, **hidden, labels=labels)
        return (output.loss * output.loss_terms).item()

    nothing = cost(None)
    assert cost(torch.full((3, 6), torch.nan)) == pytest.approx(nothing, abs=1e-6)
    alone = []
    for place in known.isfinite().nonzero().tolist():
        labels = torch.full((3, 6), torch.nan)
        labels[tuple(place)] = known[tuple(place)]
        alone.append(cost(labels) - nothing)
    assert len(alone) == 7 and min(map(abs, alone)) > 1e-3
    assert cost(known) - nothing == pytest.approx(sum(alone), rel=1e-4)


def test_the_weight_is_a_factor_and_nothing_else_changes(batch, hidden):
    labels = torch.tensor([GALAXY, UNKNOWN, UNKNOWN])
    model = make_model()
    costs = {}
    for weight in (0.5, 1.0):
        model.config.label_weight = weight
        output = model(**batch, **hidden, labels=labels)
        costs[weight] = ((output.loss - model(**batch, **hidden).loss) * output.loss_terms).item()
    assert costs[1.0] == pytest.approx(2 * costs[0.5], rel=1e-4)
    # An untrained head takes all classes and all redshifts to be alike.
    assert costs[1.0] == pytest.approx(np.log(3) + np.log(256), rel=1e-3)
    assert SpectralForPreTraining(SpectralConfig(**LITTLE)).label_head is None


AGES = {"age": {"distribution": "bins", "transform": "log", "range": [1e6, 1e10], "num_bins": 32}}


@pytest.mark.parametrize(
    "settings", [{}, {"label_targets": {**AGES, "a": {}, "b": {"center": 1e5}, "c": {"scale": 1e-3}, "d": {}}}]
)
def test_every_parameter_has_a_gradient_where_no_label_is_known(batch, hidden, settings):
    """Distributed training waits for all of them. What stands in for an unknown label must not be NaN."""
    model = make_model(**settings).train()
    model(**batch, **hidden, labels=torch.full((3, 6), torch.nan)).loss.backward()
    gradients = {name: each.grad for name, each in model.named_parameters()}
    assert [name for name, each in gradients.items() if each is None or not each.isfinite().all()] == []
    assert not gradients["label_head.out_proj.weight"].any()


def test_labels_of_another_shape_are_refused(batch, hidden):
    with pytest.raises(ValueError, match=r"labels: expected shape \(3, 6\).*found: \(3, 4\)"):
        make_model()(**batch, **hidden, labels=torch.zeros(3, 4))


def test_settings_of_labels_are_checked():
    with pytest.raises(Exception, match="label_weight: expected 0 or more"):
        SpectralConfig(label_weight=-1.0)
    with pytest.raises(Exception, match="(?s)label_targets: 'teff'.*positive"):
        SpectralConfig(label_targets={"teff": {"scale": 0.0}})


def test_a_noiseless_answer_stands_in_for_the_flux(batch, hidden):
    model = make_model().eval()
    plain = model(**batch, **hidden)
    same = model(**batch, **hidden, target_flux=batch["flux"])
    assert same.loss == plain.loss
    # What the decoder says costs nothing if it is what it should say.
    told = model(**batch, **hidden, target_flux=plain.reconstruction.detach())
    assert told.loss.item() == pytest.approx(np.log(0.25), abs=1e-5)
    torch.testing.assert_close(told.reconstruction, plain.reconstruction)


def test_padded_labels_and_answers_cost_as_packed_ones(batch, hidden):
    model = make_model().eval()
    labels = torch.tensor([GALAXY, UNKNOWN, [2, -0.3, 2.0, 35.0, float("nan"), 4800.0]])
    truth = batch["flux"] + 0.1
    packed = model(**batch, **hidden, labels=labels, target_flux=truth)

    def pad(values):
        return torch.nn.utils.rnn.pad_sequence(values[0].split(batch["lengths"]), batch_first=True)

    mask = pad(torch.ones(1, sum(batch["lengths"])))
    inputs = {name: pad(batch[name]) for name in ("flux", "ivar", "wavelength")}
    chosen = {name: pad(each) for name, each in hidden.items()}
    padded = model(**inputs, **chosen, attention_mask=mask, labels=labels, target_flux=pad(truth))
    torch.testing.assert_close(padded.loss, packed.loss, rtol=1e-5, atol=1e-5)


def test_the_head_is_saved_and_asks_nothing_of_whoever_has_no_use_for_it(batch, tmp_path):
    model = make_model().eval()
    with torch.no_grad():
        model.label_head.out_proj.weight.normal_()
    model.save_pretrained(tmp_path)
    again, info = AutoModelForPreTraining.from_pretrained(tmp_path, output_loading_info=True)
    assert torch.equal(again.label_head.out_proj.weight, model.label_head.out_proj.weight)
    assert not any(info[name] for name in ("missing_keys", "unexpected_keys"))
    encoder, info = AutoModel.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(info[name] for name in ("missing_keys", "unexpected_keys"))
    torch.testing.assert_close(encoder(**batch).pooler_output, model.encode(**batch).pooler_output)
    assert AutoModelForPreTraining.from_pretrained(tmp_path, label_weight=0.0).label_head is None


@pytest.mark.parametrize("order", [("teff", "fe_h", "logg"), ("logg", "fe_h", "teff"), ("fe_h", "logg", "teff")])
def test_what_the_head_says_of_a_label_is_said_of_it_after_saving(batch, hidden, tmp_path, order):
    """A saved configuration has its keys in the alphabet's order: the head's rows must not change their meaning."""
    model = make_model(label_targets={name: LABELS[name] for name in order}).eval()
    with torch.no_grad():
        model.label_head.out_proj.weight.normal_(std=0.1)
    model.save_pretrained(tmp_path)
    again = AutoModelForPreTraining.from_pretrained(tmp_path).eval()
    columns = {
        "class": ["STAR"] * 3,
        "teff": [4500.0, 5500.0, 6500.0],
        "logg": [1.0, 2.0, 4.5],
        "fe_h": [-2.0, -1.0, 0.0],
    }
    losses = [each(**batch, **hidden, labels=KnownLabels(each.config)(columns)).loss.item() for each in (model, again)]
    assert losses[1] == pytest.approx(losses[0], rel=1e-6)
    without = model(**batch, **hidden).loss.item()
    assert abs(losses[0] - without) > 1e-3


@pytest.mark.parametrize("names", ["class", "redshift", ["teff", "fe_h", "redshift"]])
def test_the_label_head_is_a_head_of_its_own(batch, tmp_path, names):
    """It says of each label what pre-training was told of it, whichever are asked for, and after saving too."""
    model = make_model().eval()
    with torch.no_grad():
        model.label_head.out_proj.weight.normal_(std=0.1)
        model.label_head.out_proj.bias.normal_(std=0.1)
    model.save_pretrained(tmp_path)
    head = SpectralForSequenceClassification.from_label_head(tmp_path, names).eval()
    values = dict(zip(NAMES, torch.tensor([2, -0.3, 2.0, 35.0, 0.4, 4800.0])))
    asked = [names] if isinstance(names, str) else names
    told = torch.tensor([[values[name] if name in asked else torch.nan for name in NAMES]] * 3)
    labels = torch.stack([values[name] for name in asked]).expand(3, -1)
    with torch.no_grad():
        expected = model.label_head(model.encode(**batch).pooler_output, told)
        found = head(**batch, labels=labels[:, 0].long() if names == "class" else labels)
    torch.testing.assert_close(
        found.loss * (3 if names == "class" else labels.numel()), expected, rtol=1e-5, atol=1e-4
    )
    head.save_pretrained(tmp_path / "head")
    again = SpectralForSequenceClassification.from_pretrained(tmp_path / "head").eval()
    torch.testing.assert_close(again(**batch).logits, found.logits)
    assert list(again.config.id2label.values()) == (["GALAXY", "QSO", "STAR"] if names == "class" else asked)
    assert not any(each.requires_grad for each in again.spectral.parameters())


def test_a_label_head_that_is_not_there_is_told(tmp_path):
    make_model().save_pretrained(tmp_path)
    for names in (["class", "teff"], "age", ["teff", "age"]):
        with pytest.raises(ValueError, match="it was told .*'class', 'fe_h'"):
            SpectralForSequenceClassification.from_label_head(tmp_path, names)
    SpectralForPreTraining(SpectralConfig(**LITTLE)).save_pretrained(tmp_path / "none")
    with pytest.raises(ValueError, match="it was told no label, as label_weight is 0"):
        SpectralForSequenceClassification.from_label_head(tmp_path / "none")


def test_labels_of_rows_stand_beside_their_spectra():
    """The batch is sorted by survey: labels have to follow."""
    columns = {name: FEATURES[name] for name in ("object_id", *KnownLabels(SpectralConfig()).columns)}
    datasets = {}
    for survey, teff in (("sdss", 4000.0), ("desi", 5000.0)):
        rows = [
            {"object_id": f"{survey}-{seed}", "class": "STAR", "redshift": 0.0, "teff": teff + seed, "logg": None,
             "fe_h": np.nan, "radial_velocity": None, "frame": "rest", **spectrum(survey, seed)}
            for seed in range(4)
        ]  # fmt: skip
        datasets[survey] = Dataset.from_list(rows, Features({**columns, **SPECTRUM}))
    model = make_model()
    steps = PackedSteps(datasets, SpectralProcessor(), model.objective, labels=KnownLabels(model.config))
    rows = [("sdss", 2), ("desi", 1), ("sdss", 0), ("desi", 3)]
    (found,) = steps[Step(0, rows, {})]["micro_batches"]
    expected = [4000.0 + int(name[-1]) + 1000.0 * name.startswith("desi") for name in found["object_id"]]
    assert sorted(expected) == [4000.0, 4002.0, 5001.0, 5003.0]
    assert found["labels"][:, NAMES.index("teff")].tolist() == expected
    assert found["labels"][:, 0].tolist() == [2.0] * 4 and found["labels"][:, 1:4].isnan().all()
    plain = PackedSteps(datasets, SpectralProcessor(), model.objective)[Step(0, rows, {})]["micro_batches"][0]
    assert "labels" not in plain and torch.equal(plain["flux"], found["flux"])


def test_a_stream_knows_labels_and_noiseless_flux():
    model = make_model()
    settings = {"weights": {"sdss": 1.0, "apogee": 1.0}, "spectra_per_step": 24, "templates": "none"}
    batch = SimulatedStream(
        model.objective, labels=KnownLabels(model.config), is_noiseless=True, **settings
    ).micro_batch(3)
    assert [KINDS[int(each)] for each in batch["labels"][:, 0]] == batch["class"]
    teff, velocity = (batch["labels"][:, NAMES.index(name)] for name in ("teff", "radial_velocity"))
    torch.testing.assert_close(teff, batch["teff"].float(), equal_nan=True)
    assert teff.isfinite().any()
    shows_velocity = [kind == "STAR" and survey == "sdss" for kind, survey in zip(batch["class"], batch["survey"])]
    assert velocity.isfinite().tolist() == shows_velocity and any(shows_velocity)
    assert torch.equal(batch["target_flux"], batch["truth"]) and not torch.equal(batch["flux"], batch["truth"])
    plain = SimulatedStream(model.objective, **settings).micro_batch(3)
    assert "labels" not in plain and "target_flux" not in plain and torch.equal(plain["flux"], batch["flux"])


def test_labels_are_learned():
    """Twelve spectra of three kinds: what the head says after some steps is right, and it was chance before."""
    torch.manual_seed(0)
    model = make_model().train()
    spectra = [spectrum(("sdss", "desi", "apogee")[seed % 3], seed) for seed in range(12)]
    inputs = dict(SpectralProcessor()(spectra, packed=True, return_tensors="pt"))
    labels = torch.full((12, 6), torch.nan)
    labels[:, 0] = torch.arange(12) % 3
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)

    def cost():
        with torch.no_grad():
            return float(model.label_head(model.encode(**inputs).pooler_output, labels)) / 12

    assert cost() == pytest.approx(np.log(3), rel=1e-3)
    for _ in range(40):
        optimizer.zero_grad()
        model(**inputs, labels=labels).loss.backward()
        optimizer.step()
    assert cost() < 0.2
