"""What `inspect` tells of good, dropped, damaged and foreign files."""

import json

import numpy as np
import pytest
from native_files import write_apstar, write_apvisit, write_aspcapstar, write_desi, write_galah_ccd, write_sdss


STAR = 140101001101010


@pytest.fixture
def folder(tmp_path):
    """A file of each product, a sky fibre, a damaged and a foreign file."""
    folder = tmp_path / "files of all kinds"
    folder.mkdir()
    write_sdss(folder / "spec-0001.fits", CLASS="QSO", Z=1.5)
    write_sdss(folder / "spec-0002.fits", ZWARNING=1)
    (folder / "spec-0003.fits").write_bytes(b"SIMPLE")
    write_desi(folder / "coadd-1.fits", [5, -6, 7], status=[0, 0, 3])
    for ccd in (1, 2, 4):
        write_galah_ccd(folder, STAR, ccd)
    write_apstar(folder / "apStar-1.fits")
    write_aspcapstar(folder / "aspcapStar-1.fits")
    write_apvisit(folder / "apVisit-1.fits")
    return folder


def found_in(command, *arguments):
    code, out, err = command("inspect", "--json", *arguments)
    found = {line["files"][0].rpartition("/")[2]: line for line in map(json.loads, out.splitlines())}
    return code, found, err


def test_recognises_all_products(command, folder):
    code, found, err = found_in(command, folder)
    products = {name: (line["survey"], line["product"], line["spectra"]) for name, line in found.items()}
    assert products == {
        "spec-0001.fits": ("sdss", "spec", 1),
        "spec-0002.fits": ("sdss", "spec", 0),
        "spec-0003.fits": ("sdss", "spec", 0),
        "coadd-1.fits": ("desi", "coadd", 1),
        f"{STAR}1.fits": ("galah", "CCDs", 1),
        "apStar-1.fits": ("apogee", "apStar", 1),
        "aspcapStar-1.fits": ("apogee", "aspcapStar", 1),
        "apVisit-1.fits": ("apogee", "apVisit", 1),
    }
    assert code == 1 and err.count("\n") == 1
    assert "spec-0003.fits: file: found" in err and found["spec-0003.fits"]["damage"] in err
    assert found["spec-0002.fits"]["dropped"] == {"sky fibre": 1}
    assert found["coadd-1.fits"]["dropped"] == {"negative TARGETID": 1, "bad fibre status": 1}
    assert len(found[f"{STAR}1.fits"]["files"]) == 3
    assert found["aspcapStar-1.fits"]["labels"]["teff"] == 1 and found["spec-0001.fits"]["classes"] == {"QSO": 1}


def test_numbers_are_those_of_the_rows(command, tmp_path):
    flux, ivar = np.full(64, 3.0), np.full(64, 4.0)
    ivar[:16] = 0
    write_sdss(tmp_path / "spec-1.fits", flux=flux, ivar=ivar, loglam_start=3.6)
    _, found, _ = found_in(command, tmp_path / "spec-1.fits")
    line = found["spec-1.fits"]
    assert line["num_pixels"] == [64, 64] and line["snr"] == 6.0 and line["usable_fraction"] == 0.75
    assert line["wavelength_range"] == pytest.approx([10**3.6, 10**3.6063], rel=1e-6)
    assert line["frames"] == {"heliocentric": 1}


def test_foreign_names_are_recognised_by_content(command, folder, tmp_path):
    for name in ("coadd-1.fits", "apVisit-1.fits"):
        (folder / name).rename(tmp_path / f"renamed {name[:2]}.fits")
    (tmp_path / "notes.txt").write_text("x" * 3000)
    code, found, err = found_in(command, str(tmp_path / "*.*"))
    assert {name: line["survey"] for name, line in found.items()} == {
        "renamed co.fits": "desi",
        "renamed ap.fits": "apogee",
        "notes.txt": None,
    }
    assert code == 1 and "not recognised" in err and "notes.txt" in err


def test_table(command, folder):
    code, out, err = command("inspect", folder)
    lines = out.splitlines()
    assert lines[0].split() == ["survey", "product", "spectra", "pixels", "wavelength", "(A)", "S/N", "usable", "file"]
    quasar = next(index for index, line in enumerate(lines) if line.endswith("spec-0001.fits"))
    assert lines[quasar].split() == ["sdss", "spec", "1", "64", "3802-3857", "2.0", "100.0%", "spec-0001.fits"]
    assert lines[quasar + 1].strip() == "QSO, redshift 1.5"
    assert any("dropped: sky fibre 1" in line for line in lines)
    assert any("1401010011010101.fits and 2 more" in line for line in lines)
    assert lines[-1].startswith("spectra: ") and "not readable: 1 of 8" in lines[-1]


def test_options_reach_the_readers_that_have_them(command, folder):
    _, found, _ = found_in(command, folder, "--option", "sky", "-O", "bad_fibers=true")
    assert (found["spec-0002.fits"]["spectra"], found["coadd-1.fits"]["spectra"]) == (1, 3)


def test_good_files_end_with_0(command, folder):
    assert command("inspect", folder / "spec-0001.fits", folder / "spec-0002.fits").code == 0


def test_plot(command, folder, tmp_path):
    picture = tmp_path / "picture.png"
    code, _, err = command("inspect", folder / "spec-0001.fits", folder / "coadd-1.fits", "--plot", picture)
    assert code == 0 and picture.read_bytes().startswith(b"\x89PNG") and "drew 2 spectra" in err
    code, _, err = command("inspect", folder / "spec-0002.fits", "--plot", tmp_path / "empty.png")
    assert code == 1 and err == "error: nothing to draw: no spectrum was found\n"
    code, _, err = command("inspect", folder / "spec-0001.fits", "--plot", tmp_path / "picture.docx")
    assert code == 1 and "docx" in err and err.startswith("error: ") and err.count("\n") == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == [folder.name, "picture.png"]


def test_a_damaged_file_is_of_the_survey_whose_name_says_most(command, tmp_path):
    """LAMOST's names are SDSS's as well, but not the other way round."""
    for name in ("spec-55859-F5902_sp01-001.fits", "spec-3586-55181-0001.fits"):
        (tmp_path / name).write_bytes(b"no FITS")
    _, found, _ = found_in(command, tmp_path)
    assert {line["survey"] for name, line in found.items() if "_sp01" in name} == {"lamost"}
    assert found["spec-3586-55181-0001.fits"]["survey"] == "sdss"


def test_a_file_that_breaks_off_keeps_its_survey(command, tmp_path):
    """The second spectrum's wavelengths are shared; its flux is cut off with the file."""
    path = write_desi(tmp_path / "coadd-1.fits", [1, 2])
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    code, found, err = found_in(command, path)
    assert code == 1 and found["coadd-1.fits"]["survey"] == "desi" and "coadd-1.fits" in err
