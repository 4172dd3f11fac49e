"""Redshifts by shifts of tokens: what is read of which spectrum, and that a head learns it."""

import numpy as np
import pytest
import torch
from test_science_tables import bench, model  # noqa: F401
from transformers import AutoModelForSequenceClassification

from benchmarks.science.bench import BATCH
from benchmarks.science.shifts import (
    PIXELS,
    TARGET,
    Told,
    fitted,
    inputs_of,
    joined,
    reader_of,
    readers,
    saved,
    shifts,
    told,
)
from training.simulated.populations import KINDS


def test_tokens_stand_beside_their_own_pixels(bench):  # noqa: F811
    read = readers(bench)
    assert list(read) == ["model", PIXELS]
    (spectra,) = bench.batches("sdss", "test", BATCH)
    of_model, of_pixels = (told(bench, each, "sdss", "test", BATCH) for each in read.values())
    assert len(of_model) == len(of_pixels) == BATCH
    place = int(np.flatnonzero(spectra.kind.numpy() == KINDS.index("STAR"))[-1])
    start = sum(spectra.lengths[:place])
    own = slice(start, start + spectra.lengths[place])
    for found in (of_model, of_pixels):
        assert torch.equal(found.wavelength[place], spectra.wavelength[0, own])
        assert torch.equal(found.is_usable[place], spectra.ivar[0, own] > 0)
        assert found.known["redshift"][place] == spectra.redshift[place]
        assert len(found.tokens[place]) == spectra.lengths[place]
    encoder = bench.encoders["model"].model.spectral
    alone = encoder(
        spectra.flux[:, own], spectra.ivar[:, own], spectra.wavelength[:, own], lengths=[spectra.lengths[place]]
    ).last_hidden_state[0, encoder.config.num_latents :]
    torch.testing.assert_close(of_model.tokens[place].float(), alone, rtol=2e-3, atol=2e-3)


@torch.no_grad()
def test_of_pixels_a_head_reads_what_the_encoder_is_told(bench):  # noqa: F811
    encoder = bench.encoders["model"].model.spectral
    (spectra,) = bench.batches("desi", "test", BATCH)
    told_of, count = inputs_of(encoder)(spectra), encoder.config.num_latents
    code, _ = encoder.code_and_basis(spectra.wavelength[0].double())
    first = encoder(**spectra.inputs(), output_hidden_states=True).hidden_states[0][0]
    patches = torch.cat([each[count:] for each in first.split([count + length for length in spectra.lengths])])
    torch.testing.assert_close(encoder.embeddings.projection(told_of) + code, patches)


def line_spectra(redshift: np.ndarray) -> Told:
    """One token a patch: a pixel is 1 where a line of 4000 Angstrom at rest stands, and 0 elsewhere."""
    wavelength = torch.exp(torch.linspace(np.log(3600), np.log(9800), 64 * 32, dtype=torch.float64)).view(64, 32)
    tokens = [((wavelength / (4000 * (1 + z))).log().abs() < 5e-4).half() for z in redshift]
    known = {"redshift": redshift, "kind": np.zeros(len(redshift)), "band": np.zeros(len(redshift))}
    pixels = [wavelength] * len(redshift), [torch.ones_like(wavelength, dtype=torch.bool)] * len(redshift)
    return Told(tokens, *pixels, known)


def test_a_head_learns_where_a_line_stands_and_is_kept_at_its_best(monkeypatch):
    monkeypatch.setitem(TARGET, "label_width", 2)  # few labels
    generator = np.random.default_rng(0)
    train, test = (line_spectra(generator.uniform(0, 1.4, count)) for count in (192, 32))
    predict = fitted(train, np.arange(len(train)), seed=0, num_epochs=12)
    error = (predict(test) - test.known["redshift"]) / (1 + test.known["redshift"])
    assert np.median(np.abs(error)) < 1e-3


def test_the_table_has_rows_for_encoders_and_for_pixels(bench, monkeypatch):  # noqa: F811
    rows = shifts(bench)
    assert {(each["features"], each["survey"], each["kind"]) for each in rows} == {
        (name, survey, kind) for name in ("model", PIXELS) for survey in ("sdss", "desi") for kind in KINDS
    }
    assert all(np.isfinite(each["nmad"]["mean"]) and each["head"] == "shift" for each in rows)


def test_a_saved_head_is_asked_as_it_is(pytestconfig, bench):  # noqa: F811
    folder = pytestconfig.rootpath / "hub_configs" / "released_redshift"
    head, released = saved(folder), AutoModelForSequenceClassification.from_pretrained(folder).eval()
    spectra = told(bench, reader_of(released.spectral), "desi", "test", BATCH)
    (given,) = bench.batches("desi", "test", BATCH)
    with torch.no_grad():
        expected = released(**given.inputs()).logits[:, 0].numpy()
    # Tokens are kept in float16. Two peaks alike may change places.
    assert np.median(np.abs(head(spectra) - expected)) < 1e-4
    assert saved(folder.with_name("released")) is None and saved("untrained") is None and saved(released) is None


def test_joined_spectra_stay_in_order():
    one, other = line_spectra(np.array([0.1, 0.2])), line_spectra(np.array([0.3]))
    for each in (one, other):
        each.known |= {name: np.zeros(len(each)) for name in ("teff", "logg", "fe_h", "snr", "index")}
    both = joined([one, other])
    assert both.known["redshift"] == pytest.approx([0.1, 0.2, 0.3])
    assert torch.equal(both.tokens[2], other.tokens[0])
