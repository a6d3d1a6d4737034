"""Runs in processes: kept, retried, counted, and ended with the command that started them."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
from rich.console import Console

from headway.errors import HeadwayError
from headway.experiments.runner import folder_name, require_results, run_all

MODULE = "tests.experiments.runs"


def run(specs: dict[str, dict[str, Any]], folder: Path, jobs: int = 1, **arguments: Any) -> Any:
    return run_all(specs, folder, MODULE, jobs, 3, Console(quiet=True), **arguments)


def test_results_come_in_the_order_of_the_specs_and_failures_with_their_last_line(tmp_path: Path) -> None:
    finished: list[str] = []
    specs = {"slow": {"sleep": 1.0}, "wrong": {"error": "no\n  room"}, "[odd]": {"crash": "a [b]"}, "fast": {}}
    found = run(specs, tmp_path, jobs=3, on_finished=finished.append)
    assert list(found.results) == ["slow", "fast"] and sorted(finished) == ["fast", "slow"]
    assert found.results["fast"] == {"threads": "3", "attempt": 1}
    assert found.failures["wrong"] == f"no room (log: {tmp_path / 'wrong' / 'log.txt'})"
    assert found.failures["[odd]"].startswith("ValueError: a [b] (log: ")


def test_a_finished_run_is_kept_a_failed_run_is_tried_again_and_another_spec_starts_anew(tmp_path: Path) -> None:
    specs = {"kept": {}, "failed": {"fail_first": True}}
    assert list(run(specs, tmp_path).failures) == ["failed"]
    finished: list[str] = []
    again = run(specs, tmp_path, on_finished=finished.append)
    assert {name: found["attempt"] for name, found in again.results.items()} == {"kept": 1, "failed": 2}
    assert finished == ["kept", "failed"], "also for runs of an earlier command, which may have been killed before the call"
    changed = run({"kept": {"more": 1}}, tmp_path)
    assert changed.results["kept"]["attempt"] == 1
    assert json.loads((tmp_path / "kept" / "run.json").read_text()) == {"more": 1}


def test_a_killed_run_is_reported_with_its_signal(tmp_path: Path) -> None:
    assert run({"gone": {"kill": True}}, tmp_path).failures["gone"].startswith("killed by signal 9 (log: ")


@pytest.mark.parametrize("ending", ["kill", "interrupt"])
def test_runs_end_with_the_command_that_started_them(tmp_path: Path, ending: str) -> None:
    code = (
        "import sys; from pathlib import Path; from rich.console import Console\n"
        "from headway.experiments.runner import run_all\n"
        f"run_all({{'a': {{'sleep': 600.0}}}}, Path(sys.argv[1]), {MODULE!r}, 1, 1, Console(quiet=True))"
    )
    command = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stderr=subprocess.PIPE, start_new_session=True)
    while not (tmp_path / "a" / "attempts").is_file() and command.poll() is None:
        time.sleep(0.05)
    (child,) = psutil.Process(command.pid).children()
    if ending == "kill":
        command.kill()
    else:  # Ctrl-C reaches all processes of the terminal
        os.killpg(command.pid, 2)
    command.communicate()
    child.wait(timeout=10)
    assert not (tmp_path / "a" / "result.json").exists()
    assert (tmp_path / "a" / "saved").exists() == (ending == "interrupt"), "Ctrl-C leaves time to save"


def test_folder_names_are_readable_and_differ_for_different_words() -> None:
    names = {folder_name(words, 0) for words in ("a b", "a/b", "a-b", "a b.")}
    assert len(names) == 4 and all(name.startswith("a-b-") and name.endswith("-0") for name in names)


def test_without_results_the_first_failure_is_raised() -> None:
    require_results([1], {"a": "no room"})
    with pytest.raises(HeadwayError, match="Every run failed; the first: no room"):
        require_results([], {"a": "no room", "b": "else"})
