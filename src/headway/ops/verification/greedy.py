"""Greedy verification: accept drafts that equal the trunk's own choice (Stern et al. 2018, arXiv 1811.03115)."""

from torch import Tensor

from headway.ops.verification.rule import Accepted, check_depths, count_leading_true, mask_beyond_limit


def accept_greedy(target: Tensor, tokens: Tensor, limit: Tensor | None = None) -> Accepted:
    """Accept the longest prefix of `tokens` that the trunk itself would have chosen.

    Args:
        target: scores of the trunk, (batch, depth + 1, vocab).
        tokens: draft tokens, (batch, depth).
        limit: largest number of accepted drafts per sequence, (batch,); default: depth.
    Raises:
        ValueError: depths disagree.
    """
    check_depths(target, tokens)
    choices = target.argmax(-1)  # (batch, depth + 1)
    num_accepted = count_leading_true(mask_beyond_limit(choices[:, :-1] == tokens, limit))
    return Accepted(num_accepted, choices.gather(1, num_accepted[:, None]).squeeze(1))
