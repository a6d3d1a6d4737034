"""The estimator equals the average over all ways to draw k of n samples, and the formula of the paper."""

from itertools import combinations

import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headway.evaluation.statistics.pass_at_k import mean_pass_at_k, pass_at_k


@given(st.integers(1, 9).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, n), st.integers(1, n))))
def test_it_is_the_share_of_draws_in_which_one_passes(numbers):
    samples, passed, k = numbers
    outcomes = [number < passed for number in range(samples)]
    draws = [any(draw) for draw in combinations(outcomes, k)]
    assert pass_at_k(samples, passed, k) == pytest.approx(sum(draws) / len(draws))


@given(st.integers(1, 300).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, n), st.integers(1, n))))
def test_it_is_the_product_of_the_paper(numbers):
    n, c, k = numbers
    product = 1.0 if n - c < k else 1.0 - numpy.prod(1.0 - k / numpy.arange(n - c + 1, n + 1))  # figure 3 of the paper
    assert pass_at_k(n, c, k) == pytest.approx(product, abs=1e-9)


def test_it_is_not_biased():
    """Where each sample passes with chance p, its mean is the chance that one of k does; 1 - (1 - c/n)^k is not."""
    generator, p, n, k = numpy.random.default_rng(0), 0.2, 5, 3
    passed = generator.binomial(n, p, 20_000)
    truth = 1 - (1 - p) ** k
    assert numpy.mean([pass_at_k(n, int(c), k) for c in passed]) == pytest.approx(truth, abs=0.01)
    assert abs(numpy.mean(1 - (1 - passed / n) ** k) - truth) > 0.03


def test_problems_are_averaged_with_their_standard_error():
    found = mean_pass_at_k([(2, 1), (2, 2), (2, 0)], [1, 2])
    assert found["pass@1"] == pytest.approx(0.5) and found["pass@2"] == pytest.approx(2 / 3)
    assert found["pass@1_stderr"] == pytest.approx(0.5 / 3**0.5)


def test_more_than_there_are_is_refused():
    with pytest.raises(ValueError, match="pass@3"):
        pass_at_k(2, 1, 3)
