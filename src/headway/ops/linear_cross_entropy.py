"""Cross-entropy of several heads straight from their states, without ever holding more than one chunk of logits.

The gradients are computed in the forward pass, chunk by chunk, as Liger's fused linear cross-entropy does, and all heads
add to one gradient buffer of the unembedding they share. Heads one after the other is the memory-efficient order of
Gloeckle et al. 2024 (arXiv 2404.19737), section 2: peak logits memory O(vocab), not O(heads * vocab).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from headway.ops.labels import IGNORE
from headway.ops.unembedding import Unembedding

LOGITS_IN_CHUNK = 2**26  # 256 MiB of float32


@dataclass(frozen=True)
class SoftTargets:
    """A teacher's states instead of labels: the head learns the teacher's whole distribution."""

    states: Tensor  # (rows, hidden), read through the same unembedding
    valid: Tensor  # (rows,) bool


Targets = Tensor | SoftTargets


def linear_cross_entropy(
    states: Sequence[Tensor],
    targets: Sequence[Targets],
    unembedding: Unembedding,
    weights: Sequence[float],
    items: Tensor | int | None = None,
    chunk: int | None = None,
) -> tuple[Tensor, Tensor]:
    """total = sum_k weights[k] * (summed loss of head k) / items, and each head's own mean.

    Args:
        states: one (rows, hidden) tensor a head, normed and ready for the unembedding.
        targets: for each head labels (rows,) with -100 to ignore, or `SoftTargets`, whose loss is KL(teacher || head).
        weights: one a head; a head of weight 0 is not computed, and its mean is NaN.
        items: what the sums are divided by, over all devices and accumulation steps; default: rows the first head learns.
        chunk: rows of logits held at once; default: as many as 256 MiB of float32 hold.
    Returns: the total, a differentiable scalar, and the detached means, (heads,).
    Raises: ValueError if the lengths disagree.
    """
    if not len(states) == len(targets) == len(weights):
        raise ValueError(f"{len(states)} states, {len(targets)} targets and {len(weights)} weights do not match")
    if items is None:
        items = _valid(targets[0]).sum().clamp(min=1)
    chunk = chunk or max(64, LOGITS_IN_CHUNK // unembedding.weight.shape[0])
    arguments = (list(targets), unembedding, list(weights), items, chunk)
    return _LinearCrossEntropy.apply(arguments, unembedding.weight, unembedding.bias, *states)


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
            detached = Unembedding(matrix, offset, unembedding.scale, unembedding.softcap)
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
                    logits = detached.logits(inputs).float()
                    loss, grad_logits = _loss_and_gradient(logits, target, part, detached)
                    summed += loss
                    if not learns:
                        continue
                    _through_cap_and_scale(grad_logits, logits, detached)
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
    """Summed loss and its gradient with respect to the capped logits, (rows, vocab)."""
    logs = torch.log_softmax(logits, dim=-1)
    if isinstance(target, SoftTargets):
        teacher = torch.log_softmax(unembedding.logits(target.states[rows].to(unembedding.weight.dtype)).float(), dim=-1)
        probabilities = teacher.exp()
        return (probabilities * (teacher - logs)).sum(), logs.exp_().sub_(probabilities)
    labels = target[rows].unsqueeze(-1)
    loss = -logs.gather(-1, labels).sum()
    return loss, logs.exp_().scatter_add_(-1, labels, torch.full_like(labels, -1, dtype=logs.dtype))


def _through_cap_and_scale(grad: Tensor, capped: Tensor, unembedding: Unembedding) -> None:
    if unembedding.softcap is not None:
        grad.mul_(1 - (capped / unembedding.softcap) ** 2)  # d/dx c*tanh(x/c) = 1 - tanh^2
    if unembedding.scale != 1.0:
        grad.mul_(unembedding.scale)


def _valid(target: Targets) -> Tensor:
    return target.valid if isinstance(target, SoftTargets) else target != IGNORE
