"""Parquet shards and manifests: what is in them, that they are there whole or not at all, and that runs go on."""

import errno
import hashlib
import io
import json
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import get_dataset_config_names, load_dataset
from fsspec.exceptions import FSTimeoutError
from native_files import rows_of, write_desi, write_galah_ccd, write_redshifts, write_sdss

from spectral_tokenizer.data import SURVEYS, SpectrumFileError, load_prepared, load_survey, load_table, prepare_survey
from spectral_tokenizer.data import builder as builder_module
from spectral_tokenizer.data import prepare as prepare_module
from spectral_tokenizer.data.prepare import default_shards
from spectral_tokenizer.data.schema import FEATURES


LARGE_TARGET = 2**62 + 1  # float64 would round it


@pytest.fixture
def folder(tmp_path):
    """Twenty good files, a sky fibre, and two damaged ones, in two folders."""
    folder = tmp_path / "spectra"
    for plate in range(1, 21):
        part = folder / f"{plate % 2}"
        part.mkdir(parents=True, exist_ok=True)
        write_sdss(part / f"spec-{plate:04d}.fits", plate=plate, flux=np.full(60 + plate, float(plate)))
    (folder / "0" / "spec-0005-damaged.fits").write_bytes(b"")
    (folder / "1" / "spec-0013-damaged.fits").write_text("x" * 3000)
    write_sdss(folder / "1" / "spec-0009-sky.fits", ZWARNING=1)
    return folder


def contents(folder):
    """All files below a folder: relative name -> hash."""
    files = (path for path in Path(folder).rglob("*") if path.is_file())
    # Unfinished ones by name alone: a killed run's workers may be about to rename them.
    read = {path: b"" if path.name.endswith(".unfinished") else path.read_bytes() for path in files}
    return {str(path.relative_to(folder)): hashlib.sha256(content).hexdigest() for path, content in read.items()}


def manifest(folder):
    return [json.loads(line) for path in sorted(Path(folder).glob("_manifest/*")) for line in path.open()]


def read_back(folder, **arguments):
    return load_dataset("parquet", data_files=f"{folder}/*.parquet", split="train", **arguments)


@pytest.fixture
def read_in(tmp_path):
    """`read_back` with a cache of its own."""
    return lambda folder, **arguments: read_back(folder, cache_dir=str(tmp_path / "parquet cache"), **arguments)


def test_reading_back_gives_the_same_rows(tmp_path, simulated_surveys, read_in):
    for name, source in simulated_surveys.items():
        report = prepare_survey(name, source, tmp_path / "out", num_shards=3)
        again = read_in(tmp_path / "out" / name)
        direct = load_survey(name, source, cache_dir=tmp_path / "cache")
        assert again.features == direct.features == FEATURES and len(again) == len(direct) == report.rows > 0
        by_source = {row["source"]: row for row in rows_of(direct)}
        for row in rows_of(again):
            for column, value in row.items():
                expected = by_source[row["source"]][column]
                np.testing.assert_array_equal(value, expected, err_msg=column)
                assert getattr(value, "dtype", None) == getattr(expected, "dtype", None)


def test_streaming_back(tmp_path, folder):
    prepare_survey("sdss", folder, tmp_path / "out", num_shards=4)
    rows = list(read_back(tmp_path / "out" / "sdss", streaming=True))
    assert sorted(int(row["object_id"][:4]) for row in rows) == list(range(1, 21))
    assert rows[0]["wavelength"][1] == 10 ** (3.58 + 1e-4)  # float64, as Python's own


def test_the_folder_is_a_data_set_of_the_hub(tmp_path, folder):
    """A configuration per survey, on disk as on the Hub; Datasets is not led astray by the manifests."""
    out, options = tmp_path / "out", {"split": "train", "cache_dir": str(tmp_path / "cache")}
    prepare_survey("sdss", folder, out, num_shards=4)
    assert len(load_dataset(str(out), **options)) == 20  # the only one
    write_desi(tmp_path / "coadd-1.fits", [5])
    prepare_survey("desi", tmp_path / "coadd-1.fits", out)
    assert get_dataset_config_names(str(out)) == ["desi", "sdss"]
    for name, number in (("sdss", 20), ("desi", 1)):
        assert len(load_dataset(str(out), name, **options)) == number
        assert {row["survey"] for row in load_dataset(str(out), name, split="train", streaming=True)} == {name}
    assert len(load_dataset(str(out / "sdss"), **options)) == 20


