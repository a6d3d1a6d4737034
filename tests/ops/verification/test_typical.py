"""Typical acceptance is Medusa's criterion, token by token, and is not exact."""

import math

import pytest
import torch

from headway.ops.verification.typical import accept_typical


@pytest.mark.parametrize(("epsilon", "delta"), [(0.3, 0.09), (0.05, 0.9), (1.0, 1.0), (0.0, 0.5)])
def test_a_prefix_stays_as_long_as_each_token_is_over_the_threshold_of_the_paper(epsilon: float, delta: float):
    g = torch.Generator().manual_seed(0)
    target = torch.softmax(3 * torch.randn(2500, 5, 6, generator=g, dtype=torch.float64), -1)
    target[::3, :, :2] = 0  # truncation leaves zeros
    target /= target.sum(-1, keepdim=True)
    tokens = torch.randint(6, (2500, 4), generator=g)
    limit = torch.randint(5, (2500,), generator=g)
    out = accept_typical(target, None, tokens, None, limit, epsilon, delta)
    seen = set()
    for row in range(2500):
        kept = 0
        for p, x in zip(target[row].tolist(), tokens[row].tolist(), strict=False):
            entropy = -sum(v * math.log(v) for v in p if v > 0)
            if kept == limit[row] or not p[x] > min(epsilon, delta * math.exp(-entropy)):
                break
            kept += 1
        seen.add(kept)
        assert out.num_accepted[row] == kept
        assert out.bonus_token[row] == target[row, kept].argmax()
    assert len(seen) > 2 or epsilon == 1.0


def test_a_flat_target_keeps_what_a_peaked_one_throws_away():
    flat, peaked = [0.2, 0.2, 0.2, 0.2, 0.2], [0.03, 0.97, 0.0, 0.0, 0.0]
    target = torch.tensor([[flat, flat], [peaked, flat]])
    assert accept_typical(target, None, torch.zeros(2, 1, dtype=torch.long)).num_accepted.tolist() == [1, 0]


def test_it_is_lossy_a_plausible_draft_always_stays():
    target = torch.tensor([[[0.6, 0.4], [0.5, 0.5]]]).expand(100, -1, -1)
    assert (
        accept_typical(target, None, torch.ones(100, 1, dtype=torch.long)).num_accepted == 1
    ).all()  # exact rules keep 40 of 100


def test_without_drafts_the_likeliest_token_follows():
    out = accept_typical(torch.tensor([[[0.2, 0.8]]]), None, torch.zeros(1, 0, dtype=torch.long))
    assert out.num_accepted.tolist() == [0] and out.bonus_token.tolist() == [1]


@pytest.mark.parametrize("shape", [(1, 2, 3), (2, 3, 3)])
def test_shapes_that_disagree_are_refused(shape: tuple[int, ...]):
    with pytest.raises(ValueError, match="shapes disagree"):
        accept_typical(torch.ones(shape), None, torch.zeros(1, 2, dtype=torch.long))
