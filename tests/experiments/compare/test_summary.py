"""What a comparison says of made-up runs whose differences are known."""

from pathlib import Path
from typing import Any

import pytest
from scipy import stats

from headway.experiments.compare.configs import CompareConfig, TaskConfig
from headway.experiments.compare.summary import compare, rows_of, words


def config(**changes: Any) -> CompareConfig:
    given: dict[str, Any] = {
        "output_dir": Path("unused"),
        "arms": {"next-token": {"objective": "next-token"}, "heads": {}},
        "tasks": {"sums": TaskConfig(data="word-problems")},
        "seeds": 4,
    }
    return CompareConfig(**{**given, **changes})


def made(arm: str, seed: int, score: float, loss: float, points: list) -> dict[str, Any]:
    return {
        "task": "sums",
        "arm": arm,
        "seed": seed,
        "score": score,
        "loss": loss,
        "points": points,
        "tokens_per_forward": 1.5,
        "seconds": 2.0,
        "warm_up_seconds": 0.0,
    }


PLAIN = [0.50, 0.60, 0.55, 0.52]
HEADS = [0.61, 0.70, 0.68, 0.60]
RUNS = [
    *(made("next-token", s, v, 1.0, [[5, 1.0, 1.5, 0.2], [10, 2.0, 1.0, v]]) for s, v in enumerate(PLAIN)),
    *(made("heads", s, v, 0.9, [[5, 1.0, 1.0 if s else 1.2, 0.3], [10, 2.0, 0.9, v]]) for s, v in enumerate(HEADS)),
]


def results(runs: list, **more: Any) -> dict[str, Any]:
    import dataclasses

    given = config()
    return {
        "settings": dataclasses.asdict(given),
        "untrained": [{"task": "sums", "arm": "untrained embedded", "score": 0.0, "loss": 2.0}],
        "runs": runs,
        "comparison": compare(given, runs),
        "speed": {"sums": {"heads": {"ratio": 1.25, "ratio_min": 1.2, "ratio_max": 1.3, "chain": 1.6, "identical": True}}},
        "failures": {},
        **more,
    }


def test_differences_are_those_of_scipys_paired_t_test() -> None:
    found = compare(config(), RUNS)["sums"]["heads"]["score"]
    expected = stats.ttest_rel(HEADS, PLAIN).confidence_interval(0.95)
    assert (found["low"], found["high"]) == pytest.approx((expected.low, expected.high))
    assert found["verdict"] == "better"


def test_seeds_that_only_one_arm_finished_are_left_out() -> None:
    missing = [run for run in RUNS if (run["arm"], run["seed"]) != ("next-token", 2)]
    found = compare(config(), missing)["sums"]["heads"]
    assert found["seeds"] == [0, 1, 3]
    assert found["score"]["mean"] == pytest.approx((0.11 + 0.10 + 0.08) / 3)


def test_one_common_seed_makes_no_comparison() -> None:
    few = [run for run in RUNS if run["arm"] == "heads" or run["seed"] == 0]
    assert compare(config(), few)["sums"] == {}
    assert ["heads", "64.8%", "", "too few runs", "1.50", "1.25x"] in rows_of(results(few), "sums", wide=False)[1]


def test_steps_to_the_baselines_end_are_counted_where_they_get_there() -> None:
    found = compare(config(), RUNS)["sums"]["heads"]["steps_to_baseline"]
    assert found["loss"] == {"seeds": 4, "of": 4, "median": 5}  # the first seed after 10, the others after 5
    assert found["score"]["median"] == 10


def test_the_table_names_arms_differences_and_speed() -> None:
    headings, rows = rows_of(results(RUNS), "sums", wide=False)
    assert headings == ["arm", "solved", "vs baseline", "verdict", "tok/pass", "speed-up"]
    assert rows[0][:2] == ["untrained", "0.0%"]
    assert rows[1] == ["next-token", "54.2%", "", "baseline", "1.50", ""]
    assert rows[2][0] == "heads" and rows[2][2].startswith("+10.5 [") and rows[2][3:] == ["better", "1.50", "1.25x"]
    assert all(len(row) == len(headings) for row in rows)


def test_sentences_say_how_many_seeds_would_settle_what_is_unclear() -> None:
    noisy = [made("heads", s, v, 0.9, run["points"]) for s, (v, run) in enumerate(zip([0.7, 0.5, 0.6, 0.56], RUNS, strict=False))]
    said = words(results([run for run in RUNS if run["arm"] == "next-token"] + noisy))
    assert "no difference shown" in said[0] and "seeds would show a difference as large" in said[0]
    assert any("Drafting changed no token" in line for line in said)
    assert "sums: spread of the speed-up over repeats: heads 1.20-1.30x." in said
    assert "4 of 4 seeds reached the baseline's last score, in the median by step 10." in words(results(RUNS))[0]


def test_a_failed_arm_is_in_the_table_and_in_the_sentences() -> None:
    alone = results([run for run in RUNS if run["arm"] == "next-token"], failures={"sums-heads-0": "NaN"})
    assert [row[3] for row in rows_of(alone, "sums")[1] if row[0] == "heads"] == ["failed"]
    assert "1 run(s) failed" in words(alone)[-1]
