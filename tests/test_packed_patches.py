import numpy as np
import pytest
import torch
from spectra import spectrum
from test_modeling import make_model

from spectral_tokenizer import SpectralProcessor
from spectral_tokenizer import layers_spectral_tokenizer as layers
from spectral_tokenizer.objectives_spectral_tokenizer import residual_chi2
from spectral_tokenizer.packing_spectral_tokenizer import PackedPatches, Sequences, sequence_medians


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


def test_medians_of_sequences_are_each_their_own():
    generator = torch.Generator().manual_seed(0)
    lengths = [5, 0, 1, 8, 0]
    values = torch.randn(sum(lengths), 3, generator=generator)
    is_known = torch.rand(values.shape, generator=generator) < 0.7
    is_known[5] = False  # the third sequence
    values = torch.where(is_known, values, torch.nan)  # what is not known may be anything
    parts = zip(values.split(lengths), is_known.split(lengths))
    for found, (part, known) in zip(sequence_medians(values, is_known, lengths), parts):
        assert found == pytest.approx(np.median(part[known]), abs=1e-7) if known.any() else found.isnan()
    assert sequence_medians(values[:0], is_known[:0], [0, 0]).isnan().all()


def whole_spectra() -> dict:
    """Four without a bad pixel or a half-filled patch: what the processor's scale is of is all there."""
    columns = ("flux", "ivar", "wavelength")
    rows = [
        {name: spectrum("sdss", seed, num_bad=0)[name][: 960 - 32 * seed] for name in columns} for seed in range(4)
    ]
    return SpectralProcessor()(rows, packed=True, return_tensors="pt")


def test_a_level_is_that_of_a_scale():
    """Of patches that are all there, 1: the processor has divided by the same."""
    inputs = whole_spectra()
    patches = PackedPatches(inputs["flux"][0], inputs["ivar"][0], inputs["wavelength"][0], inputs["lengths"])
    torch.testing.assert_close(patches.level(), torch.ones(4), rtol=1e-6, atol=1e-6)
    scaled = patches.in_units_of(torch.tensor([2.0, 3.0, 0.5, 1.0]))
    torch.testing.assert_close(scaled.level(), torch.tensor([0.5, 1 / 3, 2.0, 1.0]), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(
        scaled.flux * scaled.ivar.sqrt(), patches.flux * patches.ivar.sqrt(), rtol=1e-5, atol=1e-4
    )
    # Lost in noise, the error takes its place; of no usable patch there is none.
    noise = PackedPatches(1e-3 * patches.flux, torch.full_like(patches.ivar, 4.0), patches.wavelength, patches.lengths)
    torch.testing.assert_close(noise.level(), torch.full((4,), 0.5))
    assert (
        PackedPatches(patches.flux, 0 * patches.ivar, patches.wavelength, patches.lengths).level().tolist()
        == [1.0] * 4
    )


def test_a_level_that_is_visible_does_not_depend_on_what_is_hidden():
    """What a gap's level is nobody tells: a spectrum that was scaled with the gap's pixels is read as one without."""
    rows = [spectrum(each) for each in SURVEYS]
    inputs = SpectralProcessor()(rows, packed=True, return_tensors="pt")
    is_hidden = torch.cat([torch.arange(length) < length // 3 for length in inputs["lengths"]])[None]
    factor = 3.0  # as if what is hidden had raised the scale
    other = {**inputs, "flux": inputs["flux"] / factor, "ivar": inputs["ivar"] * factor**2}
    for level, tells in (("visible", False), ("given", True)):
        model = make_model(level=level)
        one, two = (model(**each, masked_patches=is_hidden).reconstruction for each in (inputs, other))
        assert torch.allclose(one, factor * two, rtol=1e-4, atol=1e-5) != tells
        # The answer is in units of the scale, as the loss asks for it.
        output = model(**inputs, masked_patches=is_hidden)
        found = [each[0][is_hidden[0]] for each in (output.reconstruction, inputs["flux"], inputs["ivar"])]
        expected = residual_chi2(*found, model.config.residual_cap).sum() / (found[2] > 0).sum()
        torch.testing.assert_close(output.chi2_hidden, expected)


def test_a_spectrum_of_which_nothing_is_hidden_is_read_as_it_is_without_a_decoder():
    inputs = SpectralProcessor()([spectrum(each) for each in SURVEYS], packed=True, return_tensors="pt")
    model = make_model(level="visible")
    whole = model(**inputs, output_hidden_states=True).hidden_states
    for found, expected in zip(whole, model.spectral(**inputs, output_hidden_states=True).hidden_states):
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
