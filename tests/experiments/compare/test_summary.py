"""Summary of invented runs with known differences."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from scipy import stats

from headway.evaluation.benchmarks.speed import SpeedResult
from headway.experiments.compare import results as results_module
from headway.experiments.compare import summary as summary_module
from headway.experiments.compare.configs import CompareConfig, TaskConfig
from headway.experiments.compare.report import write_report
from headway.experiments.compare.results import METRICS, ArmResult, BaselineReached, Comparison
from headway.experiments.compare.summary import compare, summary_sentences, table
from headway.experiments.metrics import Metric
from headway.experiments.timing import Point


def config(**changes: Any) -> CompareConfig:
    given: dict[str, Any] = {
        "output_dir": Path("unused"),
        "arms": {"next-token": {"objective": "next-token"}, "heads": {}},
        "tasks": {"sums": TaskConfig(data="word-problems")},
        "seeds": 4,
    }
    return CompareConfig(**{**given, **changes})


def result(arm: str, seed: int, score: float, loss: float, points: list[Point], **metrics: float) -> ArmResult:
    return ArmResult(
        task="sums",
        arm=arm,
        seed=seed,
        model="embedded",
        steps=10,
        seconds=2.0,
        warm_up_seconds=0.0,
        points=points,
        metrics={"score": score, "loss": loss, "tokens_per_forward": 1.5, "training_seconds": 2.0, **metrics},
    )


def points(first: tuple[float, float], last: tuple[float, float]) -> list[Point]:
    """Loss and score after steps 5 and 10."""
    return [
        Point(step, {"loss": loss, "score": score}, seconds) for step, seconds, (loss, score) in ((5, 1.0, first), (10, 2.0, last))
    ]


PLAIN = [0.50, 0.60, 0.55, 0.52]
HEADS = [0.61, 0.70, 0.68, 0.60]
RUNS = [
    *(result("next-token", s, v, 1.0, points((1.5, 0.2), (1.0, v))) for s, v in enumerate(PLAIN)),
    *(result("heads", s, v, 0.9, points((1.0 if s else 1.2, 0.3), (0.9, v))) for s, v in enumerate(HEADS)),
]
SPEED = SpeedResult(
    ratios=[1.2, 1.25, 1.3],
    ratio=1.25,
    ratio_min=1.2,
    ratio_max=1.3,
    tokens_per_second=50.0,
    plain_tokens_per_second=40.0,
    tokens_per_forward=1.5,
    chain=1.6,
    tree=1.7,
    acceptance=[0.6],
    identical=True,
    threads=1,
    batch=1,
)


def results(runs: list[ArmResult], **more: Any) -> Comparison:
    return Comparison(
        **{
            "title": "Sums",
            "config": config(),
            "untrained": [replace(result("untrained embedded", 0, 0.0, 2.0, []), steps=0)],
            "runs": runs,
            "failures": {},
            "comparison": compare(config(), runs),
            "speed": {"sums": {"heads": SPEED}},
            "seconds": 60.0,
            **more,
        }
    )


def test_differences_are_those_of_scipys_paired_t_test() -> None:
    found = compare(config(), RUNS)["sums"]["heads"].differences["score"]
    expected = stats.ttest_rel(HEADS, PLAIN).confidence_interval(0.95)
    assert (found.interval.low, found.interval.high) == pytest.approx((expected.low, expected.high))
    assert found.verdict == "better"


def test_seeds_that_a_single_arm_finished_are_left_out() -> None:
    missing = [run for run in RUNS if (run.arm, run.seed) != ("next-token", 2)]
    found = compare(config(), missing)["sums"]["heads"]
    assert found.seeds == (0, 1, 3)
    assert found.differences["score"].interval.mean == pytest.approx((0.11 + 0.10 + 0.08) / 3)


def test_one_common_seed_makes_no_comparison() -> None:
    few = [run for run in RUNS if run.arm == "heads" or run.seed == 0]
    assert compare(config(), few)["sums"] == {}
    assert ["heads", "64.8%", "", "too few runs", "1.50", "1.25x"] in table(results(few), "sums", wide=False)[1]


def test_steps_to_the_final_score_of_the_baseline_are_counted() -> None:
    found = compare(config(), RUNS)["sums"]["heads"].steps_to_baseline
    assert found["loss"] == BaselineReached(seeds=4, of=4, median=5)  # the first seed after 10, the others after 5
    assert found["score"] is not None and found["score"].median == 10


def test_the_table_has_arms_differences_and_speed() -> None:
    headings, rows = table(results(RUNS), "sums", wide=False)
    assert headings == ["arm", "solved", "vs baseline", "verdict", "tokens/forward", "speed-up"]
    assert rows[0][:2] == ["untrained", "0.0%"]
    assert rows[1] == ["next-token", "54.2%", "", "baseline", "1.50", ""]
    assert rows[2][0] == "heads" and rows[2][2].startswith("+10.5 [") and rows[2][3:] == ["better", "1.50", "1.25x"]
    assert all(len(row) == len(headings) for row in rows)


def test_an_unclear_difference_comes_with_the_number_of_seeds_needed() -> None:
    noisy = [
        result("heads", s, v, 0.9, run.points or []) for s, (v, run) in enumerate(zip([0.7, 0.5, 0.6, 0.56], RUNS, strict=False))
    ]
    sentences = summary_sentences(results([run for run in RUNS if run.arm == "next-token"] + noisy))
    assert "no difference shown" in sentences[0] and "seeds would show a difference of this size" in sentences[0]
    assert any("Drafting changed no token" in line for line in sentences)
    assert "sums: spread of the speed-up over repeats: heads 1.20-1.30x." in sentences
    assert "4 of 4 seeds reached the baseline's final exact match, at step 10 in the median." in summary_sentences(results(RUNS))[0]


def test_a_failed_arm_is_in_the_table_and_in_the_sentences() -> None:
    alone = results([run for run in RUNS if run.arm == "next-token"], failures={"sums-heads-0": "NaN"})
    assert [row[3] for row in table(alone, "sums")[1] if row[0] == "heads"] == ["failed"]
    assert "1 run(s) failed" in summary_sentences(alone)[-1]


def test_results_survive_json() -> None:
    for run in RUNS:
        assert ArmResult.from_json(json.loads(json.dumps(run.to_json()))) == run
    written = results(RUNS).to_json()
    assert written["runs"][0]["points"][0] == {"step": 5, "seconds": 1.0, "loss": 1.5, "score": 0.2}
    assert {"low", "mean", "high", "verdict", "seeds_needed"} <= set(written["comparison"]["sums"]["heads"]["loss"])


def test_a_further_metric_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    brevity = Metric("words", "words per answer", higher_is_better=False, format="{:.1f}", unit="words", paired=True)
    for module in (results_module, summary_module):
        monkeypatch.setattr(module, "METRICS", (*METRICS, brevity))
    runs = [replace(run, metrics={**run.metrics, "words": 9.0 - run.seed - (run.arm == "heads")}) for run in RUNS]
    untrained = [replace(results(RUNS).untrained[0], metrics={"score": 0.0, "loss": 2.0, "words": 30.0})]
    found = results(runs, untrained=untrained)
    headings, rows = table(found, "sums")
    place = headings.index("words per answer")
    assert headings[place + 1] == "words per answer vs baseline"
    assert rows[0][place] == "30.0" and rows[2][place : place + 2] == ["6.5", "-1.0 [-1.0, -1.0]"]
    assert found.to_json()["runs"][0]["words"] == 9.0
    assert found.to_json()["comparison"]["sums"]["heads"]["words"]["mean"] == -1.0
    write_report(found, tmp_path / "report.html")
    assert "words per answer" in (tmp_path / "report.html").read_text()
    assert (tmp_path / "plots" / "sums-words-by-seed.png").is_file()
