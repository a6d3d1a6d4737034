"""Published acceptance rates agree with the published tokens per forward."""

from itertools import accumulate
from operator import mul

import pytest

from headway.experiments.families.published import PUBLISHED, PublishedResult, conditional_rates


@pytest.mark.parametrize("one", [one for one in PUBLISHED if one.acceptance], ids=lambda one: one.name)
def test_acceptance_by_position_gives_the_published_tokens_per_forward(one: PublishedResult) -> None:
    assert 1 + sum(accumulate(one.acceptance, mul)) == pytest.approx(one.tokens_per_forward, abs=0.01)


def test_rates_of_all_steps_become_rates_of_the_steps_that_reach_a_position() -> None:
    assert conditional_rates((0.8, 0.4, 0.1)) == pytest.approx((0.8, 0.5, 0.25))
