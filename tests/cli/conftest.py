"""The command line in this process: arguments in, exit code and output out."""

import sys
from typing import NamedTuple

import pytest

from spectral_tokenizer.cli import main


class Result(NamedTuple):
    code: int
    out: str
    err: str


@pytest.fixture
def command(monkeypatch, capsys):
    """Run `spectral-tokenizer` with arguments."""
    monkeypatch.delenv("SPECTRAL_TOKENIZER_DEBUG", raising=False)
    monkeypatch.setenv("COLUMNS", "120")

    def run(*arguments) -> Result:
        monkeypatch.setattr(sys, "argv", ["spectral-tokenizer", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            main()
        captured = capsys.readouterr()
        return Result(end.value.code or 0, captured.out, captured.err)

    return run
