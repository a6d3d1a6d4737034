"""The figures of others are consistent: what they print by position makes what they print as tokens a forward."""

from itertools import accumulate
from operator import mul

import pytest

from headway.experiments.families.published import PUBLISHED, Published, given_all_before


@pytest.mark.parametrize("one", [one for one in PUBLISHED if one.acceptance], ids=lambda one: one.name)
def test_acceptance_by_position_makes_the_published_tokens_a_forward(one: Published) -> None:
    assert 1 + sum(accumulate(one.acceptance, mul)) == pytest.approx(one.tokens_per_forward, abs=0.01)


def test_shares_of_all_rounds_become_shares_of_those_that_reach_a_position() -> None:
    assert given_all_before((0.8, 0.4, 0.1)) == pytest.approx((0.8, 0.5, 0.25))
