"""Interface of verification rules for chains of sampled drafts."""

from typing import NamedTuple, Protocol

import torch
from torch import Generator, Tensor


class Accepted(NamedTuple):
    """Number of accepted drafts and the bonus token after them, both (batch,)."""

    num_accepted: Tensor
    bonus_token: Tensor


class VerificationRule(Protocol):
    """Rule for chains of drafts."""

    def __call__(
        self, target: Tensor, draft: Tensor, tokens: Tensor, generator: Generator | None = None, limit: Tensor | None = None
    ) -> Accepted:
        """Accept a prefix of `tokens` and sample the bonus token.

        Args:
            target: probabilities of the trunk after warping, (batch, depth + 1, vocab); the last axis sums to 1.
            draft: probabilities that the drafts were sampled from, (batch, depth, vocab).
            tokens: draft tokens, (batch, depth).
            generator: source of randomness on the same device; None: the global generator.
            limit: number of drafts per sequence, (batch,); default: depth. Drafts beyond are ignored.
        Raises:
            ValueError: shapes disagree.
        """
        ...


def count_leading_true(flags: Tensor) -> Tensor:
    """Number of leading true entries per row; (batch, depth) -> (batch,)."""
    return flags.long().cumprod(1).sum(1)


def mask_beyond_limit(flags: Tensor, limit: Tensor | None) -> Tensor:
    """Flags set to false beyond the limit of a row; (batch, depth)."""
    if limit is None:
        return flags
    return flags & (torch.arange(flags.shape[1], device=flags.device) < limit[:, None])


def check_depths(target: Tensor, tokens: Tensor) -> None:
    """Raise ValueError unless target has one more position than tokens."""
    if target.shape[1] != tokens.shape[1] + 1:
        raise ValueError(f"depths disagree: target {target.shape[1]}, tokens {tokens.shape[1]}")
