"""From states to logits, with the variations that trunks have: bias, scale and soft-capping."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True)
class Unembedding:
    """logits = cap(scale * (states @ weight.T + bias)), cap(x) = softcap * tanh(x / softcap) where it is set."""

    weight: Tensor  # (vocab, hidden)
    bias: Tensor | None = None  # (vocab,)
    scale: float = 1.0
    softcap: float | None = None

    def logits(self, states: Tensor) -> Tensor:
        """(..., hidden) -> (..., vocab)."""
        logits = F.linear(states, self.weight, self.bias)
        if self.scale != 1.0:
            logits = logits * self.scale
        return logits if self.softcap is None else self.softcap * torch.tanh(logits / self.softcap)
