"""Self-distillation from the frozen trunk to trunk and heads (Medusa-2; Cai et al. 2024, arXiv 2401.10774, section 2.3.2).

L = KL(p || q_1) + total(progress) * sum_k weight_k * factor_k(progress) * KL(p || q_{k+1}), with p the distribution of the frozen
trunk for the same token. Labels of on-policy samples carry sampling noise, which a trunk would learn. The frozen trunk's
distributions do not.
"""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Self

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from headway.model import HeadwayModel
from headway.objectives.base import Batch, Loss, Objective, TokenObjective
from headway.objectives.multi_token import MultiToken, head_losses
from headway.objectives.multi_token import build as build_multi_token
from headway.objectives.settings import ObjectiveSettings
from headway.objectives.token_losses import by_offset, teacher_targets
from headway.objectives.with_heads import carry_heads
from headway.ops import linear_cross_entropy, shift_labels
from headway.trunk import TrunkView


class SelfDistillation(TokenObjective, nn.Module):
    """KL divergence of trunk and heads from the frozen trunk.

    Args:
        teacher: a copy of the trunk, or the adapters (of peft) without which the trunk in training is the teacher.
        heads: weights of the losses of trunk and heads; None: the trunk alone.
    """

    def __init__(self, teacher: PreTrainedModel | Any, heads: MultiToken | None) -> None:
        super().__init__()
        self.heads = heads
        self.copy = teacher.requires_grad_(False).eval() if isinstance(teacher, PreTrainedModel) else None
        self.adapters: list[Any] = [teacher] if self.copy is None else []  # in a list: adapters are no part of this module

    def loss(self, model: HeadwayModel, batch: Batch, progress: float, items: Tensor | int | None = None) -> Loss:
        ids, labels, segments, prefix = batch["input_ids"], batch["labels"], batch.get("segments"), batch.get("prefix")
        with torch.no_grad(), self._teacher(model) as view:
            teacher, unembedding = view.run(ids, *model.layout(ids, segments, prefix)).last, view.unembedding
        weights = [1.0] if self.heads is None else self.heads.weights(model.count, progress)
        states = model(ids, segments, len(weights) - 1, prefix).hidden_states
        labels_of = [shift_labels(labels, k + 1, segments).flatten() for k in range(len(states))]
        targets = [teacher_targets(teacher, k, labels_of[k], unembedding) for k in range(len(states))]
        flat = [state.flatten(0, 1) for state in states]
        items = targets[0].valid.sum().clamp(min=1) if items is None else items
        total, means = linear_cross_entropy(flat, targets, model.unembeddings[: len(states)], weights, items)
        return Loss(total, by_offset(means))

    def train(self, mode: bool = True) -> Self:
        """Set training mode. The teacher stays without dropout."""
        super().train(mode)
        if self.copy is not None:
            self.copy.eval()
        return self

    @contextmanager
    def _teacher(self, model: HeadwayModel) -> Iterator[TrunkView]:
        if self.copy is not None:
            yield TrunkView(self.copy)
            return
        training = model.trunk.training
        learning = {parameter: parameter.requires_grad for parameter in model.trunk.parameters()}  # peft switches them
        self.adapters[0].disable_adapter_layers()
        model.trunk.eval()
        try:
            yield model.view
        finally:
            model.trunk.train(training)
            self.adapters[0].enable_adapter_layers()
            for parameter, learns in learning.items():
                parameter.requires_grad_(learns)


def build(settings: ObjectiveSettings, model: HeadwayModel, adapters: Any = None) -> Objective:
    """Distillation to the heads from the trunk as it learns (teacher: online), or to trunk and heads from the frozen trunk."""
    if settings.teacher == "online":
        return build_multi_token(settings, model, adapters, distill=True)
    teacher = adapters or copy.deepcopy(model.trunk)
    if settings.heads_gradient == "joint":
        return SelfDistillation(teacher, head_losses(settings))
    heads = SelfDistillation(teacher, head_losses(settings, next_token=False))
    return carry_heads(SelfDistillation(teacher, None), heads, settings.heads_gradient)
