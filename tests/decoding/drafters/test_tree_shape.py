"""Numbers of drafts are ascending, start at 0 and reach the depth; paths that form no tree are refused."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headway.decoding.drafters.tree_shape import chain_draft_sizes, static_tree_paths, tree_draft_sizes
from headway.errors import ConfigError


@given(st.integers(0, 40))
def test_chains_have_every_number_of_drafts_up_to_four_and_then_steps_of_four(depth):
    sizes = chain_draft_sizes(depth)
    assert sizes[0] == 0 and sizes[-1] == depth and list(sizes) == sorted(set(sizes))
    assert set(range(min(depth, 4) + 1)) <= set(sizes)
    assert all((size + 1) % 4 == 0 for size in sizes if 4 < size < depth)


def test_trees_add_larger_numbers_of_drafts_to_those_of_a_chain():
    assert tree_draft_sizes(3) == (0, 1, 2, 3, 7, 11, 15, 23, 31, 47, 63)
    assert tree_draft_sizes(9) == (0, 1, 2, 3, 4, 7, 9, 11, 15, 23, 31, 47, 63)


@pytest.mark.parametrize("paths", [[], [()], [(0, 0), (0,)], [(0,), (0,)], [(-1,)], [(0.5,)], 3])
def test_paths_that_form_no_tree_are_refused(paths):
    with pytest.raises(ConfigError, match=r"tree must be dynamic, chain, or paths such as \[\(0,\), \(1,\), \(0, 0\)\]"):
        static_tree_paths(paths)
