"""Token-level rejection sampling (Leviathan et al. 2022, arXiv 2211.17192; Chen et al. 2023, arXiv 2302.01318, algorithm 2).

A draft x sampled from q is accepted with probability min(1, p(x) / q(x)). After the first rejection the bonus token is sampled from
norm(max(p - q, 0)). The output has the distribution p.
"""

import torch
from torch import Generator, Tensor

from headway.ops.sampling import sample
from headway.ops.verification.rule import Accepted, check_depths, count_leading_true, mask_beyond_limit


def accept_sampled(
    target: Tensor, draft: Tensor, tokens: Tensor, generator: Generator | None = None, limit: Tensor | None = None
) -> Accepted:
    """Accept the longest prefix of `tokens` that leaves the target distribution unchanged; see `VerificationRule`."""
    check_depths(target, tokens)
    if draft.shape[:2] != tokens.shape:
        raise ValueError(f"depths disagree: draft {tuple(draft.shape[:2])}, tokens {tuple(tokens.shape)}")
    p = target[:, :-1].gather(2, tokens[..., None]).squeeze(2)  # (batch, depth)
    q = draft.gather(2, tokens[..., None]).squeeze(2)
    uniform = torch.rand(p.shape, generator=generator, device=p.device, dtype=p.dtype)
    num_accepted = count_leading_true(mask_beyond_limit(uniform * q < p, limit))  # u < p / q
    return Accepted(num_accepted, sample(_residual(target, draft, num_accepted, limit), generator))


def _residual(target: Tensor, draft: Tensor, num_accepted: Tensor, limit: Tensor | None) -> Tensor:
    """norm(max(p - q, 0)) at the first rejected draft, p itself if no draft was rejected; (batch, vocab)."""
    depth = draft.shape[1]
    index = num_accepted[:, None, None].expand(-1, 1, target.shape[2])
    p = target.gather(1, index).squeeze(1)
    if depth == 0:
        return p
    q = draft.gather(1, index.clamp(max=depth - 1)).squeeze(1)
    rejected = num_accepted < (depth if limit is None else limit.clamp(max=depth))
    rest = (p - q).clamp(min=0)
    mass = rest.sum(-1, keepdim=True)
    # The mass is 0 only if p and q agree up to rounding: then p is the right distribution too.
    return torch.where(rejected[:, None] & (mass > 0), rest / mass.clamp(min=torch.finfo(mass.dtype).tiny), p)
