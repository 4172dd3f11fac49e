"""What a frozen encoder said before, in place of spectra."""

import tracemalloc

import numpy as np
import pytest
import torch
from datasets import List, Value, concatenate_datasets
from encoded import TOKENS, EncodedCollator, encode_once

from spectral_tokenizer import SpectralConfig, SpectralForSequenceClassification, SpectralProcessor
from spectral_tokenizer.data import load_survey
from spectral_tokenizer.data.collator import SpectralCollator
from spectral_tokenizer.data.schema import SPECTRUM


SIZE = {
    "hidden_size": 32, "num_hidden_layers": 2, "num_decoder_layers": 1, "num_attention_heads": 4,
    "intermediate_size": 64, "num_latents": 4, "num_trainable_layers": 0,
}  # fmt: skip
TARGET = {"distribution": "shift", "transform": "log1p", "range": [-0.01, 4.5], "num_bins": 512}
COLUMNS = ["object_id", "redshift", *SPECTRUM]
HEADS = {
    "vector": {},
    "attention": {"num_pooling_queries": 3},
    "shift": {"targets": {"redshift": TARGET}},
}


@pytest.mark.parametrize("head", HEADS)
def test_a_head_answers_the_same_to_what_the_encoder_said(head, simulated_surveys):
    torch.manual_seed(0)
    config = SpectralConfig(**SIZE, problem_type="regression", id2label={0: "redshift"}, **HEADS[head])
    model, processor = SpectralForSequenceClassification(config).eval(), SpectralProcessor()
    torch.nn.init.normal_(model.head.shift.rest if head == "shift" else model.head.out_proj.weight)
    # Arms, and a spectrum shorter than the other.
    rows = load_survey("desi", simulated_surveys["desi"]).select(range(5))
    told = encode_once(model, processor, rows)
    assert not {"flux", "ivar", "wavelength"} & set(told.column_names)
    batch = EncodedCollator(config, processor, "redshift")([told[place] for place in (3, 0, 4)])
    expected = SpectralCollator(processor, "redshift")([rows[place] for place in (3, 0, 4)])
    torch.testing.assert_close(batch["labels"], expected["labels"], equal_nan=True)
    inputs = {name: each for name, each in expected.items() if name != "labels"}
    with torch.no_grad():
        found, answer = (model(**{k: v for k, v in each.items() if k != "labels"}) for each in (batch, inputs))
    # Tokens are kept in float16.
    torch.testing.assert_close(found.logits, answer.logits, rtol=2e-3, atol=2e-3)
    assert len(np.unique(found.logits)) == 3


def test_every_row_has_its_own_tokens_and_they_are_held_once(simulated_surveys):
    torch.manual_seed(0)
    config = SpectralConfig(**SIZE, problem_type="regression", id2label={0: "redshift"}, **HEADS["shift"])
    model, processor = SpectralForSequenceClassification(config).eval(), SpectralProcessor()
    # Spectra of two lengths in several batches, of which the last is short.
    parts = [load_survey(survey, simulated_surveys[survey]).select_columns(COLUMNS) for survey in ("sdss", "desi")]
    rows = concatenate_datasets(parts)
    rows = rows.select(np.random.default_rng(0).integers(0, len(rows), 140))
    tracemalloc.start()
    told = encode_once(model, processor, rows)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2.5 * told.data.nbytes  # of which one batch, before and after the processor, is the half
    assert told["object_id"][:] == rows["object_id"][:] and told["redshift"][:] == rows["redshift"][:]
    assert told.features["pooler_output"] == List(Value("float32"))
    assert all(told.features[name] == Value("large_binary") for name in TOKENS)
    for place in (0, 31, 32, 139):
        inputs = processor([rows[place]], packed=True, return_tensors="pt")
        with torch.no_grad():
            expected = model.spectral(**inputs)
        found = {name: np.frombuffer(told[place][name], kind) for name, kind in TOKENS.items()}
        tokens = expected.last_hidden_state.flatten().half().numpy()
        np.testing.assert_allclose(found["tokens"], tokens, rtol=2e-3, atol=2e-3)
        assert np.array_equal(found["pixel_wavelength"], inputs["wavelength"].flatten())
        assert np.array_equal(found["pixel_usable"], inputs["ivar"].flatten() > 0)
        np.testing.assert_allclose(told[place]["pooler_output"], expected.pooler_output[0], rtol=1e-4, atol=1e-5)


def test_a_spectrum_that_is_refused_is_named(simulated_surveys):
    config = SpectralConfig(**SIZE, problem_type="regression", id2label={0: "redshift"}, targets={"redshift": TARGET})
    rows = load_survey("sdss", simulated_surveys["sdss"]).select(range(2))
    broken = rows.map(lambda row: {**row, "wavelength": row["wavelength"][::-1]})
    with pytest.raises(ValueError, match=rows[0]["object_id"]):
        encode_once(SpectralForSequenceClassification(config), SpectralProcessor(), broken)
