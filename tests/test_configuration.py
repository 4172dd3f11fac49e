import math
from pathlib import Path

import pytest
import torch

from spectral_tokenizer import SpectralConfig, SpectralForPreTraining, SpectralProcessor


FOLDERS = sorted((Path(__file__).parent.parent / "hub_configs").glob("*/config.json"))
SIZES = [path for path in FOLDERS if not any(path.parent.glob("*.safetensors"))]  # not the trained model


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"hidden_size": 100, "num_attention_heads": 8}, "multiple of"),
        ({"hidden_size": "512"}, "hidden_size"),
        ({"pooling": "cls"}, "pooling"),
        ({"num_latents": 0}, "num_latents is 0"),
        ({"min_period": 1.0, "max_period": 0.1}, "min_period < max_period"),
        ({"hidden_fraction": (0.5, 1.0)}, "hidden_fraction"),
        ({"hiding_weights": (1.0, 0.0)}, "hiding_weights"),
        ({"residual_cap": 0.0}, "residual_cap"),
        ({"num_decoder_layers": 0}, "num_decoder_layers: expected 1 or more, found: 0"),
        ({"num_segments": 0}, "num_segments: expected 1 or more"),
        ({"error_floor": -1.0}, "error_floor: expected 0 or more, found: -1.0"),
        ({"classifier_temperature": math.nan}, "classifier_temperature: expected a positive number, found: nan"),
        ({"label_classes": ["STAR", "STAR"]}, "label_classes: expected names that differ"),
        ({"hidden_fraction": (0.1, 0.2, 0.3)}, "hidden_fraction: expected 0 <= smallest <= largest < 1, found"),
    ],
)
def test_a_wrong_setting_is_refused(settings, message):
    with pytest.raises(Exception, match=message):
        SpectralConfig(**settings)


@pytest.mark.parametrize("path", SIZES, ids=[path.parent.name for path in SIZES])
def test_every_size_builds_and_survives_json(path, tmp_path):
    config = SpectralConfig.from_pretrained(path.parent)
    config.save_pretrained(tmp_path)
    assert SpectralConfig.from_pretrained(tmp_path).to_dict() == config.to_dict()
    assert SpectralProcessor.from_pretrained(path.parent).patch_size == config.patch_size
    with torch.device("meta"):
        model = SpectralForPreTraining(config)
    parameters = sum(each.numel() for each in model.parameters())
    limits = {"tiny": 2e6, "small": 30e6, "base": 40e6, "paper": 40e6, "large": 200e6}
    assert parameters <= limits[path.parent.name]


def test_the_five_sizes_are_there():
    assert [path.parent.name for path in SIZES] == ["base", "large", "paper", "small", "tiny"]


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"num_labels": 5},
        {"label2id": {"QSO": 1, "STAR": 0}},
        {"id2label": {"0": "teff"}, "targets": {"teff": {"distribution": "bins", "range": (3000.0, 9000.0)}}},
        {"hidden_fraction": (0.2, 0.4), "residual_cap": None, "dtype": "bfloat16"},
    ],
)
def test_a_configuration_is_the_same_through_a_dictionary_or_a_file(settings, tmp_path):
    config = SpectralConfig(**settings)
    config.save_pretrained(tmp_path)
    for same in (SpectralConfig.from_dict(config.to_dict()), SpectralConfig.from_pretrained(tmp_path)):
        assert same == config and same.num_labels == config.num_labels
    assert SpectralConfig(**settings | {"num_segments": 7}) != config and config != settings


def test_what_is_given_beside_a_dictionary_is_checked_with_it():
    """Transformers sets it afterwards, one by one and unchecked together."""
    file = SpectralConfig(hidden_size=64, num_attention_heads=4).to_dict()
    with pytest.raises(Exception, match="hidden_size must be a multiple of num_attention_heads, found: 64 and 5"):
        SpectralConfig.from_dict(file, num_attention_heads=5)
    found, unused = SpectralConfig.from_dict(file, num_attention_heads=8, revision="main", return_unused_kwargs=True)
    assert found.num_attention_heads == 8 and found.hidden_size == 64 and unused == {"revision": "main"}
    assert SpectralConfig.from_dict(file, dtype="auto").hidden_size == 64
