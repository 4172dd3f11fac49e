"""Damage of every kind: each file ends in a row or in a named entry of the report, and the build goes on."""

import errno
import gzip
import os
import time

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from astropy.io import fits
from native_files import (
    rows_of,
    write_apstar,
    write_apvisit,
    write_aspcapstar,
    write_desi,
    write_galah_ccd,
    write_redshifts,
    write_sdss,
)

from spectral_tokenizer.data import SpectrumFileError, fits_access, load_survey, survey_report
from spectral_tokenizer.data.builder import check_grid
from spectral_tokenizer.data.catalogues import read_parquet
from spectral_tokenizer.data.fits_access import open_fits, verify_checksum
from spectral_tokenizer.data.table_files import read_rows


STAR = "131123003001096"
BIG = 39633297352951413


def load(tmp_path, survey, path, **options):
    return load_survey(survey, path, cache_dir=tmp_path / "cache", **options)


def refused(tmp_path, survey, path, message):
    """The file is counted and named; beside a good one the build goes on; `strict` stops it."""
    dataset = load(tmp_path, survey, path)
    report = survey_report(dataset)
    assert (len(dataset), report.damaged) == (0, 1)
    assert path.name in report.messages[0] and "expected" in report.messages[0]
    with pytest.raises(SpectrumFileError, match=message):
        load(tmp_path, survey, path, strict=True)


def edit(path, change):
    """Change a file's HDUs in place."""
    with fits.open(path, memmap=False) as hdus:
        changed = change(hdus) or hdus
        fits.HDUList(list(changed)).writeto(path, overwrite=True, output_verify="ignore")
    return path


# Headers and parts


@pytest.mark.parametrize("name", ["ESTALE", "EMFILE", "EIO", "EACCES", "EPERM", "ENOENT", "ENOTDIR"])
def test_what_is_the_machines_fault_is_no_damage(tmp_path, monkeypatch, name):
    """Else the file would be left out for good, also by the run that comes after the fault."""
    path, opened = write_sdss(tmp_path / "spec-1.fits"), open

    def failing(file, *arguments, **options):
        if str(file) == str(path):
            raise OSError(getattr(errno, name), "of the file system")
        return opened(file, *arguments, **options)

    monkeypatch.setattr(fits_access, "open", failing, raising=False)
    with pytest.raises(Exception) as error:
        load_survey("sdss", path, cache_dir=tmp_path / "cache")
    assert "of the file system" in str(error.value) + str(error.value.__cause__)
    monkeypatch.undo()
    assert len(load_survey("sdss", path, cache_dir=tmp_path / "cache")) == 1


def test_wrong_order_of_hdus(tmp_path):
    path = edit(write_sdss(tmp_path / "spec-1.fits"), lambda hdus: [hdus[0], hdus[2], hdus[1]])
    refused(tmp_path, "sdss", path, "HDU 1: found columns")
    path = edit(write_apstar(tmp_path / "apStar-1.fits"), lambda hdus: [hdus[0], hdus[2], hdus[1], hdus[3]])
    refused(tmp_path, "apogee", path, "units .'Error")
    path = edit(write_aspcapstar(tmp_path / "aspcapStar-1.fits"), lambda hdus: [hdus[0], hdus[2], hdus[1], *hdus[3:]])
    refused(tmp_path, "apogee", path, "pseudo-continuum")
    path = edit(write_desi(tmp_path / "coadd-1.fits", [BIG]), lambda hdus: [hdus[0], *list(hdus)[:0:-1]])
    assert len(load(tmp_path, "desi", path)) == 1  # they have names


@pytest.mark.parametrize("index", [1, 2])
def test_missing_extensions(tmp_path, index):
    def lose(hdus):
        del hdus[index]

    refused(tmp_path, "sdss", edit(write_sdss(tmp_path / "spec-1.fits"), lose), "HDU")
    refused(tmp_path, "galah", edit(write_galah_ccd(tmp_path, STAR, 1), lose), "DR3 or reduction")
    refused(tmp_path, "apogee", edit(write_apvisit(tmp_path / "apVisit-1.fits"), lose), "apVisit")