def test_the_card_keeps_what_is_written_into_it(tmp_path, folder):
    out = tmp_path / "out"
    prepare_survey("sdss", folder, out)
    card = out / "README.md"
    assert "SDSS DR17: Abdurro'uf et al. 2022" in card.read_text() and 'folder>", "sdss"' in card.read_text()
    card.write_text(
        card.read_text().replace("# Spectra", "# My own spectra").replace("tags:", "license: cc-by-4.0\ntags:")
    )
    prepare_survey("sdss", folder, out)
    write_desi(tmp_path / "coadd-1.fits", [5])
    prepare_survey("desi", tmp_path / "coadd-1.fits", out)
    text = card.read_text()
    assert "# My own spectra" in text and "license: cc-by-4.0" in text
    assert text.count("config_name: sdss") == text.count("config_name: desi") == 1
    assert text.count("Abdurro'uf") == 1


def test_identifiers_are_exact(tmp_path, read_in):
    write_desi(tmp_path / "coadd-1.fits", [LARGE_TARGET, LARGE_TARGET + 1])
    write_redshifts(tmp_path / "redrock-1.fits", [LARGE_TARGET + 1, LARGE_TARGET], [0.5, 0.25], ["QSO", "GALAXY"])
    prepare_survey("desi", tmp_path, tmp_path / "out")
    dataset = read_in(tmp_path / "out" / "desi")
    assert [int(name) for name in dataset["object_id"]] == [LARGE_TARGET, LARGE_TARGET + 1]
    assert dataset["redshift"][:] == [0.25, 0.5]


def test_manifest(tmp_path, folder):
    report = prepare_survey("sdss", folder, tmp_path / "out", num_shards=5)
    lines = manifest(tmp_path / "out" / "sdss")
    assert [line["files"][0] for line in lines] == sorted(str(path) for path in folder.rglob("*.fits"))
    assert sum(line["rows"] for line in lines) == report.rows == 20
    by_name = {Path(line["files"][0]).name: line for line in lines}
    assert by_name["spec-0009-sky.fits"]["dropped"] == {"sky fibre": 1}
    damage = by_name["spec-0013-damaged.fits"]["damage"]
    assert damage["file"] == by_name["spec-0013-damaged.fits"]["files"][0]
    assert set(damage) == {"file", "field", "found", "expected"} and all(damage.values())
    assert sum(line["damage"] is not None for line in lines) == report.damaged == 2
    assert str(report).startswith("sdss: 20 spectra from 23 files; dropped 1 (sky fibre); 2 damaged or foreign")


def test_files_of_one_star_stay_together(tmp_path):
    for star in range(7):
        for ccd in (1, 2, 3):
            write_galah_ccd(tmp_path, 140101001101010 + star, ccd)
    prepare_survey("galah", tmp_path, tmp_path / "out", num_shards=4)
    lines = manifest(tmp_path / "out" / "galah")
    assert [(len(line["files"]), line["rows"]) for line in lines] == [(3, 1)] * 7


def test_a_shard_knows_of_the_others(tmp_path):
    """Exposures are left out where their coadd is given, also in another shard."""
    write_desi(tmp_path / "coadd-1.fits", [5])
    write_desi(tmp_path / "spectra-1.fits", [5, 5])
    report = prepare_survey("desi", tmp_path, tmp_path / "out", num_shards=2)
    assert report.rows == 1 and report.dropped == {"file of exposures whose coadd is there": 1}


