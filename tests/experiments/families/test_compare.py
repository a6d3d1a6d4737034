"""Comparison of families from the first run to the report: killed, resumed, with a family that fails."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml
from pyarrow import parquet
from tests.experiments.families import test_summary as fakes
from tests.experiments.families.test_training import SMALL

import headway.config
from headway.errors import HeadwayError
from headway.experiments.families import compare as comparing
from headway.experiments.families.configs import HeadsCompareConfig
from headway.experiments.families.specs import ALONE
from headway.experiments.runner import RunResults

MAD = {"family": "medusa", "label": "<b>mad</b> $x$", "learning_rate": 1e30, "max_grad_norm": 0.0}


@pytest.mark.slow
def test_a_killed_comparison_resumes_and_a_failed_family_does_not_stop_the_others(tmp_path: Path, trunk: Path) -> None:
    file, out = tmp_path / "families.yaml", tmp_path / "out"
    given = {**SMALL, "model": str(trunk), "output_dir": str(out), "families": ["sequential", "redrafter", MAD], "jobs": 2}
    file.write_text(yaml.safe_dump({**given, "settings": {"save_steps": 2, "log_steps": 1}}))
    process = subprocess.Popen(
        [sys.executable, "-m", "headway.cli", "heads", "compare", str(file)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    saved = None
    while saved is None and process.poll() is None:
        time.sleep(0.02)
        saved = next((path for path in out.glob("runs/sequential-*-0/model/checkpoint-2/trainer_state.json")), None)
    children = psutil.Process(process.pid).children()
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    _, alive = psutil.wait_procs(children, timeout=10)
    alive = [one for one in alive if one.is_running() and one.status() != psutil.STATUS_ZOMBIE]  # ended, and nobody asked how
    assert saved is not None and not alive, "runs end with the comparison that started them"
    finished = {path: path.stat().st_mtime_ns for path in out.glob("runs/*/result.json")}
    before = json.loads((saved.parents[2] / "seconds.json").read_text())["seconds"]["1"]

    results = comparing.run(headway.config.load(HeadsCompareConfig, file))
    assert all(path.stat().st_mtime_ns == written for path, written in finished.items())
    assert json.loads((saved.parents[2] / "seconds.json").read_text())["seconds"]["1"] == before, "it went on, not from the start"
    assert [run.arm for run in results.runs] == ["sequential", "redrafter"]
    assert list(results.failures) == [f"{MAD['label']}, seed 0"]
    assert "learning_rate" in results.failures[f"{MAD['label']}, seed 0"]
    for run in results.runs:
        assert run.metrics["trunk_loss"] == results.trunk.metrics["trunk_loss"]
        assert run.metrics["steps"] == 4 and run.metrics["seconds"] > 0
        assert all(found.identical for found in run.variants("0").values())
    assert all("tree" in run.variants("0") for run in results.runs)

    table = parquet.read_table(out / "results.parquet").to_pylist()
    assert [row["chain_acceptance"] for row in table] == [run.variants("0")["chain"].acceptance for run in results.runs]
    assert json.loads((out / "results.json").read_text()) == results.to_json()
    page = (out / "report.html").read_text()
    assert "&lt;b&gt;mad" in page and "<b>mad" not in page
    assert not re.search(r"<script|<link|<img|(src|href)=.http|url\(.?http", page), "nothing comes from outside"
    for plot in ("acceptance", "speed", "published", "cost"):
        assert (out / "plots" / f"{plot}-0.png").read_bytes().startswith(b"\x89PNG")
    assert not list(out.glob("runs/redrafter-*/model/checkpoint-*"))


def config(tmp_path: Path, **changes: Any) -> HeadsCompareConfig:
    return headway.config.build(HeadsCompareConfig, {**SMALL, "output_dir": str(tmp_path), **changes}, "test")


def test_equal_time_gives_a_slow_family_fewer_steps_and_leaves_out_a_family_without_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rates, asked = {"medusa": 0.5, "hydra": 2.0}, {}

    def run_all(specs: dict[str, Any], *args: Any, **kwargs: Any) -> RunResults:
        if any(spec["timing"] for spec in specs.values()):
            done = {name: spec["label"] for name, spec in specs.items()}
            results = {name: {"label": label, "step_seconds": rates[label]} for name, label in done.items() if label in rates}
            return RunResults(results, {name: "no room" for name, label in done.items() if label not in rates})
        asked.update({spec["label"]: spec["training"]["max_steps"] for spec in specs.values() if spec["training"]})
        trunk = fakes.results().trunk.to_json()
        return RunResults({name: trunk for name, spec in specs.items() if not spec["training"]}, {"x": "stop here"})

    monkeypatch.setattr(comparing, "run_all", run_all)
    with pytest.raises(HeadwayError, match="Every run failed; the first: stop here"):
        comparing.run(config(tmp_path, families=["medusa", "hydra", "redrafter"], max_seconds=10.0))
    assert asked == {"medusa": 20, "hydra": 5}


def test_a_trunk_that_cannot_be_measured_ends_the_comparison(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(comparing, "run_all", lambda *args, **kwargs: RunResults({}, {"trunk": "no such file"}))
    with pytest.raises(HeadwayError, match="The trunk cannot be measured: no such file"):
        comparing.run(config(tmp_path))


def test_training_without_heads_is_reported_beside_the_families(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trunk = fakes.results().trunk.to_json()

    def run_all(specs: dict[str, Any], *args: Any, **kwargs: Any) -> RunResults:
        known = {
            "trunk": trunk,
            ALONE: fakes.alone(1.875).to_json(),
            "medusa": fakes.run("medusa", trunk_loss=2.25).to_json(),
        }
        return RunResults({name: known[spec["label"]] for name, spec in specs.items()}, {})

    monkeypatch.setattr(comparing, "run_all", run_all)
    found = comparing.run(config(tmp_path, families=["medusa"], joint=True))
    assert [run.arm for run in found.runs] == found.families == ["medusa"]
    assert [run.metrics["trunk_loss"] for run in found.alone] == [1.875]
    page = (tmp_path / "report.html").read_text()
    assert ALONE in page and "-0.1250" in page and "+0.2500" in page
