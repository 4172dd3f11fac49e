"""Tasks that work on one folder at once and know nothing of each other."""

import errno
import json
import os
from types import SimpleNamespace

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import Dataset
from fsspec.implementations.local import LocalFileSystem
from native_files import write_sdss

from spectral_tokenizer.data import load_prepared, prepare_survey
from spectral_tokenizer.data import prepare as prepare_module
from spectral_tokenizer.data import storage as storage_module
from spectral_tokenizer.data.card import write_card
from spectral_tokenizer.data.shards import Shards, claim, write_answers, write_shard


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
    meanwhile(path.name, lambda: write_shard(rows, found, path))
    write_shard(rows, found, path)
    assert [each.name for each in tmp_path.iterdir()] == [path.name] and pq.read_table(path).num_rows == 2


@pytest.fixture
def begin_together(monkeypatch):
    """Let another task begin, and end, after this one has seen that there is no plan, and before it writes its own."""

    def arrange(act):
        name, waiting = storage_module.uuid.uuid4, [act]

        def uuid4():
            if waiting:
                waiting.pop()()
            return name()

        monkeypatch.setattr(storage_module, "uuid", SimpleNamespace(uuid4=uuid4))

    return arrange


def test_of_two_tasks_with_other_options_one_is_refused(folder, begin_together):
    out = folder / "out" / "sdss"
    begin_together(lambda: prepare_survey("sdss", folder, folder / "out", num_shards=2, sky=True))
    with pytest.raises(ValueError, match="found {'options': {}}; expected {'options': {'sky': True}}"):
        prepare_survey("sdss", folder, folder / "out", num_shards=2)
    assert json.loads((out / "_plan.json").read_text())["options"] == {"sky": True}
    assert {path.name for path in out.iterdir() if path.suffix != ".parquet"} == {"_plan.json", "_manifest"}


def test_a_disk_without_links(folder, monkeypatch):
    def link(*_):
        raise OSError(errno.EOPNOTSUPP, "Operation not supported")

    monkeypatch.setattr(os, "link", link)
    assert prepare_survey("sdss", folder, folder / "out", num_shards=2).rows == 4
    assert not list((folder / "out").rglob("*.unfinished"))


def test_a_plan_that_was_overwritten_meanwhile_is_noticed(folder, monkeypatch):
    """As an object store lets two tasks do that began together."""
    write, files = prepare_module.write_rows, fsspec.filesystem("memory")
    files.store.clear()

    def write_rows(*arguments):
        plan = json.loads(files.cat_file("/race/sdss/_plan.json"))
        files.pipe_file("/race/sdss/_plan.json", json.dumps({**plan, "options": {"sky": True}}).encode())
        return write(*arguments)

    monkeypatch.setattr(prepare_module, "write_rows", write_rows)
    with pytest.raises(ValueError, match="prepared from something else: found .*'options'"):
        prepare_survey("sdss", folder, "memory://race", num_shards=2)
    files.store.clear()


def test_of_two_jobs_with_other_models_one_is_refused(tmp_path, begin_together):
    one, other = (Shards(rows="rows", model=model, num_rows=2, shard_rows=2) for model in ("one", "other"))
    begin_together(lambda: claim(tmp_path, other))
    with pytest.raises(ValueError, match="holds other embeddings .model: found other, expected one"):
        claim(tmp_path, one)
    assert [path.name for path in tmp_path.iterdir()] == ["embeddings.json"]
    claim(tmp_path, other)


def test_a_claim_that_was_overwritten_meanwhile_is_noticed(tmp_path):
    """As a disk without links lets two jobs do that began together."""
    rows = Dataset.from_dict({"object_id": ["a", "b"]})
    one, other = (Shards(rows="rows", model=model, num_rows=2, shard_rows=2) for model in ("one", "other"))

    def answers(part):
        (tmp_path / "embeddings.json").unlink()
        claim(tmp_path, other)
        yield {"answer": pa.array([1, 2])}

    with pytest.raises(ValueError, match="model: found other, expected one"):
        write_answers(rows, tmp_path, one, answers, progress=False)


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


@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_plan_swept_by_another_while_it_is_named(tmp_path, monkeypatch, moment):
    """Another task finds the file, and takes ours for what a killed run left."""
    link, path = os.link, tmp_path / "_plan.json"

    def swept(unfinished, name):
        if moment == "before":
            path.write_bytes(b"theirs")
            os.remove(unfinished)
        link(unfinished, name)
        os.remove(unfinished)

    monkeypatch.setattr(os, "link", swept)
    found = storage_module.write_first(fsspec.filesystem("file"), str(path), b"ours")
    assert found == (b"theirs" if moment == "before" else b"ours") and os.listdir(tmp_path) == ["_plan.json"]
