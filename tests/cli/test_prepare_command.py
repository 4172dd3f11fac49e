"""`prepare` from the command line; what it writes is tested in tests/data/test_prepare.py."""

import pyarrow.parquet as pq
import pytest
from native_files import write_desi, write_sdss


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "spectra"
    folder.mkdir()
    for plate in range(1, 6):
        write_sdss(folder / f"spec-{plate:04d}.fits", plate=plate)
    write_sdss(folder / "spec-0006-sky.fits", ZWARNING=1)
    return folder


def test_prepare(command, folder, tmp_path):
    code, out, err = command("prepare", "sdss", folder, "--output", tmp_path / "out")
    assert code == 0
    assert out == (f"sdss: 5 spectra from 6 files; dropped 1 (sky fibre)\nrows and manifest: {tmp_path}/out/sdss\n")
    assert "6/6" in err  # the bar
    assert pq.read_table(tmp_path / "out" / "sdss").num_rows == 5


def test_options_list_and_shards(command, folder, tmp_path):
    (tmp_path / "list.txt").write_text("\n".join(str(path) for path in sorted(folder.iterdir())[:5]))
    common = ("prepare", "sdss", f"@{tmp_path}/list.txt", folder / "spec-0006*", "-o", tmp_path / "out", "-O", "sky")
    for shard in ("0", "1"):
        code, out, _ = command(*common, "--num-shards", 2, "--shard", shard)
        assert code == 0 and out.startswith("sdss: 3 spectra from 3 files\n")
    code, out, _ = command(*common, "--num-proc", 2)
    assert code == 0 and out.startswith("sdss: 6 spectra from 6 files\n")


def test_errors_are_one_line(command, folder, tmp_path):
    (folder / "spec-0007.fits").write_bytes(b"")
    write_desi(tmp_path / "coadd-1.fits", [5])
    output = ("--output", tmp_path / "out")
    for arguments, message in (
        (("sdss", folder, *output, "--strict"), "spec-0007.fits: file: found"),
        (("sdss", folder / "nothing", *output), "nothing"),
        (("sdss", "3586-55181-1", *output), "3586-55181-1: found no RUN2D"),
        (("desi", "main-dark", *output), "no such file or folder, and no identifier: main-dark"),
        (("sdss", folder, *output, "--num-shards", 2, "--shard", 2), "shard: found 2; expected 0 to 1"),
        (("sdss", folder / "spec-0007.fits", "--output", tmp_path / "none"), "no spectrum could be read"),
    ):
        code, _, err = command("prepare", *arguments)
        last = err.strip().split("\n")[-1].split("\r")[-1]
        assert code == 1 and last.startswith("error: ") and message in last and "Traceback" not in err
    for arguments in (("rave", folder, *output), ("sdss", folder, *output, "-O", "clouds"), ("sdss", folder)):
        code, _, err = command("prepare", *arguments)
        assert code == 2 and "Traceback" not in err


def test_a_shard_of_damaged_files_alone_fails_no_task(command, folder, tmp_path):
    """It did at every start, though all was written."""
    (folder / "spec-0000.fits").write_bytes(b"")
    common = ("prepare", "sdss", folder, "-o", tmp_path / "out", "--num-shards", 7)
    code, out, _ = command(*common, "--shard", 0)
    assert code == 0 and out.startswith("sdss: 0 spectra from 1 files; 1 damaged") and "rows and manifest" in out
    assert "spec-0000.fits" in (tmp_path / "out" / "sdss" / "_manifest" / "00000-of-00007.jsonl").read_text()
