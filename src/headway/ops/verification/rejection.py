"""Which drafted tokens stay: equality for greedy decoding, token-level rejection sampling for drawn tokens
(Leviathan et al. 2022, arXiv 2211.17192; Chen et al. 2023, arXiv 2302.01318, algorithm 2)."""

from typing import NamedTuple

import torch
from torch import Generator, Tensor

from headway.ops.sampling import draw


class Accepted(NamedTuple):
    """How many drafted tokens stay, and the one token that follows them; both (batch,)."""

    num_accepted: Tensor
    bonus_token: Tensor


def accept_greedy(target: Tensor, tokens: Tensor, limit: Tensor | None = None) -> Accepted:
    """Keep the longest prefix of `tokens` that the trunk itself would have chosen.

    Args:
        target: the trunk's scores, (batch, depth + 1, vocab).
        tokens: drafted tokens, (batch, depth).
        limit: how many drafts of each row may stay at most, (batch,); default: all.
    Raises: ValueError if the depths disagree.
    """
    _check_depths(target, tokens)
    own = target.argmax(-1)  # (batch, depth + 1)
    kept = leading_true(within(own[:, :-1] == tokens, limit))
    return Accepted(kept, own.gather(1, kept[:, None]).squeeze(1))


def accept_sampled(
    target: Tensor, draft: Tensor, tokens: Tensor, generator: Generator | None = None, limit: Tensor | None = None
) -> Accepted:
    """Keep the longest prefix of `tokens` that leaves the target distribution unchanged.

    Args:
        target: probabilities of the trunk after truncation, (batch, depth + 1, vocab); rows sum to 1.
        draft: probabilities the tokens were drawn from, (batch, depth, vocab).
        tokens: drafted tokens, (batch, depth).
        limit: how many drafts of each row there are, (batch,); default: all.
    Raises: ValueError if the depths disagree.
    """
    _check_depths(target, tokens)
    if draft.shape[:2] != tokens.shape:
        raise ValueError(f"depths disagree: draft {tuple(draft.shape[:2])}, tokens {tuple(tokens.shape)}")
    p = target[:, :-1].gather(2, tokens[..., None]).squeeze(2)  # (batch, depth)
    q = draft.gather(2, tokens[..., None]).squeeze(2)
    uniform = torch.rand(p.shape, generator=generator, device=p.device, dtype=p.dtype)
    kept = leading_true(within(uniform * q < p, limit))  # u < p / q
    return Accepted(kept, draw(_residual(target, draft, kept, limit), generator))


def _residual(target: Tensor, draft: Tensor, kept: Tensor, limit: Tensor | None) -> Tensor:
    """norm(max(p - q, 0)) at the first rejected draft, or p itself where none was rejected; (batch, vocab)."""
    depth = draft.shape[1]
    at = kept[:, None, None].expand(-1, 1, target.shape[2])
    p = target.gather(1, at).squeeze(1)
    if depth == 0:
        return p
    q = draft.gather(1, at.clamp(max=depth - 1)).squeeze(1)
    rejected = kept < (depth if limit is None else limit.clamp(max=depth))
    rest = (p - q).clamp(min=0)
    mass = rest.sum(-1, keepdim=True)
    # no mass is left only where p and q agree up to rounding: p is then the right distribution too
    return torch.where(rejected[:, None] & (mass > 0), rest / mass.clamp(min=torch.finfo(mass.dtype).tiny), p)


def leading_true(flags: Tensor) -> Tensor:
    """How many leading entries of each row are true; (batch, depth) -> (batch,)."""
    return flags.long().cumprod(1).sum(1)


def within(flags: Tensor, limit: Tensor | None) -> Tensor:
    """The flags of the drafts a row really has, false beyond them; (batch, depth)."""
    if limit is None:
        return flags
    return flags & (torch.arange(flags.shape[1], device=flags.device) < limit[:, None])


def _check_depths(target: Tensor, tokens: Tensor) -> None:
    if target.shape[1] != tokens.shape[1] + 1:
        raise ValueError(f"depths disagree: target {target.shape[1]}, tokens {tokens.shape[1]}")
