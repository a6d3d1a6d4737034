"""Comparison from the first run to the report: killed, resumed, with an arm that fails."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import yaml
from pyarrow import parquet

import headway.config
from headway.errors import HeadwayError
from headway.experiments.compare import compare
from headway.experiments.compare.configs import CompareConfig
from headway.experiments.runner import RunResults

SETTINGS = {
    "tasks": {"sums": {"data": "word-problems:1", "examples": 12, "test_examples": 3, "max_new_tokens": 4}},
    "settings": {"batch_size": 1, "max_length": 96, "learning_rate": 0.001, "log_steps": 1, "num_heads": 1},
    "arms": {"next-token": {"objective": "next-token"}, "1 head": {}, "<b>mad</b>": {"learning_rate": 1e30, "max_grad_norm": 0.0}},
    "budget": 3,
    "seeds": 2,
    "points": 2,
    "point_examples": 2,
    "speed_prompts": 1,
    "jobs": 2,
}


@pytest.mark.slow
def test_a_killed_comparison_resumes_and_a_failed_arm_does_not_stop_the_others(tmp_path: Path) -> None:
    file, out = tmp_path / "compare.yaml", tmp_path / "out"
    file.write_text(yaml.safe_dump({**SETTINGS, "output_dir": str(out)}))
    process = subprocess.Popen(
        [sys.executable, "-m", "headway.cli", "compare", str(file)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    first = None
    while first is None and process.poll() is None:
        time.sleep(0.05)
        first = next((path for path in out.glob("runs/sums-next-token-*-0/result.json")), None)
    children = psutil.Process(process.pid).children()
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    _, alive = psutil.wait_procs(children, timeout=10)
    alive = [one for one in alive if one.is_running() and one.status() != psutil.STATUS_ZOMBIE]  # ended, and nobody asked how
    assert first is not None and not alive, "runs end with the comparison that started them"
    written = first.stat().st_mtime_ns

    results = compare.run(headway.config.load(CompareConfig, file))
    assert first.stat().st_mtime_ns == written
    assert sorted((run.arm, run.seed) for run in results.runs) == [
        ("1 head", 0),
        ("1 head", 1),
        ("next-token", 0),
        ("next-token", 1),
    ]
    assert len(results.failures) == 2 and all("learning_rate" in reason for reason in results.failures.values())
    assert set(results.comparison["sums"]) == {"1 head"}
    assert all([point.step for point in run.points or []] == [2, 3] for run in results.runs)
    assert all(run.points and run.points[-1].metrics["loss"] > 0 and run.steps == 3 for run in results.runs)
    assert results.speed["sums"]["1 head"].identical

    table = parquet.read_table(out / "results.parquet").to_pylist()
    assert [row["loss"] for row in table] == [run.metrics["loss"] for run in results.runs]
    assert json.loads((out / "results.json").read_text()) == json.loads(json.dumps(results.to_json()))
    page = (out / "report.html").read_text()
    assert "&lt;b&gt;mad" in page and "<b>mad" not in page
    assert not re.search(r"<script|<link|<img|(src|href)=.http|url\(.?http", page), "nothing comes from outside"
    assert (out / "plots" / "sums-differences.png").read_bytes().startswith(b"\x89PNG")
    kept = {folder.name[-1] for folder in out.glob("runs/*/model/model.safetensors") for folder in [folder.parents[1]]}
    assert kept == {"0"}, "models of the first seed stay, others go"


def test_the_first_reason_is_reported_if_every_run_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compare, "run_all", lambda *args, **kwargs: RunResults({}, {"sums-0": "out of memory (log: log.txt)"}))
    with pytest.raises(HeadwayError, match="Every run failed; the first: out of memory"):
        compare.run(headway.config.build(CompareConfig, {**SETTINGS, "output_dir": str(tmp_path / "out")}, "test"))
