"""Options and fixtures that all tests share."""

import os
from pathlib import Path

import pytest


ROOT = Path(__file__).parent.parent


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--spectra",
        default=os.environ.get("SPECTRA_DIR", "../shared/spectra"),
        help="folder of real spectra, absolute or relative to the repository (also: environment variable SPECTRA_DIR)",
    )
    parser.addoption(
        "--kills", type=int, default=2, help="how often the training run of tests/training/test_survival.py is killed"
    )
    parser.addoption(
        "--templates",
        default=os.environ.get("TEMPLATES_DIR", "../shared/templates"),
        help="folder of published templates, as for --spectra (also: environment variable TEMPLATES_DIR)",
    )
    parser.addoption("--mutations", type=int, default=400, help="damaged files that tests/data/test_fuzz.py reads")


@pytest.fixture(scope="session")
def templates_dir(pytestconfig: pytest.Config) -> Path:
    """The folder of published templates, which are not part of the repository."""
    folder = (ROOT / pytestconfig.getoption("--templates")).resolve()
    if not (folder / "redrock").is_dir():
        pytest.skip(f"no published templates at {folder}: give their folder with --templates or TEMPLATES_DIR")
    return folder


@pytest.fixture(scope="session")
def spectra_dir(pytestconfig: pytest.Config) -> Path:
    """The folder of real survey files, which are not part of the repository."""
    folder = (ROOT / pytestconfig.getoption("--spectra")).resolve()
    if not folder.is_dir():
        pytest.skip(f"no real spectra at {folder}: give their folder with --spectra or SPECTRA_DIR")
    return folder


@pytest.fixture(scope="session")
def simulated_surveys(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Folders of a few simulated survey files, survey by survey."""
    from spectral_tokenizer.data.simulation import simulate

    return simulate(tmp_path_factory.mktemp("simulated") / "surveys", 24, seed=1)


@pytest.fixture(scope="module")
def rows() -> list[dict]:
    """A small spectrum of the shape of each survey's."""
    from spectra import spectrum

    return [spectrum(survey, seed) for seed, survey in enumerate(("sdss", "desi", "galah", "apogee"))]


@pytest.fixture(scope="module")
def inputs(rows):
    """The same as a model takes them."""
    from spectral_tokenizer import SpectralProcessor

    return SpectralProcessor()(rows, return_tensors="pt")


@pytest.fixture(scope="session")
def pretrained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `make pretrain` leaves in runs/demo/model, but for its size and its training. Not to be written to."""
    import torch

    from spectral_tokenizer import SpectralConfig, SpectralForPreTraining, SpectralProcessor

    folder = tmp_path_factory.mktemp("pretrained") / "model"
    torch.manual_seed(0)
    config = SpectralConfig(
        hidden_size=32, num_hidden_layers=2, num_decoder_layers=1, num_attention_heads=4, intermediate_size=64
    )
    SpectralForPreTraining(config).save_pretrained(folder)
    SpectralProcessor().save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def hub():
    """A Hub of the tests' own on a free port of loopback. What it could not answer fails the tests that used it."""
    from hub_server import HubServer

    with HubServer() as server:
        yield server
        assert not server.unknown
