"""Faults on the way from an archive, and many at a time: each ends in the very bytes or in a clear word."""

import gzip
import hashlib
import multiprocessing
import os
import random
import signal
import threading
import time

import datasets
import pytest
from archive_server import SIZE, Fault, left_over

from spectral_tokenizer.data import archive as archive_module
from spectral_tokenizer.data.archive import Archive


# What goes wrong on the way


@pytest.mark.parametrize(
    "faults",
    [
        [Fault("status", 503)],
        [Fault("status", 500), Fault("status", 502), Fault("status", 504), Fault("status", 408)],
        [Fault("status", 429, {"Retry-After": "0"})],
        [Fault("truncated", 0)],
        [Fault("truncated", 1000), Fault("truncated", 1), Fault("truncated", SIZE // 2)],
        [Fault("reset", 0)],
        [Fault("reset", 1000), Fault("reset", SIZE // 2)],
        [Fault("slow")],
        [Fault("reset", 10), Fault("slow")],
        [Fault("truncated", 1000), Fault("no range")],
        [Fault("truncated", 1000), Fault("unsized")],
        [Fault("truncated", 1000), Fault("other range")],
        [Fault("truncated", 1000), Fault("status", 503), Fault("reset", 30), Fault("slow")],
    ],
    ids=lambda faults: "-".join(f"{fault.kind} {fault.value}".replace(" ", "_") for fault in faults)[:60],
)
@pytest.mark.parametrize("has_validators", [True, False])
def test_every_fault_ends_in_the_same_bytes(server, archive, content, faults, has_validators):
    server.has_validators = has_validators
    server.files["file.fits"], server.faults["file.fits"] = content, list(faults)
    url = f"{server.url}/file.fits"
    assert archive.fetch([url]) == {}
    assert archive.path_of(url).read_bytes() == content
    assert not left_over(archive) and not server.faults["file.fits"]


def test_an_archive_that_breaks_off_again_and_again(server, archive, content):
    """As long as bytes come it is not given up."""
    server.files["file.fits"] = content
    server.faults["file.fits"] = [
        Fault("truncated", 3000 + number) for number in range(4 * archive_module.MAX_RETRIES)
    ]
    archive.fetch([f"{server.url}/file.fits"])
    assert archive.path_of(f"{server.url}/file.fits").read_bytes() == content


def test_what_has_come_is_not_asked_for_again(server, archive, content):
    server.files["file.fits"] = content
    server.faults["file.fits"] = [Fault("truncated", 1000), Fault("reset", 64), Fault("status", 503)]
    archive.fetch([f"{server.url}/file.fits"])
    ranges = [given for _, given in server.requests]
    assert ranges[:2] == ["", "bytes=1000-"]
    assert ranges[2] == ranges[3] and ranges[3] in ("bytes=1064-", "bytes=1000-")  # a reset may take bytes with it


def test_a_file_that_changes_meanwhile(server, archive, content):
    """The rest of another file is not hung onto the first part."""
    other = bytes(reversed(content))
    server.files["file.fits"] = content
    server.faults["file.fits"] = [Fault("truncated", 1000, replacement=other)]
    archive.fetch([f"{server.url}/file.fits"])
    assert archive.path_of(f"{server.url}/file.fits").read_bytes() == other
    assert server.requests[1][1] == "bytes=1000-"


def test_a_part_longer_than_the_file(server, archive, content):
    server.files["file.fits"] = content
    url = f"{server.url}/file.fits"
    partial = archive.path_of(url).with_name("file.fits.incomplete")
    partial.parent.mkdir(parents=True)
    partial.write_bytes(content + b"more")
    partial.with_name("file.fits.incomplete.validator").write_text(f'"{hashlib.md5(content).hexdigest()}"')
    archive.fetch([url])
    assert archive.path_of(url).read_bytes() == content and not left_over(archive)


def test_a_part_of_unknown_origin_is_not_trusted(server, archive, content):
    server.files["file.fits"] = content
    url = f"{server.url}/file.fits"
    partial = archive.path_of(url).with_name("file.fits.incomplete")
    partial.parent.mkdir(parents=True)
    partial.write_bytes(b"x" * 1000)
    archive.fetch([url])
    assert archive.path_of(url).read_bytes() == content


def test_silence_is_cut_off(server, archive, content, monkeypatch):
    monkeypatch.setattr(archive_module, "TIMEOUT", (1.0, 0.2))
    server.files["file.fits"], server.faults["file.fits"] = content, [Fault("silent", 1.0)]
    archive.fetch([f"{server.url}/file.fits"])
    assert archive.path_of(f"{server.url}/file.fits").read_bytes() == content


def test_compressed_files_stay_compressed(server, archive, content):
    """Some servers send a .gz with Content-Encoding: gzip, which clients would undo."""
    server.files["file.fits.gz"] = gzip.compress(content)
    server.faults["file.fits.gz"] = [Fault("encoded")]
    archive.fetch([f"{server.url}/file.fits.gz"])
    assert archive.path_of(f"{server.url}/file.fits.gz").read_bytes() == server.files["file.fits.gz"]


def test_an_empty_file(server, archive):
    server.files["empty.fits"] = b""
    archive.fetch([f"{server.url}/empty.fits"])
    assert archive.path_of(f"{server.url}/empty.fits").read_bytes() == b""


def test_given_up_and_taken_up_again(server, archive, content):
    """After some attempts without a byte the error says so; the part stays and is gone on with."""
    server.files["file.fits"] = content
    server.faults["file.fits"] = [Fault("truncated", 1000)]
    server.always["file.fits"] = Fault("status", 503)
    url = f"{server.url}/file.fits"
    with pytest.raises(ConnectionError, match=f"{url}: HTTP 503.*given up after 5 new attempts"):
        archive.fetch([url])
    assert not archive.path_of(url).exists() and len(left_over(archive)) == 2
    assert len(server.requests) == 1 + archive_module.MAX_RETRIES
    server.always.clear()
    archive.fetch([url])
    assert server.requests[-1][1] == "bytes=1000-"
    assert archive.path_of(url).read_bytes() == content and not left_over(archive)


def test_an_archive_that_asks_who_one_is_has_no_damaged_files(server, archive, content):
    server.files["file.fits"] = content
    server.always["file.fits"] = Fault("status", 401)
    with pytest.raises(ConnectionError, match="found HTTP 401.*name and password go into ~/.netrc"):
        archive.fetch([f"{server.url}/file.fits"])


def test_waits_grow_and_obey_the_archive(server, archive, content, monkeypatch):
    waits = []
    monkeypatch.setattr(archive_module, "FIRST_WAIT", 1.0)
    monkeypatch.setattr(archive_module.time, "sleep", waits.append)
    server.files["file.fits"] = content
    server.faults["file.fits"] = [Fault("status", 503)] * 3 + [Fault("status", 429, {"Retry-After": "17"})]
    archive.fetch([f"{server.url}/file.fits"])
    for wait, expected in zip(waits, (1.0, 2.0, 4.0)):
        assert 0.75 * expected <= wait <= 1.25 * expected
    assert waits[3] == 17.0


def test_nobody_there(archive, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(archive_module, "FIRST_WAIT", 0.001)
    with pytest.raises(ConnectionError, match="127.0.0.1:9/file.fits.*given up"):
        archive.fetch(["http://127.0.0.1:9/file.fits"])


def test_offline(server, archive, content, monkeypatch):
    server.files["file.fits"] = content
    archive.fetch([f"{server.url}/file.fits"])
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    archive.fetch([f"{server.url}/file.fits"])  # it is here
    with pytest.raises(ConnectionError, match="HF_HUB_OFFLINE"):
        archive.fetch([f"{server.url}/other.fits"])
    assert len(server.requests) == 1


# Many files, many processes


def test_many_files_at_once(server, archive):
    """Some missing, most with a fault of their own."""
    generator = random.Random(1)
    kinds = [Fault("truncated", 100), Fault("reset", 100), Fault("status", 503), Fault("slow")]
    server.files = {f"{number}.fits": generator.randbytes(2000) for number in range(60)}
    server.faults = {path: generator.sample(kinds, 2) for path in server.files}
    urls = [f"{server.url}/{number}.fits" for number in range(64)]
    failures = archive.fetch(urls)
    assert sorted(failures) == sorted(urls[60:])
    for path, expected in server.files.items():
        assert archive.path_of(f"{server.url}/{path}").read_bytes() == expected
    assert not left_over(archive)


def test_an_archive_is_not_overrun(server, archive, monkeypatch):
    """In parallel, but with few connections."""
    lock, busy = threading.Lock(), [0, 0]
    receive = archive_module.receive

    def counted(*arguments):
        with lock:
            busy[0] += 1
            busy[1] = max(busy)
        try:
            receive(*arguments)
        finally:
            with lock:
                busy[0] -= 1

    monkeypatch.setattr(archive_module, "receive", counted)
    server.files = {f"{number}.fits": bytes(20) for number in range(40)}
    server.always = {path: Fault("slow") for path in server.files}
    archive.fetch(f"{server.url}/{path}" for path in server.files)
    assert 1 < busy[1] <= archive_module.MAX_CONNECTIONS


def test_two_processes_want_the_same_file(server, tmp_path, content):
    server.files["file.fits"], server.faults["file.fits"] = content, [Fault("slow")]
    url = f"{server.url}/file.fits"
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=Archive(tmp_path / "cache").fetch, args=([url],)) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0, 0]
    assert Archive(tmp_path / "cache").path_of(url).read_bytes() == content
    assert len(server.requests) == 1


def test_killed_while_downloading(server, tmp_path, content, monkeypatch):
    """The part is gone on with, and never seen as the file."""
    monkeypatch.setattr(archive_module, "PIECE", 1000)
    server.files["file.fits"], server.always["file.fits"] = content, Fault("slow")
    archive = Archive(tmp_path / "cache")
    url = f"{server.url}/file.fits"
    partial = archive.path_of(url).with_name("file.fits.incomplete")
    process = multiprocessing.get_context("fork").Process(target=archive.fetch, args=([url],))
    process.start()
    deadline = time.monotonic() + 30
    while not (partial.exists() and partial.stat().st_size) and process.is_alive() and time.monotonic() < deadline:
        time.sleep(0.001)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert not archive.path_of(url).exists()
    Archive(tmp_path / "cache").fetch([url])
    assert archive.path_of(url).read_bytes() == content and not left_over(archive)
    assert server.requests[-1][1].startswith("bytes=")
