"""Files of strangers, read apart from the page."""

import os
from pathlib import Path

import numpy as np
import pytest
import reading
from native_files import write_desi, write_galah_ccd, write_redshifts, write_sdss


STAR = "131123003001096"


@pytest.fixture(scope="module")
def strict_reader():
    """Little memory, and files that need more."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reading, "SERVER", Path(__file__).with_name("slow_reader.py"))
        reader = reading.Reader(seconds=60, megabytes=256)
        yield reader
        reader.close()


def test_rows_come_as_the_readers_gave_them(reader, tmp_path):
    flux = 1 + np.random.default_rng(0).normal(size=64)
    found = reader.read([str(write_sdss(tmp_path / "spec-0001-55555-0007.fits", flux=flux, CLASS="QSO", Z=2.5))])
    (row,), (unit,) = found.rows, found.units
    np.testing.assert_array_equal(row["flux"], flux.astype(np.float32))
    assert row["wavelength"].dtype == np.float64 and row["wavelength"][0] == pytest.approx(10**3.58)
    assert (row["class"], row["redshift"], unit["survey"], unit["num_spectra"]) == ("QSO", 2.5, "sdss", 1)
    assert unit["files"] == ["spec-0001-55555-0007.fits"] and not unit["is_simulated"]


def test_files_that_belong_together(reader, tmp_path):
    """CCDs become one star, redshifts are found beside; what is left out is told."""
    files = [write_galah_ccd(tmp_path, STAR, ccd) for ccd in (1, 3)]
    files.append(write_desi(tmp_path / "coadd-1.fits", [1 << 60, 2 << 60, 3 << 60], objtype=["TGT", "SKY", "TGT"]))
    files.append(write_redshifts(tmp_path / "redrock-1.fits", [1 << 60, 3 << 60], [0.5, 0.7], ["QSO", "GALAXY"]))
    found = reader.read([str(file) for file in files])
    galah, desi = found.units
    assert (galah["survey"], len(galah["files"]), galah["num_spectra"]) == ("galah", 2, 1)
    assert (desi["dropped"], desi["beside"]) == ({"sky fibre": 1}, ["redrock-1.fits"])
    assert [row["class"] for row in found.rows] == ["STAR", "QSO", "GALAXY"]
    assert list(found.rows[0]["segment_lengths"]) == [50, 50]


def test_simulated_files_are_called_so(reader, simulated_surveys, tmp_path):
    for survey, folder in simulated_surveys.items():
        files = sorted(path for path in folder.rglob("*.fits*") if path.parent.name != "db")
        one = next(path for path in files if not path.name.startswith(("redrock", "allStar")))
        (unit,) = reader.read([str(one)]).units
        assert unit["survey"] == survey and unit["is_simulated"], unit
    path = write_desi(tmp_path / "coadd-1.fits", [1 << 60], header={"DEPNAM00": "desisim"})
    found = reader.read([str(path)])  # left out by the reader, but there is nothing else in the file
    assert len(found.rows) == 1 and found.units[0]["is_simulated"]


def test_many_spectra_are_counted_and_the_first_kept(reader, tmp_path):
    path = write_desi(tmp_path / "coadd-1.fits", [number << 50 for number in range(1, 71)], num_pixels=20)
    found = reader.read([str(path)])
    assert found.units[0]["num_spectra"] == 70 and len(found.rows) == found.units[0]["kept"] == reading.MAX_SPECTRA


def test_names_that_are_no_unicode(reader, tmp_path):
    path = os.fsencode(write_sdss(tmp_path / "spec.fits")).replace(b"spec.", b"spec\xff.")
    os.rename(tmp_path / "spec.fits", path)
    assert reader.read([os.fsdecode(path)]).units[0]["files"] == ["spec\\udcff.fits"]


@pytest.mark.parametrize(
    ("name", "message"),
    [("hang", "longer than 2 seconds"), ("memory", "256 MB"), ("crash", "was stopped"), ("fault", "in the log")],
)
def test_a_file_ends_its_own_process_alone(strict_reader, tmp_path, monkeypatch, name, message):
    (tmp_path / name).write_bytes(b"")
    with monkeypatch.context() as patch:
        patch.setattr(strict_reader, "seconds", 2 if name == "hang" else 60)
        found = strict_reader.read([str(tmp_path / name)])
    assert message in found.problem and not found.rows
    good = strict_reader.read([str(write_sdss(tmp_path / "spec-0001-55555-0007.fits"))])
    assert good.problem is None and len(good.rows) == 1


def test_a_dead_server_is_started_again(strict_reader, tmp_path):
    strict_reader._server.kill()
    strict_reader._server.wait()
    assert len(strict_reader.read([str(write_sdss(tmp_path / "spec-0001-55555-0007.fits"))]).rows) == 1


def test_the_server_ends_with_the_reader():
    reader = reading.Reader()
    reader.close()
    assert reader._server.poll() is not None and not Path(reader._address).exists()


def test_an_answer_that_breaks_off_is_none():
    answer = reading.encode([{"survey": None}], [])
    assert reading.decode(answer).units == [{"survey": None}]
    for length in (0, 8, len(answer) - 1):
        assert reading.decode(answer[:length]) is None
