"""`simulate` writes what `inspect` reads."""

import json


def test_simulate(command, tmp_path):
    folder = tmp_path / "simulated"
    code, out, _ = command("simulate", folder, "-n", 2, "--survey", "desi", "--survey", "apogee", "--seed", 3)
    assert code == 0 and out == f"desi: {folder}/desi\napogee: {folder}/apogee\n"
    found = [json.loads(line) for line in command("inspect", folder, "--json").out.splitlines()]
    assert {line["survey"] for line in found} == {"desi", "apogee"}


def test_refusals(command, tmp_path):
    (tmp_path / "file").touch()
    code, _, err = command("simulate", tmp_path, "-n", 1)
    assert code == 1 and err == f"error: {tmp_path} exists and is not an empty folder\n"
    code, _, err = command("simulate", tmp_path / "new", "--survey", "lamost")
    assert code == 1 and "lamost" in err and not (tmp_path / "new").exists()