@pytest.mark.parametrize("name", ["B_FLUX", "B_IVAR", "B_WAVELENGTH"])
def test_missing_images_of_desi(tmp_path, name):
    def lose(hdus):
        del hdus[name]

    path = edit(write_desi(tmp_path / "coadd-1.fits", [BIG], cameras=("B",)), lose)
    refused(tmp_path, "desi", path, "B_FLUX" if name == "B_FLUX" else f"HDU {name}")


@pytest.mark.parametrize("column", ["loglam", "flux", "ivar", "PLATE", "CLASS", "ZWARNING"])
def test_missing_columns(tmp_path, column):
    def lose(hdus):
        for index in (1, 2):
            columns = [each for each in hdus[index].columns if each.name != column]
            hdus[index] = fits.BinTableHDU.from_columns(columns)

    refused(tmp_path, "sdss", edit(write_sdss(tmp_path / "spec-1.fits"), lose), f"column {column}")


def test_a_message_is_one_line():
    error = SpectrumFileError(
        "spec-1.fits", "file", "VerifyError:\nVerification reported errors:\n  HDU 0:  '  '\n", "FITS"
    )
    assert (
        str(error) == "spec-1.fits: file: found VerifyError: Verification reported errors: HDU 0:  '  '; expected FITS"
    )


def test_a_header_without_end_does_not_run_into_the_next(tmp_path):
    path = write_galah_ccd(tmp_path, STAR, 1, layout="6.0")
    content = path.read_bytes()
    place = content.find(b"END".ljust(80))
    path.write_bytes(content[:place] + b" " * 80 + content[place + 80 :])
    refused(tmp_path, "galah", path, "no text|file")


def test_huge_header(tmp_path):
    path = write_sdss(tmp_path / "spec-1.fits")
    content, cards = path.read_bytes(), b"COMMENT ".ljust(80, b"x") * 36 * 4000  # 11 MB
    place = content.find(b"END".ljust(80))
    path.write_bytes(content[:place] + cards + content[place:])
    start = time.perf_counter()
    assert len(load(tmp_path, "sdss", path)) == 1
    assert time.perf_counter() - start < 60
    path.write_bytes(content[:place] + cards)  # and no end of it
    refused(tmp_path, "sdss", path, "file")


@pytest.mark.parametrize(
    "card", ["NAXIS2  =                   -1", "GCOUNT  =                  -64", "PCOUNT  = -9 / free"]
)
def test_negative_sizes_are_refused(tmp_path, card):
    """Astropy would go back and read the same headers for ever."""
    path = write_apstar(tmp_path / "apStar-1.fits")
    content = path.read_bytes()
    place = content.find(card[:9].encode(), 2880)  # of the first extension
    assert place > 0 and place % 80 == 0
    path.write_bytes(content[:place] + card.ljust(80).encode() + content[place + 80 :])
    refused(tmp_path, "apogee", path, rf"{card.split()[0]}: found -\d+; expected a size of 0 or more")


def test_sizes_in_free_format_are_read(tmp_path):
    path = write_apstar(tmp_path / "apStar-1.fits")
    content = path.read_bytes()
    place = content.find(b"NAXIS   =")
    path.write_bytes(content[:place] + b"NAXIS   = 0 / without any space before".ljust(80) + content[place + 80 :])
    assert len(load(tmp_path, "apogee", path)) == 1


# Values


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 3.4e38])
def test_nan_and_infinity_anywhere(tmp_path, value):
    flux, ivar, wdisp = np.ones(64), np.full(64, 4.0), np.full(64, 0.9)
    flux[5] = ivar[6] = wdisp[7] = value
    (row,) = rows_of(load(tmp_path, "sdss", write_sdss(tmp_path / "spec-1.fits", flux=flux, ivar=ivar, wdisp=wdisp)))
    for name in ("flux", "ivar", "lsf_sigma", "wavelength"):
        assert np.isfinite(row[name]).all()
    if not np.isfinite(value):
        assert row["ivar"][5] == row["ivar"][6] == 0 and row["ivar"][8] == 4


