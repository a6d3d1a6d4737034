"""What is minimised. Each objective is one `loss(model, batch, progress, items) -> Loss`."""

from headway.objectives.base import Batch, Loss, Objective
from headway.objectives.multi_token import MultiToken, NextToken
from headway.objectives.registers import Registers
from headway.objectives.self_distillation import SelfDistillation
from headway.objectives.weights import HEAD_WEIGHTS, SCHEDULES

__all__ = ["HEAD_WEIGHTS", "SCHEDULES", "Batch", "Loss", "MultiToken", "NextToken", "Objective", "Registers", "SelfDistillation"]
