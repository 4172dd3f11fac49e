import pytest
import torch
from spectra import spectrum

from spectral_tokenizer import SpectralProcessor
from spectral_tokenizer.data.collator import SpectralCollator


ROWS = [
    {**spectrum("desi", 1), "object_id": "a", "class": "QSO", "teff": None, "logg": None, "survey": "desi"},
    {**spectrum("apogee", 2), "object_id": "b", "class": None, "teff": 5000.0, "logg": float("nan"), "survey": "apogee"},
]  # fmt: skip
CLASSES = ["GALAXY", "QSO", "STAR"]


def test_spectra_go_through_the_processor():
    batch = SpectralCollator(SpectralProcessor())(ROWS)
    expected = SpectralProcessor()(ROWS, return_tensors="pt")
    assert set(batch) == set(expected)
    assert all(torch.equal(batch[name], expected[name]) for name in batch)
    assert batch["wavelength"].dtype == torch.float64


def test_classes_are_numbered_and_unknown_ones_ignored():
    labels = SpectralCollator(SpectralProcessor(), "class", CLASSES)(ROWS)["labels"]
    assert labels.tolist() == [1, -100] and labels.dtype == torch.int64


def test_numbers_keep_their_units_and_unknown_ones_are_nan():
    labels = SpectralCollator(SpectralProcessor(), ["teff", "logg"])(ROWS)["labels"]
    assert labels.shape == (2, 2) and labels.dtype == torch.float64
    assert labels[1, 0] == 5000 and labels.isnan().tolist() == [[True, True], [False, True]]
    assert SpectralCollator(SpectralProcessor(), "teff")(ROWS)["labels"].shape == (2, 1)


def test_a_foreign_class_is_named():
    with pytest.raises(ValueError, match="a: class: expected one of .*GALAXY.* or None, found: 'QSO'"):
        SpectralCollator(SpectralProcessor(), "class", ["GALAXY", "STAR"])(ROWS)


def test_a_text_among_numbers_is_named():
    rows = [{**ROWS[0], "teff": "5100.5"}, {**ROWS[1], "teff": "n/a"}]
    collator = SpectralCollator(SpectralProcessor(), "teff")
    assert collator(rows[:1])["labels"].tolist() == [[5100.5]]
    with pytest.raises(ValueError, match="b: teff: expected a number or None, found: 'n/a'"):
        collator(rows)


def test_a_missing_column_is_named():
    with pytest.raises(ValueError, match="lack the label columns .*age.*remove_unused_columns"):
        SpectralCollator(SpectralProcessor(), ["age"])(ROWS)


def test_class_names_stand_in_one_column():
    with pytest.raises(ValueError, match="one column"):
        SpectralCollator(SpectralProcessor(), ["class", "survey"], CLASSES)
