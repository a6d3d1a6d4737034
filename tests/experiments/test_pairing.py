"""Differences over the seeds that both arms finished."""

import pytest

from headway.experiments.metrics import Metric, RunResult
from headway.experiments.pairing import by_seed, paired_difference

SOLVED = Metric("score", "solved", format="{:.1%}")


def test_values_of_an_arm_are_found_by_seed() -> None:
    runs = [RunResult(arm=arm, seed=seed, metrics={"score": seed / 10}) for arm in "ab" for seed in (2, 1)]
    assert by_seed([*runs, RunResult(arm="a", seed=3, metrics={})], "a", "score") == {2: 0.2, 1: 0.1}


def test_a_difference_covers_common_seeds_and_has_an_interval_in_points() -> None:
    found = paired_difference(SOLVED, "a", "b", {0: 0.5, 1: 0.75, 2: 1.0}, {1: 0.5, 2: 0.75, 3: 0.0})
    assert found is not None and found.seeds == (1, 2) and found.interval.mean == pytest.approx(0.25)
    assert str(found) == "+25.0 [+25.0, +25.0]"


def test_a_single_common_seed_gives_no_difference() -> None:
    assert paired_difference(SOLVED, "a", "b", {0: 0.5, 1: 0.75}, {1: 0.5}) is None
