"""How much of a drafted chain is kept: greedy match, or token-level rejection sampling.

Greedy is blockwise decoding (Stern et al. 2018, arXiv 1811.03115); sampling is speculative sampling (Leviathan et al. 2022, arXiv
2211.17192; Chen et al. 2023, arXiv 2302.01318, algorithm 2), which leaves the target distribution exactly as it is.
"""

from typing import NamedTuple

import torch
from torch import Generator, Tensor


class Accepted(NamedTuple):
    kept: Tensor  # how many drafted tokens were kept, (batch,)
    following: Tensor  # the one token after them, (batch,)


def accept_greedy(target: Tensor, tokens: Tensor) -> Accepted:
    """Keep the drafted tokens that are the target's own choice.

    Args:
        target: the trunk's scores, (batch, depth + 1, vocab).
        tokens: drafted tokens, (batch, depth).
    """
    own = target.argmax(-1)  # (batch, depth + 1)
    kept = _leading_true(own[:, :-1] == tokens)
    return Accepted(kept, own.gather(1, kept[:, None]).squeeze(1))


def accept_sampled(target: Tensor, draft: Tensor, tokens: Tensor, generator: Generator | None) -> Accepted:
    """Keep a prefix of the drafted tokens so that what comes out is distributed as the target.

    Args:
        target: the trunk's probabilities after truncation, (batch, depth + 1, vocab); rows sum to 1.
        draft: probabilities that the tokens were drawn from, (batch, depth, vocab).
        tokens: drafted tokens, (batch, depth).
    Raises: ValueError if the depths disagree.
    """
    if target.shape[1] != draft.shape[1] + 1 or draft.shape[1] != tokens.shape[1]:
        raise ValueError(f"depths disagree: target {target.shape[1]}, draft {draft.shape[1]}, tokens {tokens.shape[1]}")
    p = target[:, :-1].gather(2, tokens[..., None]).squeeze(2)
    q = draft.gather(2, tokens[..., None]).squeeze(2)
    uniform = torch.rand(p.shape, dtype=p.dtype, device=p.device, generator=generator)
    kept = _leading_true(uniform * q < p)  # u < p / q
    index = kept[:, None, None].expand(-1, 1, target.shape[2])
    rest = target.gather(1, index).squeeze(1)  # p itself after a full accept
    if depth := tokens.shape[1]:
        drawn_from = draft.gather(1, index.clamp(max=depth - 1)).squeeze(1)
        residual = (rest - drawn_from).clamp(min=0)
        rejected = (kept < depth)[:, None] & (residual.sum(-1, keepdim=True) > 0)
        rest = torch.where(rejected, residual, rest)
    return Accepted(kept, sample(rest, generator))


def sample(weights: Tensor, generator: Generator | None) -> Tensor:
    """One index a row, in proportion to its weights; (batch, vocab) -> (batch,)."""
    return torch.multinomial(weights, 1, generator=generator).squeeze(1)


def _leading_true(flags: Tensor) -> Tensor:
    return flags.long().cumprod(1).sum(1)
