"""Opening survey files safely: every reader goes through here, so a damaged file fails in one way with one message.

A file is taken as it was in one moment: one up to 16 MiB is read at once, and a larger one that changes while it is
read is refused. Nothing is memory-mapped, because a file that shrinks under a map ends the process.
"""

import errno
import gzip
import math
import os
import re
import struct
import tempfile
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
from astropy.io import fits
from astropy.utils.exceptions import AstropyUserWarning


MAX_IN_MEMORY = 2**24  # bytes; larger files are read piece by piece, from disk
MIN_BOMB, MAX_COMPRESSION = 2**26, 100  # more bytes than that, and that many times the file's: noise does not compress
PIECE = 2**20  # bytes
ALL_ONES = 2**32 - 1
CARD, BLOCK, END = 80, 2880, b"END".ljust(80)
MAX_HEADER = 2**24  # bytes
MAX_NUMBER = 999  # of axes or of columns (FITS standard 4.0, sections 4.4.1.1 and 7.3.1)
SIZES = re.compile(rb"(NAXIS[0-9 ]{3}|TFIELDS |BITPIX  |PCOUNT  |GCOUNT  )=(?=([^/]{,71}))")
PRINTABLE = bytes(range(0x20, 0x7F))

# What astropy and numpy let through when the bytes of a file are not what its headers promise.
_DAMAGE = (OSError, EOFError, ValueError, TypeError, LookupError, AttributeError, ArithmeticError, MemoryError)
_DAMAGE += (AssertionError, RecursionError, NameError, struct.error, zlib.error, fits.VerifyError, AstropyUserWarning)


# What goes away by itself or with another setting: of a file system on the network, of a full disk, of too many open
# files, of files that may not be read (yet) or are not there (any more). A cache would keep such a file out for good:
# a change of permissions changes no file's time.
OF_THE_MACHINE = frozenset(
    getattr(errno, name)
    for name in (
        "EIO", "ESTALE", "EMFILE", "ENFILE", "ENOSPC", "EDQUOT", "ENOMEM", "ETIMEDOUT", "EAGAIN", "EINTR", "EBUSY",
        "ECONNRESET", "ECONNABORTED", "ECONNREFUSED", "EHOSTDOWN", "EHOSTUNREACH", "ENETDOWN", "ENETUNREACH", "ENOTCONN",
        "EREMOTEIO", "EACCES", "EPERM", "ENOENT", "ENOTDIR",
    )
    if hasattr(errno, name)
)  # fmt: skip


class SpectrumFileError(ValueError):
    """A file is damaged, or is not the product that the reader reads.

    Args:
        file: the file's path or name.
        field: the part of the file that is wrong: an HDU, a column, a header key, or ``"file"``.
        found: what stands there.
        expected: what should.
    """

    def __init__(self, file: str | Path, field: str, found: object, expected: str):
        # astropy's messages have several lines, a log's entry has one.
        found = re.sub(r"\s*\n\s*", " ", str(found).strip())
        super().__init__(str(file), field, found, expected)  # as args: the error crosses processes

    def __str__(self) -> str:
        file, field, found, expected = self.args
        return f"{file}: {field}: found {found}; expected {expected}"


@contextmanager
def open_fits(path: str | Path) -> Iterator[fits.HDUList]:
    """Open a FITS file, also a gzipped one, for reading.

    Raises:
        SpectrumFileError: the file cannot be opened, something inside it cannot be read while it is open, or it was
            changed meanwhile.
        OSError: the machine or its network is at fault, not the file: `raise_if_of_the_machine`.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", fits.verify.VerifyWarning)  # unparsable cards that nobody asks for
        warnings.filterwarnings("error", message="File may have been truncated")
        warnings.filterwarnings("error", message="Error validating header")  # astropy would go on without the HDU
        try:
            with open(path, "rb") as file:
                before = os.fstat(file.fileno())
                with _contents(path, file, before.st_size) as contents:
                    check_sizes(path, contents)
                    with fits.open(contents, memmap=False) as hdus:
                        yield hdus
                        check_headers(path, hdus)
        except SpectrumFileError:
            raise
        except _DAMAGE as error:
            raise_if_of_the_machine(error, path)
            found = f"{type(error).__name__}: {error}"
            raise SpectrumFileError(path, "file", found, "a complete FITS file of this survey") from error
    try:
        after = os.stat(path)
    except FileNotFoundError as error:
        raise SpectrumFileError(path, "file", "none any more", "a file that stays as it is") from error
    if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
        raise SpectrumFileError(path, "file", "another size or time than before", "a file that stays as it is")


def raise_if_of_the_machine(error: Exception, path: str | Path) -> None:
    """Raise an error again, with the file's name, that says nothing of the file: it would be called damaged for good."""
    if isinstance(error, OSError) and error.errno in OF_THE_MACHINE:
        error.filename = error.filename or str(path)  # an error of reading has none
        raise error


