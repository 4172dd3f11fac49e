"""Files that are no spectra, or no longer, or not as expected: `odd_files` makes some sixty of them."""

import gzip
import io
import json
import pickle
import tarfile
import zipfile
from pathlib import Path

import fuzz
import numpy as np
from astropy.io import fits
from native_files import (
    write_apstar,
    write_apvisit,
    write_aspcapstar,
    write_desi,
    write_galah_catalogue,
    write_galah_ccd,
    write_plate,
    write_redshifts,
    write_sdss,
)


STAR = "131123003001096"
SPEC = "spec-0001-55555-0007.fits"
MARKUP = "<img src=x onerror=alert(1)>"


class Trap:
    """Creates a file when it is unpickled."""

    def __init__(self, sign: Path):
        self.sign = sign

    def __reduce__(self):
        return Path.touch, (self.sign,)


def edited(path: Path, change) -> bytes:
    """A file's bytes after a change of its HDUs."""
    with fits.open(path, memmap=False) as hdus:
        change(hdus)
        buffer = io.BytesIO()
        hdus.writeto(buffer, output_verify="ignore")
    return buffer.getvalue()


def card(content: bytes, keyword: str, value: str) -> bytes:
    """A file with the last card of that keyword set to a value."""
    place = content.rindex(keyword.encode().ljust(8) + b"=")
    return content[:place] + f"{keyword:<8}= {value:>20}".encode() + content[place + 30 :]


def hdf5(folder: Path) -> bytes:
    import h5py

    with h5py.File(folder / "table.h5", "w") as file:
        file["flux"] = np.ones(100)
    return (folder / "table.h5").read_bytes()


