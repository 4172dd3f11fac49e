"""Rows -> what Trainer puts into a model: spectra through the processor, labels beside them."""

import math
from collections.abc import Callable, Mapping, Sequence

import torch

from .schema import SPECTRUM


class SpectralCollator:
    """A list of rows -> one padded batch.

    Args:
        processor: Called with a list of rows and `return_tensors="pt"`.
        labels: The column of the labels, or the columns of several. None: no labels.
        classes: Names of the classes in the order of the model's `id2label`, where labels are names. None: labels are
            numbers, in their own units.

    The batch holds `labels` as the model expects them: (batch,) integers with -100 for an unknown class, or (batch,
    columns) float64 with NaN for an unknown number.

    Raises:
        ValueError: a row lacks a column, or has a class that is not among `classes` or a label that is no number. Names the
            object.
    """

    def __init__(
        self,
        processor: Callable,
        labels: str | Sequence[str] | None = None,
        classes: Sequence[str] | None = None,
    ):
        self.processor = processor
        self.columns = [labels] if isinstance(labels, str) else list(labels or ())
        self.index = {name: index for index, name in enumerate(classes)} if classes is not None else None
        if self.index is not None and len(self.columns) != 1:
            raise ValueError(f"expected one column of class names, found: {self.columns}")

    def __call__(self, rows: Sequence[Mapping]) -> dict[str, torch.Tensor]:
        spectra = [{name: row[name] for name in ("object_id", *SPECTRUM) if name in row} for row in rows]
        return {**self.processor(spectra, return_tensors="pt"), **self.labels(rows)}

    def labels(self, rows: Sequence[Mapping]) -> dict[str, torch.Tensor]:
        """`labels` alone, nothing where there are no columns of labels."""
        missing = {column for row in rows for column in self.columns if column not in row}
        if missing:
            raise ValueError(
                f"rows lack the label columns {sorted(missing)}, found: {sorted(rows[0])}. Trainer drops columns that "
                f"the model does not take unless it is told remove_unused_columns=False"
            )
        if not self.columns:
            return {}
        return {"labels": self.classes(rows) if self.index is not None else self.numbers(rows)}

    def classes(self, rows: Sequence[Mapping]) -> torch.Tensor:
        """(batch,) int64."""
        (column,) = self.columns
        for row in rows:
            if row[column] is not None and row[column] not in self.index:
                raise ValueError(
                    f"{row.get('object_id')}: {column}: expected one of {list(self.index)} or None, found: "
                    f"{row[column]!r}"
                )
        return torch.tensor([self.index.get(row[column], -100) for row in rows])

    def numbers(self, rows: Sequence[Mapping]) -> torch.Tensor:
        """(batch, columns) float64: a date in days has more digits than float32."""
        values = [[as_label(row[name], name, row.get("object_id")) for name in self.columns] for row in rows]
        return torch.tensor(values, dtype=torch.float64)


def as_label(value: object, column: str, object_id: str | None) -> float:
    """A label as a number, NaN where there is none.

    Raises:
        ValueError: it is no number. Names the object and the column.
    """
    try:
        return math.nan if value is None else float(value)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{object_id}: {column}: expected a number or None, found: {value!r}") from error
