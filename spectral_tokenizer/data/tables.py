"""Rows as Arrow tables, and the rows of one unit of files while it is not yet known whether the whole unit is good."""

import tempfile
from collections.abc import Iterator

import numpy as np
import pyarrow as pa

from .schema import FEATURES


def to_table(rows: list[dict]) -> pa.Table:
    """Rows as an Arrow table of the schema: the pixels of all rows in one flat array per column, plus offsets."""
    columns = []
    for name, arrow_field in zip(FEATURES, FEATURES.arrow_schema, strict=True):
        values = [row[name] for row in rows]
        if pa.types.is_string(arrow_field.type):  # names of files may be no valid Unicode
            values = [value and value.encode("utf-8", "backslashreplace").decode() for value in values]
        if not pa.types.is_list(arrow_field.type):
            columns.append(pa.array(values, type=arrow_field.type))
            continue
        offsets = np.cumsum([0] + [len(value) for value in values], dtype=np.int32)
        pixels = pa.array(np.concatenate(values), type=arrow_field.type.value_type)
        columns.append(pa.ListArray.from_arrays(pa.array(offsets), pixels))
    return pa.Table.from_arrays(columns, schema=FEATURES.arrow_schema)


class UnitRows:
    """The rows of one unit of files, which are given out only once the whole unit was read without an error.

    A unit may be a file of any size: beyond `max_pixels` the rows wait in a temporary file, as Arrow.

    Attributes:
        rows: the rows that are still in memory; they come after the ones of `spilled`.
        count: number of all rows.
    """

    def __init__(self, max_pixels: int):
        self.max_pixels = max_pixels
        self.rows: list[dict] = []
        self.count = self.num_pixels = 0
        self._file = self._writer = None

    def __enter__(self) -> "UnitRows":
        return self

    def __exit__(self, *exception) -> None:
        if self._file is not None:
            self._file.close()

    def append(self, row: dict) -> None:
        """Take one more row."""
        self.rows.append(row)
        self.count += 1
        self.num_pixels += len(row["flux"])
        if self.num_pixels >= self.max_pixels:
            self._spill()

    def spilled(self) -> Iterator[pa.Table]:
        """What waits in the file, table by table; to be called when the unit is complete."""
        if self._file is not None:
            self._writer.close()
            self._file.seek(0)
            for batch in pa.ipc.open_stream(self._file):
                yield pa.Table.from_batches([batch])

    def _spill(self) -> None:
        if self._file is None:
            self._file = tempfile.TemporaryFile()  # noqa: SIM115, as __exit__ closes it
            self._writer = pa.ipc.new_stream(self._file, FEATURES.arrow_schema)
        self._writer.write_table(to_table(self.rows))
        self.rows, self.num_pixels = [], 0
