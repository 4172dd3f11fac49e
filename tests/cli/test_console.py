"""Help, errors, exit codes and the ways to name inputs and options."""

import ast
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import typer

from spectral_tokenizer.cli.console import read_entries, read_options, reader_options, run
from spectral_tokenizer.data import SURVEYS


COMMANDS = ("inspect", "prepare", "simulate")


@pytest.mark.parametrize("name", COMMANDS)
def test_help_teaches_with_examples(command, name):
    assert name in command("--help").out
    for flag in ("--help", "-h"):
        code, out, err = command(name, flag)
        assert code == 0 and not err
        assert "Examples" in out and out.count(f"spectral-tokenizer {name} ") >= 2


def test_examples_in_the_help_are_right(command, tmp_path, monkeypatch, simulated_surveys):
    """The first page's three commands, on what the second of them made."""
    monkeypatch.chdir(tmp_path)
    lines = [line.strip(" │") for line in command("--help").out.splitlines()]
    inspect, simulate, prepare = [line.split()[1:] for line in lines if line.startswith("spectral-tokenizer ")]
    os.symlink(next(simulated_surveys["sdss"].glob("*.fits")), inspect[1])
    assert command(*inspect).code == 0
    assert command(*[argument.replace("100", "2") for argument in simulate]).code == 0
    assert command(*prepare).code == 0
    assert list(tmp_path.glob("prepared/desi/*.parquet"))


def test_wrong_usage_is_2(command, tmp_path):
    for arguments in ((), ("nothing",), ("inspect",), ("prepare", "sdss", "x"), ("simulate", tmp_path, "-n", "-1")):
        code, out, err = command(*arguments)
        assert code in ((2,) if arguments else (0, 2))  # typer shows help of nothing, with either
        assert "Usage" in out + err and "Traceback" not in err


def test_errors_are_one_line(command, tmp_path):
    code, out, err = command("inspect", tmp_path / "nowhere.fits")
    assert (code, out) == (1, "")
    assert err == f"error: no such file or folder: {tmp_path / 'nowhere.fits'}\n"


def test_a_bug_keeps_its_traceback(capsys, monkeypatch):
    def broken():
        raise KeyError("a bug")

    with pytest.raises(KeyError):
        run(broken)

    def unlucky():
        raise ValueError("two\nlines")

    with pytest.raises(SystemExit):
        run(unlucky)
    assert capsys.readouterr().err == "error: two lines\n"
    monkeypatch.setenv("SPECTRAL_TOKENIZER_DEBUG", "1")
    with pytest.raises(ValueError, match="two"):
        run(unlucky)


def test_entries_from_a_list(tmp_path):
    (tmp_path / "list.txt").write_text("# some files\na b.fits\n\n/c/*.fits  \n")
    assert read_entries(["x.fits", f"@{tmp_path}/list.txt"]) == ["x.fits", "a b.fits", "/c/*.fits"]
    with pytest.raises(FileNotFoundError, match=r"missing.txt"):
        read_entries([f"@{tmp_path}/missing.txt"])


def test_a_list_of_names_that_are_no_unicode(tmp_path):
    (tmp_path / "list.txt").write_bytes(b"a\xff.fits\n\xc3\xa9\xe2\x80\xa8.fits\r\n")
    assert [os.fsencode(entry) for entry in read_entries([f"@{tmp_path}/list.txt"])] == [
        b"a\xff.fits",
        b"\xc3\xa9\xe2\x80\xa8.fits",
    ]


def test_options_of_the_readers():
    known = reader_options(SURVEYS.values())
    assert {"sky": "bool", "simulated": "bool"}.items() <= known.items()
    assert "catalogue" in known and known["catalogue"] != "bool"
    assert not {"files", "strict", "name", "data_dir"} & set(known)
    given = ["sky", "simulated=no", "bad-fibers=True", "catalogue=a=b.fits"]
    assert read_options(given, known) == {
        "sky": True,
        "simulated": False,
        "bad_fibers": True,
        "catalogue": "a=b.fits",
    }
    for wrong, message in (
        ("clouds", "clouds.*expected one of.*sky"),
        ("sky=perhaps", "true or false"),
        ("catalogue", "catalogue=VALUE"),
    ):
        with pytest.raises(typer.BadParameter, match=message):
            read_options([wrong], known)


def start(*arguments, **settings):
    command = [sys.executable, "-m", "spectral_tokenizer", *map(str, arguments)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(command, text=True, **pipes, **settings)


def test_as_a_module_interrupted(tmp_path):
    # What was started in the background of a shell ignores SIGINT, and its children inherit that.
    process = start(
        "simulate", tmp_path / "simulated", "--num-objects", 5000,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    deadline = time.monotonic() + 120
    while not list(tmp_path.glob(".simulated-unfinished-*/sdss/*.fits")):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in err
    assert list(tmp_path.iterdir()) == []


def test_the_package_does_not_import_the_command_line():
    package = Path(__file__).parents[2] / "spectral_tokenizer"
    outside = [path for path in package.rglob("*.py") if path.parent.name != "cli" and path.name != "__main__.py"]
    for path in outside:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom):
                assert (node.module or "").split(".")[0] not in ("cli", "typer", "rich"), path
            elif isinstance(node, ast.Import):
                assert not {"typer", "rich"} & {alias.name for alias in node.names}, path
