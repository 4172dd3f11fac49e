"""The encoder as `torch.export` records it: any number of spectra, of patches, and any padding give the eager
numbers."""

import pytest
import torch
from spectra import spectrum
from test_heads import make_model as make_head
from test_modeling import PAPER, make_model
from torch.export import Dim, export

from spectral_tokenizer import SpectralForSequenceClassification, SpectralProcessor


NAMES = ("flux", "ivar", "wavelength", "attention_mask")


def batch(*surveys: str) -> dict[str, torch.Tensor]:
    inputs = SpectralProcessor()([spectrum(each, seed) for seed, each in enumerate(surveys)], return_tensors="pt")
    return {name: inputs[name] for name in NAMES}


def exported(model, inputs: dict[str, torch.Tensor]) -> torch.export.ExportedProgram:
    """The model for any batch and any number of patches, recorded on some others."""
    dynamic = {0: Dim("batch"), 1: Dim("patches")}
    return export(model, (), inputs, dynamic_shapes=dict.fromkeys(inputs, dynamic))


@pytest.mark.parametrize(
    ("settings", "implementation"),
    [({}, "sdpa"), ({}, "eager"), ({**PAPER, "code_average": "pixels"}, "sdpa")],
    ids=["default", "eager", "paper"],
)
def test_an_exported_encoder_gives_the_same_numbers(settings, implementation):
    model = make_model(**settings).spectral.eval()
    model.set_attn_implementation(implementation)
    program = exported(model, batch("sdss", "desi")).module()
    for surveys in (("sdss", "desi"), ("galah",), ("apogee", "sdss", "galah", "desi"), ("desi", "desi", "sdss")):
        inputs = batch(*surveys)
        found, expected = program(**inputs), model(**inputs)
        assert torch.equal(found.token_mask, expected.token_mask)
        for name in ("last_hidden_state", "pooler_output"):
            torch.testing.assert_close(found[name], expected[name], rtol=0, atol=1e-5, msg=name)


@pytest.mark.parametrize("distribution", ["normal", "bins", "shift"])
def test_an_exported_head_takes_any_number_of_spectra(distribution):
    target = {"distribution": distribution, "transform": "log1p", "range": [0, 5], "num_bins": 64}
    encoder = make_model(problem_type="regression", id2label={0: "redshift"}, targets={"redshift": target})
    model = SpectralForSequenceClassification(encoder.config).eval()
    is_shift = distribution == "shift"
    torch.nn.init.normal_(model.head.shift.rest if is_shift else model.head.out_proj.weight, std=0.1)
    program = exported(model, batch("sdss", "desi")).module()
    inputs = batch("apogee", "sdss", "galah", "desi")
    found, expected = program(**inputs), model(**inputs)
    for name in ("logits", "intervals", "confidence"):
        torch.testing.assert_close(found[name], expected[name], rtol=0, atol=1e-5, msg=name)


def test_a_head_of_classes_is_exported_with_labels():
    model = make_head("classes")
    inputs = batch("sdss", "desi") | {"labels": torch.tensor([0, -100])}
    found = export(model, (), inputs, strict=False).module()(**inputs)
    torch.testing.assert_close(found["loss"], model(**inputs).loss)


def test_a_mask_whose_numbers_are_not_read_is_of_integers_or_booleans():
    """Of floating-point numbers it might be one to be added to logits, whose 0 is a valid patch."""
    inputs = batch("sdss", "desi")
    with pytest.raises(ValueError, match="attention_mask: .* integers or booleans, found: torch.float32"):
        exported(make_model().spectral.eval(), inputs | {"attention_mask": inputs["attention_mask"].float()})


def test_what_stands_in_the_padding_does_not_matter():
    model = make_model().spectral.eval()
    inputs = batch("sdss", "desi")
    program, expected = exported(model, inputs).module(), model(**inputs).pooler_output
    is_padding = inputs["attention_mask"] == 0
    assert is_padding.any()
    for name in ("flux", "wavelength"):
        inputs[name] = inputs[name].masked_fill(is_padding[..., None], torch.nan)
    torch.testing.assert_close(program(**inputs).pooler_output, expected, rtol=0, atol=1e-5)
    nothing = {**inputs, "attention_mask": torch.zeros_like(inputs["attention_mask"])}
    assert (program(**nothing).pooler_output == 0).all()


def test_an_exported_encoder_survives_its_file(tmp_path):
    model, inputs = make_model().spectral.eval(), batch("apogee", "galah")
    torch.export.save(exported(model, batch("sdss", "desi")), tmp_path / "encoder.pt2")
    found = torch.export.load(tmp_path / "encoder.pt2").module()(**inputs).pooler_output
    torch.testing.assert_close(found, model(**inputs).pooler_output, rtol=0, atol=1e-5)


def test_what_cannot_be_exported_is_named():
    model = make_model(pooling="segments").spectral.eval()
    with pytest.raises(Exception, match="found: 'segments'"):
        exported(model, batch("sdss", "desi"))


def test_packed_spectra_are_not_exported():
    packed = SpectralProcessor()([spectrum("sdss", 1), spectrum("desi", 2)], packed=True, return_tensors="pt")
    kept = {name: packed[name] for name in (*NAMES[:3], "lengths")}
    with pytest.raises(NotImplementedError, match="export: expected padded spectra, found: packed ones"):
        export(make_model().spectral, (), kept)


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
@pytest.mark.parametrize("make", [lambda: make_model().spectral, lambda: make_head("classes")])
def test_a_traced_model_gives_the_numbers_of_other_spectra_too(make):
    """Tracing keeps what was read into Python, as lengths are, for ever: of spectra of other lengths it answered wrongly."""
    model, inputs = make().eval(), batch("sdss", "desi", "galah")
    traced = torch.jit.trace(model, example_kwarg_inputs=inputs, strict=False)
    other = {name: each.flip(0) for name, each in inputs.items()}
    assert not torch.equal(other["attention_mask"], inputs["attention_mask"])
    for name, found in traced(**other).items():
        torch.testing.assert_close(found, model(**other)[name], rtol=0, atol=1e-5, msg=name)


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
@pytest.mark.parametrize("how", ["export", "trace"])
def test_pretraining_is_not_exported(how):
    inputs = batch("sdss", "desi")
    record = {"export": lambda: export(make_model(), (), inputs),
              "trace": lambda: torch.jit.trace(make_model(), example_kwarg_inputs=inputs, strict=False)}[how]  # fmt: skip
    with pytest.raises(NotImplementedError, match="expected the encoder, .* found: SpectralForPreTraining"):
        record()
