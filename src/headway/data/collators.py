"""Rows of different lengths into one batch of tensors."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from headway.data.packing import PackedRow
from headway.ops.labels import IGNORE


@dataclass(frozen=True)
class Collator:
    """Pads on the right to the longest row: segments -1, labels -100, prefix false."""

    pad_token_id: int

    def __call__(self, rows: Sequence[PackedRow]) -> dict[str, Tensor]:
        """Returns: input_ids, labels and segments, and prefix where the rows have one, each (batch, seq)."""
        length = max(len(row["input_ids"]) for row in rows)
        fill = {"input_ids": self.pad_token_id, "labels": IGNORE, "segments": -1, "prefix": False}
        return {
            name: torch.tensor([row[name] + [value] * (length - len(row[name])) for row in rows])  # type: ignore[literal-required]
            for name, value in fill.items()
            if name in rows[0]
        }
