"""Multi-token prediction: next-token loss plus weighted losses of the heads, or of the heads alone.

L = L_1 + total(progress) * sum_k weight_k * factor_k(progress) * L_{k+1} (Gloeckle et al. 2024, equation 2, with the weights of
Medusa, FastMTP and the curricula).
"""

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from headway.errors import ConfigError
from headway.model import HeadwayModel
from headway.objectives.base import Batch, Loss, Objective, TokenObjective
from headway.objectives.next_token import NextToken
from headway.objectives.settings import ObjectiveSettings
from headway.objectives.token_losses import token_losses
from headway.objectives.weights import HEAD_WEIGHTS, SCHEDULES
from headway.objectives.with_heads import carry_heads


@dataclass(frozen=True)
class MultiToken(TokenObjective):
    """Loss of trunk and heads, joint: the losses of heads send their gradient into the trunk.

    Args:
        head_weights: name in `HEAD_WEIGHTS`: constant, medusa (0.8^k) or beta (beta^k, normalised).
        beta: base of head_weights beta.
        total_weight: factor of all heads together.
        schedule: name in `SCHEDULES`: course of the total weight over the run.
        next_token: include the trunk's own loss. False for heads alone.
        distill: heads learn the distribution of the trunk instead of labels.
        feature_weight: weight of the distance between hidden states of a head and later hidden states of the trunk.
    Raises:
        ConfigError: an unknown name, a negative feature_weight or a feature_weight for heads that predict no hidden states, or a
            model without heads where next_token is False.
    """

    head_weights: str = "constant"
    beta: float = 0.6
    total_weight: float = 1.0
    schedule: str = "constant"
    next_token: bool = True
    distill: bool = False
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
            raise ConfigError(f"{model.heads.family} heads predict no hidden states of the trunk: feature_weight must be 0.")
        return token_losses(model, batch, self.weights(model.count, progress), self.distill, items, self.feature_weight)


def head_losses(settings: ObjectiveSettings, next_token: bool = True, distill: bool = False) -> MultiToken:
    """Losses of the heads with the weights of the settings."""
    given = {
        "head_weights": settings.head_weights,
        "beta": settings.beta,
        "total_weight": settings.total_weight,
        "schedule": settings.weight_schedule,
        "feature_weight": settings.feature_weight,
    }
    chosen: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    return MultiToken(**chosen, next_token=next_token, distill=distill)


def build(settings: ObjectiveSettings, model: HeadwayModel, adapters: Any = None, distill: bool = False) -> Objective:
    """Next-token loss and losses of the heads. On a frozen trunk only the heads learn."""
    if settings.freeze_trunk or settings.heads_gradient == "joint":
        return head_losses(settings, next_token=not settings.freeze_trunk, distill=distill)
    return carry_heads(NextToken(), head_losses(settings, next_token=False, distill=distill), settings.heads_gradient)
