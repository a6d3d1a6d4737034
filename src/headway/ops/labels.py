"""Labels of heads: the token at an offset, ignored across borders."""

import torch
from torch import Tensor

IGNORE = -100


def shift_labels(labels: Tensor, offset: int, segments: Tensor | None = None) -> Tensor:
    """Label of position i for the prediction of the token at i + `offset`.

    A position is ignored if any label from i + 1 to i + `offset` is ignored or lies in another segment. A head therefore never
    learns across the end of a document, padding, or the border between prompt and completion.

    Args:
        labels: token ids, not shifted (as in transformers), -100 to ignore, (batch, seq).
        offset: 1 for the trunk's own prediction, k + 2 for head k.
        segments: number of the document of a token, -1 for padding, (batch, seq).
    Returns: (batch, seq), -100 at ignored positions.
    Raises:
        ValueError: `offset` is below 1.
    """
    if offset < 1:
        raise ValueError(f"offset must be at least 1, got {offset}")
    shifted = torch.full_like(labels, IGNORE)
    length = labels.shape[1] - offset
    if length <= 0:
        return shifted
    has_label = labels != IGNORE
    valid = torch.ones_like(labels[:, :length], dtype=torch.bool)
    for step in range(1, offset + 1):
        valid &= has_label[:, step : step + length]
    if segments is not None:
        valid &= (segments[:, :length] == segments[:, offset:]) & (segments[:, :length] >= 0)
    shifted[:, :length] = torch.where(valid, labels[:, offset:], IGNORE)
    return shifted
