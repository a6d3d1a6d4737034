"""Tables and sentences of known figures."""

import json
from pathlib import Path
from typing import Any

import pytest

from headway.evaluation.benchmarks.drafting import DraftingResult
from headway.experiments.families.configs import HeadsCompareConfig
from headway.experiments.families.report import write_report
from headway.experiments.families.results import FamiliesComparison, FamilyResult
from headway.experiments.families.specs import ALONE
from headway.experiments.families.summary import (
    cost_table,
    decoding_table,
    held_out_table,
    notes,
    published_table,
    summary_sentences,
)


def variant(ratios: list[float], tokens: float = 1.5, rates: tuple[float, ...] = (), identical: bool = True) -> DraftingResult:
    return DraftingResult(
        ratios=ratios,
        tokens_per_second=100.0,
        tokens_per_forward=tokens,
        acceptance=list(rates),
        reached=[40, 10][: len(rates)],
        drafts=2,
        identical=identical,
    )


def run(label: str, seed: int = 0, speed: float = 1.2, trees: bool = True, same_tree: bool = True, **metrics: Any) -> FamilyResult:
    variants = {"adaptive": variant([speed, speed + 0.1, speed - 0.1]), "chain": variant([1.0, 1.1], 1.5, (0.5, 0.25 + seed / 2))}
    if trees:
        variants["tree"] = variant([0.8], 2.0, identical=same_tree)
    return FamilyResult(
        arm=label,
        seed=seed,
        family=label,
        device="cpu",
        dtype="float32",
        prompts=2,
        metrics={
            "steps": 10,
            "seconds": 2.0 + seed,
            "step_seconds": 0.2,
            "memory_mib": 30.4,
            "processor_seconds": 1.9 + seed,
            "parameters": 1500,
            "unembedding_parameters": 1000,
            "trunk_parameters": 3000,
            "trunk_loss": 2.0,
            "head_losses": [3.0, 4.0],
            "agreement": [0.5, 0.25],
            "accuracy": [0.4, 0.2],
            **metrics,
        },
        trained={"learning_rate": 5e-4, "objective": "multi-token"},
        decoding={"0": variants},
    )


def alone(trunk_loss: float) -> FamilyResult:
    return FamilyResult(arm=ALONE, seed=0, device="cpu", dtype="float32", prompts=2, metrics={"trunk_loss": trunk_loss})


def results(
    *runs: FamilyResult, joint: bool = False, failures: dict[str, str] | None = None, without_heads: float | None = None
) -> FamiliesComparison:
    metrics = {"trunk_loss": 2.0, "trunk_parameters": 3000, "held_out_tokens": 9}
    return FamiliesComparison(
        title="Families",
        config=HeadsCompareConfig(output_dir=Path("out"), data="stdlib", validation="word-problems", joint=joint),
        families=list(dict.fromkeys([*(run.arm for run in runs), *(failures or {})])),
        temperatures=["0"],
        trunk=FamilyResult(arm="trunk", seed=0, device="cpu", dtype="float32", prompts=2, metrics=metrics),
        alone=[] if without_heads is None else [alone(without_heads)],
        runs=list(runs),
        failures=failures or {},
        seconds=60.0,
    )


def test_a_family_without_trees_has_a_dash_and_a_failed_family_is_marked() -> None:
    headings, rows = decoding_table(results(run("sequential", trees=False), failures={"mad": "no"}), "0")
    assert rows[0] == ["sequential", "50 (25)", "1.50", "-", "1.20x (1.10-1.30)", "1.05x (1.00-1.10)", "-", "yes"]
    assert rows[1][:2] == ["mad", "failed"] and all(len(row) == len(headings) for row in rows)


def test_seeds_are_averaged_and_their_repeats_pooled() -> None:
    found = results(run("hydra", 0), run("hydra", 1, speed=1.5))
    assert decoding_table(found, "0")[1] == [
        ["hydra", "50 50", "1.50", "2.00", "1.35x (1.10-1.60)", "1.05x (1.00-1.10)", "0.80x (0.80-0.80)", "yes"]
    ]
    assert cost_table(found)[1] == [["hydra", "1.5k", "1k", "10", "2.5", "200", "30", "50%", "0.0005", "labels"]]


def test_a_change_of_a_frozen_trunk_is_reported() -> None:
    still, moved = run("hydra"), run("medusa", trunk_loss=2.0001)
    assert [row[2] for row in held_out_table(results(still, moved))[1]] == ["", "0", "+0.0001"]
    assert any("exactly the same with every family" in line for line in summary_sentences(results(still)))
    assert any("and yet its held-out loss differs with medusa" in line for line in summary_sentences(results(still, moved)))
    assert not any("frozen" in line for line in summary_sentences(results(still, moved, joint=True)))


def test_the_trunk_loss_without_heads_is_reported_beside_the_families() -> None:
    found = results(run("medusa", trunk_loss=2.25), joint=True, without_heads=1.875)
    headings, rows = held_out_table(found)
    assert [row[:3] for row in rows] == [["before", "2.0000", ""], [ALONE, "1.8750", "-0.1250"], ["medusa", "2.2500", "+0.2500"]]
    assert all(len(row) == len(headings) for row in rows)
    assert any(
        "Without heads, on the same rows, its held-out loss changed by -0.1250." in line for line in summary_sentences(found)
    )


def test_a_busy_machine_is_reported() -> None:
    assert not any("busy" in line for line in summary_sentences(results(run("hydra"))))
    slow = summary_sentences(results(run("hydra"), run("medusa", processor_seconds=0.5)))
    assert any("a part of its seconds only (medusa 25%)" in line for line in slow)


def test_output_that_differs_from_autoregressive_decoding_is_reported_in_capitals() -> None:
    odd = run("hydra", same_tree=False)
    assert "THE OUTPUT WAS NOT that of autoregressive decoding: hydra (tree, temperature 0)." in summary_sentences(results(odd))
    assert decoding_table(results(odd), "0")[1][0][-1] == "NO"


def test_families_with_overlapping_spread_are_named_together() -> None:
    first = summary_sentences(results(run("hydra", speed=1.3), run("medusa", speed=1.2), run("parallel", speed=0.9)))[0]
    assert "with a chain: hydra, medusa, parallel, 1.50" in first
    assert "hydra, 1.30x autoregressive decoding (1.20 to 1.40); its spread and that of medusa overlap." in first
    last = summary_sentences(results(run("hydra", speed=1.3), run("medusa", speed=1.2), run("parallel", speed=1.2)))[0]
    assert "its spread and that of all others overlap." in last


def test_notes_define_tokens_per_forward_and_published_results_have_sources() -> None:
    assert any("count the bonus token" in note for note in notes(results(run("hydra"))))
    assert all(len(row) == 6 and row[5] for row in published_table(results(run("hydra")))[1])


@pytest.mark.slow
def test_a_page_shows_labels_unchanged(tmp_path: Path) -> None:
    odd = "_$a$ <script> & $b"
    write_report(results(run(odd), *(run(f"family {n}") for n in range(9))), tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    assert "_$a$ &lt;script&gt; &amp; $b" in page and "<script" not in page


def test_results_survive_json() -> None:
    for found in (run("hydra"), alone(1.5)):
        assert FamilyResult.from_json(json.loads(json.dumps(found.to_json()))) == found
    written = results(run("hydra")).to_json()
    assert written["runs"][0]["label"] == "hydra" and written["runs"][0]["agreement"] == [0.5, 0.25]
    assert results(run("hydra")).table_rows()[0]["chain_acceptance"] == [0.5, 0.25]
