"""A view of a trunk: masks by attention implementation and dtype, and the check that a trunk takes 4-D masks."""

from contextlib import nullcontext

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from headway.trunk import TrunkView
from headway.trunk.attention import use_decode_attention
from tests.tiny import tiny_trunk

TRUNKS = {name: tiny_trunk(name) for name in ("llama", "mistral", "gemma3_text")}


@pytest.mark.parametrize("architecture", TRUNKS)
@given(data=st.data())
def test_causal_masks_are_the_masks_of_keys_whose_slots_are_their_positions(architecture, data):
    view = TrunkView(TRUNKS[architecture])
    visible = data.draw(st.integers(1, 40))
    rows = data.draw(st.lists(st.lists(st.integers(-1, visible - 1), min_size=3, max_size=3), min_size=1, max_size=4))
    positions = torch.tensor(rows)
    for masks_that_are_added in (use_decode_attention(view.config), nullcontext()):
        with masks_that_are_added:
            found = view.causal_masks(positions, visible)
            expected = view.masks(positions, torch.arange(visible).expand(len(rows), -1))
        if not isinstance(expected, dict):
            found, expected = {"": found}, {"": expected}
        assert found.keys() == expected.keys() and all(torch.equal(found[kind], expected[kind]) for kind in expected)


def test_masks_take_the_dtype_that_the_trunk_has_by_then():
    trunk = tiny_trunk()
    view = TrunkView(trunk)
    with use_decode_attention(view.config):
        for dtype in (torch.float32, torch.bfloat16, torch.float32):
            trunk.to(dtype)
            assert view.causal_masks(torch.tensor([[3], [1]]), 4).dtype == dtype


@pytest.mark.parametrize("raised", [KeyError("mask"), AssertionError(), NotImplementedError("4-D masks")])
def test_a_trunk_that_raises_any_error_for_4d_masks_does_not_take_masks(monkeypatch, raised):
    trunk = tiny_trunk()
    forward = type(trunk.model).forward

    def refuse_masks(self, *args, attention_mask=None, **kwargs):
        if attention_mask is not None:
            raise raised
        return forward(self, *args, attention_mask=attention_mask, **kwargs)

    assert TrunkView(trunk).takes_masks
    monkeypatch.setattr(type(trunk.model), "forward", refuse_masks)
    assert not TrunkView(trunk).takes_masks
