"""What comes out of the acceptance rules is distributed as the target: by enumeration, and by drawing."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from headway.ops.acceptance import accept_greedy, accept_sampled


def distributions(draw_seed, *shape):
    g = torch.Generator().manual_seed(draw_seed)
    weights = torch.rand(*shape, generator=g, dtype=torch.float64) ** 3
    weights[torch.rand(*shape, generator=g) < 0.3] = 0  # truncation leaves zeros
    weights[..., 0] += 0.05
    return weights / weights.sum(-1, keepdim=True)


@given(st.integers(0, 10_000))
@settings(max_examples=60, deadline=None)
def test_first_token_is_distributed_as_the_target_whatever_the_draft(seed):
    """Sum over drafts and both outcomes of the accept test: q min(1, p/q) + rejected mass * residual = p."""
    target, draft = distributions(seed, 4), distributions(seed + 1, 4)
    accepted = torch.minimum(target, draft)
    residual = (target - draft).clamp(min=0)
    expected = accepted + (1 - accepted.sum()) * residual / residual.sum().clamp(min=1e-12)
    torch.testing.assert_close(expected, target)
    # and the rule itself: 20,000 draws of one drafted token stay within 5 standard errors of the target
    count, g = 20_000, torch.Generator().manual_seed(seed)
    tokens = torch.multinomial(draft.expand(count, -1), 1, generator=g)
    out = accept_sampled(target.expand(count, 2, -1), draft.expand(count, 1, -1), tokens, g)
    first = torch.where(out.kept > 0, tokens[:, 0], out.following)
    share = torch.bincount(first, minlength=4) / count
    error = (target * (1 - target) / count).sqrt()
    assert ((share - target).abs() <= 5 * error + 1e-12).all()


def test_greedy_keeps_exactly_the_prefix_that_matches_by_enumeration():
    own = torch.tensor([2, 0, 1, 2])
    target = torch.nn.functional.one_hot(own, 3).float()[None]
    for tokens in itertools.product(range(3), repeat=3):
        matching = list(itertools.takewhile(lambda pair: pair[0] == pair[1], zip(tokens, own.tolist(), strict=False)))
        out = accept_greedy(target, torch.tensor([tokens]))
        assert out.kept.item() == len(matching)
        assert out.following.item() == own[len(matching)]


def test_a_draft_the_target_never_makes_is_never_kept():
    target = torch.tensor([[[0.0, 1.0], [0.5, 0.5]]]).expand(1000, -1, -1)
    draft = torch.tensor([[[1.0, 0.0]]]).expand(1000, -1, -1)
    out = accept_sampled(target, draft, torch.zeros(1000, 1, dtype=torch.long), None)
    assert (out.kept == 0).all() and (out.following == 1).all()


def test_depths_that_disagree_are_refused():
    with pytest.raises(ValueError, match="depths disagree"):
        accept_sampled(torch.ones(1, 2, 3), torch.ones(1, 2, 3), torch.zeros(1, 2, dtype=torch.long), None)
