"""What is minimised. Each objective is one `loss(model, batch, progress, items) -> Loss`."""

from headway.objectives.loss import Batch, Loss, Objective
from headway.objectives.multi_token import MultiToken, NextToken
from headway.objectives.original import FromOriginal
from headway.objectives.registers import Registers
from headway.objectives.weights import HEAD_WEIGHTS, SCHEDULES

__all__ = ["HEAD_WEIGHTS", "SCHEDULES", "Batch", "FromOriginal", "Loss", "MultiToken", "NextToken", "Objective", "Registers"]
