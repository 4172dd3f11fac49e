"""Opening survey files safely: every reader goes through here, so a damaged file fails in one way with one message."""

import math
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from astropy.io import fits
from astropy.utils.exceptions import AstropyUserWarning


SPEED_OF_LIGHT = 299792.458  # km/s

# What astropy lets through when the bytes of a file are not what its headers promise.
_DAMAGE = (OSError, EOFError, ValueError, TypeError, KeyError, IndexError, zlib.error)
_DAMAGE += (fits.VerifyError, AstropyUserWarning)


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
    """Open a FITS file for reading.

    Raises:
        SpectrumFileError: the file cannot be opened, or something inside it cannot be read while it is open.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", fits.verify.VerifyWarning)  # unparsable cards that nobody asks for
        warnings.filterwarnings("error", message="File may have been truncated")
        try:
            with fits.open(path) as hdus:  # memory-mapped where astropy can; memmap=True would refuse scaled images
                yield hdus
        except SpectrumFileError:
            raise
        except _DAMAGE as error:
            found = f"{type(error).__name__}: {error}"
            raise SpectrumFileError(path, "file", found, "a complete FITS file of this survey") from error


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


def get_column(path: str | Path, hdu: fits.BinTableHDU, name: str) -> np.ndarray:
    """A table's column, whichever case its name has, in native byte order.

    Raises:
        SpectrumFileError: the HDU is no table or has no such column.
    """
    names = hdu.columns.names if isinstance(hdu, fits.BinTableHDU) else []
    if name.lower() not in {other.lower() for other in names}:
        raise SpectrumFileError(path, f"column {name}", f"columns {names[:20]}", f"a column named {name}")
    return native(hdu.data[name])


def describe(hdus: fits.HDUList) -> str:
    """One line on what a file holds, for error messages."""
    return f"{len(hdus)} HDUs {[hdu.name for hdu in hdus[:20]]}"


def number(value: object) -> float:
    """A label as float: NaN for missing, unparsable and the surveys' -9999."""
    try:
        value = float(value)
    except (TypeError, ValueError):
        return math.nan
    return value if value > -9998 else math.nan
