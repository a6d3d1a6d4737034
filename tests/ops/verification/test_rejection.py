"""What comes out of the acceptance rules is distributed as the target: by enumeration, and by drawing."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from headway.ops.verification.rejection import accept_sampled


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
    first = torch.where(out.num_accepted > 0, tokens[:, 0], out.bonus_token)
    share = torch.bincount(first, minlength=4) / count
    error = (target * (1 - target) / count).sqrt()
    assert ((share - target).abs() <= 5 * error + 1e-12).all()


def test_token_rejection_is_the_papers_in_10000_cases():
    """The same random numbers, used as algorithm 2 of Chen et al. 2023 says, a case at a time."""
    cases, depth, vocab = 10_000, 3, 4
    target, draft = distributions(0, cases, depth + 1, vocab), distributions(1, cases, depth, vocab)
    draft[::5] = target[::5, :-1]  # drafts that are always right
    tokens = torch.multinomial(draft.flatten(0, 1), 1, generator=torch.Generator().manual_seed(2)).view(cases, depth)
    limit = torch.randint(depth + 1, (cases,), generator=torch.Generator().manual_seed(3))
    out = accept_sampled(target, draft, tokens, torch.Generator().manual_seed(4), limit)
    again = torch.Generator().manual_seed(4)
    uniform = torch.rand(cases, depth, generator=again, dtype=torch.float64).tolist()
    p, q, drafted = target.tolist(), draft.tolist(), tokens.tolist()
    kept, residual = [], []
    for case, end in enumerate(limit.tolist()):
        n, rest = 0, None
        while n < end and rest is None:
            x = drafted[case][n]
            if uniform[case][n] < p[case][n][x] / q[case][n][x]:
                n += 1
            else:
                rest = [max(0.0, a - b) for a, b in zip(p[case][n], q[case][n], strict=True)]
        kept.append(n)
        residual.append(rest or p[case][n])
    bonus_token = torch.multinomial(torch.tensor(residual, dtype=torch.float64), 1, generator=again).squeeze(1)
    assert out.num_accepted.tolist() == kept
    assert (out.bonus_token == bonus_token).all()
    assert min(map(kept.count, range(depth + 1))) > 100


def test_a_draft_the_target_never_makes_is_never_kept():
    target = torch.tensor([[[0.0, 1.0], [0.5, 0.5]]]).expand(1000, -1, -1)
    draft = torch.tensor([[[1.0, 0.0]]]).expand(1000, -1, -1)
    out = accept_sampled(target, draft, torch.zeros(1000, 1, dtype=torch.long), None)
    assert (out.num_accepted == 0).all() and (out.bonus_token == 1).all()


def test_depths_that_disagree_are_refused():
    with pytest.raises(ValueError, match="depths disagree"):
        accept_sampled(torch.ones(1, 2, 3), torch.ones(1, 2, 3), torch.zeros(1, 2, dtype=torch.long), None)


def test_beyond_the_limit_the_bonus_token_is_sampled_from_the_target():
    """Drafts beyond the limit are ignored: the token after the accepted drafts is sampled from p, not from p - q."""
    count = 4000
    p = torch.tensor([0.7, 0.2, 0.1])
    q = torch.tensor([0.1, 0.1, 0.8])
    generator = torch.Generator().manual_seed(0)
    drafts = torch.multinomial(q.expand(count, -1), 2, replacement=True, generator=generator)
    limit = torch.arange(count) % 3
    out = accept_sampled(p.expand(count, 3, -1), q.expand(count, 2, -1), drafts, generator, limit)
    assert (out.num_accepted <= limit).all()
    first = torch.where(out.num_accepted > 0, drafts[:, 0], out.bonus_token)
    for k in range(3):
        seen = torch.bincount(first[limit == k], minlength=3)
        expected = p.double() / p.double().sum() * len(first[limit == k])
        assert stats.chisquare(seen.numpy(), expected.numpy()).pvalue > 1e-4