def zipped(name: str, content: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        file.writestr(name, content)
    return buffer.getvalue()


def tarred(name: str, content: bytes) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as file:
        entry = tarfile.TarInfo(name)
        entry.size = len(content)
        file.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


def odd_files(folder: Path, sign: Path) -> dict[str, tuple[str, bytes]]:
    """What it is -> the name it is dropped under and its bytes. `folder` is to work in; `sign` appears if one of them
    is unpickled."""
    generator = np.random.default_rng(0)
    flux = 50 + generator.normal(size=400)
    sdss = write_sdss(folder / SPEC, flux=flux).read_bytes()
    desi = write_desi(folder / "coadd-1.fits", [1 << 60, 2 << 60], num_pixels=200).read_bytes()
    galah = write_galah_ccd(folder, STAR, 1, flux=flux).read_bytes()
    apstar = write_apstar(folder / "apStar-1.fits", num_visits=1).read_bytes()
    return {
        **no_fits(folder, sign, sdss, generator),
        **other_products(folder),
        **nothing_usable(folder),
        **damaged(folder, sdss, desi, galah, apstar, generator),
        **odd_names(sdss),
        **mutations({"sdss": sdss, "desi": desi, "galah": galah, "apogee": apstar}),
    }


def no_fits(folder: Path, sign: Path, sdss: bytes, generator: np.random.Generator) -> dict:
    picture = b"\x89PNG\r\n\x1a\n" + generator.bytes(500)
    packed = gzip.compress(sdss, 1)
    flipped = bytearray(packed)
    flipped[len(flipped) // 2] ^= 8
    return {
        "nothing": (SPEC, b""),
        "one byte": (SPEC, b"\0"),
        "the first word of a header": (SPEC, b"SIMPLE  ="),
        "zeros": (SPEC, bytes(10000)),
        "noise": (SPEC, generator.bytes(10000)),
        "an error page": (SPEC, b"<html><script>alert(1)</script>404 not found</html>"),
        "PNG": ("plot.png", picture),
        "PNG called spec": (SPEC, picture),
        "JPEG": ("photo.jpg", b"\xff\xd8\xff\xe0" + generator.bytes(500)),
        "PDF": ("paper.pdf", b"%PDF-1.7\n" + generator.bytes(500)),
        "CSV": ("spectrum.csv", b"wavelength,flux\n5000,1.0\n5001,1.1\n"),
        "JSON": ("spectrum.json", json.dumps({"flux": [1, 2]}).encode()),
        "HDF5": ("spectrum.h5", hdf5(folder)),
        "zip": ("spectra.zip", zipped(SPEC, sdss)),
        "zip called gz": (SPEC + ".gz", zipped(SPEC, sdss)),
        "tar": ("spectra.tar.gz", tarred(SPEC, sdss)),
        "pickle": (SPEC, pickle.dumps(Trap(sign))),
        "numpy with a pickle in it": ("flux.npy", npy(sign)),
        "gzip of nothing": (SPEC + ".gz", gzip.compress(b"")),
        "gzip cut off": (SPEC + ".gz", packed[: len(packed) // 2]),
        "gzip with a bit flipped": (SPEC + ".gz", bytes(flipped)),
        "gzip twice": (SPEC + ".gz", gzip.compress(packed)),
        "gzip bomb": (SPEC + ".gz", fuzz.bomb(sdss, generator).content),
        "two bytes of gzip": (SPEC + ".gz", b"\x1f\x8b"),
    }


def npy(sign: Path) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.array([Trap(sign)], dtype=object), allow_pickle=True)
    return buffer.getvalue()


def other_products(folder: Path) -> dict:
    """Good FITS files that hold no spectra that a reader takes."""
    cube, buffer = fits.ImageHDU(np.ones((4, 5, 6), "f4"), name="DATA"), io.BytesIO()
    cube.header.update(CTYPE3="AWAV", CRVAL3=4750.0)
    fits.HDUList([fits.PrimaryHDU(), cube]).writeto(buffer)
    picture = io.BytesIO()
    fits.PrimaryHDU(np.ones((20, 20), "f4")).writeto(picture)
    return {
        "an image": ("hst.fits", picture.getvalue()),
        "a cube": ("muse.fits", buffer.getvalue()),
        "a catalogue": ("allStar.fits", write_galah_catalogue(folder / "c.fits", [1], teff=[5000.0]).read_bytes()),
        "redshifts alone": (
            "redrock-1.fits",
            write_redshifts(folder / "redrock-9.fits", [1], [0.5], ["QSO"]).read_bytes(),
        ),
        "a header alone": ("empty.fits", header_alone()),
        "GALAH without its name": ("star.fits", write_galah_ccd(folder, STAR, 2).read_bytes()),
        "SDSS called APOGEE": ("apStar-1.fits", write_sdss(folder / "a.fits").read_bytes()),
        "APOGEE of another star": ("apStar-r6-2M11111111+1111111.fits", write_apstar(folder / "b.fits").read_bytes()),
        "a plate of many fibres": ("spPlate-0266-51602.fits", write_plate(folder / "p.fits").read_bytes()),
    }


def header_alone() -> bytes:
    buffer = io.BytesIO()
    fits.PrimaryHDU().writeto(buffer)
    return buffer.getvalue()


def nothing_usable(folder: Path) -> dict:
    bad = write_sdss(folder / "bad.fits", ivar=np.zeros(64))
    dead = write_desi(folder / "coadd-2.fits", [1 << 60], dead=[0])
    sky = write_desi(folder / "coadd-3.fits", [1 << 60], objtype=["SKY"])
    star = write_galah_ccd(folder, STAR, 3, flux=np.full(50, np.nan))
    flagged = write_apstar(folder / "apStar-2.fits", flags=np.full(8575, 1))
    few = write_sdss(folder / "few.fits", ivar=np.where(np.arange(64) % 8, 0.0, 4.0))
    long = write_desi(folder / "coadd-4.fits", [1 << 60], cameras=("B",), num_pixels=60_000, sigma_pixels=0)
    tiny_steps = edited(long, lambda hdus: scale(hdus["B_WAVELENGTH"]))
    return {
        "SDSS without a good pixel": (SPEC, bad.read_bytes()),
        "DESI without a good pixel": ("coadd-2.fits", dead.read_bytes()),
        "DESI, sky alone": ("coadd-3.fits", sky.read_bytes()),
        "GALAH of NaN": (f"{STAR}3.fits", star.read_bytes()),
        "APOGEE, all flagged": ("apStar-2.fits", flagged.read_bytes()),
        "too few good pixels for a patch": (SPEC, few.read_bytes()),
        "DESI without a row": ("coadd-5.fits", write_desi(folder / "coadd-5.fits", []).read_bytes()),
        "60,000 pixels": ("coadd-4.fits", tiny_steps),
    }


def scale(hdu) -> None:
    hdu.data = 3600 + (hdu.data - 3600) / 10


def damaged(folder: Path, sdss: bytes, desi: bytes, galah: bytes, apstar: bytes, generator) -> dict:
    end = sdss.find(b"END".ljust(80))
    comments = b"COMMENT ".ljust(80, b"x") * 36 * 4000  # 11 MB

    def nanometres(hdus) -> None:
        hdus[1].data["loglam"] -= 1

    def checksum(hdus) -> None:
        for hdu in hdus:
            hdu.add_checksum()

    summed = bytearray(edited(folder / "coadd-1.fits", checksum))
    summed[-BLOCK_TAIL] ^= 1
    return {
        "SDSS cut off": (SPEC, sdss[: len(sdss) // 2]),
        "SDSS cut off in its header": (SPEC, sdss[:1000]),
        "DESI cut off": ("coadd-1.fits", desi[: len(desi) // 2 // 2880 * 2880]),
        "GALAH cut off": (f"{STAR}1.fits", galah[: len(galah) - 2880]),
        "APOGEE cut off": ("apStar-1.fits", apstar[:9000]),
        "APOGEE cut off, gzipped": ("apStar-1.fits.gz", gzip.compress(apstar[:9000])),
        "a bit flipped that the checksum sees": ("coadd-1.fits", bytes(summed)),
        "a header of 11 MB": (SPEC, sdss[:end] + comments + sdss[end:]),
        "a header without end": (SPEC, sdss[:end] + comments),
        "four billion axes": (SPEC, card(sdss, "NAXIS", "4294967296")),
        "99,999 columns": (SPEC, card(sdss, "TFIELDS", "99999")),
        "a row of 8 EB": (SPEC, card(sdss, "NAXIS1", "9223372036854775807")),
        "rows that are not there": (SPEC, card(sdss, "NAXIS2", "99999999")),
        "13 bits per pixel": ("coadd-1.fits", card(desi, "BITPIX", "13")),
        "SDSS in nanometres": (SPEC, edited(folder / SPEC, nanometres)),
        "two good visits of one exposure": ("apVisit-1.fits", write_apvisit(folder / "apVisit-1.fits").read_bytes()[:5000]),
        "aspcapStar without its tables": ("aspcapStar-1.fits", write_aspcapstar(folder / "d.fits").read_bytes()[:80000]),
    }  # fmt: skip


BLOCK_TAIL = 2880  # from the end: in the last HDU's data


def odd_names(sdss: bytes) -> dict:
    """A good file, under names that are not."""
    names = {
        "a name with markup": f"{MARKUP}.fits",
        "a name with templates": "{{constructor}}${7*7}`.fits",
        "a name that climbs": "../../../etc/passwd",
        "a name of dots": "..",
        "a name of two folders": "a\\b/c/spec.fits/",
        "no name": "",
        "a name in many scripts": "спектр-ἀστήρ-星-★.fits",
        "a name of 300 letters": "s" * 300 + ".fits",
        "a name with controls": "spec\n\0\x1b[31m.fits",
        "a name with wildcards": "~[a]*?.fits",
        "a name like an option": "--help",
        "a name that is no Unicode": "spec\udcff.fits",
    }
    return {what: (name, sdss) for what, name in names.items()}


def mutations(contents: dict[str, bytes]) -> dict:
    """Damage as the readers' fuzzer does it."""
    names = {"sdss": SPEC, "desi": "coadd-1.fits", "galah": f"{STAR}1.fits", "apogee": "apStar-1.fits"}
    found = {}
    for survey, content in contents.items():
        for number in range(3):
            mutation = fuzz.mutate(content, np.random.default_rng([7, number, len(content)]))
            found[f"{survey} {number}: {mutation.kind}"] = (names[survey], mutation.content)
    return found
