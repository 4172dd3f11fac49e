"""Columns of FITS binary tables, read without astropy's objects for all the other columns."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from astropy.io import fits

from .fits_access import CARD, PIECE, SpectrumFileError, native


TABLE_CARD = re.compile(r"((?:NAXIS[12]|TFIELDS|(?:TTYPE|TFORM|TSCAL|TZERO|TNULL)\d+)) *= *('([^']*)'|[^ /]+)")
TFORM = re.compile(r"(\d*)([LXBIJKAEDCMPQ])")
WIDTHS = {"L": 1, "B": 1, "A": 1, "I": 2, "J": 4, "K": 8, "E": 4, "D": 8, "C": 8, "M": 16, "P": 8, "Q": 16}
NULL_CARDS = {"TNULL": "", "TSCAL": "1", "TZERO": "0"}  # and what stands for a card that is missing
MAX_EXACT = 2.0**53  # of integers as float64
NUMPY_FORMATS = {"L": "S1", "B": "u1", "I": ">i2", "J": ">i4", "K": ">i8", "E": ">f4", "D": ">f8"}


def column_names(hdu: fits.hdu.base.ExtensionHDU) -> list[str]:
    """The names of a binary table's columns; none of another HDU."""
    cards = layout_cards(hdu) if isinstance(hdu, fits.BinTableHDU) else {}
    return [value for keyword, value in cards.items() if keyword.startswith("TTYPE")]


def get_column(path: str | Path, hdu: fits.BinTableHDU, name: str) -> np.ndarray:
    """One column as `get_columns` reads it.

    Raises:
        SpectrumFileError: as there.
    """
    return get_columns(path, hdu, (name,))[name]


def get_columns(
    path: str | Path, hdu: fits.BinTableHDU, names: Iterable[str], optional: Iterable[str] = (), masked: bool = False
) -> dict[str, np.ndarray]:
    """Columns of a binary table, whichever case their names have, in native byte order; text stays bytes (`text`).

    Reads the named columns alone. astropy's `data` first makes an object of every column: 40 ms for the 130 columns
    that stand beside each spectrum of SDSS, ten times the rest of its file.

    Args:
        path: for messages.
        hdu: the table; its file is open.
        names: columns that must be there.
        optional: columns that are left out of the result where they are missing.
        masked: integers with nulls (TNULL) as masked arrays, which stay exact, rather than as floats with NaN.

    Returns:
        column -> (num_rows,) or (num_rows, repeat) array, named as asked for.

    Raises:
        SpectrumFileError: the HDU is no table, has no such column, its rows are not what its header says, or floats
            do not hold integers that have nulls.
    """
    if not isinstance(hdu, fits.BinTableHDU):
        raise SpectrumFileError(path, f"HDU {hdu.name}", f"a {type(hdu).__name__}", "a binary table")
    cards, location = layout_cards(hdu), hdu.fileinfo()
    layout, row_size = table_layout(path, cards)
    places = {}
    for name in (*names, *optional):
        if name.upper() in layout:
            places[name] = layout[name.upper()]
        elif name in names:
            found = [cards.get(f"TTYPE{place.number}") for place in list(layout.values())[:20]]
            raise SpectrumFileError(path, f"column {name}", f"columns {found}", f"a column named {name}")
    plain = {name: place for name, place in places.items() if place.kind}
    columns = read_rows(path, location["file"], location["datLoc"], row_size, int(cards["NAXIS2"]), plain)
    columns |= {name: columns[name] == b"T" for name, place in plain.items() if place.is_logical}
    columns |= {name: native(hdu.data.field(places[name].number - 1)) for name in places.keys() - plain.keys()}
    for name, place in places.items():
        if (null := null_value(cards, place.number)) is not None and columns[name].dtype.kind in "iu":
            columns[name] = without_nulls(path, name, columns[name], null, masked)
    return columns


def null_value(cards: dict[str, str], number: int) -> int | None:
    """The integer that stands for nothing in a column, as it is read (FITS standard 4.0, 7.3.2), or None."""
    try:
        stored, scale, zero = (int(cards.get(f"{key}{number}", other)) for key, other in NULL_CARDS.items())
    except ValueError:  # none, or scaled to floats
        return None
    return stored * scale + zero


