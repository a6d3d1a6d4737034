"""Cross-entropy of several heads from hidden states, with one chunk of logits in memory at a time.

Gradients are computed in the forward pass, chunk by chunk, as in Liger's fused linear cross-entropy. All heads add to one gradient
buffer of a shared unembedding. Heads run in sequence, the memory-efficient order of Gloeckle et al. 2024 (arXiv 2404.19737),
section 2: peak memory of logits is O(vocab) in place of O(heads * vocab).
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
    """Hidden states of a teacher in place of labels: the head learns the teacher's distribution over the head's vocabulary."""

    states: Tensor  # (rows, hidden)
    valid: Tensor  # (rows,) bool
    unembedding: Unembedding | None = None  # the teacher's; None: the head's own


Targets = Tensor | SoftTargets


def linear_cross_entropy(
    states: Sequence[Tensor],
    targets: Sequence[Targets],
    unembedding: Unembedding | Sequence[Unembedding],
    weights: Sequence[float],
    items: Tensor | int | None = None,
    chunk: int | None = None,
) -> tuple[Tensor, Tensor]:
    """total = sum_k weights[k] * (summed loss of head k) / items, and the mean loss of every head.

    Args:
        states: hidden states per head, (rows, hidden), after the norm.
        targets: per head labels (rows,) with -100 to ignore, or `SoftTargets` with the loss KL(teacher || head).
            A head with a reduced vocabulary ignores labels outside the vocabulary; its loss for soft targets is
            sum_v p(v) log(p(v | vocabulary) / q(v)) over the tokens v of its vocabulary.
        unembedding: unembedding of all heads, or one per head.
        weights: weight per head; a head of weight 0 is skipped, and its mean is NaN.
        items: divisor of the sums, over all devices and accumulation steps; default: labels of the first head.
        chunk: rows of logits in memory; default: rows that fit into 256 MiB of float32.
    Returns: the total, a differentiable scalar, and the detached means, (heads,).
    Raises:
        ValueError: lengths disagree.
    """
    unembeddings = [unembedding] * len(states) if isinstance(unembedding, Unembedding) else unembedding
    if not len(states) == len(targets) == len(weights) == len(unembeddings):
        sizes = f"{len(states)} states, {len(targets)} targets, {len(weights)} weights, {len(unembeddings)} unembeddings"
        raise ValueError(f"lengths disagree: {sizes}")
    if items is None:
        items = _valid(targets[0]).sum().clamp(min=1)
    groups: dict[int, list[int]] = {}
    for k, head in enumerate(unembeddings):
        groups.setdefault(id(head.weight), []).append(k)
    total = torch.zeros((), device=states[0].device)
    means = torch.empty(len(states), device=states[0].device)
    for members in groups.values():
        shared = unembeddings[members[0]]
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
        grads, ctx.grads = ctx.grads, None  # freed as the backward pass consumes them
        if grads is None:
            raise RuntimeError("linear_cross_entropy keeps its gradients for one backward pass only")
        return (None, *(None if grad is None else grad.mul_(grad_total.to(grad.dtype)) for grad in grads))


def _loss_and_gradient(logits: Tensor, target: Targets, rows: Tensor, unembedding: Unembedding) -> tuple[Tensor, Tensor]:
    """Summed loss and its gradient with respect to the capped logits, (rows, vocab)."""
    logs = torch.log_softmax(logits, dim=-1)
    if isinstance(target, SoftTargets):
        reader = target.unembedding or unembedding
        teacher = torch.log_softmax(reader.logits(target.states[rows].to(reader.weight.dtype)).float(), dim=-1)
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
    """Labels as indices into a reduced vocabulary."""
    if unembedding.tokens is None or isinstance(target, SoftTargets):
        return target
    indices = torch.searchsorted(unembedding.tokens, target).clamp(max=len(unembedding.tokens) - 1)
    return torch.where(unembedding.tokens[indices] == target, indices, IGNORE)


def _valid(target: Targets) -> Tensor:
    return target.valid if isinstance(target, SoftTargets) else target != IGNORE
