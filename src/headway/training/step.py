"""Training step as a single module: DDP, FSDP2 and autocast wrap the whole computation."""

from typing import Any, Self

from torch import Tensor, nn

from headway.model import HeadwayModel
from headway.objectives import Objective


class TrainingStep(nn.Module):
    """A model and its objective."""

    accepts_loss_kwargs = True  # transformers.Trainer then leaves the division by the count to the objective

    def __init__(self, model: HeadwayModel, objective: Objective) -> None:
        super().__init__()
        self.model = model
        self.objective = objective

    def forward(self, progress: float = 0.0, num_items_in_batch: Tensor | int | None = None, **batch: Tensor) -> dict[str, Any]:
        """Loss of a batch.

        Args:
            progress: share of the run that is over, in [0, 1].
            num_items_in_batch: sum of the objective's count over accumulation steps and processes.
            batch: tensors that the objective collated.
        Returns: loss, the scalar to minimise, and metrics, detached means by their names in the log.
        """
        loss = self.objective.loss(self.model, batch, progress, num_items_in_batch)
        return {"loss": loss.total, "metrics": dict(loss.metrics)}

    def train(self, mode: bool = True) -> Self:
        """Set training mode. A frozen trunk stays in eval mode: dropout would be noise for the heads."""
        super().train(mode)
        if not any(parameter.requires_grad for parameter in self.model.trunk.parameters()):
            self.model.trunk.eval()
        return self
