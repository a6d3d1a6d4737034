"""The trunk as it was teaches trunk and heads: self-distillation of Medusa-2 (Cai et al. 2024, arXiv 2401.10774, section 2.3.2).

L = KL(p || q_1) + total(progress) * sum_k weight_k * factor_k(progress) * KL(p || q_{k+1}), p what the original trunk says of the
same token. On its own samples a trunk that learns labels learns its own luck; this one is held to what it knew.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Self

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from headway.model import HeadwayModel
from headway.objectives.base import Batch, Loss
from headway.objectives.multi_token import MultiToken, teacher_targets
from headway.ops import linear_cross_entropy, shift_labels
from headway.trunk import TrunkView


class SelfDistillation(nn.Module):
    """The objective.

    Args:
        original: a copy of the trunk, or the adapters (of peft) without which the trunk in training is the original.
        heads: weights of the trunk's and the heads' losses.
    """

    def __init__(self, original: PreTrainedModel | Any, heads: MultiToken) -> None:
        super().__init__()
        self.heads = heads
        self.copy = original.requires_grad_(False).eval() if isinstance(original, PreTrainedModel) else None
        self.adapters: list[Any] = [original] if self.copy is None else []  # a list: they are no part of this module

    def loss(self, model: HeadwayModel, batch: Batch, progress: float, items: Tensor | int | None = None) -> Loss:
        ids, labels, segments, prefix = batch["input_ids"], batch["labels"], batch.get("segments"), batch.get("prefix")
        with torch.no_grad(), self._original(model) as view:
            theirs, read = view.run(ids, *model.layout(ids, segments, prefix)).last, view.unembedding
        states = model(ids, segments, prefix=prefix).states
        targets = [teacher_targets(theirs, k, shift_labels(labels, k + 1, segments).flatten(), read) for k in range(len(states))]
        weights = self.heads.weights(model.count, progress)
        flat = [state.flatten(0, 1) for state in states]
        items = targets[0].valid.sum().clamp(min=1) if items is None else items
        total, means = linear_cross_entropy(flat, targets, model.unembeddings, weights, items)
        return Loss(total, means)

    def train(self, mode: bool = True) -> Self:
        """Dropout would blur what is taught."""
        super().train(mode)
        if self.copy is not None:
            self.copy.eval()
        return self

    @contextmanager
    def _original(self, model: HeadwayModel) -> Iterator[TrunkView]:
        if self.copy is not None:
            yield TrunkView(self.copy)
            return
        training = model.trunk.training
        self.adapters[0].disable_adapter_layers()
        model.trunk.eval()
        try:
            yield model.view
        finally:
            model.trunk.train(training)
            self.adapters[0].enable_adapter_layers()
