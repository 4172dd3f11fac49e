"""Tasks that work on one folder at once and know nothing of each other."""

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import Dataset
from fsspec.implementations.local import LocalFileSystem
from native_files import write_sdss

from spectral_tokenizer.data import load_prepared, prepare_survey
from spectral_tokenizer.data import shards as shards_module
from spectral_tokenizer.data.card import write_card


@pytest.fixture
def folder(tmp_path):
    for plate in range(1, 5):
        write_sdss(tmp_path / f"spec-{plate}.fits", plate=plate)
    return tmp_path


@pytest.fixture
def meanwhile(monkeypatch):
    """Let another task do all of its work in the moment in which this one moves a file of some ending to its place."""

    def arrange(ending, act):
        move, waiting = LocalFileSystem.mv, [act]

        def mv(self, path1, path2, **options):
            if str(path2).endswith(ending) and waiting:
                waiting.pop()()
            return move(self, path1, path2, **options)

        monkeypatch.setattr(LocalFileSystem, "mv", mv)

    return arrange


@pytest.mark.parametrize("ending", ["00001-of-00002.jsonl", "00001-of-00002.parquet"])
def test_two_tasks_that_write_the_same_shard(folder, meanwhile, ending):
    """The second sweeps away what the first has written, as if a killed run had left it."""
    arguments = {"num_shards": 2, "shards": [1]}
    reports = []
    meanwhile(ending, lambda: reports.append(prepare_survey("sdss", folder, folder / "out", **arguments)))
    reports.append(prepare_survey("sdss", folder, folder / "out", **arguments))
    assert [report.rows for report in reports] == [2, 2]
    prepare_survey("sdss", folder, folder / "out", num_shards=2, shards=[0])
    assert len(load_prepared(folder / "out" / "sdss")) == 4
    assert not list((folder / "out").rglob("*.unfinished"))


def test_two_jobs_that_answer_of_the_same_rows(tmp_path, meanwhile):
    rows, found = Dataset.from_dict({"object_id": ["a", "b"]}), pa.table({"answer": [1, 2]})
    path = tmp_path / "answers.parquet"
    meanwhile(path.name, lambda: shards_module.write_shard(rows, found, path))
    shards_module.write_shard(rows, found, path)
    assert [each.name for each in tmp_path.iterdir()] == [path.name] and pq.read_table(path).num_rows == 2


def test_two_tasks_that_write_the_card_at_once(tmp_path):
    """The second ends while the first is writing, and sweeps away what that has written."""
    files, waiting = fsspec.filesystem("file", skip_instance_cache=True), ["desi"]
    write = files.pipe_file

    def pipe_file(path, data):
        write(path, data)
        if waiting:
            write_card(files, str(tmp_path), {waiting.pop(): "DESI's paper"})

    files.pipe_file = pipe_file
    write_card(files, str(tmp_path), {"sdss": "SDSS's paper"})
    assert [path.name for path in tmp_path.iterdir()] == ["README.md"]
    text = (tmp_path / "README.md").read_text()
    assert all(name in text for name in ("config_name: desi", "config_name: sdss", "DESI's paper", "SDSS's paper"))
