"""Cross-entropy of several heads straight from their states, without ever holding more than one chunk of logits.

The gradients are computed in the forward pass, chunk by chunk, as Liger's fused linear cross-entropy does, and all heads
add to one gradient buffer of the unembedding they share. Heads one after the other is the memory-efficient order of
Gloeckle et al. 2024 (arXiv 2404.19737), section 2: peak logits memory O(vocab), not O(heads * vocab).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from headway.ops.labels import IGNORE
from headway.ops.unembedding import Unembedding, through_cap_and_scale

LOGITS_IN_CHUNK = 2**26  # 256 MiB of float32


@dataclass(frozen=True)
class SoftTargets:
    """A teacher's states instead of labels: the head learns the teacher's whole distribution, or what it knows of it."""

    states: Tensor  # (rows, hidden)
    valid: Tensor  # (rows,) bool
    unembedding: Unembedding | None = None  # what the teacher reads them through, if not the head's own


Targets = Tensor | SoftTargets


def linear_cross_entropy(
    states: Sequence[Tensor],
    targets: Sequence[Targets],
    unembedding: Unembedding | Sequence[Unembedding],
    weights: Sequence[float],
    items: Tensor | int | None = None,
    chunk: int | None = None,
) -> tuple[Tensor, Tensor]:
    """total = sum_k weights[k] * (summed loss of head k) / items, and each head's own mean.

    Args:
        states: one (rows, hidden) tensor a head, normed and ready for the unembedding.
        targets: for each head labels (rows,) with -100 to ignore, or `SoftTargets`, whose loss is KL(teacher || head).
            A head that knows only some tokens does not learn labels that are others; with soft targets its loss is
            sum_v p(v) log(p(v | known) / q(v)) over the tokens v that it knows.
        unembedding: what all heads read their states through, or one each.
        weights: one a head; a head of weight 0 is not computed, and its mean is NaN.
        items: what the sums are divided by, over all devices and accumulation steps; default: rows the first head learns.
        chunk: rows of logits held at once; default: as many as 256 MiB of float32 hold.
    Returns: the total, a differentiable scalar, and the detached means, (heads,).
    Raises: ValueError if the lengths disagree.
    """
    each = [unembedding] * len(states) if isinstance(unembedding, Unembedding) else unembedding
    if not len(states) == len(targets) == len(weights) == len(each):
        raise ValueError(
            f"{len(states)} states, {len(targets)} targets, {len(weights)} weights and {len(each)} unembeddings do not match"
        )
    if items is None:
        items = _valid(targets[0]).sum().clamp(min=1)
    groups: dict[int, list[int]] = {}
    for k, own in enumerate(each):
        groups.setdefault(id(own.weight), []).append(k)
    total = torch.zeros((), device=states[0].device)
    means = torch.empty(len(states), device=states[0].device)
    for members in groups.values():
        shared = each[members[0]]
        rows = chunk or max(64, LOGITS_IN_CHUNK // shared.size)
        known = [_known(targets[k], shared) for k in members]
        arguments = (known, shared, [weights[k] for k in members], items, rows)
        part, means[members] = _LinearCrossEntropy.apply(arguments, shared.weight, shared.bias, *(states[k] for k in members))
        total = total + part
    return total, means


class _LinearCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any, arguments: tuple, weight: Tensor, bias: Tensor | None, *states: Tensor
    ) -> tuple[Tensor, Tensor]:
        targets, unembedding, coefficients, items, chunk = arguments
        device, kind = weight.device, weight.device.type
        dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else weight.dtype
        learns = any(ctx.needs_input_grad)
        matrix = weight.to(dtype)
        offset = None if bias is None else bias.to(dtype)
        grad_weight = torch.zeros_like(weight, dtype=torch.float32) if ctx.needs_input_grad[1] else None
        grad_bias = torch.zeros_like(bias, dtype=torch.float32) if bias is not None and ctx.needs_input_grad[2] else None
        grad_states: list[Tensor] = []
        total = torch.zeros((), device=device)
        means = torch.full((len(states),), float("nan"), device=device)
        with torch.autocast(kind, enabled=False):
            detached = replace(unembedding, weight=matrix, bias=offset)
            for k, (hidden, target, coefficient) in enumerate(zip(states, targets, coefficients, strict=True)):
                grad = torch.zeros_like(hidden) if learns else hidden
                grad_states.append(grad)
                if coefficient == 0:
                    continue
                rows = _valid(target).nonzero().squeeze(-1)
                summed = torch.zeros((), device=device)
                scale = coefficient / items
                for part in rows.split(chunk):
                    inputs = hidden[part].to(dtype)
                    logits = detached.known_logits(inputs).float()
                    loss, grad_logits = _loss_and_gradient(logits, target, part, detached)
                    summed += loss
                    if not learns:
                        continue
                    through_cap_and_scale(grad_logits, logits, detached)
                    grad_logits = grad_logits.mul_(scale).to(dtype)
                    grad[part] = (grad_logits @ matrix).to(grad.dtype)
                    if grad_weight is not None:
                        if dtype == torch.float32:
                            grad_weight.addmm_(grad_logits.T, inputs)
                        else:
                            grad_weight += grad_logits.T @ inputs
                    if grad_bias is not None:
                        grad_bias += grad_logits.sum(0, dtype=torch.float32)
                total += summed * scale
                means[k] = summed / max(len(rows), 1)
        ctx.grads = (
            None if grad_weight is None else grad_weight.to(weight.dtype),
            None if grad_bias is None or bias is None else grad_bias.to(bias.dtype),
            *grad_states,
        )
        ctx.mark_non_differentiable(means)
        return total, means

    @staticmethod
    def backward(ctx: Any, grad_total: Tensor, _means: Tensor) -> tuple:  # type: ignore[override]
        grads, ctx.grads = ctx.grads, None  # freed as they are handed on
        if grads is None:
            raise RuntimeError("linear_cross_entropy keeps its gradients for one backward pass only")
        return (None, *(None if grad is None else grad.mul_(grad_total.to(grad.dtype)) for grad in grads))


def _loss_and_gradient(logits: Tensor, target: Targets, rows: Tensor, unembedding: Unembedding) -> tuple[Tensor, Tensor]:
    """Summed loss and its gradient with respect to the capped logits, (rows, known tokens)."""
    logs = torch.log_softmax(logits, dim=-1)
    if isinstance(target, SoftTargets):
        theirs = target.unembedding or unembedding
        teacher = torch.log_softmax(theirs.logits(target.states[rows].to(theirs.weight.dtype)).float(), dim=-1)
        if unembedding.tokens is None:
            probabilities = teacher.exp()
            return (probabilities * (teacher - logs)).sum(), logs.exp_().sub_(probabilities)
        teacher = teacher[:, unembedding.tokens]
        probabilities = teacher.exp()
        mass = probabilities.sum(-1, keepdim=True)
        return (probabilities * (teacher - mass.log() - logs)).sum(), logs.exp_().mul_(mass).sub_(probabilities)
    labels = target[rows].unsqueeze(-1)
    loss = -logs.gather(-1, labels).sum()
    return loss, logs.exp_().scatter_add_(-1, labels, torch.full_like(labels, -1, dtype=logs.dtype))


def _known(target: Targets, unembedding: Unembedding) -> Targets:
    """Labels as places among the tokens that the head knows."""
    if unembedding.tokens is None or isinstance(target, SoftTargets):
        return target
    places = torch.searchsorted(unembedding.tokens, target).clamp(max=len(unembedding.tokens) - 1)
    return torch.where(unembedding.tokens[places] == target, places, IGNORE)


def _valid(target: Targets) -> Tensor:
    return target.valid if isinstance(target, SoftTargets) else target != IGNORE