def test_processes_and_machines_make_the_same_bytes(tmp_path, folder):
    prepare_survey("sdss", folder, tmp_path / "one", num_shards=4)
    expected = contents(tmp_path / "one")
    assert len(expected) == 4 + 4 + 2  # and the plan and the card
    prepare_survey("sdss", folder, tmp_path / "two", num_shards=4, num_proc=2)
    assert contents(tmp_path / "two") == expected
    for shard in (2, 0, 3, 1):  # the manner of an array of tasks
        prepare_survey("sdss", folder, tmp_path / "array", num_shards=4, shards=[shard])
    assert contents(tmp_path / "array") == expected


def test_two_tasks_at_once(tmp_path, folder):
    """Two processes that know nothing of each other, as on two machines; each takes every other shard."""
    prepare_survey("sdss", folder, tmp_path / "one", num_shards=4)
    program = "import sys; from spectral_tokenizer.cli import main; main()"
    common = [sys.executable, "-c", program, "prepare", "sdss", str(folder), "--num-shards", "4"]
    common += ["--output", str(tmp_path / "two")]
    tasks = [
        subprocess.Popen([*common, "--shard", first, "--shard", second], stderr=subprocess.PIPE, text=True)
        for first, second in (("0", "2"), ("1", "3"))
    ]
    for task in tasks:
        assert task.wait(timeout=120) == 0, task.stderr.read()
    assert contents(tmp_path / "two") == contents(tmp_path / "one")


def test_more_tasks_than_files(tmp_path, folder):
    file = folder / "1" / "spec-0001.fits"
    for shard in range(3):
        report = prepare_survey("sdss", file, tmp_path / "out", num_shards=3, shards=[shard])
        assert report.rows == (shard == 0)
    assert len(list((tmp_path / "out").rglob("*.parquet"))) == 1
    with pytest.raises(ValueError, match="shard: found 3; expected 0 to 2"):
        prepare_survey("sdss", file, tmp_path / "out", num_shards=3, shards=[3])


def test_prepared_rows_are_read_back_whole_or_not_at_all(tmp_path, folder):
    prepare_survey("sdss", folder, tmp_path, num_shards=4)
    rows, own = load_prepared(tmp_path / "sdss"), load_survey("sdss", folder)
    assert rows.features == own.features and rows["object_id"][:] == own["object_id"][:]
    assert len(load_prepared([tmp_path / "sdss", tmp_path / "sdss"])) == 2 * len(own)
    (tmp_path / "sdss" / "train-00001-of-00004.parquet").unlink()
    with pytest.raises(FileNotFoundError, match="1 of 4 shards are not there, train-00001-of-00004.parquet the first"):
        load_prepared(tmp_path / "sdss")
    with pytest.raises(FileNotFoundError, match="expected a survey's folder that prepare wrote, found no _plan.json"):
        load_prepared(tmp_path)


def test_a_folder_s_name_is_no_glob(tmp_path, folder):
    """Of a survey in `dr[17]`, rows of the one in `dr1` beside it were read."""
    prepare_survey("sdss", folder / "0", tmp_path / "dr[17]")
    assert len(load_prepared(tmp_path / "dr[17]" / "sdss")) == 10
    prepare_survey("sdss", folder / "1" / "spec-0001.fits", tmp_path / "dr1")
    assert len(load_prepared(tmp_path / "dr[17]" / "sdss")) == 10


def test_shards_without_rows_are_passed_over(tmp_path, folder):
    """As of sky fibres alone: one shard in three here, and then all that a survey has."""
    files = [folder / "1" / name for name in ("spec-0001.fits", "spec-0003.fits", "spec-0009-sky.fits")]
    prepare_survey("sdss", files, tmp_path / "out", num_shards=3)
    write_sdss(tmp_path / "sky.fits", ZWARNING=1)
    prepare_survey("sdss", tmp_path / "sky.fits", tmp_path / "sky")
    empty = load_prepared(tmp_path / "sky" / "sdss")
    assert len(empty) == 0 and empty.features == FEATURES
    for folders in (tmp_path / "out" / "sdss", [tmp_path / "sky" / "sdss", tmp_path / "out" / "sdss"]):
        rows = load_prepared(folders)
        assert len(rows) == 2 and rows.features == FEATURES
    shard = tmp_path / "out" / "sdss" / "train-00001-of-00003.parquet"
    shard.write_bytes(shard.read_bytes()[:-9])
    with pytest.raises(SpectrumFileError, match=f"{shard}: file: found .*; expected a whole Parquet file"):
        load_prepared(tmp_path / "out" / "sdss")


