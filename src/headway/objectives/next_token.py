"""Next-token prediction: cross-entropy of the trunk alone."""

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from headway.model import HeadwayModel
from headway.objectives.base import Batch, Loss, TokenObjective
from headway.objectives.settings import ObjectiveSettings
from headway.objectives.token_losses import token_losses


@dataclass(frozen=True)
class NextToken(TokenObjective):
    """Next-token loss. Heads of the model are not run."""

    def loss(self, model: HeadwayModel, batch: Batch, progress: float, items: Tensor | int | None = None) -> Loss:
        return token_losses(model, batch, [1.0], False, items)


def build(settings: ObjectiveSettings, model: HeadwayModel, adapters: Any = None) -> NextToken:
    return NextToken()
