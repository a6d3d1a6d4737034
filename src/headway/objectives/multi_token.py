"""Multi-token prediction: next-token loss plus weighted losses of the heads, or of the heads alone.

L = L_1 + total(progress) * sum_k weight_k * factor_k(progress) * L_{k+1} (Gloeckle et al. 2024, equation 2, with the weights of
Medusa, FastMTP and the curricula). All offsets are divided by the number of next-token labels, as in the paper's sum over t.
Distillation replaces the heads' labels by the trunk's own distribution for the same token (DistillSpec, arXiv 2310.08461). Where a
family foresees the trunk's states, weight_k times `feature_weight` times the distance from them is added (EAGLE, arXiv 2401.15077,
section 3.2: 10 times the weight of its cross-entropy).
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from headway.errors import ConfigError
from headway.model import HeadwayModel
from headway.objectives.base import Batch, Loss
from headway.objectives.weights import HEAD_WEIGHTS, SCHEDULES
from headway.ops import IGNORE, SoftTargets, Unembedding, linear_cross_entropy, shift_labels


@dataclass(frozen=True)
class MultiToken:
    """Args:
    head_weights: constant, medusa (0.8^k) or beta (beta^k, normalised).
    total_weight: factor of all heads together.
    schedule: of the total weight: constant, sine, fade-out, forward, reverse.
    next_token: whether the trunk's own loss is part (not when the trunk is frozen).
    soft: heads learn the trunk's distributions instead of the labels.
    feature_weight: how much the distance of heads' states from the trunk's later ones counts, beside their other loss.
    Raises: ConfigError for an unknown name, a negative feature_weight or one of heads whose states are of another kind, or a
        next-token loss that is missing where there are no heads.
    """

    head_weights: Literal["constant", "medusa", "beta"] = "constant"
    beta: float = 0.6
    total_weight: float = 1.0
    schedule: Literal["constant", "sine", "fade-out", "forward", "reverse"] = "constant"
    next_token: bool = True
    soft: bool = False
    feature_weight: float = 0.0

    def __post_init__(self) -> None:
        if self.feature_weight < 0:
            raise ConfigError(f"feature_weight cannot be negative, got {self.feature_weight}.")
        for name, known in ((self.head_weights, HEAD_WEIGHTS), (self.schedule, SCHEDULES)):
            if name not in known:
                raise ConfigError(f"{name!r} is none of {', '.join(known)}.")

    def weights(self, count: int, progress: float) -> list[float]:
        """Weight of each offset, the trunk's own first."""
        heads = HEAD_WEIGHTS[self.head_weights](count, self.beta)
        factors = SCHEDULES[self.schedule](progress, count)
        own = 1.0 if self.next_token else 0.0
        return [own, *(self.total_weight * w * f for w, f in zip(heads, factors, strict=True))]

    def loss(self, model: HeadwayModel, batch: Batch, progress: float, items: Tensor | int | None = None) -> Loss:
        if not self.next_token and not model.count:
            raise ConfigError("There are no heads to train: ask for at least one.")
        if self.feature_weight and model.heads is not None and not model.heads.predicts_hidden_states:
            raise ConfigError(f"The states of {model.heads.family} heads are no states of a trunk: feature_weight must be 0.")
        return _loss(model, batch, self.weights(model.count, progress), self.soft, items, self.feature_weight)


@dataclass(frozen=True)
class NextToken:
    """Ordinary next-token prediction; heads, where there are any, are left alone."""

    def loss(self, model: HeadwayModel, batch: Batch, progress: float, items: Tensor | int | None = None) -> Loss:
        return _loss(model, batch, [1.0], False, items)


def _loss(
    model: HeadwayModel,
    batch: Batch,
    weights: list[float],
    soft: bool,
    items: Tensor | int | None,
    feature_weight: float = 0.0,
) -> Loss:
    labels, segments = batch["labels"], batch.get("segments")
    states = model(batch["input_ids"], segments, len(weights) - 1, batch.get("prefix")).states
    shifted = [shift_labels(labels, k + 1, segments).flatten() for k in range(len(states))]
    targets: list[Tensor | SoftTargets] = list(shifted)
    unembeddings = model.unembeddings[: len(states)]
    if soft:
        own = states[0].detach()
        targets[1:] = [teacher_targets(own, k, labels, unembeddings[0]) for k, labels in enumerate(shifted[1:], 1)]
    if items is None:
        items = (shifted[0] != IGNORE).sum().clamp(min=1)
    flat = [state.flatten(0, 1) for state in states]
    total, means = linear_cross_entropy(flat, targets, unembeddings, weights, items)
    if not feature_weight:
        return Loss(total, means)
    distances, rows = zip(*(_distance(states[0], states[k], shifted[k] != IGNORE, k) for k in range(1, len(states))), strict=True)
    features = sum(weight * distance for weight, distance in zip(weights[1:], distances, strict=True)) / items
    mean = torch.stack(distances).sum().detach() / torch.stack(rows).sum()  # NaN where there is none
    return Loss(total + feature_weight * features, means, {"features": mean})


def teacher_targets(own: Tensor, k: int, shifted: Tensor, unembedding: Unembedding) -> SoftTargets:
    """What a trunk of states `own` (batch, seq, hidden) teaches head k, where there are labels, (batch * seq,), shifted for it."""
    # the trunk at i + k has read up to there and predicts the same token as head k at i
    return SoftTargets(torch.roll(own, -k, dims=1).flatten(0, 1), shifted != IGNORE, unembedding)


def _distance(own: Tensor, foreseen: Tensor, valid: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Sum over valid (batch * seq,) positions i of the mean smooth L1 distance of `foreseen` at i from `own` at i + k; how many."""
    later = torch.roll(own.detach(), -k, dims=1).flatten(0, 1)[valid].float()
    return F.smooth_l1_loss(foreseen.flatten(0, 1)[valid].float(), later, reduction="none").mean(-1).sum(), valid.sum()
