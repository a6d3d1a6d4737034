"""Block verification: judge all drafts of a sequence together (Sun et al. 2024, arXiv 2403.10444, algorithm 2).

The rule is exact like token-level rejection and accepts at least as many tokens in expectation. If the target gives a prefix more
probability than the drafter does, that surplus offsets a later token with less; token-level rejection discards the surplus.
"""

from typing import NamedTuple

import torch
from torch import Generator, Tensor

from headway.ops.sampling import sample
from headway.ops.verification.rule import Accepted


class BlockOutcomes(NamedTuple):
    """Probability of accepting exactly 0, 1, ... drafts, (batch, depth + 1), and the bonus token's distribution in each case,
    (batch, depth + 1, vocab)."""

    num_accepted: Tensor
    bonus_token: Tensor


def accept_block(
    target: Tensor, draft: Tensor, tokens: Tensor, generator: Generator | None = None, limit: Tensor | None = None
) -> Accepted:
    """Accept a prefix of `tokens` that leaves the target distribution unchanged, the longest in expectation; see
    `VerificationRule`."""
    outcomes = block_outcomes(target, draft, tokens, limit)
    num_accepted = sample(outcomes.num_accepted, generator)  # (batch,)
    bonus_token = outcomes.bonus_token[torch.arange(len(num_accepted), device=tokens.device), num_accepted]  # (batch, vocab)
    return Accepted(num_accepted, sample(bonus_token, generator))


def block_outcomes(target: Tensor, draft: Tensor, tokens: Tensor, limit: Tensor | None = None) -> BlockOutcomes:
    """Probability of every outcome of `accept_block` for these drafts; arguments and errors of `accept_block`."""
    batch, depth = tokens.shape
    if target.shape[:2] != (batch, depth + 1) or draft.shape != (batch, depth, target.shape[2]):
        raise ValueError(f"shapes disagree: target {tuple(target.shape)}, draft {tuple(draft.shape)}, tokens {tuple(tokens.shape)}")
    end = torch.tensor(depth, device=tokens.device) if limit is None else limit[:, None].clamp(max=depth)  # (batch, 1) or ()
    position = torch.arange(depth + 1, device=target.device)
    tiny = torch.finfo(target.dtype).tiny

    weight = _prefix_weights(target, draft, tokens)  # (batch, depth + 1)
    rest = (weight[:, :-1, None] * target[:, :-1] - draft).clamp(min=0)  # max(p_i M_b - M_s, 0), (batch, depth, vocab)
    mass = rest.sum(-1)
    # 0 / 0 happens only if M_b = M_s and p_i = 1: a longer prefix is then accepted for certain, and h_i does not matter.
    # (1 - p_i) comes first so that rounding cannot push the quotient above 1, which would make a probability negative.
    passes = mass / (mass + (1 - weight[:, :-1])).clamp(min=tiny)  # h_i
    passes = torch.cat([passes, weight[:, -1:]], 1)
    passes = torch.where(position == end, weight, passes)  # h_gamma = p_gamma
    passes = torch.where(position <= end, passes, 0)
    passes = torch.where(position == 0, 1, passes)

    fails_after = (1 - passes[:, 1:]).flip(1).cumprod(1).flip(1)  # (batch, depth)
    num_accepted = passes * torch.cat([fails_after, torch.ones_like(passes[:, :1])], 1)

    left = ((position[:-1] < end) & (mass > 0))[..., None]
    rejected = torch.where(left, rest / mass[..., None].clamp(min=tiny), target[:, :-1])
    return BlockOutcomes(num_accepted, torch.cat([rejected, target[:, -1:]], 1))


def _prefix_weights(target: Tensor, draft: Tensor, tokens: Tensor) -> Tensor:
    """p_i = min(p_{i-1} M_b(x_i) / M_s(x_i), 1), p_0 = 1; (batch, depth + 1)."""
    p = target[:, :-1].gather(2, tokens[..., None]).squeeze(2)
    q = draft.gather(2, tokens[..., None]).squeeze(2)
    ratio = p / q.clamp(min=torch.finfo(q.dtype).tiny)
    weights = [torch.ones_like(target[:, 0, 0])]
    for i in range(tokens.shape[1]):
        weights.append((weights[-1] * ratio[:, i]).clamp(max=1))
    return torch.stack(weights, 1)
