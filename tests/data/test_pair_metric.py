"""Which embedding is the same object's, where noise is larger than what objects differ by."""

import numpy as np
import pytest

from spectral_tokenizer.data.embedding import nearest
from spectral_tokenizer.data.pair_metric import PairMetric


@pytest.fixture(scope="module")
def observed():
    """Two observations each of 300 objects that differ in six numbers, in forty that are noise for the most part."""
    generator = np.random.default_rng(0)
    objects = generator.normal(size=(300, 6)) @ generator.normal(size=(6, 40))
    noise = generator.normal(size=(10, 40)) * 4.0
    return [objects + generator.normal(size=(300, 10)) @ noise + 5.0 for _ in range(2)]


def found(index):
    return (index[:, 0] == np.arange(len(index))).mean()


def test_the_same_object_is_found_among_objects_it_was_not_fitted_on(observed):
    first, second = observed
    metric = PairMetric.fit(first[:200], second[:200])
    plain, similarity = nearest(first[200:], second[200:], 3)
    better, _ = nearest(first[200:], second[200:], 3, metric)
    assert found(plain) < 0.1 and found(better) > 0.7
    np.testing.assert_allclose(np.linalg.norm(metric(first), axis=1), 1.0)
    # Pairs that are none have nothing to teach.
    wrong = PairMetric.fit(first[:200], np.roll(second[:200], 1, axis=0))
    assert found(nearest(first[200:], second[200:], 3, wrong)[0]) < 0.1


def test_a_metric_does_not_depend_on_units_or_company(observed):
    first, second = observed
    metric = PairMetric.fit(first, second)
    np.testing.assert_allclose(metric(second[:7]), metric(second)[:7], atol=1e-9)
    other = PairMetric.fit(100.0 * first + 3.0, 100.0 * second + 3.0)
    np.testing.assert_allclose(similarities(other, 100.0 * second + 3.0), similarities(metric, second), atol=1e-6)


def similarities(metric, vectors):
    return metric(vectors) @ metric(vectors).T


def test_what_has_no_embedding_finds_nothing_and_teaches_nothing(observed):
    first, second = (each.copy() for each in observed)
    expected = PairMetric.fit(first[1:], second[1:])
    first[0] = np.nan
    metric = PairMetric.fit(first, second)
    np.testing.assert_allclose(similarities(metric, second), similarities(expected, second), atol=1e-6)
    index, _ = nearest(second, first, 2, metric)
    assert (index[0] == -1).all() and (index[1:] >= 0).all() and np.isnan(metric(first)[0]).all()


def test_what_cannot_be_learnt_from_is_said(observed):
    first, second = observed
    with pytest.raises(ValueError, match=r"found: \(300, 40\) and \(299, 40\)"):
        PairMetric.fit(first, second[1:])
    with pytest.raises(ValueError, match="ten pairs or more, found: 9"):
        PairMetric.fit(first[:9], second[:9])
    with pytest.raises(ValueError, match="the same embeddings twice"):
        PairMetric.fit(first, first)
