"""Block verification: the drafts of a row are judged together, and the longest prefix that passes stays (Sun et al. 2024,
arXiv 2403.10444, algorithm 2).

Exact like token-level rejection, and never keeps fewer tokens in expectation: a prefix that the trunk likes more than the
drafter does makes up for a token that it likes less, where token by token that surplus is thrown away.
"""

from typing import NamedTuple

import torch
from torch import Generator, Tensor

from headway.ops.sampling import draw
from headway.ops.verification.rejection import Accepted


class BlockOutcomes(NamedTuple):
    """How likely it is that exactly 0, 1, ... drafts stay, (batch, depth + 1), and what follows then, (batch, depth + 1, vocab)."""

    num_accepted: Tensor
    bonus_token: Tensor


def accept_block(
    target: Tensor, draft: Tensor, tokens: Tensor, generator: Generator | None = None, limit: Tensor | None = None
) -> Accepted:
    """Keep a prefix of `tokens` that leaves the target distribution unchanged, the longest in expectation.

    Args:
        target: probabilities of the trunk after truncation, (batch, depth + 1, vocab); rows sum to 1.
        draft: probabilities the tokens were drawn from, (batch, depth, vocab).
        tokens: drafted tokens, (batch, depth).
        limit: how many drafts of each row there are, (batch,); default: all. What lies beyond is not looked at.
    Raises: ValueError if the shapes disagree.
    """
    law = block_law(target, draft, tokens, limit)
    kept = draw(law.num_accepted, generator)  # (batch,)
    bonus_token = law.bonus_token[torch.arange(len(kept), device=kept.device), kept]  # (batch, vocab)
    return Accepted(kept, draw(bonus_token, generator))


def block_law(target: Tensor, draft: Tensor, tokens: Tensor, limit: Tensor | None = None) -> BlockOutcomes:
    """The probability of each outcome of `accept_block` for these drafts; the same arguments and errors."""
    batch, depth = tokens.shape
    if target.shape[:2] != (batch, depth + 1) or draft.shape != (batch, depth, target.shape[2]):
        raise ValueError(f"shapes disagree: target {tuple(target.shape)}, draft {tuple(draft.shape)}, tokens {tuple(tokens.shape)}")
    end = torch.tensor(depth, device=tokens.device) if limit is None else limit[:, None].clamp(max=depth)  # (batch, 1) or ()
    position = torch.arange(depth + 1, device=target.device)
    tiny = torch.finfo(target.dtype).tiny

    weight = _prefix_weights(target, draft, tokens)  # (batch, depth + 1)
    rest = (weight[:, :-1, None] * target[:, :-1] - draft).clamp(min=0)  # max(p_i M_b - M_s, 0), (batch, depth, vocab)
    mass = rest.sum(-1)
    # 0 / 0 only where M_b = M_s and p_i = 1: a longer prefix then stays for certain, and h_i does not matter
    # (1 - p_i) first: the quotient must not exceed 1 by rounding, as a negative probability could then not be drawn from
    passes = mass / (mass + (1 - weight[:, :-1])).clamp(min=tiny)  # h_i
    passes = torch.cat([passes, weight[:, -1:]], 1)
    passes = torch.where(position == end, weight, passes)  # h_gamma = p_gamma
    passes = torch.where(position <= end, passes, 0)
    passes = torch.where(position == 0, 1, passes)

    fails_after = (1 - passes[:, 1:]).flip(1).cumprod(1).flip(1)  # (batch, depth)
    kept = passes * torch.cat([fails_after, torch.ones_like(passes[:, :1])], 1)

    left = ((position[:-1] < end) & (mass > 0))[..., None]
    rejected = torch.where(left, rest / mass[..., None].clamp(min=tiny), target[:, :-1])
    return BlockOutcomes(kept, torch.cat([rejected, target[:, -1:]], 1))


def _prefix_weights(target: Tensor, draft: Tensor, tokens: Tensor) -> Tensor:
    """p_i = min(p_{i-1} M_b(x_i) / M_s(x_i), 1), p_0 = 1; (batch, depth + 1)."""
    p = target[:, :-1].gather(2, tokens[..., None]).squeeze(2)
    q = draft.gather(2, tokens[..., None]).squeeze(2)
    ratio = p / q.clamp(min=torch.finfo(q.dtype).tiny)
    weights = [torch.ones_like(target[:, 0, 0])]
    for i in range(tokens.shape[1]):
        weights.append((weights[-1] * ratio[:, i]).clamp(max=1))
    return torch.stack(weights, 1)
