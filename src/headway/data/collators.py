"""Batches of tensors from rows of different lengths."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from headway.data.packing import PackedRow
from headway.errors import DataError
from headway.ops.labels import IGNORE


@dataclass(frozen=True)
class Collator:
    """Pads on the right to the longest row: segments -1, labels -100, prefix false."""

    pad_token_id: int

    def __call__(self, rows: Sequence[PackedRow]) -> dict[str, Tensor]:
        """Tensors input_ids, labels and segments, and prefix if the rows have a prefix, all (batch, seq)."""
        fill = {"input_ids": self.pad_token_id, "labels": IGNORE, "segments": -1, "prefix": False}
        return pad_columns(rows, {name: value for name, value in fill.items() if name in rows[0]})


def pad_columns(rows: Sequence[Mapping[str, Any]], columns: Mapping[str, float]) -> dict[str, Tensor]:
    """Tensors of the columns, (rows, longest), from lists of numbers.

    Args:
        rows: lists by column name.
        columns: names of the columns, and padding values on the right.
    Raises:
        DataError: a row lacks a column.
    """
    for name in columns:
        if missing := [row for row in rows if name not in row]:
            raise DataError(f"The objective needs the column {name!r}, and the data has only {', '.join(missing[0])}.")
    longest = {name: max(len(row[name]) for row in rows) for name in columns}
    return {
        name: torch.tensor([[*row[name], *[fill] * (longest[name] - len(row[name]))] for row in rows])
        for name, fill in columns.items()
    }
