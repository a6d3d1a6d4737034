"""Log-probabilities of given tokens straight from hidden states, one chunk of logits at a time.

Preference losses, policy gradients, references and scoring need log p(token) of the tokens of a text and nothing else of the
distribution. The log-sum-exp is taken in float32. The backward pass computes the logits of a chunk again, so that neither pass
holds more than one chunk.
"""

from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from headway.ops.labels import IGNORE
from headway.ops.unembedding import Unembedding, through_cap_and_scale

LOGITS_IN_CHUNK = 2**26  # 256 MiB of float32


class LogProbs(NamedTuple):
    """Values in nats, shaped as the tokens, in float32, or in float64 for weights in float64."""

    log_probs: Tensor
    entropy: Tensor | None  # of the whole distribution at each position


def linear_log_probs(
    hidden_states: Tensor,
    tokens: Tensor,
    unembedding: Unembedding,
    temperature: float = 1.0,
    entropy: bool = False,
    chunk: int | None = None,
) -> LogProbs:
    """Log-probability of each token, log softmax(logits / temperature)[token], and the entropy of each distribution.

    Args:
        hidden_states: hidden states ready for the unembedding, (..., hidden).
        tokens: token ids, (...). At -100 log-probability and entropy are 0 and have no gradient. A token that a reduced
            vocabulary lacks has log-probability minus infinity and no gradient.
        unembedding: matrix, bias, scale and soft-cap from hidden states to logits.
        temperature: divisor of the logits, above 0.
        entropy: compute entropies too; for a reduced vocabulary that of its own distribution.
        chunk: rows of logits held at once; default: as many as 256 MiB of float32 hold.
    Raises:
        ValueError: shapes disagree, or the temperature is not above 0.
    """
    if hidden_states.shape[:-1] != tokens.shape:
        raise ValueError(f"hidden states {tuple(hidden_states.shape)} and tokens {tuple(tokens.shape)} do not match")
    if temperature <= 0:
        raise ValueError(f"temperature must be above 0, got {temperature}")
    rows = chunk or max(64, LOGITS_IN_CHUNK // unembedding.weight.shape[0])
    arguments = (tokens.flatten(), unembedding, temperature, entropy, rows)
    found, entropies = _LinearLogProbs.apply(arguments, hidden_states.flatten(0, -2), unembedding.weight, unembedding.bias)
    return LogProbs(found.view(tokens.shape), entropies.view(tokens.shape) if entropy else None)


class _LinearLogProbs(torch.autograd.Function):
    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any, arguments: tuple, hidden: Tensor, weight: Tensor, bias: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        tokens, unembedding, temperature, entropy, chunk = arguments
        kind = weight.device.type
        ctx.dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else weight.dtype
        exact = torch.promote_types(ctx.dtype, torch.float32)
        rows, index = _known(tokens, unembedding)
        found = hidden.new_zeros(len(tokens), dtype=exact)
        entropies = torch.zeros_like(found)
        with torch.autocast(kind, enabled=False):
            matrices = _cast(unembedding, weight, bias, ctx.dtype)
            for part in rows.split(chunk):
                logits = matrices.known_logits(hidden[part].to(ctx.dtype)).to(exact)
                logs = (logits / temperature).log_softmax(-1)
                found[part] = logs.gather(-1, index[part].clamp(min=0)[:, None])[:, 0]
                if entropy:
                    entropies[part] = -(logs.exp() * logs).sum(-1)
        found[rows] = found[rows].masked_fill(index[rows] < 0, -torch.inf)
        ctx.settings = (unembedding, temperature, entropy, chunk)
        ctx.save_for_backward(hidden, weight, bias, rows, index, entropies)
        return found, entropies

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_log_probs: Tensor, grad_entropies: Tensor) -> tuple:  # type: ignore[override]
        hidden, weight, bias, rows, index, entropies = ctx.saved_tensors
        unembedding, temperature, entropy, chunk = ctx.settings
        _, wants_hidden, wants_weight, wants_bias = ctx.needs_input_grad
        exact = entropies.dtype
        grad_hidden = torch.zeros_like(hidden) if wants_hidden else None
        grad_weight = torch.zeros_like(weight, dtype=exact) if wants_weight else None
        grad_bias = torch.zeros_like(bias, dtype=exact) if wants_bias else None
        with torch.autocast(weight.device.type, enabled=False):
            matrices = _cast(unembedding, weight, bias, ctx.dtype)
            for part in rows.split(chunk):
                inputs = hidden[part].to(ctx.dtype)
                logits = matrices.known_logits(inputs).to(exact)
                logs = (logits / temperature).log_softmax(-1)
                given = torch.where(index[part] < 0, 0.0, grad_log_probs[part])[:, None]  # (rows, 1)
                probabilities = logs.exp()
                grad = -given * probabilities  # d log p(t) / d z_v = [v = t] - p(v)
                grad.scatter_add_(-1, index[part].clamp(min=0)[:, None], given)
                if entropy:  # dH / d z_v = -p(v) (log p(v) + H)
                    grad -= grad_entropies[part, None] * probabilities * (logs + entropies[part, None])
                grad /= temperature
                through_cap_and_scale(grad, logits, unembedding)
                grad = grad.to(ctx.dtype)
                if grad_hidden is not None:
                    grad_hidden[part] = (grad @ matrices.weight).to(hidden.dtype)
                if grad_weight is not None:
                    grad_weight += grad.T @ inputs
                if grad_bias is not None:
                    grad_bias += grad.sum(0, dtype=exact)
        return (
            None,
            grad_hidden,
            None if grad_weight is None else grad_weight.to(weight.dtype),
            None if grad_bias is None else grad_bias.to(bias.dtype),
        )


def _cast(unembedding: Unembedding, weight: Tensor, bias: Tensor | None, dtype: torch.dtype) -> Unembedding:
    return replace(unembedding, weight=weight.detach().to(dtype), bias=None if bias is None else bias.detach().to(dtype))


def _known(tokens: Tensor, unembedding: Unembedding) -> tuple[Tensor, Tensor]:
    """Rows that are not ignored, (rows,), and the row of each token in the matrix, -1 if a reduced vocabulary lacks it."""
    rows = (tokens != IGNORE).nonzero().squeeze(-1)
    if unembedding.tokens is None:
        return rows, tokens
    index = torch.searchsorted(unembedding.tokens, tokens).clamp(max=len(unembedding.tokens) - 1)
    return rows, torch.where(unembedding.tokens[index] == tokens, index, -1)
