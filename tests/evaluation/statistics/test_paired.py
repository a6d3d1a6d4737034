"""Intervals equal scipy's paired t test, and cover the truth as often as they say."""

import numpy
import pytest
from scipy import stats

from headway.evaluation.statistics.paired import paired_interval, pairs_needed


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


@pytest.mark.slow
@pytest.mark.parametrize("pairs", [3, 5, 8, 12])
def test_intervals_cover_no_difference_95_percent_of_the_time_whatever_the_number_of_pairs(pairs):
    generator = numpy.random.default_rng(pairs)
    intervals = [paired_interval(generator.normal(size=pairs), generator.normal(size=pairs)) for _ in range(400)]
    covered = sum(interval.low <= 0 <= interval.high for interval in intervals) / len(intervals)
    assert stats.binomtest(round(covered * 400), 400, 0.95).pvalue > 1e-3


def test_bootstrap_interval_is_close_to_students_where_that_is_right():
    generator = numpy.random.default_rng(1)
    ours, theirs = generator.normal(0.3, 1, 60), generator.normal(0, 1, 60)
    interval = paired_interval(ours, theirs)
    expected = stats.ttest_rel(ours, theirs).confidence_interval(0.95)
    assert (interval.low, interval.high) == pytest.approx((expected.low, expected.high), abs=0.06)


def test_bootstrap_interval_leans_where_the_differences_are_skewed():
    ours = numpy.random.default_rng(2).exponential(size=12)
    interval = paired_interval(ours, numpy.zeros(12))
    assert interval.high - interval.mean > 1.2 * (interval.mean - interval.low)


@pytest.mark.parametrize("effect", [0.4, 1.0, 2.5])
def test_as_many_pairs_as_are_said_to_be_needed_find_the_difference_four_times_in_five(effect):
    observed = numpy.array([-1.0, 0.0, 1.0]) + effect  # mean `effect`, standard deviation 1
    needed = pairs_needed(observed, numpy.zeros(3))
    generator = numpy.random.default_rng(0)
    drawn = generator.normal(effect, 1.0, (4000, needed))
    found = stats.ttest_1samp(drawn, 0, axis=1).pvalue < 0.05
    fewer = stats.ttest_1samp(drawn[:, :-1], 0, axis=1).pvalue < 0.05 if needed > 2 else numpy.zeros(1)
    assert found.mean() > 0.78 and fewer.mean() < 0.82


def test_no_difference_is_in_reach_of_no_number_of_pairs():
    assert pairs_needed([1.0, -1.0, 0.01], [0.0, 0.0, 0.0]) is None
    assert pairs_needed([1.0, 1.0], [1.0, 1.0]) is None


def test_differences_that_are_all_the_same_show_nothing():
    assert paired_interval([0.5, 0.5], [0.25, 0.25]).verdict() == "no difference shown"
