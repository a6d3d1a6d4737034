"""Differences, intervals and verdicts of runs with a known answer."""

import io

import numpy
import pytest
from rich.console import Console
from scipy import stats

from headway.evaluation.statistics.paired import Interval
from headway.experiments.metrics import Metric
from headway.experiments.pairing import Difference
from headway.experiments.reproduce.results import ReproductionResult
from headway.experiments.reproduce.summary import Expectation, compare, compare_sizes, table, trend_group, verdict

SCORE, LOSS = Metric("score", "score", format="{:.1%}"), Metric("loss", "loss", higher_is_better=False)


def run(arm: str, seed: int, group: str = "1M", **metrics: float) -> ReproductionResult:
    return ReproductionResult(arm=arm, group=group, size=group, seed=seed, n=1, pauses=0, curve=[], seconds=1.0, metrics=metrics)


def difference(found: str, group: str = "1M") -> Difference:
    return Difference(SCORE, "n=2", "n=1", (0, 1), Interval(0.0, 0.0, 0.0), found, None, group)


def test_differences_are_those_of_scipys_paired_t_test_in_any_order_of_runs() -> None:
    ours, theirs = [0.5, 0.7, 0.65], [0.4, 0.45, 0.6]
    runs = [run("n=2", seed, score=ours[seed]) for seed in (2, 0, 1)] + [run("n=1", seed, score=theirs[seed]) for seed in range(3)]
    (found,) = compare(runs, [SCORE], [("n=2", "n=1")])
    expected = stats.ttest_rel(ours, theirs).confidence_interval(0.95)
    assert numpy.allclose([found.interval.low, found.interval.high], [expected.low, expected.high])
    assert len(found.seeds) == 3 and found.interval.mean == pytest.approx(numpy.mean(ours) - numpy.mean(theirs))


def test_a_seed_that_failed_in_one_arm_is_left_out_and_a_single_pair_gives_no_difference() -> None:
    runs = [run("n=2", 0, score=1.0), run("n=2", 1, score=1.0), run("n=1", 1, score=0.0), run("n=1", 2, score=0.0)]
    assert compare(runs, [SCORE], [("n=2", "n=1")]) == []
    (found,) = compare([*runs, run("n=1", 0, score=0.5)], [SCORE], [("n=2", "n=1")])
    assert found.seeds == (0, 1) and found.interval.mean == 0.75


def test_a_trend_is_the_difference_of_differences_by_seed() -> None:
    runs = []
    for seed in range(3):
        runs += [run("n=1", seed, "small", loss=2.0), run("n=2", seed, "small", loss=2.5 + 0.01 * seed)]
        runs += [run("n=1", seed, "large", loss=1.0), run("n=2", seed, "large", loss=1.1)]
    (found,) = compare_sizes(runs, [LOSS], [("n=2", "n=1")], "small", "large")
    assert found.interval.mean == pytest.approx(0.1 - 0.51) and found.verdict == "better"
    assert found.group == trend_group("small", "large")


@pytest.mark.parametrize(
    ("verdicts", "answer"),
    [
        (["better", "better"], "reproduced"),
        (["better", "no difference shown"], "reproduced in part"),
        (["better", "worse"], "reproduced in part"),
        (["no difference shown", "worse"], "not reproduced"),
        (["no difference shown"], "not shown"),
        ([], "no answer"),
    ],
)
def test_the_answer_follows_from_the_sides_of_the_intervals(verdicts: list[str], answer: str) -> None:
    comparisons = [difference(found, str(group)) for group, found in enumerate(verdicts)]
    assert verdict(comparisons, [Expectation("n=2", "n=1", "score")])[0] == answer
    mirror = {"better": "worse", "worse": "better"}
    turned = [difference(mirror.get(found.verdict, found.verdict), found.group) for found in comparisons]
    assert verdict(turned, [Expectation("n=2", "n=1", "score", better=False)])[0] == answer


def test_an_expectation_of_one_group_ignores_the_others() -> None:
    comparisons = [difference("better", group) for group in ("a", "b")]
    assert verdict(comparisons, [Expectation("n=2", "n=1", "score", group="a")])[1].startswith("1 of 1")


def test_the_table_shows_every_mean_and_interval_with_its_brackets() -> None:
    runs = [run(arm, seed, score=value) for arm, value in (("n=1", 0.25), ("n=2", 0.5)) for seed in range(2)]
    console = Console(file=io.StringIO(), width=100)
    console.print(table(runs, compare(runs, [SCORE], [("n=2", "n=1")]), [SCORE], "title"))
    shown = console.file.getvalue()
    assert "25.0" in shown and "50.0" in shown and "[+25.0, +25.0]" in shown
