"""A recipe of seconds and one whole run of it, which several tests compare with."""

import json

import pytest
import yaml
from recipe import ROOT
from training_runs import STEPS, SURVEYS, run, run_here


@pytest.fixture(scope="session")
def recipe(tmp_path_factory, simulated_surveys):
    """A recipe of seconds: a model of 20,000 parameters on some simulated spectra of each survey."""
    folder = tmp_path_factory.mktemp("recipe")
    config = json.loads((ROOT / "hub_configs" / "tiny" / "config.json").read_text())
    config |= {"hidden_size": 32, "num_hidden_layers": 1, "num_decoder_layers": 1, "intermediate_size": 64}
    (folder / "size").mkdir()
    (folder / "size" / "config.json").write_text(json.dumps(config))
    preprocessor = (ROOT / "hub_configs" / "tiny" / "preprocessor_config.json").read_text()
    (folder / "size" / "preprocessor_config.json").write_text(preprocessor)
    settings = {
        "model": str(folder / "size"), "data": {survey: str(simulated_surveys[survey]) for survey in SURVEYS},
        "num_steps": STEPS, "max_spectra": 6, "learning_rate": 1e-3, "warmup_steps": 2, "validation_spectra": 4,
        "log_every": 1, "validate_every": 4, "checkpoint_every": 3, "keep_checkpoints": 5,
    }  # fmt: skip
    (folder / "recipe.yaml").write_text(yaml.safe_dump(settings))
    return folder / "recipe.yaml"


@pytest.fixture(scope="session")
def uninterrupted(recipe, tmp_path_factory):
    output = tmp_path_factory.mktemp("run") / "whole"
    return output, run(recipe, output)


@pytest.fixture(scope="session")
def frozen(recipe, uninterrupted, tmp_path_factory):
    """A recipe that trains a decoder on the encoder of `uninterrupted`, and what a run of it left."""
    folder = tmp_path_factory.mktemp("frozen")
    settings = yaml.safe_load(recipe.read_text())
    settings |= {
        "model": str(uninterrupted[0] / "model"), "freeze_encoder": True, "model_options": {"level": "visible"},
    }  # fmt: skip
    (folder / "recipe.yaml").write_text(yaml.safe_dump(settings))
    run_here(folder / "recipe.yaml", folder / "whole")
    return folder / "recipe.yaml", folder / "whole"
