"""Differences, intervals and verdicts of runs whose answer is known."""

import io

import numpy
import pytest
from rich.console import Console
from scipy import stats

from headway.experiments.reproduce.summary import Expectation, Measure, between, compare, compare_differences, table, verdict

SCORE, LOSS = Measure("score", "score, %"), Measure("loss", "loss", higher_is_better=False, percent=False)


def run(arm: str, seed: int, group: str = "1M", **measures: float) -> dict:
    return {"arm": arm, "group": group, "seed": seed, "measures": measures}


def test_differences_are_paired_by_seed_as_scipy_has_them_whatever_order_runs_come_in() -> None:
    ours, theirs = [0.5, 0.7, 0.65], [0.4, 0.45, 0.6]
    runs = [run("n=2", seed, score=ours[seed]) for seed in (2, 0, 1)] + [run("n=1", seed, score=theirs[seed]) for seed in range(3)]
    (found,) = compare(runs, [SCORE], [("n=2", "n=1")])
    expected = stats.ttest_rel(ours, theirs).confidence_interval(0.95)
    assert numpy.allclose([found["low"], found["high"]], [expected.low, expected.high])
    assert found["pairs"] == 3 and found["mean"] == pytest.approx(numpy.mean(ours) - numpy.mean(theirs))


def test_a_seed_that_failed_in_one_arm_is_left_out_and_a_single_pair_says_nothing() -> None:
    runs = [run("n=2", 0, score=1.0), run("n=2", 1, score=1.0), run("n=1", 1, score=0.0), run("n=1", 2, score=0.0)]
    assert compare(runs, [SCORE], [("n=2", "n=1")]) == []
    (found,) = compare([*runs, run("n=1", 0, score=0.5)], [SCORE], [("n=2", "n=1")])
    assert found["pairs"] == 2 and found["mean"] == 0.75


def test_a_trend_is_the_difference_of_differences_by_seed() -> None:
    runs = []
    for seed in range(3):
        runs += [run("n=1", seed, "small", loss=2.0), run("n=2", seed, "small", loss=2.5 + 0.01 * seed)]
        runs += [run("n=1", seed, "large", loss=1.0), run("n=2", seed, "large", loss=1.1)]
    (found,) = compare_differences(runs, [LOSS], [("n=2", "n=1")], "small", "large")
    assert found["mean"] == pytest.approx(0.1 - 0.51) and found["verdict"] == "better"
    assert found["group"] == between("small", "large")


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
def test_the_answer_follows_from_which_intervals_lie_on_the_expected_side(verdicts: list[str], answer: str) -> None:
    comparisons = [
        {"group": str(g), "measure": "score", "arm": "n=2", "baseline": "n=1", "verdict": v} for g, v in enumerate(verdicts)
    ]
    assert verdict(comparisons, [Expectation("n=2", "n=1", "score")])[0] == answer
    mirror = {"better": "worse", "worse": "better"}
    turned = [one | {"verdict": mirror.get(one["verdict"], one["verdict"])} for one in comparisons]
    assert verdict(turned, [Expectation("n=2", "n=1", "score", better=False)])[0] == answer


def test_an_expectation_of_one_group_does_not_look_at_others() -> None:
    comparisons = [{"group": g, "measure": "score", "arm": "n=2", "baseline": "n=1", "verdict": "better"} for g in ("a", "b")]
    assert verdict(comparisons, [Expectation("n=2", "n=1", "score", group="a")])[1].startswith("1 of 1")


def test_the_table_shows_every_mean_and_interval_with_brackets_as_they_are() -> None:
    runs = [run(arm, seed, score=value) for arm, value in (("n=1", 0.25), ("n=2", 0.5)) for seed in range(2)]
    console = Console(file=io.StringIO(), width=100)
    console.print(table(runs, compare(runs, [SCORE], [("n=2", "n=1")]), [SCORE], "title"))
    shown = console.file.getvalue()
    assert "25.0" in shown and "50.0" in shown and "[+25.0, +25.0]" in shown
