"""Which files are taken, and by which of their names."""

import os

import pytest
from native_files import rows_of, write_desi, write_galah_ccd, write_redshifts, write_sdss

from spectral_tokenizer.data import SURVEYS, SpectrumFileError, load_survey, survey_report
from spectral_tokenizer.data.input_files import find_files
from spectral_tokenizer.data.sources import find_sources


STAR = "131123003001096"
TARGET = 39633297352951413


def link(path, target):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to(target)
    return path


@pytest.mark.parametrize("data_files", ["", " ", ["spec-1.fits", ""]])
def test_an_empty_path_is_not_the_working_directory(data_files):
    """As in a recipe whose paths were taken out before it was published: whatever lies around would be read."""
    with pytest.raises(ValueError, match="files: expected paths, found"):
        find_files(data_files, ["spec-*.fits"])


def test_what_is_beside_a_link_is_found(tmp_path):
    """A selection made of links, as by a script that stages files: the redshifts stand beside the link."""
    (tmp_path / "store").mkdir()
    coadd = write_desi(tmp_path / "store" / "1.fits", [TARGET])
    redrock = write_redshifts(tmp_path / "store" / "2.fits", [TARGET], [0.5], ["GALAXY"])
    path = link(tmp_path / "mine" / "coadd-1.fits", coadd)
    link(tmp_path / "mine" / "redrock-1.fits", redrock)
    for data_files in (path, path.parent, tmp_path / "mine" / "coadd-*.fits", [path, path.parent]):
        (row,) = rows_of(load_survey("desi", data_files, cache_dir=tmp_path / "cache"))
        assert (row["source"], row["redshift"]) == ("coadd-1.fits#0", 0.5)


@pytest.mark.parametrize("data_files", ["hub", "hub/snapshots", "hub/**/*"])
def test_the_hubs_cache(tmp_path, data_files):
    """It keeps contents under their hashes, and names as links to them."""
    (tmp_path / "hub" / "blobs").mkdir(parents=True)
    for ccd in (1, 2):
        blob = write_galah_ccd(tmp_path, STAR, ccd).rename(tmp_path / "hub" / "blobs" / f"{ccd:064x}")
        for revision in "ab":
            link(tmp_path / "hub" / "snapshots" / revision / f"{STAR}{ccd}.fits", blob)
    rows = load_survey("galah", str(tmp_path / data_files), cache_dir=tmp_path / "cache")
    assert rows["source"][:] == [f"{STAR} CCD 1,2"] and survey_report(rows).damaged == 0


def test_linked_files_of_one_fibre_are_one_row(tmp_path):
    for number, kind in enumerate(("full", "lite")):
        blob = write_sdss(tmp_path / f"{number}")
        link(tmp_path / kind / "spec-0001-55555-0007.fits", blob)
    rows = load_survey("sdss", [tmp_path / "full", tmp_path / "lite"], cache_dir=tmp_path / "cache")
    assert rows["source"][:] == ["spec-0001-55555-0007.fits"]
    assert survey_report(rows).dropped == {"a fibre that another file holds too": 1}


def test_of_a_link_and_its_target_the_target_tells_the_fibre(tmp_path):
    """A link of another fibre's name is a link; to a name that tells nothing, as in the Hub's cache, it is the name."""
    own = write_sdss(tmp_path / "spec-0001-55555-0007.fits")
    other = link(tmp_path / "mine" / "spec-0002-55555-0007.fits", own)
    rows = load_survey("sdss", other, cache_dir=tmp_path / "cache", strict=True)
    assert rows["object_id"][:] == ["0001-55555-0007"]
    other.unlink()
    link(other, own.rename(tmp_path / "blob"))
    with pytest.raises(SpectrumFileError, match="expected those of the file's name, spec-0002-55555-0007.fits"):
        load_survey("sdss", other, cache_dir=tmp_path / "another", strict=True)


def test_of_several_paths_to_a_file_one_is_taken(tmp_path):
    """Its own where it is among them; the folder of a link is the one that it lies in."""
    own = tmp_path / "disk" / "spec-2.fits"
    own.parent.mkdir()
    own.touch()
    other = link(tmp_path / "mine" / "spec-1.fits", own)
    link(tmp_path / "way", tmp_path / "mine")
    assert find_files(tmp_path, ["spec-*.fits"]) == find_files([other, own], ["spec-*.fits"]) == [str(own)]
    assert find_files(tmp_path / "way", ["spec-*"]) == find_files(tmp_path / "way" / "spec-1.fits", []) == [str(other)]
    assert find_files(tmp_path / "way" / ".." / "mine" / "*", []) == [str(other)]


@pytest.mark.parametrize("name", ["spec-1.fits", "disk2"])
def test_a_link_to_nowhere_is_named(tmp_path, name):
    """Of a file, or of a folder that was spread over disks: what it stood for would be left out without a word."""
    (tmp_path / "spec-2.fits").touch()
    other = link(tmp_path / "latest.log", tmp_path / "gone")
    assert len(find_files(tmp_path, ["spec-*.fits"])) == 1  # no spectrum, and no folder of some
    other.unlink()
    path = link(tmp_path / name, tmp_path / "gone")
    for data_files in (tmp_path, tmp_path / "*"):
        with pytest.raises(FileNotFoundError, match=f"{path}: expected a link to .*, found one to {tmp_path}/gone"):
            find_files(data_files, ["spec-*.fits"])


@pytest.mark.parametrize("pattern", ["", "*/*.fits", "**/*.fits", "**", "night[12]/../night?/**/spec-*"])
def test_a_folder_that_cannot_be_read_is_named(tmp_path, monkeypatch, pattern):
    """`glob` passes over it, and over all that is in it."""
    for night in ("night1", "night2"):
        (tmp_path / night).mkdir()
        (tmp_path / night / "spec-1.fits").touch()
    assert len(find_files(tmp_path / pattern, ["spec-*.fits"])) == 2
    scandir = os.scandir

    def failing(folder):
        if os.path.basename(os.path.normpath(folder)) == "night2":
            raise PermissionError(13, "Permission denied", folder)
        return scandir(folder)

    monkeypatch.setattr(os, "scandir", failing)
    with pytest.raises(PermissionError, match="night2"):
        find_files(tmp_path / pattern, ["spec-*.fits"])


def test_a_file_that_is_named_is_asked_for_once(tmp_path, monkeypatch):
    """A list may name a million, on a file system of a cluster."""
    paths = [tmp_path / "a" / f"spec-{number}.fits" for number in range(100)]
    paths[0].parent.mkdir()
    for path in paths:
        path.touch()
    asked = []
    for name in ("stat", "lstat", "readlink"):
        call = getattr(os, name)
        monkeypatch.setattr(os, name, lambda path, *a, call=call, **k: (asked.append(path), call(path, *a, **k))[1])
    assert find_sources([str(path) for path in paths], SURVEYS["sdss"]).files == sorted(map(str, paths))
    assert len(asked) < 2 * len(paths)
