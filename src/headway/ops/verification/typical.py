"""Typical acceptance: a draft stays if the trunk finds it plausible (Cai et al. 2024, Medusa, arXiv 2401.10774, section 2.3.1).

LOSSY: unlike every other rule in `headway.ops`, what comes out is not distributed as the trunk's own text.
"""

import torch
from torch import Generator, Tensor

from headway.ops.verification.rejection import Accepted, leading_true, within


def accept_typical(
    target: Tensor,
    _draft: Tensor | None,
    tokens: Tensor,
    _generator: Generator | None = None,
    limit: Tensor | None = None,
    epsilon: float = 0.3,
    delta: float = 0.09,
) -> Accepted:
    """Keep the longest prefix of tokens with p(x) > min(epsilon, delta * exp(-H(p))). LOSSY: THE OUTPUT IS NOT THE TARGET'S.

    It is neither the trunk's greedy text nor drawn from its distribution, at any temperature, and depends on the drafter:
    measure quality again wherever this rule is used. The token that follows is the argmax of the target, never drawn, as
    in Medusa: that token is "greedy and unconditionally accepted", so that each step gains at least one token.

    Args:
        target: probabilities of the trunk, (batch, depth + 1, vocab); rows sum to 1.
        tokens: drafted tokens, (batch, depth).
        epsilon: a token this likely is always plausible.
        delta: scales the threshold where the trunk is unsure; smaller keeps more.
        limit: how many drafts of each row may stay at most, (batch,); default: all.
    Raises: ValueError if the shapes disagree.
    """
    if target.shape[:2] != (tokens.shape[0], tokens.shape[1] + 1):
        raise ValueError(f"shapes disagree: target {tuple(target.shape)}, tokens {tuple(tokens.shape)}")
    p = target[:, :-1].gather(2, tokens[..., None]).squeeze(2)  # (batch, depth)
    entropy = torch.special.entr(target[:, :-1]).sum(-1)
    threshold = (delta * torch.exp(-entropy)).clamp(max=epsilon)
    kept = leading_true(within(p > threshold, limit))
    return Accepted(kept, target.argmax(-1).gather(1, kept[:, None]).squeeze(1))