def test_a_missing_shard_is_noticed_on_every_way(tmp_path, folder):
    """Other Parquet files, and a folder that is whole, are not asked for more than they are."""
    prepare_survey("sdss", folder, tmp_path / "p", num_shards=4)
    shards, cache = sorted((tmp_path / "p" / "sdss").glob("*.parquet")), tmp_path / "cache"
    ways = (tmp_path / "p", tmp_path / "p" / "sdss", tmp_path / "p" / "sdss" / "*.parquet", shards[0], shards[:1])
    assert [len(load_table(way, cache_dir=cache)) for way in ways] == [20, 20, 20, 4, 4]
    shards[3].rename(tmp_path / shards[3].name)
    for way in ways:
        with pytest.raises(FileNotFoundError, match="sdss: 1 of 4 shards are not there, train-00003-of-00004.parquet"):
            load_table(way, cache_dir=cache)
    assert len(load_table(tmp_path / shards[3].name, cache_dir=cache)) > 0


def test_progress_is_told_as_files_are_read(tmp_path, folder, monkeypatch):
    monkeypatch.setattr(builder_module, "PIXELS_PER_BATCH", 1)
    told, bar = [], prepare_module.tqdm

    class Bar(bar):
        def update(self, number=1):
            told.append(number)
            return super().update(number)

    monkeypatch.setattr(prepare_module, "tqdm", Bar)
    report = prepare_survey("sdss", folder, tmp_path, num_shards=1)
    assert sum(told) == report.files and max(told) < report.files
    told.clear()
    prepare_survey("sdss", folder, tmp_path)
    assert sum(told) == report.files


def test_what_a_kill_left_of_the_card_is_swept(tmp_path, folder):
    prepare_survey("sdss", folder, tmp_path, num_shards=1)
    card = (tmp_path / "README.md").read_bytes()
    (tmp_path / ".README.md.01234567.unfinished").write_bytes(card[:9])
    prepare_survey("sdss", folder, tmp_path)
    assert not list(tmp_path.glob(".*"))
    assert (tmp_path / "README.md").read_bytes() == card


def test_a_full_disk_names_what_could_not_be_written(tmp_path, folder, monkeypatch):
    """The system names no file of a write."""

    def full(*_, **options):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(prepare_module.pq.ParquetWriter, "write_table", full)
    with pytest.raises(OSError, match="No space left on device: '.*train-00000-of-00001.parquet'") as error:
        prepare_survey("sdss", folder, tmp_path / "out")
    assert error.value.errno == errno.ENOSPC
    assert not list((tmp_path / "out" / "sdss").glob(".*"))


def test_nothing_is_made_twice(tmp_path, folder):
    first = prepare_survey("sdss", folder, tmp_path / "out", num_shards=4)
    out = tmp_path / "out" / "sdss"
    for path in out.rglob("*"):
        os.utime(path, ns=(0, 0))
    (out / "train-00002-of-00004.parquet").unlink()
    again = prepare_survey("sdss", folder, tmp_path / "out")  # the number of shards is that of the plan
    assert again == first
    touched = {path.name for path in out.rglob("*.*") if path.stat().st_mtime_ns}
    assert touched == {"train-00002-of-00004.parquet", "00002-of-00004.jsonl"}


