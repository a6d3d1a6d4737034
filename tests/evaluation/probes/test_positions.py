"""Positions are the paper's, and the difference of ends and middle is close to scipy's paired t."""

import numpy
import pytest
from scipy import stats

from headway.evaluation.probes.lost_in_the_middle import paper_positions
from headway.evaluation.probes.positions import by_position, evenly


def test_positions_are_those_of_the_paper() -> None:
    assert paper_positions(10) == [0, 4, 9]
    assert paper_positions(20) == [0, 4, 9, 14, 19]
    assert paper_positions(30) == [0, 4, 9, 14, 19, 24, 29]
    assert paper_positions(3) == [0, 1, 2]
    assert evenly(140) == [0, 34, 69, 104, 139] and evenly(2) == [0, 1]


def test_ends_over_middle_is_a_paired_difference() -> None:
    draw = numpy.random.default_rng(0)
    solved = {place: [bool(v) for v in draw.random(60) < p] for place, p in [(0, 0.9), (4, 0.4), (9, 0.4), (14, 0.8)]}
    scores = by_position(solved)
    ends = (numpy.array(solved[0], float) + numpy.array(solved[14], float)) / 2
    middle = (numpy.array(solved[4], float) + numpy.array(solved[9], float)) / 2
    theirs = stats.ttest_rel(ends, middle).confidence_interval()
    d = scores.ends_over_middle
    assert d is not None
    assert d.mean == pytest.approx((ends - middle).mean())
    assert (d.low, d.high) == (pytest.approx(theirs.low, abs=0.02), pytest.approx(theirs.high, abs=0.02))
    assert [at.position for at in scores.positions] == [0, 4, 9, 14]
    assert "better at the ends" in scores.remark("x")
    assert by_position({0: [True], 1: [True]}).ends_over_middle is None
