"""Multi-token prediction: next-token loss plus weighted losses of the heads, or of the heads alone.

L = L_1 + total(progress) * sum_k weight_k * factor_k(progress) * L_{k+1} (Gloeckle et al. 2024, equation 2, with the weights of
Medusa, FastMTP and the curricula). All offsets are divided by the number of next-token labels, as in the paper's sum over t.
Distillation replaces the heads' labels by the trunk's own distribution for the same token (DistillSpec, arXiv 2310.08461).
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from headway.errors import ConfigError
from headway.model import HeadwayModel
from headway.objectives.loss import Batch, Loss
from headway.objectives.weights import HEAD_WEIGHTS, SCHEDULES
from headway.ops import IGNORE, SoftTargets, linear_cross_entropy, shift_labels


@dataclass(frozen=True)
class MultiToken:
    """Args:
    head_weights: constant, medusa (0.8^k) or beta (beta^k, normalised).
    total_weight: factor of all heads together.
    schedule: of the total weight: constant, sine, fade-out, forward, reverse.
    next_token: whether the trunk's own loss is part (not when the trunk is frozen).
    soft: heads learn the trunk's distributions instead of the labels.
    Raises: ConfigError for an unknown name, or a next-token loss that is missing where there are no heads.
    """

    head_weights: Literal["constant", "medusa", "beta"] = "constant"
    beta: float = 0.6
    total_weight: float = 1.0
    schedule: Literal["constant", "sine", "fade-out", "forward", "reverse"] = "constant"
    next_token: bool = True
    soft: bool = False

    def __post_init__(self) -> None:
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
        return _loss(model, batch, self.weights(model.count, progress), self.soft, items)


@dataclass(frozen=True)
class NextToken:
    """Ordinary next-token prediction; heads, where there are any, are left alone."""

    def loss(self, model: HeadwayModel, batch: Batch, progress: float, items: Tensor | int | None = None) -> Loss:
        return _loss(model, batch, [1.0], False, items)


def _loss(model: HeadwayModel, batch: Batch, weights: list[float], soft: bool, items: Tensor | int | None) -> Loss:
    labels, segments = batch["labels"], batch.get("segments")
    states = model(batch["input_ids"], segments, len(weights) - 1, batch.get("prefix")).states
    shifted = [shift_labels(labels, k + 1, segments).flatten() for k in range(len(states))]
    targets: list[Tensor | SoftTargets] = list(shifted)
    unembeddings = model.unembeddings[: len(states)]
    if soft:
        own = states[0].detach()
        for k in range(1, len(states)):
            # the trunk at i + k has read up to there and predicts the same token as head k at i
            targets[k] = SoftTargets(torch.roll(own, -k, dims=1).flatten(0, 1), shifted[k] != IGNORE, unembeddings[0])
    if items is None:
        items = (shifted[0] != IGNORE).sum().clamp(min=1)
    flat = [state.flatten(0, 1) for state in states]
    total, means = linear_cross_entropy(flat, targets, unembeddings, weights, items)
    return Loss(total, means)
