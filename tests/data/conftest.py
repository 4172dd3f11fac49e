"""An archive of the tests' own, on loopback, which does wrong whatever a test asks it to."""

import random
import threading

import datasets
import pytest
from archive_server import SIZE, ArchiveServer

from spectral_tokenizer.data import archive as archive_module
from spectral_tokenizer.data.archive import Archive


@pytest.fixture
def server(monkeypatch):
    """An archive that is up, and a client that does not wait long."""
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(archive_module, "FIRST_WAIT", 0.001)
    with ArchiveServer() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def content():
    return random.Random(0).randbytes(SIZE)


@pytest.fixture
def archive(tmp_path):
    return Archive(tmp_path / "cache")
