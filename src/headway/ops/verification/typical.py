"""Typical acceptance (Cai et al. 2024, Medusa, arXiv 2401.10774, section 2.3.1).

LOSSY: unlike all other rules in this folder, the output does not have the trunk's distribution.
"""

import torch
from torch import Generator, Tensor

from headway.ops.verification.rule import Accepted, count_leading_true, mask_beyond_limit


def accept_typical(
    target: Tensor,
    _draft: Tensor | None,
    tokens: Tensor,
    _generator: Generator | None = None,
    limit: Tensor | None = None,
    epsilon: float = 0.3,
    delta: float = 0.09,
) -> Accepted:
    """Accept the longest prefix of tokens with p(x) > min(epsilon, delta * exp(-H(p))). LOSSY: THE OUTPUT IS NOT THE TARGET'S.

    The output is neither the trunk's greedy text nor a sample of its distribution, at any temperature, and depends on the drafter:
    measure quality again wherever this rule is used. The bonus token is the argmax of the target, never sampled, as in Medusa
    ("greedy and unconditionally accepted"), so that every step gains at least one token.

    Args:
        target: probabilities of the trunk, (batch, depth + 1, vocab); the last axis sums to 1.
        tokens: draft tokens, (batch, depth).
        limit: largest number of accepted drafts per sequence, (batch,); default: depth.
        epsilon: probability above which a token is always accepted.
        delta: factor of the threshold exp(-entropy); a smaller factor accepts more.
    Raises:
        ValueError: shapes disagree.
    """
    if target.shape[:2] != (tokens.shape[0], tokens.shape[1] + 1):
        raise ValueError(f"shapes disagree: target {tuple(target.shape)}, tokens {tuple(tokens.shape)}")
    p = target[:, :-1].gather(2, tokens[..., None]).squeeze(2)  # (batch, depth)
    entropy = torch.special.entr(target[:, :-1]).sum(-1)
    threshold = (delta * torch.exp(-entropy)).clamp(max=epsilon)
    num_accepted = count_leading_true(mask_beyond_limit(p > threshold, limit))
    return Accepted(num_accepted, target.argmax(-1).gather(1, num_accepted[:, None]).squeeze(1))
