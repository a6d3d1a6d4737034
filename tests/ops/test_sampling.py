"""Truncation gives what transformers' warpers give, ties included."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import MinPLogitsWarper, TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

from headway.ops.sampling import apply_temperature_top_k_top_p, sample


def warped(logits, temperature, top_k, top_p, min_p):
    if temperature != 1.0:
        logits = TemperatureLogitsWarper(temperature)(None, logits)
    if top_k:
        logits = TopKLogitsWarper(top_k)(None, logits)
    if top_p is not None and top_p < 1.0:
        logits = TopPLogitsWarper(top_p)(None, logits)
    if min_p is not None:
        logits = MinPLogitsWarper(min_p)(None, logits)
    return logits.softmax(-1)


@given(
    seed=st.integers(0, 10_000),
    steps=st.sampled_from([None, 2.0]),
    temperature=st.sampled_from([0.3, 1.0, 1.7]),
    top_k=st.sampled_from([None, 0, 1, 3, 50]),
    top_p=st.sampled_from([None, 0.01, 0.5, 0.9, 1.0]),
    min_p=st.sampled_from([None, 0.0, 0.1, 1.0]),
)
@settings(max_examples=200, deadline=None)
def test_truncation_equals_the_warpers(seed, steps, temperature, top_k, top_p, min_p):
    logits = 3 * torch.randn(4, 11, generator=torch.Generator().manual_seed(seed))
    if steps is not None:
        logits = (logits * steps).round() / steps  # many ties
    ours = apply_temperature_top_k_top_p(logits, temperature, top_k, top_p, min_p)
    assert torch.equal(ours, warped(logits, temperature, top_k, top_p, min_p))
    torch.testing.assert_close(ours.sum(-1), torch.ones(4))


def test_further_dimensions_are_independent_rows():
    logits = torch.randn(2, 3, 9, generator=torch.Generator().manual_seed(0))
    flat = apply_temperature_top_k_top_p(logits.flatten(0, 1), 0.7, 5, 0.8)
    assert torch.equal(apply_temperature_top_k_top_p(logits, 0.7, 5, 0.8).flatten(0, 1), flat)


def test_half_precision_is_summed_in_float32():
    assert apply_temperature_top_k_top_p(torch.randn(2, 9, dtype=torch.bfloat16)).dtype == torch.float32


@pytest.mark.parametrize("shape", [(2,), (2, 3), (2, 3, 4)])
def test_a_token_of_no_probability_is_never_drawn(shape):
    probabilities = torch.tensor([0.0, 0.5, 0.0, 0.5]).expand(*shape, 4)
    drawn = sample(probabilities, torch.Generator().manual_seed(0))
    assert drawn.shape == shape and set(drawn.flatten().tolist()) <= {1, 3}


@pytest.mark.parametrize("temperature", [1e-10, 1e-40, 1e-300])
def test_the_lower_the_temperature_the_nearer_to_greedy(temperature):
    logits = torch.tensor([[3.0, 700.0, 699.999, -torch.inf], [-3.0, -2.0, -1e30, -2.0]])
    expected = torch.tensor([[0.0, 1.0, 0.0, 0.0], [0.0, 0.5, 0.0, 0.5]])
    assert torch.equal(apply_temperature_top_k_top_p(logits, temperature, top_k=3, top_p=0.9), expected)
