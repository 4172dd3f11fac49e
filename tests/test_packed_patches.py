import pytest
import torch
from spectra import spectrum
from test_modeling import make_model

from spectral_tokenizer import SpectralProcessor
from spectral_tokenizer import layers_spectral_tokenizer as layers
from spectral_tokenizer.packing_spectral_tokenizer import PackedPatches, Sequences


SURVEYS = ("sdss", "desi", "galah", "apogee")


def test_boundaries_are_what_variable_length_kernels_take():
    sequences = Sequences([3, 0, 2], torch.device("cpu"))
    assert sequences.boundaries.tolist() == [0, 3, 3, 5] and sequences.boundaries.dtype == torch.int32
    assert sequences.longest == 3 and sequences.boundaries is sequences.boundaries  # made once


@pytest.mark.parametrize(
    ("lengths", "selected", "expected"),
    [
        ([2, 3], [True, False, True, True, False], [1, 2]),
        ([0, 2, 0, 1, 0], [False, False, True], [0, 0, 0, 1, 0]),
        ([2], [False, False], [0]),
        ([0], [], [0]),
    ],
)
def test_selection_counts_what_is_left_of_each_spectrum(lengths, selected, expected):
    values = torch.arange(len(selected), dtype=torch.float32)[:, None]
    patches = PackedPatches(values, values, values.double(), lengths)
    chosen = patches.select(torch.tensor(selected, dtype=torch.bool))
    assert chosen.lengths == expected
    assert chosen.flux.flatten().tolist() == [place for place, keep in enumerate(selected) if keep]


def by_boundaries(query, key, value, query_boundaries, key_boundaries, longest_query, longest_key, scale):
    """What `varlen_attn` promises, by the definition of attention."""
    assert longest_query == query_boundaries.diff().max() and longest_key == key_boundaries.diff().max()
    parts = []
    for place in range(len(query_boundaries) - 1):
        q = query[query_boundaries[place] : query_boundaries[place + 1]].transpose(0, 1)
        k, v = (each[key_boundaries[place] : key_boundaries[place + 1]].transpose(0, 1) for each in (key, value))
        parts.append(((q @ k.transpose(-1, -2) * scale).softmax(-1) @ v).transpose(0, 1))
    return torch.cat(parts)


@pytest.mark.parametrize("decoder_reads", ["latents", "tokens"])
def test_the_variable_length_path_is_told_the_right_boundaries(monkeypatch, decoder_reads):
    """The kernel itself needs CUDA; here it is replaced by its definition."""
    model = make_model(decoder_reads=decoder_reads)
    inputs = SpectralProcessor()([spectrum(each) for each in SURVEYS], packed=True, return_tensors="pt")
    hidden = torch.arange(inputs["flux"].shape[1])[None] % 3 == 0
    expected = model(**inputs, masked_patches=hidden)
    monkeypatch.setattr(layers, "varlen_attn", by_boundaries)
    monkeypatch.setattr(layers.SpectralAttention, "how_to_attend", lambda self, query: self.varlen_attention)
    found = model(**inputs, masked_patches=hidden)
    torch.testing.assert_close(found.reconstruction, expected.reconstruction, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("surveys", [("sdss",), ("desi", "desi"), ("apogee", "galah"), SURVEYS, SURVEYS[::-1]])
@pytest.mark.parametrize("decoder_reads", ["latents", "tokens"])
def test_packed_padded_and_one_by_one_agree_with_their_gradients(surveys, decoder_reads):
    rows = [spectrum(survey, seed) for seed, survey in enumerate(surveys)]
    processor = SpectralProcessor()
    padded = processor(rows, return_tensors="pt")
    valid = padded["attention_mask"].bool()
    hidden = torch.zeros_like(valid)
    hidden[:, 1::3] = True
    results = {}

    def note(name, outputs, parts):
        model.zero_grad()
        # Mean over spectra: the log loss is one term for each.
        sum(each.loss * each.loss_terms for each in outputs).div(len(rows)).backward()
        gradient = torch.cat([each.grad.flatten() for each in model.parameters()])
        results[name] = (
            torch.cat([each[part] for each, part in zip((o.reconstruction for o in outputs), parts)]),
            gradient,
        )

    model = make_model(decoder_reads=decoder_reads)
    note("padded", [model(**padded, masked_patches=hidden)], [valid])
    packed = processor(rows, packed=True, return_tensors="pt")
    note("packed", [model(**packed, masked_patches=hidden[valid][None])], [torch.ones_like(hidden[valid][None])])
    alone = [processor(row, return_tensors="pt") for row in rows]
    lengths = [each["flux"].shape[1] for each in alone]
    note(
        "one by one",
        [model(**each, masked_patches=hidden[[row], : lengths[row]]) for row, each in enumerate(alone)],
        [each["attention_mask"].bool() for each in alone],
    )
    for name in ("packed", "one by one"):
        torch.testing.assert_close(results[name][0], results["padded"][0], rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(results[name][1], results["padded"][1], rtol=1e-4, atol=1e-4)


def test_packed_input_says_what_it_expects():
    inputs = SpectralProcessor()(spectrum("sdss"), packed=True, return_tensors="pt")
    with pytest.raises(ValueError, match="no attention_mask, found"):
        make_model()(**inputs, attention_mask=torch.ones(inputs["flux"].shape[:2]))
