"""Linear heads on frozen embeddings."""

import numpy as np
import probe
import pytest
from datasets import Dataset


@pytest.mark.parametrize(("frame", "shows"), [("rest", False), ("observed", True)])
def test_no_redshift_is_learnt_from_spectra_at_rest(monkeypatch, frame, shows):
    """`redshift_nmad` of such was a measure of noise."""
    vectors = np.random.default_rng(0).normal(size=(40, 4))
    monkeypatch.setattr(probe, "embed", lambda *_, **__: (vectors, None))
    columns = {"survey": "sdss", "frame": frame, "class": "QSO", "redshift": 0.5, "teff": 5000.0}
    rows = {"sdss": Dataset.from_dict({name: [value] * len(vectors) for name, value in columns.items()})}
    scores = probe.probe(None, None, rows, rows)
    assert ("redshift_nmad_QSO" in scores) == shows and "teff_mad" in scores
