"""The chunked loss equals the one anybody would write, in value and in every gradient."""

import pytest
import torch
from torch.nn import functional as F

from headway.ops import SoftTargets, Unembedding, linear_cross_entropy


def naive(states, targets, unembedding, weights, items):
    total, means = 0.0, []
    for hidden, target, weight in zip(states, targets, weights, strict=True):
        logits = unembedding.logits(hidden)
        if isinstance(target, SoftTargets):
            teacher = torch.softmax(unembedding.logits(target.states).detach(), -1)
            loss = (teacher * (teacher.log() - torch.log_softmax(logits, -1))).sum(-1)[target.valid].sum()
            count = target.valid.sum()
        else:
            loss = F.cross_entropy(logits, target, ignore_index=-100, reduction="sum")
            count = (target != -100).sum()
        total = total + weight * loss / items
        means.append(loss / count)
    return total, torch.stack(means).detach()


def random_case(soft, bias, seed=0):
    g = torch.Generator().manual_seed(seed)
    states = [torch.randn(50, 16, generator=g, requires_grad=True) for _ in range(3)]
    labels = [torch.randint(0, 37, (50,), generator=g) for _ in range(3)]
    for k, label in enumerate(labels):
        label[torch.rand(50, generator=g) < 0.2 * (k + 1)] = -100
    targets = list(labels)
    if soft:
        targets[1] = SoftTargets(torch.randn(50, 16, generator=g), labels[1] != -100)
    weight = torch.randn(37, 16, generator=g, requires_grad=True)
    return states, targets, weight, torch.randn(37, generator=g, requires_grad=True) if bias else None


@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize(("scale", "softcap"), [(1.0, None), (0.3, None), (1.0, 5.0), (0.3, 5.0)])
def test_chunked_loss_and_gradients_equal_the_naive_ones(soft, bias, scale, softcap):
    weights, items = [1.0, 0.5, 0.25], 40
    states, targets, weight, offset = random_case(soft, bias)
    leaves = [*states, weight, *([offset] if bias else [])]
    expected, expected_means = naive(states, targets, Unembedding(weight, offset, scale, softcap), weights, items)
    expected_grads = torch.autograd.grad(expected * 3, leaves)
    total, means = linear_cross_entropy(states, targets, Unembedding(weight, offset, scale, softcap), weights, items, chunk=7)
    grads = torch.autograd.grad(total * 3, leaves)
    torch.testing.assert_close(total, expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(means, expected_means, rtol=1e-5, atol=1e-5)
    for ours, theirs in zip(grads, expected_grads, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_a_frozen_unembedding_gets_no_gradient_and_the_states_still_do():
    states, targets, weight, _ = random_case(False, False)
    frozen = weight.detach()
    total, _ = linear_cross_entropy(states, targets, Unembedding(frozen), [1.0, 1.0, 1.0])
    total.backward()
    assert frozen.grad is None
    assert all(state.grad.abs().sum() > 0 for state in states)


def test_a_head_of_weight_zero_is_skipped_with_zero_gradient_and_nan_mean():
    states, targets, weight, _ = random_case(False, False)
    total, means = linear_cross_entropy(states, targets, Unembedding(weight), [1.0, 0.0, 1.0])
    total.backward()
    assert means[1].isnan()
    assert states[1].grad.abs().sum() == 0


def test_autocast_stays_close_to_float32():
    states, targets, weight, _ = random_case(False, False)
    exact, _ = linear_cross_entropy(states, targets, Unembedding(weight), [1.0, 1.0, 1.0])
    with torch.autocast("cpu", torch.bfloat16):
        rough, _ = linear_cross_entropy(states, targets, Unembedding(weight), [1.0, 1.0, 1.0])
    torch.testing.assert_close(rough, exact, rtol=2e-2, atol=0)


def test_lists_of_different_lengths_are_refused():
    states, targets, weight, _ = random_case(False, False)
    with pytest.raises(ValueError, match="lengths disagree"):
        linear_cross_entropy(states, targets[:2], Unembedding(weight), [1.0, 1.0, 1.0])