def without_nulls(path: str | Path, name: str, values: np.ndarray, null: int, masked: bool) -> np.ndarray:
    """A column of integers with its nulls masked or NaN; as it is, if there are none."""
    is_null = values == null
    if not is_null.any():
        return values
    if masked:
        return np.ma.array(values, mask=is_null)
    if (np.abs(values[~is_null].astype(np.float64)) > MAX_EXACT).any():
        raise SpectrumFileError(path, f"column {name}", f"{is_null.sum()} nulls (TNULL)", "an integer in every row")
    return np.where(is_null, np.nan, values)


def get_pixels(
    path: str | Path, hdu: fits.BinTableHDU, names: Iterable[str], optional: Iterable[str] = ()
) -> dict[str, np.ndarray]:
    """`get_columns` of floating-point numbers, one per row, as pixels are.

    Raises:
        SpectrumFileError: as there, or a column holds something else.
    """
    columns = get_columns(path, hdu, names, optional)
    for name, values in columns.items():
        if values.dtype.kind != "f" or values.ndim != 1:
            raise SpectrumFileError(
                path, f"column {name}", f"{values.dtype} {values.shape}", "a floating-point number a row"
            )
    return columns


def read_rows(
    path: str | Path, file: BinaryIO, start: int, row_size: int, num_rows: int, places: dict[str, "ColumnPlace"]
) -> dict[str, np.ndarray]:
    """Columns out of the rows that begin at byte `start`, piece by piece: a survey's catalogue is larger than memory.

    Raises:
        SpectrumFileError: the file ends before the rows do.
    """
    file.seek(start + max(num_rows * row_size - 1, 0))
    if num_rows < 0 or (num_rows and not file.read(1)):
        raise SpectrumFileError(path, "table", "fewer bytes", f"{num_rows} rows of {row_size} bytes")
    columns = {name: np.empty((num_rows, *place.shape), place.native) for name, place in places.items()}
    file.seek(start)
    rows_per_piece = max(PIECE // max(row_size, 1), 1)
    for first in range(0, num_rows if places else 0, rows_per_piece):
        count = min(rows_per_piece, num_rows - first)
        data = file.read(count * row_size)
        for name, place in places.items():
            columns[name][first : first + count] = np.frombuffer(data, place.record(row_size), count)["value"]
    return columns


@dataclass
class ColumnPlace:
    """Where a column stands in a row.

    Attributes:
        number: of the column, from 1.
        offset: bytes before it in a row.
        kind: numpy format in the file; "" if astropy has to read it.
        shape: of one value: (), or (repeat,).
        is_logical: T and F stand for true and false.
    """

    number: int
    offset: int
    kind: str
    shape: tuple[int, ...]
    is_logical: bool

    @property
    def native(self) -> np.dtype:
        return np.dtype(self.kind).newbyteorder("=")

    def record(self, row_size: int) -> np.dtype:
        """A row of which this column alone is read."""
        fields = {"names": ["value"], "formats": [(self.kind, self.shape)], "offsets": [self.offset]}
        return np.dtype({**fields, "itemsize": row_size})


def layout_cards(hdu: fits.BinTableHDU) -> dict[str, str]:
    """What lays out a binary table in its header: keyword -> value as text; the first of repeated ones."""
    location = hdu.fileinfo()
    location["file"].seek(location["hdrLoc"])
    header = location["file"].read(location["datLoc"] - location["hdrLoc"]).decode("ascii", "replace")
    cards: dict[str, str] = {}
    for start in range(0, len(header), CARD):
        if match := TABLE_CARD.match(header, start, start + CARD):
            cards.setdefault(match[1], (match[2] if match[3] is None else match[3]).strip())
    return cards


def table_layout(path: str | Path, cards: dict[str, str]) -> tuple[dict[str, ColumnPlace], int]:
    """Where the columns stand in a row, by upper-case name, and the row's size in bytes (FITS standard 4.0, 7.3).

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
        shape = (repeat,) if repeat != 1 and code != "A" else ()
        layout.setdefault(
            cards.get(f"TTYPE{number}", "").upper(), ColumnPlace(number, offset, kind, shape, code == "L")
        )
        offset += -(-repeat // 8) if code == "X" else repeat * WIDTHS[code]
    if offset != int(cards["NAXIS1"]):
        raise SpectrumFileError(path, "NAXIS1", cards["NAXIS1"], f"{offset} bytes, as the columns add up to")
    return layout, offset


def text(value: bytes | str) -> str:
    """A value of a table's text column, without padding."""
    return (value.decode("ascii", "replace") if isinstance(value, bytes) else value).strip("\0 ")
