"""Opening survey files safely: every reader goes through here, so a damaged file fails in one way with one message.

A file is taken as it was in one moment: one up to 16 MiB is read at once, and a larger one that changes while it is read
is refused. Nothing is memory-mapped, because a file that shrinks under a map ends the process.
"""

import gzip
import math
import os
import struct
import tempfile
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

import numpy as np
from astropy.io import fits
from astropy.utils.exceptions import AstropyUserWarning


SPEED_OF_LIGHT = 299792.458  # km/s
MAX_IN_MEMORY = 2**24  # bytes; larger files are read piece by piece, from disk
MIN_BOMB, MAX_COMPRESSION = 2**26, 100  # more bytes than that, and that many times the file's: noise does not compress
PIECE = 2**20  # bytes

# What astropy and numpy let through when the bytes of a file are not what its headers promise.
_DAMAGE = (OSError, EOFError, ValueError, TypeError, LookupError, AttributeError, ArithmeticError, MemoryError)
_DAMAGE += (AssertionError, RecursionError, struct.error, zlib.error, fits.VerifyError, AstropyUserWarning)


class SpectrumFileError(ValueError):
    """A file is damaged, or is not the product that the reader reads.

    Args:
        file: the file's path or name.
        field: the part of the file that is wrong: an HDU, a column, a header key, or ``"file"``.
        found: what stands there.
        expected: what should.
    """

    def __init__(self, file: str | Path, field: str, found: object, expected: str):
        super().__init__(str(file), field, str(found), expected)  # as args: the error crosses processes

    def __str__(self) -> str:
        file, field, found, expected = self.args
        return f"{file}: {field}: found {found}; expected {expected}"


@contextmanager
def open_fits(path: str | Path) -> Iterator[fits.HDUList]:
    """Open a FITS file, also a gzipped one, for reading.

    Raises:
        SpectrumFileError: the file cannot be opened, something inside it cannot be read while it is open, or it was
            changed meanwhile.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", fits.verify.VerifyWarning)  # unparsable cards that nobody asks for
        warnings.filterwarnings("error", message="File may have been truncated")
        warnings.filterwarnings("error", message="Error validating header")  # astropy would go on without the HDU
        try:
            with open(path, "rb") as file:
                before = os.fstat(file.fileno())
                with _contents(path, file, before.st_size) as contents, fits.open(contents, memmap=False) as hdus:
                    yield hdus
            after = os.stat(path)
        except SpectrumFileError:
            raise
        except _DAMAGE as error:
            found = f"{type(error).__name__}: {error}"
            raise SpectrumFileError(path, "file", found, "a complete FITS file of this survey") from error
    if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
        raise SpectrumFileError(path, "file", "another size or time than before", "a file that stays as it is")


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
