"""Heads carried along with any objective, with or without their gradient in the trunk.

Joint gradients are the gradients of multi-token training (Gloeckle et al. 2024, arXiv 2404.19737). Detached gradients leave the
trunk bit for bit as the objective alone would train the trunk. Heads then follow a trunk that learns something else. In
reinforcement learning, for example, losses of heads must not reach the policy.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn

from headway.errors import ConfigError
from headway.model import HeadwayModel, MTPOutput
from headway.objectives.base import Batch, Loss, Objective

HEADS_GRADIENTS = ("joint", "detached", "none")


class WithHeads(nn.Module):
    """An objective of the trunk and an objective of the heads over the same batches.

    The trunk runs once over tokens that both objectives need.

    Args:
        objective: loss that the trunk learns; makes the batches and the count.
        heads: loss of the heads, over the batches of `objective`, such as `MultiToken(next_token=False)`. Its sums are divided by
            its own `count`, scaled to the whole step.
        gradient: "detached": losses of heads send no gradient into any parameter of the trunk, embedding and unembedding
            included. "joint": losses of heads train the trunk too. None: heads do not learn and are not run.
    """

    def __init__(self, objective: Objective, heads: Objective, gradient: Literal["detached", "joint"] | None = "detached") -> None:
        super().__init__()
        if gradient not in ("detached", "joint", None):
            raise ConfigError(f"The gradient of heads is detached, joint or None, not {gradient!r}.")
        self.objective, self.heads, self.gradient = objective, heads, gradient

    def collate(self, examples: Sequence[Any]) -> Batch:
        return self.objective.collate(examples)

    def count(self, batch: Batch) -> int:
        return self.objective.count(batch)

    def loss(self, model: HeadwayModel, batch: Batch, progress: float, items: Tensor | int | None = None) -> Loss:
        shared = _SharedTrunkPass(model)
        loss = self.objective.loss(cast(HeadwayModel, shared), batch, progress, items)
        if self.gradient is None:
            return loss
        if items is not None:
            counted, own = self.objective.count(batch), self.heads.count(batch)
            items = items if counted == own else torch.as_tensor(items) * own / max(counted, 1)
        if self.gradient == "joint":
            heads = self.heads.loss(cast(HeadwayModel, shared), batch, progress, items)
        else:
            if model.heads is not None and model.heads.drafting == "masked" and _recomputes(model.trunk):
                raise ConfigError(
                    f"{model.heads.family} heads run the layers of the trunk, whose parameters learn again by the time that "
                    "gradient_checkpointing recomputes them: use joint gradients, or switch gradient_checkpointing off."
                )
            shared.detach = True
            with constant_parameters(model.trunk):
                heads = self.heads.loss(cast(HeadwayModel, shared), batch, progress, items)
        return Loss(loss.total + heads.total, {**heads.metrics, **loss.metrics})


def carry_heads(objective: Objective, heads: Objective, gradient: str) -> Objective:
    """The objective with heads beside it, or alone for gradient "none"."""
    if gradient == "none":
        return objective
    return WithHeads(objective, heads, cast(Literal["detached", "joint"], gradient))


@contextmanager
def constant_parameters(module: nn.Module) -> Iterator[None]:
    """Graphs built within treat parameters of the module as constants. Graphs built before keep their gradients."""
    learning = [parameter for parameter in module.parameters() if parameter.requires_grad]
    for parameter in learning:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in learning:
            parameter.requires_grad_(True)


class _SharedTrunkPass:
    """The model for the time of one batch: the trunk runs once over tokens that several objectives ask for.

    detach: heads read hidden states without their graph.
    """

    def __init__(self, model: HeadwayModel) -> None:
        self.model = model
        self.detach = False
        self.passes: list[tuple[tuple[Any, ...], tuple[Any, ...]]] = []  # arguments of a pass, its states, positions and masks

    def __call__(
        self, input_ids: Tensor, segments: Tensor | None = None, count: int | None = None, prefix: Tensor | None = None
    ) -> MTPOutput:
        hidden_states, positions, masks = self._run(input_ids, segments, prefix)
        if self.detach:
            hidden_states = hidden_states.map(Tensor.detach)
        return self.model.run_heads(hidden_states, input_ids, positions, masks, count)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.model, name)

    def _run(self, *arguments: Tensor | None) -> tuple[Any, ...]:
        for known, found in self.passes:
            if all(given is one for given, one in zip(arguments, known, strict=True)):
                return found
        input_ids, segments, prefix = arguments
        assert input_ids is not None
        positions, masks = self.model.layout(input_ids, segments, prefix)
        found = self.model.run(input_ids, positions, masks), positions, masks
        self.passes.append((arguments, found))
        return found


def _recomputes(trunk: nn.Module) -> bool:
    return any(getattr(module, "gradient_checkpointing", False) for module in trunk.modules())