@pytest.mark.parametrize("survey", ["sdss", "desi", "galah", "apogee"])
def test_all_bad(tmp_path, survey):
    if survey == "sdss":
        path = write_sdss(tmp_path / "spec-1.fits", ivar=np.full(64, np.nan))
    elif survey == "desi":
        path = write_desi(tmp_path / "coadd-1.fits", [BIG], dead=[0])
    elif survey == "galah":
        path = write_galah_ccd(tmp_path, STAR, 1, flux=np.full(50, np.nan))
    else:
        path = write_apstar(tmp_path / "apStar-1.fits", flags=np.full(8575, 1))
    assert dict(survey_report(load(tmp_path, survey, path)).dropped) == {"no usable pixel": 1}


def test_zero_length(tmp_path):
    refused_or_nothing(tmp_path, "sdss", write_sdss(tmp_path / "spec-1.fits", flux=np.zeros(0)))

    def cut(hdus):
        for name in ("FLUX", "IVAR", "MASK", "WAVELENGTH"):
            hdus[f"B_{name}"].data = hdus[f"B_{name}"].data[..., :0]

    refused_or_nothing(tmp_path, "desi", edit(write_desi(tmp_path / "coadd-1.fits", [BIG], cameras=("B",)), cut))
    assert len(load(tmp_path, "desi", write_desi(tmp_path / "coadd-2.fits", []))) == 0
    (tmp_path / "spec-2.fits").write_bytes(b"")
    refused(tmp_path, "sdss", tmp_path / "spec-2.fits", "0 bytes that begin with b''")


def refused_or_nothing(tmp_path, survey, path):
    report = survey_report(load(tmp_path, survey, path))
    assert report.rows == 0 and report.damaged + sum(report.dropped.values()) == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda loglam: loglam[::-1], "ascending"),
        (lambda loglam: np.repeat(loglam[::2], 2), "ascending"),  # pixels doubled
        (lambda loglam: np.roll(loglam, 1), "ascending"),
        (lambda loglam: loglam - 1, "380.* expected 3400 to 10700"),  # nanometres
        (lambda loglam: -loglam, "ascending|expected"),
        (lambda loglam: loglam * np.nan, "not finite"),
        (lambda loglam: loglam * 100, "not finite|expected"),
    ],
)
def test_wavelengths_that_cannot_be(tmp_path, change, message):
    path = write_sdss(tmp_path / "spec-1.fits")

    def damage(hdus):
        hdus[1].data["loglam"] = change(hdus[1].data["loglam"].astype(float))

    refused(tmp_path, "sdss", edit(path, damage), message)


def test_single_wavelengths_that_moved_but_ascend(tmp_path):
    def one_off_the_grid(hdus):
        hdus[1].data["loglam"][7] += 3e-5

    refused(tmp_path, "sdss", edit(write_sdss(tmp_path / "spec-1.fits"), one_off_the_grid), "a multiple of 0.0001")

    def one_moved(hdus):
        hdus[4].data[1, 7] += 0.05

    refused(
        tmp_path, "apogee", edit(write_apvisit(tmp_path / "apVisit-1.fits"), one_moved), "steps that change slowly"
    )


@pytest.mark.parametrize("lengths", [[5], [1, 4], [2, 3], [1, 1, 3], [1, 1, 1, 1, 1]])
def test_grids_of_few_pixels(lengths):
    ends = np.cumsum(lengths)
    wavelength = np.concatenate([4000.0 + 500 * k + np.arange(length) for k, length in enumerate(lengths)])
    row = {"source": "file", "wavelength": wavelength, "segment_lengths": lengths}
    check_grid(row, 3500, 8000)
    if max(lengths) > 2:
        wavelength[ends[-1] - 2] += 0.3
        with pytest.raises(SpectrumFileError, match="slowly"):
            check_grid(row, 3500, 8000)


def test_chips_that_ascend_where_they_should_descend(tmp_path):
    def damage(hdus):
        hdus[4].data = hdus[4].data[:, ::-1].copy()

    refused(tmp_path, "apogee", edit(write_apvisit(tmp_path / "apVisit-1.fits"), damage), "ascending")


