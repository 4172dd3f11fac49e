import json

import numpy as np
import pytest
import torch
from datasets import Dataset

from benchmarks.heads import SHOWN, main, split
from spectral_tokenizer import SpectralConfig, SpectralForPreTraining, SpectralProcessor


#: Bins that hold all redshifts that are simulated.
TOLD = {
    "label_weight": 0.2,
    "label_targets": {"redshift": {"distribution": "bins", "range": [-0.5, 7], "num_bins": 8}},
}


@pytest.fixture(scope="module")
def simulated(tmp_path_factory):
    """Where the first run leaves its spectra for the second."""
    return tmp_path_factory.mktemp("simulated")


@pytest.mark.parametrize("told", [{}, TOLD], ids=["", "with a label head"])
def test_the_table_is_made(tmp_path, simulated, capsys, told):
    torch.manual_seed(0)
    config = SpectralConfig(
        hidden_size=32, num_hidden_layers=1, num_decoder_layers=1, num_attention_heads=4, intermediate_size=64, **told
    )
    SpectralForPreTraining(config).save_pretrained(tmp_path / "model")
    SpectralProcessor().save_pretrained(tmp_path / "model")
    main(["--model", str(tmp_path / "model"), "--spectra", "40", "--splits", "2", "--folder", str(simulated)])
    lines = capsys.readouterr().out.splitlines()
    cases = {case["case"]: case for case in json.loads(lines[-1])["cases"]}
    asked = ["redshift", "redshift by the label head"] if told else ["redshift"]
    redshifts = {f"{name}, tolerance {each}" for name in asked for each in (0.0033, 0.05, 0.15)}
    assert set(cases) == redshifts | {"teff", "logg", "fe_h"}
    for case in cases.values():
        assert 0 <= case["coverage"][0] <= 1 and case["test_spectra"] > 5
        assert set(case) - {"case", "test_spectra"} <= set(SHOWN)
    assert sum(line.startswith("| redshift") for line in lines) == len(redshifts)


def test_splits_share_no_object():
    rows = Dataset.from_dict({"object_id": [f"{number // 2}" for number in range(200)]})
    parts = [{rows["object_id"][place] for place in places} for places in split(rows, 3)]
    assert [len(part) for part in parts] == [40, 30, 30]
    assert not parts[0] & parts[1] and not parts[0] & parts[2] and not parts[1] & parts[2]
    assert not np.array_equal(split(rows, 3)[2], split(rows, 4)[2])
