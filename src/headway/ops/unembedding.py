"""Unembedding (= `lm_head`): hidden states to logits, with bias, scale and soft-capping."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True)
class Unembedding:
    """logits = cap(scale * (states @ weight.T + bias)) with cap(x) = softcap * tanh(x / softcap), the identity without softcap."""

    weight: Tensor  # (vocab, hidden)
    bias: Tensor | None = None  # (vocab,)
    scale: float = 1.0
    softcap: float | None = None
    tokens: Tensor | None = None  # token ids of a reduced vocabulary, (vocab,), ascending; None for all tokens
    vocabulary: int = 0  # size of the whole vocabulary if reduced

    @property
    def size(self) -> int:
        """Width of `logits`."""
        return self.weight.shape[0] if self.tokens is None else self.vocabulary

    def logits(self, states: Tensor) -> Tensor:
        """(..., hidden) -> (..., size); minus infinity for tokens outside a reduced vocabulary."""
        logits = self.known_logits(states)
        if self.tokens is None:
            return logits
        return logits.new_full((*logits.shape[:-1], self.vocabulary), -torch.inf).index_copy_(-1, self.tokens, logits)

    def known_logits(self, states: Tensor) -> Tensor:
        """(..., hidden) -> (..., vocab), for the tokens of the reduced vocabulary."""
        logits = F.linear(states, self.weight, self.bias)
        if self.scale != 1.0:
            logits = logits * self.scale
        return logits if self.softcap is None else self.softcap * torch.tanh(logits / self.softcap)

    def restricted(self, tokens: Tensor) -> "Unembedding":
        """Unembedding of the given token ids, ascending (FR-Spec, Zhao et al. 2025, arXiv 2502.14856, section 3)."""
        bias = None if self.bias is None else self.bias[tokens]
        return replace(self, weight=self.weight[tokens], bias=bias, tokens=tokens, vocabulary=self.weight.shape[0])


def through_cap_and_scale(grad: Tensor, logits: Tensor, unembedding: Unembedding) -> None:
    """Turn a gradient of logits into one of hidden_states @ weight.T + bias, in place.

    Args:
        grad: gradient of the loss with respect to `logits`, (rows, vocab).
        logits: logits after scale and soft-cap, (rows, vocab).
        unembedding: scale and soft-cap.
    """
    if unembedding.softcap is not None:
        grad.mul_(1 - (logits / unembedding.softcap) ** 2)  # d/dx c*tanh(x/c) = 1 - tanh^2
    if unembedding.scale != 1.0:
        grad.mul_(unembedding.scale)
