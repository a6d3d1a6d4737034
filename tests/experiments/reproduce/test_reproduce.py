"""Experiments from the first run to the plot: runs that are kept, resumed, failed and reported."""

import importlib
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.experiments.reproduce.tiny import SIZES

from headway.errors import HeadwayError
from headway.experiments.reproduce import reproduce as command
from headway.experiments.reproduce.configs import PolynomialConfig, ScaleConfig
from headway.experiments.reproduce.reproduce import reproduce
from headway.experiments.runner import RunResults


def run_here(specs: Mapping[str, dict[str, Any]], folder: Path, module: str, *_: Any) -> RunResults:
    """`run_all` in this process, because starting a process takes longer than a run of this size."""
    run = importlib.import_module(module).run
    return RunResults({name: json.loads(json.dumps(run(spec, folder / name))) for name, spec in specs.items()}, {})


@pytest.fixture
def config(tmp_path: Path) -> PolynomialConfig:
    return PolynomialConfig(output_dir=tmp_path, pauses=[0], tested=3, **SIZES)


@pytest.mark.slow
def test_results_hold_curves_metrics_and_an_answer_beside_the_plots(config: PolynomialConfig) -> None:
    results = reproduce(replace(config, tokens=[1, 2], seeds=2))
    folder = config.output_dir / "polynomial"
    written = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    assert written == results.to_json()
    assert (folder / "plot.png").read_bytes()[:4] == b"\x89PNG" and "<svg" in (folder / "plot.svg").read_text(encoding="utf-8")
    assert [(run["arm"], run["seed"]) for run in written["runs"]] == [("n=1", 0), ("n=2", 0), ("n=1", 1), ("n=2", 1)]
    for run in results.runs.values():
        assert [point.step for point in run.curve] == [2, 4]
        assert {"in domain", "out of domain", "m=1", "m=3"} <= run.metrics.keys()
    assert len({run["parameters"] for run in written["runs"]}) == 1
    assert results.answer in results.sentence
    assert not list(folder.glob("runs/*/checkpoint-*")) and len(list(folder.glob("runs/*/result.json"))) == 4


@pytest.mark.slow
def test_finished_runs_are_kept_and_a_failed_run_is_reported_then_tried_again(
    config: PolynomialConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command, "MODULE", "tests.experiments.reproduce.untrained")

    def attempts() -> dict[str, int]:
        return {file.parent.name: len(file.read_text().split()) for file in config.output_dir.glob("polynomial/runs/*/attempts")}

    first = reproduce(config)
    errors = [run.get("error", "") for run in first.to_json()["runs"]]
    assert errors[1].startswith("RuntimeError: out of memory (log: ") and errors[0] == errors[2] == errors[3] == ""
    assert first.comparisons == []  # a single pair is left
    second = reproduce(replace(config, seeds=3))
    once = ("0.05M-n1-0", "0.05M-n1-1", "0.05M-n2-1", "0.05M-n1-2", "0.05M-n2-2")
    assert attempts() == {"0.05M-n2-0": 2, **dict.fromkeys(once, 1)}
    assert not second.failures and len(second.comparisons[0].seeds) == 3
    third = reproduce(replace(config, learning_rate=1.0))
    assert list(third.failures) == ["0.05M-n2-0"], "other settings are other runs, which start anew"
    assert attempts() == dict.fromkeys((*once, "0.05M-n2-0"), 1)


def test_the_first_reason_is_reported_if_every_run_fails(config: PolynomialConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "MODULE", "tests.experiments.reproduce.untrained")
    monkeypatch.setenv("ALWAYS_FAIL", "1")
    with pytest.raises(HeadwayError, match="Every run failed; the first: The loss became nan"):
        reproduce(config)


@pytest.mark.slow
def test_scale_measures_the_loss_of_the_trunk_and_the_drafts_of_the_heads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "text.txt").write_text("def double(x):\n    return x + x  # \u00e9\n" * 30, encoding="utf-8")
    monkeypatch.setattr(command, "run_all", run_here)
    sizes = {**SIZES, "sizes": ["0.05M", "0.25M"]}
    results = reproduce(ScaleConfig(output_dir=tmp_path, **sizes, text=str(tmp_path / "text.txt"), max_length=16))
    for run in results.runs.values():
        assert run.metrics["tokens per forward"] >= 1 and (run.n > 1 or run.metrics["tokens per forward"] == 1)
    assert {found.group for found in results.comparisons} == {"0.05M", "0.25M", "0.25M less 0.05M"}
