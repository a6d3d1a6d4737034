"""What an objective returns, and what it is."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from torch import Tensor

from headway.model import HeadwayModel

Batch = dict[str, Tensor]


@dataclass(frozen=True)
class Loss:
    """`total` is minimised; `heads` (count + 1,) holds each offset's own mean, detached, NaN where it was not computed."""

    total: Tensor
    heads: Tensor
    others: Mapping[str, Tensor] = field(default_factory=dict)  # further means by name, for the log; scalars


class Objective(Protocol):
    def loss(self, model: HeadwayModel, batch: Batch, progress: float, items: Tensor | int | None = None) -> Loss:
        """The loss of one batch.

        Args:
            batch: input_ids, labels (not shifted, -100 to ignore), segments (-1 for padding) and, where attention is not
                causal throughout, prefix (true where tokens of a document see each other both ways), each (batch, seq).
            progress: of the run, in [0, 1].
            items: next-token labels over all devices and accumulation steps; default: those of this batch.
        """
        ...
