"""Chunked log-probabilities and entropies equal log_softmax of all logits, in value and in every gradient."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from headway.ops import Unembedding, linear_log_probs

VOCABULARY, WIDTH = 37, 16


def naive(hidden, tokens, unembedding, temperature=1.0):
    """Log-probabilities and entropies from the logits of all tokens."""
    logs = torch.log_softmax(unembedding.known_logits(hidden) / temperature, -1)
    known = unembedding.tokens if unembedding.tokens is not None else torch.arange(len(unembedding.weight))
    valid = tokens != -100
    log_probs = torch.zeros_like(hidden[..., 0])
    for place in valid.nonzero():
        at = tuple(place.tolist())
        found = (known == tokens[at]).nonzero()
        log_probs[at] = logs[at][found[0, 0]] if len(found) else -torch.inf
    return log_probs, torch.where(valid, -(logs.exp() * logs).sum(-1), 0.0)


def case(seed=0, shape=(3, 11), bias=True, dtype=torch.float32, ignored=0.2, **options):
    draw = torch.Generator().manual_seed(seed)
    hidden = torch.randn(*shape, WIDTH, generator=draw).to(dtype).requires_grad_()
    weight = torch.randn(VOCABULARY, WIDTH, generator=draw).mul(0.5).to(dtype).requires_grad_()
    offset = torch.randn(VOCABULARY, generator=draw).to(dtype).requires_grad_() if bias else None
    tokens = torch.randint(0, VOCABULARY, shape, generator=draw)
    tokens[torch.rand(shape, generator=draw) < ignored] = -100
    return hidden, tokens, Unembedding(weight, offset, **options)


def leaves(hidden, unembedding):
    return [hidden, unembedding.weight, *([] if unembedding.bias is None else [unembedding.bias])]


@pytest.mark.parametrize("entropy", [False, True])
@pytest.mark.parametrize("temperature", [1.0, 0.6, 2.0])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize(("scale", "softcap"), [(1.0, None), (0.3, None), (1.0, 3.0), (0.3, 3.0)])
def test_values_and_gradients_equal_those_of_log_softmax(scale, softcap, bias, temperature, entropy):
    hidden, tokens, unembedding = case(bias=bias, scale=scale, softcap=softcap, dtype=torch.float64)
    found = linear_log_probs(hidden, tokens, unembedding, temperature, entropy, chunk=7)
    expected, entropies = naive(hidden, tokens, unembedding, temperature)
    torch.testing.assert_close(found.log_probs, expected, rtol=0, atol=1e-12)
    upstream = torch.randn(tokens.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    value, reference = (found.log_probs * upstream).sum(), (expected * upstream).sum()
    if entropy:
        torch.testing.assert_close(found.entropy, entropies, rtol=0, atol=1e-12)
        value, reference = value + (found.entropy * upstream**2).sum(), reference + (entropies * upstream**2).sum()
    else:
        assert found.entropy is None
    ours, theirs = (torch.autograd.grad(total, leaves(hidden, unembedding)) for total in (value, reference))
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12)


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 10_000), st.integers(1, 60), st.floats(0.3, 3.0))
def test_float32_agrees_to_a_millionth_whatever_the_chunk(seed, chunk, temperature):
    hidden, tokens, unembedding = case(seed, softcap=8.0)
    found = linear_log_probs(hidden, tokens, unembedding, temperature, entropy=True, chunk=chunk)
    expected, entropies = naive(hidden, tokens, unembedding, temperature)
    torch.testing.assert_close(found.log_probs, expected, rtol=1e-6, atol=2e-6)
    torch.testing.assert_close(found.entropy, entropies, rtol=1e-6, atol=2e-6)
    ours = torch.autograd.grad(found.log_probs.sum() / 33, leaves(hidden, unembedding))
    theirs = torch.autograd.grad(expected.sum() / 33, leaves(hidden, unembedding))
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("reduced", [False, True])
def test_gradients_pass_gradcheck(reduced):
    known = {"tokens": torch.arange(3, 3 + 2 * VOCABULARY, 2), "vocabulary": 100} if reduced else {}
    hidden, tokens, unembedding = case(shape=(6,), dtype=torch.float64, scale=0.7, softcap=4.0, ignored=0.0, **known)
    tokens = 3 + 2 * tokens if reduced else tokens

    def run(hidden, weight, bias):
        part = Unembedding(weight, bias, 0.7, 4.0, **known)
        found = linear_log_probs(hidden, tokens, part, temperature=0.8, entropy=True, chunk=4)
        return found.log_probs, found.entropy

    assert torch.autograd.gradcheck(run, leaves(hidden, unembedding))


def test_a_reduced_vocabulary_gives_tokens_it_lacks_no_probability_and_no_gradient():
    known = torch.arange(3, 3 + 2 * VOCABULARY, 2)
    hidden, _, unembedding = case(shape=(4,), tokens=known, vocabulary=100)
    tokens = torch.tensor([3, 4, -100, 75])  # 4 is unknown
    found = linear_log_probs(hidden, tokens, unembedding, entropy=True)
    expected, entropies = naive(hidden, tokens, unembedding)
    torch.testing.assert_close(found.log_probs, expected)
    torch.testing.assert_close(found.entropy, entropies)
    assert found.log_probs[1] == -torch.inf and found.log_probs[2] == 0
    (gradient,) = torch.autograd.grad(found.log_probs[[0, 1, 3]].sum(), hidden)
    assert gradient.isfinite().all() and not gradient[1].any() and not gradient[2].any() and gradient[0].any()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_normalises_in_float32(dtype):
    hidden, tokens, unembedding = case(shape=(40,), bias=False, dtype=dtype)
    found = linear_log_probs(hidden, tokens, unembedding, entropy=True)
    logits = unembedding.known_logits(hidden).float()
    rows = tokens != -100
    expected = logits.log_softmax(-1)[rows].gather(-1, tokens[rows, None])[:, 0]
    assert found.log_probs.dtype == torch.float32
    torch.testing.assert_close(found.log_probs[rows], expected, rtol=1e-6, atol=1e-6)
    found.log_probs.sum().backward()
    assert hidden.grad.dtype == unembedding.weight.grad.dtype == dtype
    exact = hidden.detach().float().requires_grad_()
    linear_log_probs(exact, tokens, Unembedding(unembedding.weight.detach().float())).log_probs.sum().backward()
    torch.testing.assert_close(hidden.grad.float(), exact.grad, rtol=0.05, atol=0.05)


def test_autocast_computes_logits_in_half_precision_and_gradients_in_the_dtype_of_the_weights():
    hidden, tokens, unembedding = case(bias=False)
    with torch.autocast("cpu", torch.bfloat16):
        found = linear_log_probs(hidden, tokens, unembedding)
    half = Unembedding(unembedding.weight.detach().bfloat16())
    expected = linear_log_probs(hidden.detach().bfloat16(), tokens, half)
    torch.testing.assert_close(found.log_probs.detach(), expected.log_probs)
    found.log_probs.sum().backward()
    assert hidden.grad.dtype == unembedding.weight.grad.dtype == torch.float32


def test_a_frozen_unembedding_and_frozen_hidden_states_get_no_gradient():
    hidden, tokens, unembedding = case()
    frozen = Unembedding(unembedding.weight.detach(), unembedding.bias.detach())
    linear_log_probs(hidden, tokens, frozen).log_probs.sum().backward()
    assert hidden.grad.any() and frozen.weight.grad is None
    linear_log_probs(hidden.detach(), tokens, unembedding).log_probs.sum().backward()
    assert unembedding.weight.grad.any() and unembedding.bias.grad.any()
    with torch.no_grad():
        assert not linear_log_probs(hidden, tokens, unembedding).log_probs.requires_grad


def test_neither_pass_holds_more_than_a_chunk_of_logits(monkeypatch):
    hidden, tokens, unembedding = case(shape=(50,), bias=False)
    largest, known_logits = [], Unembedding.known_logits

    def watched(self, states):
        logits = known_logits(self, states)
        largest.append(len(logits))
        return logits

    monkeypatch.setattr(Unembedding, "known_logits", watched)
    linear_log_probs(hidden, tokens, unembedding, chunk=8).log_probs.sum().backward()
    assert max(largest) == 8 and len(largest) == 2 * -(-int((tokens != -100).sum()) // 8)


def test_all_tokens_ignored_gives_zeros():
    hidden, tokens, unembedding = case()
    found = linear_log_probs(hidden, torch.full_like(tokens, -100), unembedding, entropy=True)
    assert not found.log_probs.any() and not found.entropy.any()
    found.log_probs.sum().backward()
    assert not hidden.grad.any()


def test_misuse_is_refused():
    hidden, tokens, unembedding = case()
    with pytest.raises(ValueError, match="do not match"):
        linear_log_probs(hidden, tokens[:, 1:], unembedding)
    with pytest.raises(ValueError, match="temperature must be above 0"):
        linear_log_probs(hidden, tokens, unembedding, temperature=0.0)
