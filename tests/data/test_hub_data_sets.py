"""Prepared surveys as a data set of the Hub: uploaded as a folder, streamed back by name, one configuration each."""

import json
import sys

from hub_clients import finished, run

from spectral_tokenizer.data import load_survey, prepare_survey


UPLOAD = "from huggingface_hub.cli.hf import main; main()"
STREAM = """
import json, sys
from datasets import get_dataset_config_names, load_dataset

names = get_dataset_config_names("me/spectra")
found = {}
for name in names:
    rows = load_dataset("me/spectra", name, split="train", streaming=True).with_format("numpy")
    found[name] = [[row["object_id"], float(row["flux"].sum()), len(row["wavelength"])] for row in rows]
json.dump(found, open(sys.argv[1], "w"))
"""


def test_prepared_surveys_are_streamed_by_name(hub, simulated_surveys, tmp_path):
    for survey, folder in simulated_surveys.items():
        prepare_survey(survey, folder, tmp_path / "prepared", num_shards=2 if survey == "sdss" else 1)
    command = [
        sys.executable,
        "-c",
        UPLOAD,
        "upload",
        "me/spectra",
        str(tmp_path / "prepared"),
        ".",
        "--repo-type",
        "dataset",
    ]
    finished(command, hub, tmp_path / "home")
    repository = hub.repositories["datasets", "me/spectra"]
    assert len(repository.titles) == 2  # the first is the Hub's own
    files = repository.commits[repository.branches["main"]]
    assert {"sdss/train-00000-of-00002.parquet", "sdss/train-00001-of-00002.parquet", "README.md"} <= set(files)
    card = files["README.md"].decode()
    assert "AST-0950945" in card and "Gamilaraay" in card  # as DESI and GALAH ask

    hub.requests.clear()
    run(hub, tmp_path / "reader", STREAM, tmp_path / "streamed")
    streamed = json.loads((tmp_path / "streamed").read_text())
    assert set(streamed) == set(simulated_surveys)
    for survey, folder in simulated_surveys.items():
        rows = load_survey(survey, folder, cache_dir=tmp_path / "cache").with_format("numpy")
        expected = [[row["object_id"], float(row["flux"].sum()), len(row["wavelength"])] for row in rows]
        assert sorted(streamed[survey]) == sorted(expected) and expected
    assert any("/datasets/me/spectra/resolve/" in each and each.startswith("GET") for each in hub.requests)
