"""Options of a reader whose module has its annotations as text."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
import typer

from spectral_tokenizer.cli.console import read_options, reader_options
from spectral_tokenizer.data.builder import SpectraBuilder, SurveyConfig, check_options


@dataclass
class Config(SurveyConfig):
    sky: bool = False
    min_snr: float = 0.0
    visits: int | None = None


class Survey(SpectraBuilder):
    BUILDER_CONFIG_CLASS = Config


def test_numbers_and_truth():
    options = check_options(Survey, {"sky": True, "min_snr": np.float32(5), "visits": np.int64(3)})
    assert options == {"sky": True, "min_snr": 5.0, "visits": 3}
    assert [type(value) for value in options.values()] == [bool, float, int]
    assert check_options(Survey, {"visits": None, "catalogue": None}) == {"visits": None, "catalogue": None}
    for name, value, expected in (
        ("sky", "false", "True or False"),
        ("sky", None, "True or False"),
        ("min_snr", "5", "a number"),
        ("min_snr", True, "a number"),
        ("visits", 2.5, "an integer"),
    ):
        with pytest.raises(TypeError, match=f"{name}: found {value!r}; expected {expected}"):
            check_options(Survey, {name: value})


def test_from_the_command_line():
    known = reader_options([Survey])
    options = read_options(["sky=no", "min-snr=5", "visits=-3"], known)
    assert options == {"sky": False, "min_snr": 5.0, "visits": -3} and type(options["min_snr"]) is float
    assert check_options(Survey, options) == options
    for wrong, message in (("min_snr=high", "min_snr: found 'high'; expected a number"), ("visits=1.5", "an integer")):
        with pytest.raises(typer.BadParameter, match=message):
            read_options([wrong], known)
