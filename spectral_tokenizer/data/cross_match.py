"""Labels of one's own: columns of any table of objects, matched to rows by identifier or by place on the sky.

    rows = cross_match(load_survey("galah", "/data/galah"), "ages.csv", ["age"], key="sobject_id")
    rows = cross_match(rows, "vizier.fits", {"mg_fe": "[Mg/Fe]"}, position=("RAJ2000", "DEJ2000"))

A survey's own catalogues are joined while its files are read, with the survey's flags: `load_survey(catalogue=...)`. This
is for what no survey gives, on rows from anywhere.
"""

import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from astropy import units
from astropy.coordinates import SkyCoord
from astropy.table import Column, Table
from datasets import Dataset, Value

from .fits_access import SpectrumFileError
from .plain import SENTINELS
from .splits import positions


logger = logging.getLogger(__name__)

NOT_MATCHED = -1
#: Right ascensions, from -180 or from 0 degrees, and declinations; what lies beyond is a sentinel, as -9999.
RA_RANGE, DEC_RANGE = (-180, 360), (-90, 90)
INTEGERS = [f"{sign}Int{bits}" for sign in ("", "U") for bits in (8, 16, 32, 64)]
#: Integers of Parquet that stay integers beside nulls: as floats, identifiers of 64 bits would not be exact.
EXACT = {pa.type_for_alias(name.lower()): pd.api.types.pandas_dtype(name) for name in INTEGERS}


def cross_match(
    rows: Dataset,
    table: str | Path | Table | pd.DataFrame,
    columns: Mapping[str, str] | Sequence[str],
    *,
    key: str | Sequence[str] | None = None,
    position: tuple[str, str] | None = None,
    radius: float = 1.0,
) -> Dataset:
    """Rows with further columns. Numbers become float64, NaN where there is none: no match, masked, infinite, -999 or
    -9999; texts become null there, or where they are blank. Units stay as they are in the table. The log warns where
    fewer than half of the rows are matched, and fewer than half of the table's objects.

    Args:
        rows: as of `load_survey`.
        table: an astropy or pandas table, or a file that astropy's ``Table.read`` knows: CSV, ECSV, FITS, VOTable,
            Parquet.
        columns: of the table to take, or new name -> the table's name.
        key: column of the table that holds the rows' ``object_id``; or several, of integers, for an identifier that is
            several of them with dashes between, as SDSS's plate, MJD, fibre. Spaces at their ends count nothing, nor do
            zeros before integers where the table has no such identifier with them.
        position: columns of the table with right ascension and declination, in degrees where they name no other unit,
            and in the system of the rows' ``ra`` and ``dec`` (ICRS): the nearest object within `radius`.
        radius: arcseconds.

    Raises:
        ValueError: not one of `key` and `position`; one column by itself; a column that the rows have already; nothing matches.
        SpectrumFileError: the table cannot be read, has no such column, holds a key as floats or a position as text
            or in a unit that is no angle's, or has an object or a place twice with unlike values; or several identifiers
            that a row's may be, as they differ in zeros before integers alone.
    """
    if (key is None) == (position is None):
        raise ValueError(f"key, position: found {key!r}, {position!r}; expected one of them")
    if isinstance(columns, str):
        raise ValueError(f"columns: expected a list of names, or {{new: table's}}, found: {columns!r}")
    columns = dict(columns) if isinstance(columns, Mapping) else {name: name for name in columns}
    if taken := sorted(set(columns) & set(rows.column_names)):
        raise ValueError(f"columns: found {taken}, which the rows have already; expected new names, {{new: table's}}")
    name = str(table) if isinstance(table, str | Path) else "table"
    keys = [key] if isinstance(key, str) else list(key or position)
    objects = read_objects(table, name, list(dict.fromkeys([*keys, *columns.values()])), position or ())
    if position is None:
        place, theirs = by_identifier(rows, objects, name, keys, list(columns.values()))
    else:
        place, theirs = by_position(rows, objects, name, position, list(columns.values()), radius)
    check_matches(rows, objects, name, keys, position, place, theirs)
    for new, old in columns.items():
        values = taken_from(objects[old], place)
        # Of texts that are all null a type could not be told, and surveys could not be put together.
        rows = rows.add_column(new, values, feature=Value("string" if isinstance(values, list) else "float64"))
    return rows


