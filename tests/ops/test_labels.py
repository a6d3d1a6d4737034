"""Labels are enumerated by hand: each position asks which tokens lie between it and its target."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from headway.ops import shift_labels


@given(
    st.lists(st.tuples(st.booleans(), st.integers(-1, 3)), min_size=1, max_size=12),
    st.integers(1, 5),
)
def test_shifted_labels_equal_a_walk_over_every_position(tokens, offset):
    segments = sorted((s for _, s in tokens if s >= 0)) + [-1] * sum(s < 0 for _, s in tokens)
    labels = [10 + i if learnt else -100 for i, (learnt, _) in enumerate(tokens)]
    expected = []
    for i in range(len(labels)):
        j = i + offset
        way = range(i + 1, j + 1)
        fine = j < len(labels) and segments[i] == segments[j] >= 0 and all(labels[t] != -100 for t in way)
        expected.append(labels[j] if fine else -100)
    shifted = shift_labels(torch.tensor([labels]), offset, torch.tensor([segments]))
    assert shifted.tolist() == [expected]


def test_no_head_learns_across_the_prompt_border():
    labels = torch.tensor([[-100, -100, -100, 7, 8, 9]])
    assert shift_labels(labels, 1).tolist() == [[-100, -100, 7, 8, 9, -100]]
    assert shift_labels(labels, 2).tolist() == [[-100, -100, 8, 9, -100, -100]]


def test_offset_zero_is_refused():
    with pytest.raises(ValueError, match="at least 1"):
        shift_labels(torch.zeros(1, 4, dtype=torch.long), 0)
