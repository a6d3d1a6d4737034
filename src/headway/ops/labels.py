"""Which token each head should predict, and where it should not try."""

import torch
from torch import Tensor

IGNORE = -100


def shift_labels(labels: Tensor, offset: int, segments: Tensor | None = None) -> Tensor:
    """The label of position i for the head that predicts the token at i + `offset`.

    A position is ignored where any of the labels on the way, i + 1 to i + `offset`, is ignored or lies in another
    segment: a head never learns across a document end, a padding, or the border between prompt and completion.

    Args:
        labels: token ids as transformers has them (not shifted), -100 where nothing is learnt, (batch, seq).
        offset: 1 for the trunk's own prediction, k + 1 for head k.
        segments: number of the document each token belongs to, -1 for padding, (batch, seq).
    Returns: (batch, seq), -100 where there is nothing to predict.
    Raises: ValueError if `offset` is below 1.
    """
    if offset < 1:
        raise ValueError(f"offset must be at least 1, got {offset}")
    shifted = torch.full_like(labels, IGNORE)
    length = labels.shape[1] - offset
    if length <= 0:
        return shifted
    learnt = labels != IGNORE
    valid = torch.ones_like(labels[:, :length], dtype=torch.bool)
    for step in range(1, offset + 1):
        valid &= learnt[:, step : step + length]
    if segments is not None:
        valid &= (segments[:, :length] == segments[:, offset:]) & (segments[:, :length] >= 0)
    shifted[:, :length] = torch.where(valid, labels[:, offset:], IGNORE)
    return shifted