def test_a_changed_file_makes_its_shard_anew(tmp_path, folder, read_in):
    prepare_survey("sdss", folder, tmp_path / "out", num_shards=4)
    before = contents(tmp_path / "out")
    write_sdss(folder / "0" / "spec-0005-damaged.fits", plate=77)
    report = prepare_survey("sdss", folder, tmp_path / "out")
    after = contents(tmp_path / "out")
    assert (report.rows, report.damaged) == (21, 1)
    assert sum(before[name] != after[name] for name in before) == 2
    assert len(read_in(tmp_path / "out" / "sdss")) == 21


@pytest.mark.parametrize("left", [0, 1000, -4], ids=["empty", "cut off", "without its end"])
def test_a_damaged_shard_is_made_anew_and_named(tmp_path, folder, caplog, left):
    prepare_survey("sdss", folder, tmp_path / "out", num_shards=4)
    before = contents(tmp_path / "out")
    shard = tmp_path / "out" / "sdss" / "train-00001-of-00004.parquet"
    shard.write_bytes(shard.read_bytes()[:left])
    assert prepare_survey("sdss", folder, tmp_path / "out").rows == 20
    assert contents(tmp_path / "out") == before
    assert [record.levelname for record in caplog.records if f"{shard}: file: found " in record.message] == ["WARNING"]


@pytest.mark.parametrize("left", [None, 0, 100, "a line"])
def test_a_shard_without_its_whole_manifest_is_made_anew(tmp_path, folder, caplog, left):
    prepare_survey("sdss", folder, tmp_path / "out", num_shards=4)
    before = contents(tmp_path / "out")
    path = tmp_path / "out" / "sdss" / "_manifest" / "00001-of-00004.jsonl"
    content = path.read_bytes()
    path.write_bytes(content[: content.index(b"\n") + 1 if left == "a line" else left])
    if left is None:
        path.unlink()
    assert prepare_survey("sdss", folder, tmp_path / "out").rows == 20
    assert contents(tmp_path / "out") == before
    assert [record.levelname for record in caplog.records if f"{path}: found " in record.message] == ["WARNING"]


@pytest.mark.parametrize("metadata", [None, {"of": "pandas"}])
def test_a_file_of_another_origin_under_a_shard_s_name_is_named_and_stays(tmp_path, folder, metadata):
    prepare_survey("sdss", folder, tmp_path / "out", num_shards=4)
    shard = tmp_path / "out" / "sdss" / "train-00001-of-00004.parquet"
    pq.write_table(pa.table({"mine": [1]}).replace_schema_metadata(metadata), shard)
    before = contents(tmp_path / "out")
    with pytest.raises(
        ValueError, match=f"{shard}: found a Parquet file that prepare did not write; expected a shard"
    ):
        prepare_survey("sdss", folder, tmp_path / "out")
    assert contents(tmp_path / "out") == before


@pytest.mark.parametrize("error", [OSError(errno.EIO, "Input/output error"), FSTimeoutError("no answer")])
def test_a_shard_that_a_disk_or_network_does_not_give_is_not_made_anew(tmp_path, error):
    """It may be whole."""

    class Slow(io.BytesIO):
        def read(self, *_):
            raise error

    files = fsspec.filesystem("file", skip_instance_cache=True)
    files.open = lambda *_: Slow(b"PAR1" * 100)
    with pytest.raises(type(error), match=str(error.args[-1])):
        prepare_module.made_from(files, str(tmp_path / "train-00001-of-00004.parquet"))


def test_a_changed_companion_makes_its_shard_anew(tmp_path, read_in):
    write_desi(tmp_path / "coadd-1.fits", [5])
    prepare_survey("desi", tmp_path, tmp_path / "out")
    write_redshifts(tmp_path / "redrock-1.fits", [5], [0.5], ["QSO"])
    prepare_survey("desi", tmp_path, tmp_path / "out")
    assert read_in(tmp_path / "out" / "desi")["redshift"][:] == [0.5]


