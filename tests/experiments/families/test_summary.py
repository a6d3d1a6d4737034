"""What tables and sentences say of known figures."""

from pathlib import Path
from typing import Any

from headway.experiments.families.configs import HeadsCompareConfig
from headway.experiments.families.published import plain
from headway.experiments.families.report import write_report
from headway.experiments.families.runs import ALONE
from headway.experiments.families.summary import cost, decoding, held_out, notes, published, words


def way(ratios: list[float], tokens: float = 1.5, kept: tuple[float, ...] = (), identical: bool = True) -> dict[str, Any]:
    return {
        "ratios": ratios,
        "tokens_per_forward": tokens,
        "acceptance": list(kept),
        "reached": [40, 10][: len(kept)],
        "identical": identical,
    }


def run(label: str, seed: int = 0, speed: float = 1.2, trees: bool = True, **changes: Any) -> dict[str, Any]:
    ways = {"adaptive": way([speed, speed + 0.1, speed - 0.1]), "chain": way([1.0, 1.1], 1.5, (0.5, 0.25 + seed / 2))}
    return {
        **{"label": label, "seed": seed, "family": label, "steps": 10, "seconds": 2.0 + seed, "step_seconds": 0.2},
        **{
            "memory_mib": 30.4,
            "processor_seconds": 1.9 + seed,
            "parameters": 1500,
            "unembedding_parameters": 1000,
            "trunk_parameters": 3000,
            "trunk_loss": 2.0,
        },
        **{"head_losses": [3.0, 4.0], "agreement": [0.5, 0.25], "accuracy": [0.4, 0.2]},
        "trained": {"learning_rate": 5e-4, "objective": "multi-token"},
        "decoding": {"0": ways | ({"tree": way([0.8], 2.0)} if trees else {})},
        **changes,
    }


def results(
    *runs: dict[str, Any], joint: bool = False, failures: dict[str, str] | None = None, alone: float | None = None
) -> dict[str, Any]:
    settings = HeadsCompareConfig(output_dir=Path("out"), data="stdlib", validation="word-problems", joint=joint)
    trunk = {"trunk_loss": 2.0, "trunk_parameters": 3000, "dtype": "float32", "device": "cpu", "prompts": 2, "held_out_tokens": 9}
    return {
        **{"title": "Families", "settings": vars(settings), "temperatures": ["0"], "trunk": trunk, "runs": list(runs)},
        "families": list(dict.fromkeys([*(one["label"] for one in runs), *(failures or {})])),
        "alone": [] if alone is None else [{"label": ALONE, "trunk_loss": alone}],
        **{"failures": failures or {}, "published": plain(), "seconds": 60.0},
    }


def test_a_family_without_trees_has_a_dash_and_a_failed_one_says_so() -> None:
    headings, rows = decoding(results(run("sequential", trees=False), failures={"mad": "no"}), "0")
    assert rows[0] == ["sequential", "50 (25)", "1.50", "-", "1.20x (1.10-1.30)", "1.05x (1.00-1.10)", "-", "yes"]
    assert rows[1][:2] == ["mad", "failed"] and all(len(row) == len(headings) for row in rows)


def test_seeds_are_averaged_and_their_repeats_pooled() -> None:
    found = results(run("hydra", 0), run("hydra", 1, speed=1.5))
    assert decoding(found, "0")[1] == [
        ["hydra", "50 50", "1.50", "2.00", "1.35x (1.10-1.60)", "1.05x (1.00-1.10)", "0.80x (0.80-0.80)", "yes"]
    ]
    assert cost(found)[1] == [["hydra", "1.5k", "1k", "10", "2.5", "200", "30", "50%", "0.0005", "labels"]]


def test_a_frozen_trunk_has_changed_by_exactly_nothing_and_one_that_has_not_is_told_of() -> None:
    still, moved = run("hydra"), run("medusa", trunk_loss=2.0001)
    assert [row[2] for row in held_out(results(still, moved))[1]] == ["", "0", "+0.0001"]
    assert any("exactly what it was with every family" in line for line in words(results(still)))
    assert any("and yet its held-out loss differs with medusa" in line for line in words(results(still, moved)))
    assert not any("frozen" in line for line in words(results(still, moved, joint=True)))


def test_what_the_trunk_learns_without_heads_stands_beside_what_it_learns_with_them() -> None:
    found = results(run("medusa", trunk_loss=2.25), joint=True, alone=1.875)
    headings, rows = held_out(found)
    assert [row[:3] for row in rows] == [["before", "2.0000", ""], [ALONE, "1.8750", "-0.1250"], ["medusa", "2.2500", "+0.2500"]]
    assert all(len(row) == len(headings) for row in rows)
    assert any("Without heads, on the same rows, its held-out loss changed by -0.1250." in line for line in words(found))


def test_a_busy_machine_is_told_of() -> None:
    assert not any("busy" in line for line in words(results(run("hydra"))))
    slow = words(results(run("hydra"), run("medusa", processor_seconds=0.5)))
    assert any("a part of its seconds (medusa 25%)" in line for line in slow)


def test_output_that_is_not_that_of_plain_decoding_is_shouted() -> None:
    odd = run("hydra")
    odd["decoding"]["0"]["tree"]["identical"] = False
    assert "THE OUTPUT WAS NOT that of plain decoding: hydra (tree, temperature 0)." in words(results(odd))
    assert decoding(results(odd), "0")[1][0][-1] == "NO"


def test_what_is_level_is_not_called_better() -> None:
    first = words(results(run("hydra", speed=1.3), run("medusa", speed=1.2), run("parallel", speed=0.9)))[0]
    assert "with a chain: hydra, medusa, parallel, 1.50" in first
    assert "hydra, 1.30x plain (1.20 to 1.40); its spread and that of medusa overlap." in first
    last = words(results(run("hydra", speed=1.3), run("medusa", speed=1.2), run("parallel", speed=1.2)))[0]
    assert "its spread and that of all others overlap." in last


def test_tables_say_how_tokens_a_forward_are_counted_and_what_is_published_elsewhere() -> None:
    assert any("count the trunk's own token" in note for note in notes(results(run("hydra"))))
    assert all(len(row) == 6 and row[5] for row in published(results(run("hydra")))[1])


def test_a_page_shows_labels_as_they_are(tmp_path: Path) -> None:
    odd = "_$a$ <script> & $b"
    write_report(results(run(odd), *(run(f"family {n}") for n in range(9))), tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    assert "_$a$ &lt;script&gt; &amp; $b" in page and "<script" not in page
