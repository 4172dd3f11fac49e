"""Opening survey files safely: every reader goes through here, so a damaged file fails in one way with one message.

A file is taken as it was in one moment: one up to 16 MiB is read at once, and a larger one that changes while it is read
is refused. Nothing is memory-mapped, because a file that shrinks under a map ends the process.
"""

import gzip
import math
import os
import re
import struct
import tempfile
import warnings
import zlib
from collections.abc import Iterable, Iterator
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

CARD_SIZE = 80
TABLE_CARD = re.compile(r"((?:NAXIS[12]|TFIELDS|(?:TTYPE|TFORM|TSCAL|TZERO)\d+)) *= *('([^']*)'|[^ /]+)")
TFORM = re.compile(r"(\d*)([LXBIJKAEDCMPQ])")
WIDTHS = {"L": 1, "B": 1, "A": 1, "I": 2, "J": 4, "K": 8, "E": 4, "D": 8, "C": 8, "M": 16, "P": 8, "Q": 16}
NUMPY_FORMATS = {"B": "u1", "I": ">i2", "J": ">i4", "K": ">i8", "E": ">f4", "D": ">f8"}

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


def find_hdu(hdus: fits.HDUList, name: str) -> fits.hdu.base.ExtensionHDU | None:
    """The HDU of that name, or None."""
    try:
        return hdus[name]
    except KeyError:
        return None


def get_column(path: str | Path, hdu: fits.BinTableHDU, name: str) -> np.ndarray:
    """One column as `get_columns` reads it.

    Raises:
        SpectrumFileError: as there.
    """
    return get_columns(path, hdu, (name,))[name]


def get_columns(
    path: str | Path, hdu: fits.BinTableHDU, names: Iterable[str], optional: Iterable[str] = ()
) -> dict[str, np.ndarray]:
    """Columns of a binary table, whichever case their names have, in native byte order; text without padding.

    Reads the named columns alone. astropy's `data` first makes an object of every column: 40 ms for the 130 columns
    that stand beside each spectrum of SDSS, ten times the rest of its file.

    Args:
        path: for messages.
        hdu: the table; its file is open.
        names: columns that must be there.
        optional: columns that are left out of the result where they are missing.

    Returns:
        column -> (num_rows,) or (num_rows, repeat) array, named as asked for.

    Raises:
        SpectrumFileError: the HDU is no table, has no such column, or its rows are not what its header says.
    """
    if not isinstance(hdu, fits.BinTableHDU):
        raise SpectrumFileError(path, f"HDU {hdu.name}", f"a {type(hdu).__name__}", "a binary table")
    place = hdu.fileinfo()
    file = place["file"]
    file.seek(place["hdrLoc"])
    cards = table_cards(file.read(place["datLoc"] - place["hdrLoc"]).decode("ascii", "replace"))
    layout, row_size = table_layout(path, cards)
    num_rows = int(cards["NAXIS2"])
    file.seek(place["datLoc"])
    data = file.read(num_rows * row_size)
    if len(data) < num_rows * row_size:
        raise SpectrumFileError(path, "table", f"{len(data)} bytes", f"{num_rows} rows of {row_size} bytes")
    columns = {}
    for name in (*names, *optional):
        if (key := name.upper()) in layout:
            columns[name] = read_column(hdu, data, row_size, *layout[key])
        elif name in names:
            found = f"columns {[cards[f'TTYPE{number}'] for number, *_ in list(layout.values())[:20]]}"
            raise SpectrumFileError(path, f"column {name}", found, f"a column named {name}")
    return columns


def table_cards(header: str) -> dict[str, str]:
    """What lays out a binary table in the text of its header: keyword -> value as text; the first of repeated ones."""
    cards: dict[str, str] = {}
    for start in range(0, len(header), CARD_SIZE):
        if match := TABLE_CARD.match(header, start, start + CARD_SIZE):
            cards.setdefault(match[1], (match[2] if match[3] is None else match[3]).strip())
    return cards


def table_layout(path: str | Path, cards: dict[str, str]) -> tuple[dict[str, tuple[int, int, str, int]], int]:
    """Where the columns stand in a row (FITS standard 4.0, section 7.3).

    Returns:
        Upper-case name -> number, offset in bytes, numpy format ("" if astropy has to read it), and repeat count; and
        the size of a row in bytes.

    Raises:
        SpectrumFileError: a column has no known format, or the columns do not add up to the row.
    """
    layout, offset = {}, 0
    for number in range(1, int(cards["TFIELDS"]) + 1):
        match = TFORM.match(cards.get(f"TFORM{number}", ""))
        if match is None:
            raise SpectrumFileError(path, f"TFORM{number}", cards.get(f"TFORM{number}"), "the format of a column")
        repeat, code = int(match[1] or 1), match[2]
        is_scaled = not {f"TSCAL{number}", f"TZERO{number}"}.isdisjoint(cards)
        kind = "" if is_scaled else f"S{repeat}" if code == "A" else NUMPY_FORMATS.get(code, "")
        name = cards.get(f"TTYPE{number}", "").upper()
        layout.setdefault(name, (number, offset, kind, 1 if code == "A" else repeat))
        offset += -(-repeat // 8) if code == "X" else repeat * WIDTHS[code]
    if offset != int(cards["NAXIS1"]):
        raise SpectrumFileError(path, "NAXIS1", cards["NAXIS1"], f"{offset} bytes, as the columns add up to")
    return layout, offset


def read_column(
    hdu: fits.BinTableHDU, data: bytes, row_size: int, number: int, offset: int, kind: str, repeat: int
) -> np.ndarray:
    """One column out of a table's bytes."""
    if not kind:
        return native(hdu.data.field(number - 1))
    shape = (repeat,) if repeat != 1 else ()
    record = np.dtype({"names": ["value"], "formats": [(kind, shape)], "offsets": [offset], "itemsize": row_size})
    values = native(np.frombuffer(data, dtype=record)["value"])
    return np.char.strip(np.char.decode(values, "ascii", "replace")) if kind[0] == "S" else values


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
