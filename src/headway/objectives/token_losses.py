"""Cross-entropies of the trunk and of heads over one batch of tokens, from one pass of the trunk.

All offsets are divided by the number of next-token labels, as in the sum over t of Gloeckle et al. 2024 (arXiv 2404.19737, equation
2). Distillation replaces labels by the distribution of a teacher (DistillSpec, arXiv 2310.08461).
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from headway.model import HeadwayModel
from headway.objectives.base import Batch, Loss
from headway.ops import IGNORE, SoftTargets, Unembedding, linear_cross_entropy, shift_labels


def token_losses(
    model: HeadwayModel,
    batch: Batch,
    weights: list[float],
    distill: bool,
    items: Tensor | int | None,
    feature_weight: float = 0.0,
) -> Loss:
    """Weighted loss of the trunk and of the first `len(weights) - 1` heads.

    Args:
        model: trunk and heads.
        batch: input_ids, labels, and segments and prefix if any, each (batch, seq).
        weights: weight of each offset, the trunk's own first.
        distill: heads learn the distribution of the trunk instead of labels.
        items: divisor of all sums; default: next-token labels of this batch.
        feature_weight: weight of the distance between hidden states of a head and later hidden states of the trunk (EAGLE, arXiv
            2401.15077, section 3.2).
    """
    labels, segments = batch["labels"], batch.get("segments")
    states = model(batch["input_ids"], segments, len(weights) - 1, batch.get("prefix")).hidden_states
    shifted = [shift_labels(labels, k + 1, segments).flatten() for k in range(len(states))]
    targets: list[Tensor | SoftTargets] = list(shifted)
    unembeddings = model.unembeddings[: len(states)]
    if distill:
        teacher = states[0].detach()
        targets[1:] = [teacher_targets(teacher, k, labels, unembeddings[0]) for k, labels in enumerate(shifted[1:], 1)]
    if items is None:
        items = (shifted[0] != IGNORE).sum().clamp(min=1)
    flat = [state.flatten(0, 1) for state in states]
    total, means = linear_cross_entropy(flat, targets, unembeddings, weights, items)
    if not feature_weight:
        return Loss(total, by_offset(means))
    distances, counts = zip(*(_distance(states[0], states[k], shifted[k] != IGNORE, k) for k in range(1, len(states))), strict=True)
    features = sum(weight * distance for weight, distance in zip(weights[1:], distances, strict=True)) / items
    mean = torch.stack(distances).sum().detach() / torch.stack(counts).sum()  # NaN without labels
    return Loss(total + feature_weight * features, by_offset(means) | {"loss_features": mean})


def by_offset(means: Tensor) -> dict[str, Tensor]:
    """Metrics loss_1, loss_2, ... from the mean loss of each offset, (offsets,)."""
    return {f"loss_{offset}": mean for offset, mean in enumerate(means, start=1)}


def teacher_targets(teacher: Tensor, k: int, shifted: Tensor, unembedding: Unembedding) -> SoftTargets:
    """Distributions of a teacher as targets of head k, 0 for the trunk.

    Args:
        teacher: last hidden states of the teacher, (batch, seq, hidden).
        k: offset of the head from the trunk.
        shifted: labels of head k, (batch * seq,), -100 at positions that are not taught.
        unembedding: unembedding of the teacher.
    """
    # the teacher at i + k has read up to there and predicts the same token as head k at i
    return SoftTargets(torch.roll(teacher, -k, dims=1).flatten(0, 1), shifted != IGNORE, unembedding)


def _distance(trunk: Tensor, predicted: Tensor, valid: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Smooth L1 distance of `predicted` at i from `trunk` at i + k, summed over valid positions i, and the number of positions.

    Args:
        trunk: hidden states of the trunk, (batch, seq, hidden).
        predicted: hidden states of head k, (batch, seq, hidden).
        valid: positions that count, (batch * seq,).
        k: offset of the head from the trunk.
    """
    later = torch.roll(trunk.detach(), -k, dims=1).flatten(0, 1)[valid].float()
    return F.smooth_l1_loss(predicted.flatten(0, 1)[valid].float(), later, reduction="none").mean(-1).sum(), valid.sum()
