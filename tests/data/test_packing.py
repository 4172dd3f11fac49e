import json

import numpy as np
import pyarrow as pa
import pytest
import torch
from datasets import Dataset, Features
from spectra import spectrum

from spectral_tokenizer import SpectralConfig, SpectralProcessor
from spectral_tokenizer.data.packing import MixtureSampler, PackedSteps, arrays_of, as_arrays, count_patches, rows_of
from spectral_tokenizer.data.schema import FEATURES, SPECTRUM
from spectral_tokenizer.objectives_spectral_tokenizer import MaskedModelling


@pytest.fixture(scope="module")
def surveys():
    features = Features({"object_id": FEATURES["object_id"], **SPECTRUM})
    return {
        survey: Dataset.from_list(
            [{"object_id": f"{survey}-{seed}", **spectrum(survey, seed)} for seed in range(count)], features=features
        )
        for survey, count in (("sdss", 7), ("desi", 5), ("apogee", 4))
    }


def test_wavelengths_come_out_of_arrow_in_float64(surveys):
    (row,) = rows_of(as_arrays(surveys["apogee"]), [2])
    expected = spectrum("apogee", 2)
    assert row["wavelength"].dtype == np.float64
    np.testing.assert_array_equal(row["wavelength"], expected["wavelength"])
    np.testing.assert_array_equal(row["segment_lengths"], expected["segment_lengths"])


def test_rows_without_nulls_are_not_copied():
    columns = pa.chunked_array([pa.array([[1.0, 2.0], [], [3.0]]), pa.array([[4.0], None, [None, 5.0]])])
    found = arrays_of(columns.chunk(0))
    assert [each.tolist() for each in found] == [[1.0, 2.0], [], [3.0]]
    assert np.shares_memory(found[2], columns.chunk(0).values.to_numpy())
    one, none, some = arrays_of(columns.chunk(1))
    assert one.tolist() == [4.0] and none is None and np.isnan(some[0]) and some[1] == 5.0


def sampler_of(surveys, **settings):
    patches = {survey: count_patches(each, 32) for survey, each in surveys.items()}
    return MixtureSampler(patches, {"sdss": 2.0}, **{"max_spectra": 8, "seed": 3, **settings})


def take(sampler, count):
    steps = iter(sampler)
    return [next(steps) for _ in range(count)]


def test_patches_are_counted_from_segment_lengths(surveys):
    assert count_patches(surveys["desi"], 32).tolist() == [30] * 5
    assert count_patches(surveys["sdss"].select([4, 1]), 32).tolist() == [32, 32]
    assert count_patches(
        Dataset.from_dict({"segment_lengths": [[32], [64], [33, 1]]}).select([2, 0]), 32
    ).tolist() == [3, 1]


def test_every_row_is_drawn_once_per_epoch(surveys):
    steps = take(sampler_of(surveys), 40)
    for survey, each in surveys.items():
        drawn = [row for step in steps for name, row in step.rows if name == survey]
        epochs = [drawn[start : start + len(each)] for start in range(0, len(drawn) - len(each), len(each))]
        assert len(epochs) > 3
        assert all(sorted(epoch) == list(range(len(each))) for epoch in epochs)
        assert len({tuple(epoch) for epoch in epochs}) > 1


def test_weights_rule_the_mixture(surveys):
    names = [name for step in take(sampler_of(surveys), 300) for name, _ in step.rows]
    assert names.count("sdss") / len(names) == pytest.approx(0.5, abs=0.05)


def test_a_step_keeps_its_token_budget(surveys):
    sampler = sampler_of(surveys, max_tokens=100)
    for step in take(sampler, 20):
        assert 0 < sum(sampler.num_patches[name][row] for name, row in step.rows) <= 100


def test_a_resumed_sampler_goes_on_with_the_same_rows(surveys):
    expected = take(sampler_of(surveys, max_tokens=150), 12)
    state = json.loads(json.dumps(expected[4].state))
    resumed = sampler_of(surveys, max_tokens=150)
    resumed.load_state_dict(state)
    assert [step.rows for step in take(resumed, 7)] == [step.rows for step in expected[5:]]
    with pytest.raises(ValueError, match="expected|found"):
        resumed.load_state_dict({"step": 1, "drawn": {"lamost": 3}})


def test_an_empty_survey_is_an_error():
    with pytest.raises(ValueError, match="no|none"):
        MixtureSampler({"sdss": np.zeros(0, dtype=int)}, {}, 4)


def flat(batches):
    """object_id -> (flux, hidden, asked) of every spectrum in some micro-batches."""
    found = {}
    for batch in batches:
        parts = zip(
            batch["object_id"],
            *(batch[name][0].split(batch["lengths"]) for name in ("flux", "masked_patches", "target_patches")),
        )
        for name, *values in parts:
            assert name not in found
            found[name] = values
    return found


@pytest.mark.parametrize(("num_processes", "num_micro_batches"), [(1, 3), (2, 1), (2, 2)])
def test_processes_and_micro_batches_share_a_step_without_loss(surveys, num_processes, num_micro_batches):
    step = take(sampler_of(surveys, max_spectra=6), 1)[0]

    def batches(processes, parts):
        for rank in range(processes):
            steps = PackedSteps(
                surveys, SpectralProcessor(), MaskedModelling(SpectralConfig()), 3, rank, processes, parts
            )
            yield from steps[step]["micro_batches"]

    whole, shared = flat(batches(1, 1)), flat(batches(num_processes, num_micro_batches))
    assert whole.keys() == shared.keys()
    for name, values in whole.items():
        # The same spectra, hidden alike, whoever works on them.
        assert all(torch.equal(one, other) for one, other in zip(values, shared[name]))


def test_a_step_too_small_to_share_is_an_error(surveys):
    step = take(sampler_of(surveys, max_spectra=2), 1)[0]
    steps = PackedSteps(surveys, SpectralProcessor(), MaskedModelling(SpectralConfig()), num_processes=3)
    with pytest.raises(ValueError, match="2 spectra, expected at least one for each of 3"):
        steps[step]


def test_workers_change_nothing(surveys):
    def first(num_workers):
        steps = PackedSteps(surveys, SpectralProcessor(), MaskedModelling(SpectralConfig()), 3)
        loader = torch.utils.data.DataLoader(
            steps, sampler=sampler_of(surveys), batch_size=None, num_workers=num_workers
        )
        batches = iter(loader)
        return [next(batches) for _ in range(3)]

    for one, other in zip(first(0), first(2)):
        assert one["state"] == other["state"]
        assert torch.equal(one["micro_batches"][0]["flux"], other["micro_batches"][0]["flux"])
