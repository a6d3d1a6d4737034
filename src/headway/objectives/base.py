"""Interface between the training loop and a loss.

The loop hands examples to `collate`, divides by the sum of `count`, and minimises `Loss.total`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor

from headway.data.collators import pad_columns
from headway.model import HeadwayModel
from headway.ops import IGNORE, shift_labels

Batch = dict[str, Tensor]


@dataclass(frozen=True)
class Loss:
    """Loss of one batch.

    Args:
        total: scalar to minimise.
        metrics: detached scalar means by their names in the log. `loss_1` is the loss of the trunk's own prediction, `loss_2` the
            loss of the first head. NaN stands for a mean that was not computed.
    """

    total: Tensor
    metrics: Mapping[str, Tensor]


class Objective(Protocol):
    """Loss of a training run."""

    def collate(self, examples: Sequence[Any]) -> Batch:
        """Tensors of one batch by name, as `loss` reads them.

        Args:
            examples: items of the data set: packed rows of tokens for the objectives of this package.
        Raises:
            DataError: an example lacks a column that the loss needs.
        """
        ...

    def count(self, batch: Batch) -> int:
        """Number of labels in a batch. The loop divides by its sum over accumulation steps and devices."""
        ...

    def loss(self, model: HeadwayModel, batch: Batch, progress: float, items: Tensor | int | None = None) -> Loss:
        """Loss of one batch.

        Args:
            model: the model in training.
            batch: tensors that `collate` made.
            progress: share of the run that is over, in [0, 1].
            items: sum of `count` over accumulation steps and devices; default: `count` of this batch.
        """
        ...


class TokenObjective:
    """Collation and count of an objective over packed rows of tokens.

    Columns, each (batch, seq) in a batch: input_ids; labels, not shifted, -100 to ignore; segments, number of the document of a
    token, -1 for padding; prefix, true for tokens of a document that attend to each other in both directions. The last two may be
    absent.
    """

    def collate(self, examples: Sequence[Any]) -> Batch:
        """Rows padded on the right to the longest row. Raises DataError for a row without input_ids or labels."""
        optional = {"segments": -1, "prefix": False}
        columns = {"input_ids": 0, "labels": IGNORE} | {name: fill for name, fill in optional.items() if name in examples[0]}
        return pad_columns(examples, columns)

    def count(self, batch: Batch) -> int:
        """Number of next-token labels."""
        return int((shift_labels(batch["labels"], 1, batch.get("segments")) != IGNORE).sum())