def test_other_files_or_options_are_refused(tmp_path, folder, monkeypatch):
    prepare_survey("sdss", folder, tmp_path / "out", num_shards=4)
    before = contents(tmp_path / "out")
    for arguments, word in (({"sky": True}, "options"), ({"num_shards": 5}, "shards")):
        with pytest.raises(ValueError, match=f"prepared from something else: found .*{word}.*; expected .*{word}"):
            prepare_survey("sdss", folder, tmp_path / "out", **arguments)
    with pytest.raises(
        ValueError, match="'units': 11}.*'units': 23}.*Input files were added, removed or renamed since"
    ):
        prepare_survey("sdss", folder / "0", tmp_path / "out")
    with pytest.raises(ValueError, match="output: found '.*c::d/sdss'; expected a folder without '::'"):
        prepare_survey("sdss", folder, tmp_path / "c::d")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "spectra"]
    monkeypatch.setattr(SURVEYS["sdss"], "VERSION", "99.0.0")
    with pytest.raises(ValueError, match=r"reader_version.*99\.0\.0"):
        prepare_survey("sdss", folder, tmp_path / "out")
    assert contents(tmp_path / "out") == before


def test_shards_do_not_outlive_their_plan(tmp_path, folder, monkeypatch):
    """Whoever removes the plan alone, as the refusal of other options names it, gets no rows of the options before."""
    out = tmp_path / "out" / "sdss"
    assert prepare_survey("sdss", folder, tmp_path / "out", num_shards=2).rows == 20
    (out / "_plan.json").unlink()
    assert prepare_survey("sdss", folder, tmp_path / "out", num_shards=2, sky=True).rows == 21
    assert pq.read_table(out).num_rows == 21
    (out / "_plan.json").unlink()
    monkeypatch.setattr(SURVEYS["sdss"], "VERSION", "99.0.0")
    before = contents(out)
    prepare_survey("sdss", folder, tmp_path / "out", num_shards=2, sky=True)
    assert all(contents(out)[path.name] != before[path.name] for path in out.glob("*.parquet"))


def test_options_are_the_same_in_any_order(tmp_path, folder):
    """Shards were made anew of them, without a word."""
    options = {"sky": True, "unreliable_labels": True}
    prepare_survey("sdss", folder, tmp_path / "out", num_shards=2, **options)
    (shard,) = (tmp_path / "out" / "sdss").glob("*00000-of*.parquet")
    before = shard.stat().st_ino
    prepare_survey("sdss", folder, tmp_path / "out", num_shards=2, **dict(reversed(options.items())))
    assert shard.stat().st_ino == before


def test_shards_that_do_not_tell_their_reader_stay(tmp_path, folder, monkeypatch):
    """As versions before wrote them."""
    monkeypatch.setattr(prepare_module, "READER", b"another key")
    prepare_survey("sdss", folder, tmp_path / "out", num_shards=2)
    monkeypatch.undo()
    before = contents(tmp_path / "out")
    prepare_survey("sdss", folder, tmp_path / "out")
    assert contents(tmp_path / "out") == before


def test_unknown_survey_option_and_no_files(tmp_path, folder):
    with pytest.raises(ValueError, match="rave"):
        prepare_survey("rave", folder, tmp_path / "out")
    with pytest.raises(TypeError, match="clouds"):
        prepare_survey("sdss", folder, tmp_path / "out", clouds=True)
    for number in (0, -1):
        with pytest.raises(ValueError, match=f"num_shards: found {number}; expected 1 or more"):
            prepare_survey("sdss", folder, tmp_path / "out", num_shards=number)
    assert not (tmp_path / "out").exists()
    with pytest.raises(FileNotFoundError, match="nowhere"):
        prepare_survey("sdss", folder / "nowhere", tmp_path / "out")
    assert not list(tmp_path.rglob("*.parquet"))


@pytest.mark.parametrize("num_proc", [1, 2])
def test_strict_stops_and_leaves_nothing_half_written(tmp_path, folder, num_proc):
    with pytest.raises(SpectrumFileError, match="damaged.fits"):
        prepare_survey("sdss", folder, tmp_path / "out", num_shards=4, num_proc=num_proc, strict=True)
    assert not [name for name in contents(tmp_path / "out") if "unfinished" in name]
    report = prepare_survey("sdss", folder, tmp_path / "out", num_proc=num_proc)
    assert report.rows == 20