def read_objects(
    table: str | Path | Table | pd.DataFrame, name: str, columns: list[str], angles: Sequence[str] = ()
) -> pd.DataFrame:
    """Columns of a table, `angles` in degrees; masked values are missing ones, and bytes, as FITS has texts, are text."""
    try:
        if isinstance(table, str | Path):
            table = read_parquet(table, columns) if is_plain_parquet(table) else Table.read(table)
        if isinstance(table, pd.DataFrame):
            table = Table.from_pandas(table)
    except SpectrumFileError:
        raise
    except Exception as error:  # astropy's readers raise whatever their formats do
        found = f"{type(error).__name__}: {error}"
        raise SpectrumFileError(name, "file", found, "CSV, ECSV, FITS, VOTable or Parquet") from error
    check_columns(name, columns, table.colnames)
    if arrays := [column for column in columns if table[column].ndim > 1]:
        raise SpectrumFileError(name, f"columns {arrays}", "arrays", "one value in every row")
    table = Table(table[columns])  # of a QTable too, whose quantities become columns with a unit
    for column in angles:
        table[column] = in_degrees(table[column], name)
    objects = table.to_pandas(index=False)
    for column in objects:
        if objects[column].dtype.kind == "O":
            objects[column] = objects[column].map(as_text).astype(objects[column].dtype)
    return objects


def as_text(value: object) -> object:
    """Bytes as text; anything else, such as None, as it is."""
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value


def check_columns(name: str, columns: list[str], found: list[str]) -> None:
    """Raise `SpectrumFileError` where a table lacks columns."""
    if missing := [column for column in columns if column not in found]:
        raise SpectrumFileError(name, f"columns {missing}", f"columns {found}", "those as well")


def is_plain_parquet(path: str | Path) -> bool:
    """Whether a file is Parquet, as its content tells, and not of astropy, which keeps units and masks in a manner that
    astropy alone reads."""
    if not os.path.isfile(path):
        return False  # an address, or nothing: astropy will say so
    with open(path, "rb") as file:
        if file.read(4) != b"PAR1":
            return False
    return b"table_meta_yaml" not in (pq.read_schema(path).metadata or {})


def read_parquet(path: str | Path, columns: list[str]) -> pd.DataFrame:
    """Columns of a Parquet file. astropy would read all of them, and refuse the file for a null text or a categorical
    column among those that nobody asked for."""
    with pq.ParquetFile(path) as file:
        check_columns(str(path), columns, file.schema_arrow.names)
        if arrays := [each for each in columns if pa.types.is_nested(file.schema_arrow.field(each).type)]:
            raise SpectrumFileError(path, f"columns {arrays}", "arrays", "one value in every row")
        # Without pandas' metadata, by which a column may be no column but the index.
        return file.read(columns).to_pandas(ignore_metadata=True, types_mapper=EXACT.get)


def in_degrees(column: Column, name: str) -> Column:
    """An angle in degrees: as it is, or converted where its unit says that it is not. Text is left to `by_position`."""
    unit = column.unit
    if unit is None or isinstance(unit, units.UnrecognizedUnit) or column.dtype.kind not in "fiu":
        return column
    try:
        factor = unit.to(units.deg)
    except units.UnitConversionError as error:
        raise SpectrumFileError(name, f"column {column.name}", f"unit {unit}", "degrees, or another angle") from error
    return column if factor == 1 else type(column)(column * factor, name=column.name, unit=units.deg)


def by_identifier(
    rows: Dataset, objects: pd.DataFrame, name: str, keys: list[str], columns: list[str]
) -> tuple[np.ndarray, str]:
    """(rows,) places in the table, -1 where there is none, and an identifier as the table has them."""
    for key in keys:
        if not objects[key].map(lambda value: isinstance(value, str | int | np.integer) or pd.isna(value)).all():
            raise SpectrumFileError(
                name, f"column {key}", objects[key].dtype, "text or integers, which floats are not"
            )
    parts = objects[keys].dropna().astype(str)
    identifiers = parts[keys[0]].str.cat(parts[keys[1:]], sep="-").map(without_spaces)
    same = objects.loc[identifiers.index, columns].assign(identifier=identifiers).drop_duplicates()
    if (twice := same["identifier"].duplicated()).any():
        example = same.loc[twice, "identifier"].iloc[0]
        found = same.loc[same["identifier"] == example, columns].to_dict("list")
        raise SpectrumFileError(name, f"object {example}", found, "one row, or the same in all")
    first = pd.Series(same.index, index=same["identifier"])
    ours = [without_spaces(each) for each in rows["object_id"][:]]
    called = without_padding(name, first.index, ours)
    place = first.reindex([called.get(each, each) for each in ours]).fillna(NOT_MATCHED)
    return place.to_numpy(dtype=int), str(identifiers.iloc[0] if len(identifiers) else "nothing")


def without_padding(name: str, theirs: pd.Index, ours: Iterable[str]) -> dict[str, str]:
    """Identifiers of the rows that the table does not have -> its own that differs in the zeros before integers alone.

    Raises:
        SpectrumFileError: several of the table's do: A-001 may be A-01 or A-1.
    """
    lost = {each: without_zeros(each) for each in ours if each not in theirs}
    if not lost:
        return {}
    found = {plain: [] for plain in lost.values()}
    for each in theirs.tolist():
        if (plain := without_zeros(each)) in found:
            found[plain].append(each)
    for each, plain in lost.items():
        if len(found[plain]) > 1:
            expected = "one of them, as without the zeros before integers they are the same"
            raise SpectrumFileError(name, f"object {each}", found[plain], expected)
    return {each: found[plain][0] for each, plain in lost.items() if found[plain]}