@pytest.mark.parametrize("value", [4714.2e-1, -4713.5, 0.0, 5650.0])
def test_a_grid_that_is_not_this_ccds(tmp_path, value):
    def damage(hdus):
        hdus[0].header["CRVAL1"] = value

    refused(tmp_path, "galah", edit(write_galah_ccd(tmp_path, STAR, 1), damage), "CRVAL1, CDELT1")


def test_another_grid_of_apogee(tmp_path):
    def damage(hdus):
        hdus[1].header["CRVAL1"] = 4.17

    refused(tmp_path, "apogee", edit(write_apstar(tmp_path / "apStar-1.fits"), damage), "the grid of all stars")


def test_integers_in_place_of_flux(tmp_path):
    path = write_sdss(tmp_path / "spec-1.fits")
    content = path.read_bytes()
    before = b"TFORM1  = 'E       '"
    assert content.count(before) == 1
    path.write_bytes(content.replace(before, b"TFORM1  = 'J       '"))
    refused(tmp_path, "sdss", path, "column flux: found int32")

    def damage(hdus):
        hdus[0].data = np.round(hdus[0].data).astype(np.int32)

    refused(tmp_path, "galah", edit(write_galah_ccd(tmp_path, STAR, 1), damage), "an image of .i4")


# Units


def test_units_of_another_scale(tmp_path):
    path = write_sdss(tmp_path / "spec-1.fits", header={"BUNIT": "1E-17 erg/cm^2/s/Ang"})
    assert len(load(tmp_path, "sdss", path)) == 1
    for unit in ("erg/cm^2/s/Ang", "1E-16 erg/cm^2/s/Ang", "nanomaggies"):
        refused(tmp_path, "sdss", write_sdss(path, header={"BUNIT": unit}), "BUNIT of HDU PRIMARY: found")


@pytest.mark.parametrize(
    ("hdu", "unit", "is_good"),
    [
        ("B_FLUX", "10**-17 erg/(s cm2 Angstrom)", True),
        ("B_FLUX", "1e-17 erg/(s cm2 Angstrom)", True),
        ("B_FLUX", "erg/(s cm2 Angstrom)", False),
        ("B_FLUX", "mJy", False),
        ("B_WAVELENGTH", "Angstrom", True),
        ("B_WAVELENGTH", "nm", False),
    ],
)
def test_units_of_desi(tmp_path, hdu, unit, is_good):
    def damage(hdus):
        hdus[hdu].header["BUNIT"] = unit

    path = edit(write_desi(tmp_path / "coadd-1.fits", [BIG]), damage)
    if is_good:
        assert len(load(tmp_path, "desi", path)) == 1
    else:
        refused(tmp_path, "desi", path, f"BUNIT of HDU {hdu}")


def test_units_of_galah_and_apogee(tmp_path):
    def nanometres(hdus):
        hdus[0].header["CUNIT1"] = "nm"

    refused(tmp_path, "galah", edit(write_galah_ccd(tmp_path, STAR, 1), nanometres), "CUNIT1")

    def other_flux(hdus):
        hdus[1].header["BUNIT"] = "Flux (10^-16 erg/s/cm^2/Ang)"

    refused(tmp_path, "apogee", edit(write_apstar(tmp_path / "apStar-1.fits"), other_flux), "BUNIT")


# Names and checksums


def test_a_file_under_anothers_name(tmp_path):
    refused(tmp_path, "sdss", write_sdss(tmp_path / "spec-0002-55555-0007.fits", plate=1), "the file's name")
    refused(tmp_path, "apogee", write_apstar(tmp_path / "apStar-r6-2M11111111+1111111.fits"), "the file's name")


def test_checksums(tmp_path):
    path = write_desi(tmp_path / "coadd-1.fits", [BIG], cameras=("B",))
    with fits.open(path) as hdus:
        hdus.writeto(path, overwrite=True, checksum=True)
    assert len(load(tmp_path, "desi", path)) == 1
    with fits.open(path) as hdus:
        place = hdus["B_FLUX"].fileinfo()["datLoc"] + 10
    content = bytearray(path.read_bytes())
    content[place] ^= 1  # a flux that nothing else would tell from a good one
    path.write_bytes(content)
    refused(tmp_path, "desi", path, "CHECKSUM of HDU B_FLUX")


