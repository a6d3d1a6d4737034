"""Intervals equal scipy's paired t test, and cover the truth as often as they say."""

import numpy
import pytest
from scipy import stats

from headway.evaluation.paired import paired_interval


def test_interval_equals_scipys_paired_t_test():
    ours, theirs = [0.61, 0.58, 0.70, 0.66], [0.60, 0.52, 0.69, 0.59]
    interval = paired_interval(ours, theirs)
    expected = stats.ttest_rel(ours, theirs).confidence_interval(0.95)
    assert (interval.low, interval.high) == pytest.approx((expected.low, expected.high))


def test_intervals_cover_no_difference_95_percent_of_the_time():
    generator = numpy.random.default_rng(0)
    covered = 0
    for _ in range(2000):
        shared = generator.normal(size=4)
        interval = paired_interval(shared + generator.normal(size=4), shared + generator.normal(size=4))
        covered += interval.low <= 0 <= interval.high
    assert 0.935 < covered / 2000 < 0.965


def test_verdicts_follow_the_direction_that_is_better():
    assert paired_interval([2.0, 2.1, 2.0], [1.0, 1.0, 1.1]).verdict(higher_is_better=True) == "better"
    assert paired_interval([2.0, 2.1, 2.0], [1.0, 1.0, 1.1]).verdict(higher_is_better=False) == "worse"
    assert paired_interval([2.0, 1.0, 2.0], [1.0, 2.0, 1.1]).verdict() == "no difference shown"


def test_unpaired_values_are_refused():
    with pytest.raises(ValueError, match="pairs are needed"):
        paired_interval([1.0, 2.0], [1.0])