def test_a_shard_without_rows(tmp_path, read_in):
    (tmp_path / "spec-1.fits").write_bytes(b"")
    report = prepare_survey("sdss", tmp_path, tmp_path / "nothing")
    assert (report.rows, report.damaged) == (0, 1)
    assert pq.read_table(tmp_path / "nothing" / "sdss").num_rows == 0
    write_sdss(tmp_path / "spec-2.fits")
    prepare_survey("sdss", tmp_path, tmp_path / "out", num_shards=2)
    dataset = read_in(tmp_path / "out" / "sdss")
    assert len(dataset) == 1 and dataset.features == FEATURES


def test_memory_file_system(folder):
    fsspec.filesystem("memory").store.clear()
    report = prepare_survey("sdss", folder, "memory://bucket/spectra", num_shards=2)
    names = sorted(fsspec.filesystem("memory").find("/bucket/spectra/sdss"))
    assert [name.removeprefix("/bucket/spectra/sdss/") for name in names] == [
        "_manifest/00000-of-00002.jsonl",
        "_manifest/00001-of-00002.jsonl",
        "_plan.json",
        "train-00000-of-00002.parquet",
        "train-00001-of-00002.parquet",
    ]
    with fsspec.open("memory://bucket/spectra/sdss/train-00001-of-00002.parquet") as file:
        assert pq.read_table(file).num_rows == report.rows - 10
    assert prepare_survey("sdss", folder, "memory://bucket/spectra") == report
    with pytest.raises(ValueError, match="memory is not shared"):
        prepare_survey("sdss", folder, "memory://bucket/others", num_shards=2, num_proc=2)
    fsspec.filesystem("memory").store.clear()


def test_strange_names(tmp_path, read_in):
    folder = tmp_path / "spéctres [α] *"
    folder.mkdir()
    write_sdss(folder / "spec-é 1.fits")
    prepare_survey("sdss", folder, folder / "out put")
    assert [Path(line["files"][0]).name for line in manifest(folder / "out put" / "sdss")] == ["spec-é 1.fits"]
    assert pq.read_table(folder / "out put" / "sdss" / "train-00000-of-00001.parquet").num_rows == 1


def test_a_name_that_is_no_unicode(tmp_path):
    path = os.path.join(os.fsencode(tmp_path), b"spec-\xff.fits")
    write_sdss(tmp_path / "spec-1.fits").rename(os.fsdecode(path))
    prepare_survey("sdss", tmp_path, tmp_path / "out")
    assert [line["files"] for line in manifest(tmp_path / "out" / "sdss")] == [[os.fsdecode(path)]]
    assert pq.read_table(tmp_path / "out" / "sdss")["source"].to_pylist() == ["spec-\\udcff.fits"]


def test_default_number_of_shards(tmp_path, folder, monkeypatch):
    units = [(str(path),) for path in folder.rglob("spec-00??.fits")]
    assert default_shards(units) == 1 and default_shards([]) == 1
    monkeypatch.setattr(prepare_module, "BYTES_PER_SHARD", Path(units[0][0]).stat().st_size)
    assert default_shards(units) == len(units)


def test_a_large_unit_waits_on_disk(tmp_path, monkeypatch):
    """A file of more than a batch gives the same rows, in their order between its neighbours."""
    for number, targets in enumerate(([1, 2], list(range(3, 20)), [20])):
        write_desi(tmp_path / f"coadd-{number}.fits", targets)
    prepare_survey("desi", tmp_path, tmp_path / "whole")
    monkeypatch.setattr(builder_module, "PIXELS_PER_BATCH", 500)
    prepare_survey("desi", tmp_path, tmp_path / "pieces")
    name = "desi/train-00000-of-00001.parquet"
    pieces = pq.ParquetFile(tmp_path / "pieces" / name)
    assert pieces.metadata.num_row_groups > 3
    assert repr(pieces.read().to_pydict()) == repr(pq.read_table(tmp_path / "whole" / name).to_pydict())
    assert [int(name) for name in pieces.read()["object_id"].to_pylist()] == list(range(1, 21))