def test_checksum_over_several_pieces(tmp_path, monkeypatch):
    monkeypatch.setattr(fits_access, "PIECE", 1024)
    image = fits.ImageHDU(np.random.default_rng(0).normal(size=5001))
    image.add_checksum()
    fits.HDUList([fits.PrimaryHDU(), image]).writeto(tmp_path / "a.fits")
    with open_fits(tmp_path / "a.fits") as hdus:
        verify_checksum(tmp_path / "a.fits", hdus[0])  # has none
        verify_checksum(tmp_path / "a.fits", hdus[1])


def test_damaged_redshifts_are_named(tmp_path):
    write_desi(tmp_path / "coadd-1.fits", [BIG])
    path = write_redshifts(tmp_path / "redrock-1.fits", [BIG], [0.5], ["QSO"])
    path.write_bytes(path.read_bytes()[:4000])
    with pytest.raises(SpectrumFileError, match="redrock-1.fits"):
        load(tmp_path, "desi", tmp_path, strict=True)


# Files


def test_gzip_bomb(tmp_path):
    path = tmp_path / "spec-1.fits.gz"
    header = write_sdss(tmp_path / "whole.fits").read_bytes()[:2880]
    (tmp_path / "whole.fits").unlink()
    path.write_bytes(gzip.compress(header) + gzip.compress(b"\0" * 2**24) * 64)  # a gigabyte in a megabyte
    start = time.perf_counter()
    refused(tmp_path, "sdss", path, "unpack to")
    assert time.perf_counter() - start < 60


@pytest.mark.parametrize("damage", ["cut", "flipped", "two members", "trailing zeros"])
def test_gzip(tmp_path, damage):
    content = write_sdss(tmp_path / "whole.fits").read_bytes()
    (tmp_path / "whole.fits").unlink()
    path, packed = tmp_path / "spec-1.fits.gz", gzip.compress(content)
    if damage == "cut":
        path.write_bytes(packed[:-9])
    elif damage == "flipped":
        path.write_bytes(packed[:200] + bytes([packed[200] ^ 4]) + packed[201:])
    elif damage == "two members":
        path.write_bytes(gzip.compress(content[:5000]) + gzip.compress(content[5000:]))
    else:
        path.write_bytes(packed + bytes(512))
    if damage in ("cut", "flipped"):
        refused(tmp_path, "sdss", path, "file")
    else:
        assert len(load(tmp_path, "sdss", path)) == 1


def test_large_compressed_files_go_through_the_disk(tmp_path, monkeypatch):
    monkeypatch.setattr(fits_access, "MAX_IN_MEMORY", 4096)
    write_desi(tmp_path / "coadd-1.fits", [BIG, BIG + 1])
    plain = rows_of(load(tmp_path, "desi", tmp_path))
    content = (tmp_path / "coadd-1.fits").read_bytes()
    (tmp_path / "coadd-1.fits").unlink()
    (tmp_path / "coadd-1.fits.gz").write_bytes(gzip.compress(content))
    packed = rows_of(load(tmp_path, "desi", tmp_path))
    assert [row["object_id"] for row in plain] == [row["object_id"] for row in packed]
    assert all((one["ivar"] == two["ivar"]).all() for one, two in zip(plain, packed))


@pytest.mark.parametrize("limit", [2**24, 1])  # read at once, or piece by piece
@pytest.mark.parametrize("change", ["longer", "shorter", "another", "gone"])
def test_a_file_that_changes_while_it_is_read(tmp_path, monkeypatch, limit, change):
    monkeypatch.setattr(fits_access, "MAX_IN_MEMORY", limit)
    path = write_desi(tmp_path / "coadd-1.fits", [BIG], cameras=("B",))
    content = path.read_bytes()
    with pytest.raises(SpectrumFileError, match="coadd-1.fits"), open_fits(path) as hdus:
        assert hdus["B_FLUX"].data[0, 0] == 1
        if change == "gone":
            path.unlink()
        else:
            path.write_bytes({"longer": content * 2, "shorter": content[:100], "another": content[::-1]}[change])
            os.utime(path, ns=(0, 0))
        hdus["B_IVAR"].data  # noqa: B018, reads