def without_spaces(text: str) -> str:
    """An identifier without the spaces at the ends of its parts."""
    return "-".join(part.strip() for part in text.split("-"))


def without_zeros(text: str) -> str:
    """An identifier without the zeros that integers are padded with."""
    return "-".join(part.lstrip("0") or "0" if part.isdigit() else part for part in text.split("-"))


def by_position(
    rows: Dataset,
    objects: pd.DataFrame,
    name: str,
    position: tuple[str, str],
    columns: list[str],
    radius: float,
) -> tuple[np.ndarray, str]:
    """(rows,) places in the table of the nearest within `radius`, -1 where there is none, and a place that it has."""
    try:
        ra, dec = (objects[column].to_numpy(dtype=float, na_value=np.nan) for column in position)
    except (TypeError, ValueError) as error:
        raise SpectrumFileError(name, f"columns {list(position)}", error, "degrees") from error
    is_place = pd.Series(ra).between(*RA_RANGE) & pd.Series(dec).between(*DEC_RANGE)
    (there,) = np.nonzero(is_place)
    (beyond,) = np.nonzero(np.isfinite(ra) & np.isfinite(dec) & ~is_place)
    if len(beyond):
        example = f"ra {ra[beyond[0]]}, dec {dec[beyond[0]]}"
        logger.warning("%s: %d of %d rows have no place on the sky, such as %s", name, len(beyond), len(ra), example)
    check_places(objects.iloc[there], name, position, columns)
    theirs = SkyCoord(ra[there], dec[there], unit="deg")
    ours = positions("", rows)
    (here,) = np.nonzero(ours["ra"].notna() & ours["dec"].notna())
    place = np.full(len(rows), NOT_MATCHED)
    if len(here) and len(there):
        places = SkyCoord(ours["ra"].to_numpy()[here], ours["dec"].to_numpy()[here], unit="deg")
        nearest, distance, _ = places.match_to_catalog_sky(theirs)
        is_near = distance <= radius * units.arcsec
        place[here[is_near]] = there[nearest[is_near]]
    return place, f"ra {ra[there[0]]}, dec {dec[there[0]]}" if len(there) else "nothing"


def check_matches(
    rows: Dataset,
    objects: pd.DataFrame,
    name: str,
    keys: list[str],
    position: tuple[str, str] | None,
    place: np.ndarray,
    theirs: str,
) -> None:
    """Raise ValueError where no row is matched. Warn of few, unless they are most of a small table's objects: of both
    sides few are what another system of coordinates or another form of the identifiers leaves by chance."""
    found = place != NOT_MATCHED
    told = f"{name}: {keys}: {found.sum()} of {len(rows)} rows are in it"
    if found.sum() >= len(rows) / 2:
        logger.info(told)
        return
    row = rows[int(np.argmin(found))]
    ours = row["object_id"] if position is None else f"ra {row['ra']}, dec {row['dec']}"
    if not found.any():
        raise ValueError(f"{name}: {keys}: found none of {len(rows)} rows, such as {ours}; it has such as {theirs}")
    matched, total = len(np.unique(place[found])), len(objects[keys].dropna().drop_duplicates())
    told += f", {matched} of its {total} objects; without a match are rows such as {ours}, it has such as {theirs}"
    logger.log(logging.INFO if matched >= total / 2 else logging.WARNING, told)


def check_places(objects: pd.DataFrame, name: str, position: tuple[str, str], columns: list[str]) -> None:
    """Raise `SpectrumFileError` where several objects stand at one place with unlike values: one would be taken at
    random, of the two stars of a pair or of a star's visits."""
    same = objects[list(dict.fromkeys([*position, *columns]))].drop_duplicates()
    if (twice := same.duplicated(list(position))).any():
        place = same.loc[twice, list(position)].iloc[0]
        found = same.loc[(same[list(position)] == place).all(axis=1), columns].to_dict("list")
        expected = "one row there, or the same in all"
        raise SpectrumFileError(name, f"place {place.to_dict()}", found, expected)


def taken_from(column: pd.Series, place: np.ndarray) -> np.ndarray | list[str | None]:
    """(rows,) values of a column at places of the table."""
    found = place != NOT_MATCHED
    if not pd.api.types.is_numeric_dtype(column):
        given = column.astype(object).where(column.notna(), None)
        texts = np.where(found, given.to_numpy()[place], None)
        return [None if each is None else str(each).strip() or None for each in texts]
    values = np.where(found, column.to_numpy(dtype=float, na_value=np.nan)[place], np.nan)
    return np.where(np.isfinite(values) & ~np.isin(values, SENTINELS), values, np.nan)
