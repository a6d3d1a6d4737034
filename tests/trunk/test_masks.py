"""Masks from positions: causal, within a segment, a window and a prefix, and never without a visible key."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from headway.errors import UnsupportedModelError
from headway.trunk import TrunkView
from headway.trunk.masks import FULL, SLIDING, as_masks, causally_visible_keys, visible_keys
from tests.tiny import tiny_trunk

SMALL = st.integers(-1, 6)


@given(st.data())
def test_visible_keys_are_the_definition_key_by_key(data):
    queries, keys = data.draw(st.integers(1, 5)), data.draw(st.integers(1, 5))
    query_positions, key_positions = (data.draw(st.lists(SMALL, min_size=n, max_size=n)) for n in (queries, keys))
    query_segments, key_segments = (data.draw(st.lists(st.integers(0, 1), min_size=n, max_size=n)) for n in (queries, keys))
    allowed = [data.draw(st.lists(st.booleans(), min_size=keys, max_size=keys)) for _ in range(queries)]
    window = data.draw(st.none() | st.integers(1, 4))
    found = visible_keys(
        *(torch.tensor([row]) for row in (query_positions, key_positions, query_segments, key_segments)),
        allowed=torch.tensor([allowed]),
        window=window,
    )
    for visible, limit in zip(found, (None, window), strict=True):
        for q, position in enumerate(query_positions):
            expected = [
                0 <= key <= position
                and query_segments[q] == key_segments[k]
                and allowed[q][k]
                and (limit is None or position - key < limit)
                for k, key in enumerate(key_positions)
            ]
            expected[0] |= not any(expected)
            assert visible[0, q].tolist() == expected


@given(st.lists(st.integers(-2, 7), min_size=1, max_size=5), st.integers(8, 10), st.none() | st.integers(1, 4))
def test_causally_visible_keys_are_visible_keys_at_positions_from_zero(positions, kv_length, window):
    found = causally_visible_keys(torch.tensor([positions]), kv_length, window)
    # padding has a negative position and attends to the first key alone
    expected = visible_keys(torch.tensor([positions]), torch.arange(kv_length)[None], window=window)
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(found, expected, strict=True))


def test_tokens_of_a_prefix_attend_to_the_whole_prefix_of_their_segment():
    positions, segments = torch.tensor([[0, 1, 2, 0, 1]]), torch.tensor([[0, 0, 0, 1, 1]])
    prefix = torch.tensor([[True, True, False, True, True]])
    full, near = visible_keys(positions, positions, segments, segments, prefix=prefix, window=2)
    assert full[0].int().tolist() == [[1, 1, 0, 0, 0], [1, 1, 0, 0, 0], [1, 1, 1, 0, 0], [0, 0, 0, 1, 1], [0, 0, 0, 1, 1]]
    assert near[0, 2].int().tolist() == [0, 1, 1, 0, 0]


def test_masks_are_boolean_or_added_and_by_layer_type():
    full, near = causally_visible_keys(torch.tensor([[3]]), 4, 2)
    assert as_masks(full, near, None, None, "a trunk").tolist() == [[[[False, False, True, True]]]]
    by_type = as_masks(full, near, [SLIDING, FULL, SLIDING], torch.float16, "a trunk")
    lowest = torch.finfo(torch.float16).min
    assert by_type[FULL].tolist() == [[[[0.0] * 4]]] and by_type[SLIDING].tolist() == [[[[lowest, lowest, 0.0, 0.0]]]]
    assert by_type[SLIDING].dtype == torch.float16


@pytest.mark.parametrize("kind", ["linear_attention", "chunked_attention"])
def test_a_layer_type_that_masks_cannot_describe_is_refused(kind):
    view = TrunkView(tiny_trunk())
    view.config.layer_types = [FULL, kind, FULL]
    with pytest.raises(UnsupportedModelError, match=f"LlamaForCausalLM has layers of type {kind}"):
        view.masks(torch.arange(3)[None], torch.arange(3)[None])
    assert not view.maskable