def test_paths_of_all_kinds(tmp_path):
    for name in ("mit Leerzeichen", "объекты", "星 ☆", "a'quote\"", "#hash%20", "-dash", "new\nline"):
        folder = tmp_path / "files" / name
        folder.mkdir(parents=True)
        write_sdss(folder / "spec-1.fits")
        write_galah_ccd(folder, STAR, 1)
    assert len(load(tmp_path, "sdss", tmp_path / "files")) == 7
    assert len(load(tmp_path, "galah", tmp_path / "files")) == 7


def test_things_that_are_no_files(tmp_path):
    write_sdss(tmp_path / "spec-1.fits")
    (tmp_path / "spec-2.fits").mkdir()
    (tmp_path / ".#notes").symlink_to("somebody@host.1")  # an editor's lock
    (tmp_path / "loop").symlink_to(tmp_path)
    assert len(load(tmp_path, "sdss", tmp_path)) == 1


def test_links_are_followed_once(tmp_path):
    """As of a tree that is spread over several disks."""
    for disk, fibers in (("disk1", (1,)), ("disk2", (2, 3))):
        (tmp_path / disk).mkdir()
        for fiber in fibers:
            write_sdss(tmp_path / disk / f"spec-{fiber}.fits", FIBERID=fiber)
    (tmp_path / "disk1" / "more").symlink_to(tmp_path / "disk2")
    (tmp_path / "disk1" / "again").symlink_to(tmp_path / "disk2")
    (tmp_path / "disk2" / "back").symlink_to(tmp_path / "disk1")
    (tmp_path / "disk1" / "spec-9.fits").symlink_to(tmp_path / "disk2" / "spec-2.fits")
    dataset = load_survey("sdss", tmp_path / "disk1", cache_dir=tmp_path / "cache")
    assert sorted(dataset["object_id"][:]) == [f"0001-55555-000{fiber}" for fiber in (1, 2, 3)]


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_without_permission(tmp_path):
    write_sdss(tmp_path / "spec-1.fits")
    path = write_sdss(tmp_path / "spec-2.fits")
    path.chmod(0)
    with pytest.raises(OSError, match="spec-2.fits"):
        load(tmp_path, "sdss", tmp_path)
    path.chmod(0o600)  # no file's time changes by that
    assert len(load(tmp_path, "sdss", tmp_path)) == 2


def test_an_error_of_the_system_while_reading_names_the_file(tmp_path, monkeypatch):
    """As a network's disk gives it, without a name; one that no machine is known to give is of the file."""
    path, number = write_sdss(tmp_path / "spec-1.fits"), errno.EACCES

    def fail(*arguments):
        raise OSError(number, "of the file system")

    monkeypatch.setattr(fits_access, "_contents", fail)
    with pytest.raises(OSError, match="of the file system: .*spec-1.fits"):
        load(tmp_path, "sdss", path)
    number = errno.EINVAL
    refused(tmp_path, "sdss", path, "OSError")


@pytest.mark.parametrize("name", ["EACCES", "EIO"])
def test_what_is_the_machines_fault_is_no_damage_of_tables(tmp_path, monkeypatch, name):
    path = tmp_path / "rows.parquet"
    pq.write_table(pa.table({"object_id": [1], "teff": [5000.0]}), path)

    def fail(*arguments, **options):
        raise OSError(getattr(errno, name), "of the file system")

    monkeypatch.setattr(pq, "ParquetFile", fail)
    with pytest.raises(OSError, match="of the file system: .*rows.parquet"):
        next(read_rows(path))
    monkeypatch.setattr(pq, "read_schema", fail)
    with pytest.raises(OSError, match="of the file system: .*rows.parquet"):
        read_parquet(path, ["object_id"], ["teff"])