def test_a_large_unit_that_breaks_off_gives_no_row(tmp_path, monkeypatch):
    monkeypatch.setattr(builder_module, "PIXELS_PER_BATCH", 500)
    write_desi(tmp_path / "coadd-1.fits", list(range(20)))
    read = SURVEYS["desi"].read

    def breaks_off(self, files):
        for number, row in enumerate(read(self, files)):
            if number == 15:
                raise SpectrumFileError(files[0], "row 15", "nothing", "a row")
            yield row

    monkeypatch.setattr(SURVEYS["desi"], "read", breaks_off)
    report = prepare_survey("desi", tmp_path, tmp_path / "out")
    assert (report.rows, report.damaged) == (0, 1)
    assert len(load_survey("desi", tmp_path / "coadd-1.fits", cache_dir=tmp_path / "cache")) == 0


def in_a_process(*arguments, **settings):
    """Start `prepare_survey` in a process of its own; forked, to be quick."""
    process = multiprocessing.get_context("fork").Process(
        target=prepare_survey, args=arguments, kwargs=settings, daemon=False
    )
    process.start()
    return process


@pytest.mark.parametrize("is_there", [True, False])
def test_what_killed_runs_left_of_the_plan_is_removed(folder, tmp_path, is_there):
    if is_there:
        prepare_survey("sdss", folder, tmp_path / "out", num_shards=1)
    (tmp_path / "out" / "sdss").mkdir(parents=True, exist_ok=True)
    left = tmp_path / "out" / "sdss" / "._plan.json.01234567.unfinished"
    left.touch()
    prepare_survey("sdss", folder, tmp_path / "out", num_shards=1)
    assert (tmp_path / "out" / "sdss" / "_plan.json").exists() and not left.exists()


@pytest.mark.parametrize("num_proc", [1, 2])
def test_killed_at_random_moments(tmp_path, folder, num_proc):
    """SIGKILL leaves no half file under a file's name, and later runs lose and repeat nothing."""
    start = time.monotonic()
    prepare_survey("sdss", folder, tmp_path / "whole", num_shards=8, num_proc=num_proc)
    duration = time.monotonic() - start
    expected, generator = contents(tmp_path / "whole"), random.Random(num_proc)
    num_kills = 0
    for round_number in range(4):
        out, patience = tmp_path / f"killed {round_number}", 0.6 * duration
        while True:
            process = in_a_process("sdss", folder, out, num_shards=8, num_proc=num_proc)
            process.join(timeout=generator.uniform(0.02, patience))
            if process.exitcode is not None:
                break
            os.kill(process.pid, signal.SIGKILL)
            process.join()
            num_kills += 1
            left = contents(out)
            finished = {name: value for name, value in left.items() if not name.endswith(".unfinished")}
            assert finished.items() <= expected.items()
            patience *= 1.1  # until it gets through, on however busy a machine
        assert process.exitcode == 0
        assert contents(out) == expected
    assert num_kills > 0


def test_a_killed_worker(tmp_path, folder, monkeypatch):
    """As the kernel does for want of memory: the run ends with a word on it, and the next one goes on."""
    write = prepare_module.write_rows

    def fatal(file_system, path, *arguments):
        if "00002-of" in path:
            os.kill(os.getpid(), signal.SIGKILL)
        return write(file_system, path, *arguments)

    monkeypatch.setattr(prepare_module, "write_rows", fatal)
    with pytest.raises(ChildProcessError, match="want of memory.*start again"):
        prepare_survey("sdss", folder, tmp_path / "out", num_shards=4, num_proc=2)
    monkeypatch.undo()
    assert prepare_survey("sdss", folder, tmp_path / "out", num_proc=2).rows == 20
    assert not [name for name in contents(tmp_path / "out") if "unfinished" in name]
