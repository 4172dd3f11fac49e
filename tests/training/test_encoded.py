"""What a frozen encoder said before, in place of spectra."""

import numpy as np
import pytest
import torch
from encoded import EncodedCollator, encode_once

from spectral_tokenizer import SpectralConfig, SpectralForSequenceClassification, SpectralProcessor
from spectral_tokenizer.data import load_survey
from spectral_tokenizer.data.collator import SpectralCollator


SIZE = {
    "hidden_size": 32, "num_hidden_layers": 2, "num_decoder_layers": 1, "num_attention_heads": 4,
    "intermediate_size": 64, "num_latents": 4, "num_trainable_layers": 0,
}  # fmt: skip
TARGET = {"distribution": "shift", "transform": "log1p", "range": [-0.01, 4.5], "num_bins": 512}
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


def test_a_spectrum_that_is_refused_is_named(simulated_surveys):
    config = SpectralConfig(**SIZE, problem_type="regression", id2label={0: "redshift"}, targets={"redshift": TARGET})
    rows = load_survey("sdss", simulated_surveys["sdss"]).select(range(2))
    broken = rows.map(lambda row: {**row, "wavelength": row["wavelength"][::-1]})
    with pytest.raises(ValueError, match=rows[0]["object_id"]):
        encode_once(SpectralForSequenceClassification(config), SpectralProcessor(), broken)