def check_sizes(path: str | Path, contents: BinaryIO) -> None:
    """Check the numbers that astropy believes whatever they are: it makes as many objects as there are axes, and after
    data of a negative size it reads the same headers again, without end.

    Raises:
        SpectrumFileError: a header has more axes or columns than the standard allows, a size below zero, or goes on
            for `MAX_HEADER` bytes.
    """
    place = 0
    while header := read_header(path, contents, place):
        sizes = {}
        for card in SIZES.finditer(header):
            if card.start() % CARD == 0:
                keyword, value = (each.strip().decode("latin-1") for each in card.groups())
                sizes.setdefault(keyword, value)
        for keyword in ("NAXIS", "TFIELDS"):
            if (value := sizes.get(keyword, "0")).lstrip("+-").isdecimal() and int(value) > MAX_NUMBER:
                raise SpectrumFileError(path, keyword, value, f"at most {MAX_NUMBER}")
        for keyword in sizes.keys() - {"BITPIX"}:
            if sizes[keyword].startswith("-"):
                raise SpectrumFileError(path, keyword, sizes[keyword], "a size of 0 or more")
        try:
            shape = [int(sizes[f"NAXIS{axis}"]) for axis in range(1, int(sizes["NAXIS"]) + 1)]
            size = abs(int(sizes["BITPIX"])) // 8 * math.prod(shape) if shape else 0
        except (KeyError, ValueError):
            break  # astropy will say so
        size += int(sizes["PCOUNT"]) if sizes.get("PCOUNT", "").isdecimal() else 0
        place += len(header) + -(-size // BLOCK) * BLOCK
    contents.seek(0)


def read_header(path: str | Path, contents: BinaryIO, place: int) -> bytes:
    """The header that begins at a byte, in whole blocks; nothing if none begins there."""
    contents.seek(place)
    header = contents.read(BLOCK)
    if not header.startswith((b"SIMPLE  =", b"XTENSION=")):
        return b""
    while not has_end(header[-BLOCK:]):
        block = contents.read(BLOCK)
        if len(block) < BLOCK:
            return b""  # astropy will say so
        header += block
        if len(header) > MAX_HEADER:
            raise SpectrumFileError(path, "header", f"more than {MAX_HEADER} bytes", "an END card")
    return header


def has_end(block: bytes) -> bool:
    """Whether one of a block's cards is END."""
    place = block.find(END)
    while place > 0 and place % CARD:
        place = block.find(END, place + 1)
    return place >= 0


def check_headers(path: str | Path, hdus: fits.HDUList) -> None:
    """Check that the headers that were looked at are text: one that lost its END goes on into data and the next
    header.

    Raises:
        SpectrumFileError: one is not.
    """
    for hdu in list.__iter__(hdus):  # those that astropy has parsed so far; plain iteration would parse the rest
        location = hdu.fileinfo()
        location["file"].seek(location["hdrLoc"])
        header = location["file"].read(location["datLoc"] - location["hdrLoc"])
        if strange := header.translate(None, PRINTABLE):
            found = f"{len(strange)} bytes that are no text, such as {strange[:8]!r}"
            raise SpectrumFileError(path, f"header of HDU {hdu.name}", found, "text that ends with END")


def _contents(path: str | Path, file: BinaryIO, size: int) -> BinaryIO:
    """The bytes of a FITS file, decompressed, in memory if they are few."""
    is_compressed = file.read(2) == b"\x1f\x8b"
    file.seek(0)
    if is_compressed:
        contents = _decompress(path, file, size)
    elif size <= MAX_IN_MEMORY:
        contents = BytesIO(file.read())
    else:
        contents = file
    start = contents.read(6)
    contents.seek(0)
    if start != b"SIMPLE":
        found = f"{size} bytes that begin with {start!r}"
        raise SpectrumFileError(path, "file", found, "a FITS file, plain or gzipped, which begins with SIMPLE")
    return contents


def _decompress(path: str | Path, file: BinaryIO, size: int) -> BinaryIO:
    """The contents of a gzip file of `size` bytes, in memory, or on disk if they are many."""
    limit = max(MIN_BOMB, MAX_COMPRESSION * size)
    contents = tempfile.SpooledTemporaryFile(max_size=MAX_IN_MEMORY)  # noqa: SIM115, the caller closes it
    with gzip.GzipFile(fileobj=file) as stream:
        while piece := stream.read(PIECE):
            contents.write(piece)
            if contents.tell() > limit:
                raise SpectrumFileError(path, "file", f"{size} bytes that unpack to {limit} and more", "a spectrum")
    contents.seek(0)
    return contents


def native(array: np.ndarray, dtype: type | None = None) -> np.ndarray:
    """A copy of `array` in memory and in this machine's byte order: FITS is big-endian, Arrow and torch are not."""
    array = np.asarray(array)
    return np.array(array, dtype=dtype or array.dtype.newbyteorder("="))


def get_image(path: str | Path, hdu: fits.hdu.base.ExtensionHDU) -> np.ndarray:
    """An image of floating-point numbers, as spectra are, in this machine's byte order.

    Raises:
        SpectrumFileError: the HDU is no image, is empty, or holds integers: a header that lost its sign.
    """
    data = getattr(hdu, "data", None)
    if not isinstance(data, np.ndarray) or data.dtype.kind != "f":
        found = "no image" if not isinstance(data, np.ndarray) else f"an image of {data.dtype}"
        raise SpectrumFileError(path, f"HDU {hdu.name or hdu.ver}", found, "an image of floating-point numbers")
    return native(data)


class Unit(NamedTuple):
    """A unit as headers spell it, in whichever case, and as one reads it."""

    pattern: str
    text: str


def check_unit(path: str | Path, hdu: fits.hdu.base.ExtensionHDU, expected: "Unit", keyword: str = "BUNIT") -> None:
    """Check a unit where the header names one.

    Raises:
        SpectrumFileError: it is another than the survey's, which no reader converts.
    """
    unit = hdu.header.get(keyword)
    if unit is not None and not re.search(expected.pattern, str(unit), re.IGNORECASE):
        raise SpectrumFileError(path, f"{keyword} of HDU {hdu.name}", repr(unit), expected.text)


def verify_checksum(path: str | Path, hdu: fits.hdu.base.ExtensionHDU) -> None:
    """Check that an HDU is as it was written, where it has a CHECKSUM (FITS standard 4.0, appendix J).

    Raises:
        SpectrumFileError: header or data were damaged since.
    """
    if "CHECKSUM" not in hdu.header:
        return
    location, total = hdu.fileinfo(), 0
    location["file"].seek(location["hdrLoc"])
    remaining = location["datLoc"] + location["datSpan"] - location["hdrLoc"]
    while remaining > 0:
        piece = location["file"].read(min(PIECE, remaining))
        if not piece:
            break
        total += int(np.frombuffer(piece[: len(piece) // 4 * 4], dtype=">u4").sum(dtype=np.uint64))
        remaining -= len(piece)
    while total >> 32:  # ones' complement: carries go round
        total = (total & ALL_ONES) + (total >> 32)
    if total != ALL_ONES:
        raise SpectrumFileError(path, f"CHECKSUM of HDU {hdu.name}", hex(total), "the bytes that were written")


def get_hdu(path: str | Path, hdus: fits.HDUList, key: int | str) -> fits.hdu.base.ExtensionHDU:
    """The HDU of that number or name.

    Raises:
        SpectrumFileError: there is none.
    """
    try:  # rather than `in` or `len`, which parse the headers of all HDUs
        return hdus[key]
    except (KeyError, IndexError):
        raise SpectrumFileError(path, f"HDU {key}", describe(hdus), f"an HDU {key}") from None


def find_hdu(hdus: fits.HDUList, key: int | str) -> fits.hdu.base.ExtensionHDU | None:
    """The HDU of that number or name, or None."""
    try:
        return hdus[key]
    except (KeyError, IndexError):
        return None


def describe(hdus: fits.HDUList) -> str:
    """One line on what a file holds, for error messages."""
    return f"{len(hdus)} HDUs {[hdu.name for hdu in hdus[:20]]}"


def number(value: object) -> float:
    """A label as float: NaN for missing, unparsable, infinite and the surveys' -9999."""
    try:
        value = float(value)
    except (TypeError, ValueError):
        return math.nan
    return value if -9998 < value < math.inf else math.nan
