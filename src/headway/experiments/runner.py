"""Runs of an experiment in parallel processes. Finished runs are kept, and a failed run does not stop the remaining runs."""

import hashlib
import json
import math
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import torch
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.text import Text
from safetensors import safe_open

from headway import model_path
from headway.errors import HeadwayError
from headway.experiments.worker import PROGRESS, RESULT, SPEC
from headway.files import write_json

LOG = "log.txt"
FLOAT32_COPIES = 6  # weights, gradients, two moments of the optimiser, and the activations of a step
POLL_SECONDS = 0.2
GRACE_SECONDS = 60  # for a run to save a checkpoint after Ctrl-C
MAX_REASON_CHARS = 500


@dataclass(frozen=True)
class RunResults:
    """Results and failure reasons by name of the run, in the order of the specs."""

    results: dict[str, dict[str, Any]]
    failures: dict[str, str]

    @property
    def first_failure(self) -> str:
        return next(iter(self.failures.values()))


def run_all(
    specs: Mapping[str, dict[str, Any]],
    folder: Path,
    module: str,
    jobs: int,
    threads: int,
    console: Console,
    title: str = "runs",
    on_finished: Callable[[str], None] = lambda name: None,
) -> RunResults:
    """Run all specs that have no result yet. An interrupted run continues from its last checkpoint.

    Args:
        specs: by name, the spec as JSON values. A run is finished if the folder holds a result of an equal spec.
        folder: parent of the run folders.
        module: module with the function `run` of the experiment.
        jobs: parallel runs.
        threads: torch threads of a run.
        title: words before the progress bar.
        on_finished: called with the name of every finished run, also of a run that an earlier command finished: the earlier command
            may have been killed before the call.
    Raises: KeyboardInterrupt after Ctrl-C, once all runs have saved a checkpoint.
    """
    results: dict[str, dict[str, Any]] = {}
    failures: dict[str, str] = {}
    waiting = []
    for name, spec in specs.items():
        if (result := _finished(folder / name, spec)) is not None:
            results[name] = result
            on_finished(name)
        else:
            waiting.append(name)
    columns = (TextColumn("{task.description}"), BarColumn(), _RunsColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    running: dict[int, tuple[str, subprocess.Popen[bytes]]] = {}  # by slot
    with Progress(*columns, console=console, transient=True) as progress:
        bar = progress.add_task(escape(title), total=len(waiting))
        ended = 0
        try:
            while waiting or running:
                for slot in range(jobs):
                    if waiting and slot not in running:
                        name = waiting.pop(0)
                        running[slot] = (name, _start(folder / name, specs[name], slot, threads, module))
                time.sleep(POLL_SECONDS)
                for slot, (name, process) in list(running.items()):
                    if process.poll() is None:
                        continue
                    del running[slot]
                    ended += 1
                    result = _finished(folder / name, specs[name])
                    if result is None:
                        failures[name] = _failure_reason(folder / name, process.returncode)
                        console.print(f"[red]{escape(name)} failed:[/red] {escape(failures[name])}", highlight=False)
                    else:
                        results[name] = result
                        on_finished(name)
                progress.update(bar, completed=ended + sum(_share_done(folder / name) for name, _ in running.values()))
        finally:
            _end([process for _, process in running.values()])
    return RunResults(
        {name: results[name] for name in specs if name in results}, {name: failures[name] for name in specs if name in failures}
    )


class _RunsColumn(ProgressColumn):
    """Number of finished runs, fractions of running runs included, and runs per minute."""

    def render(self, task: Task) -> Text:
        rate = f", {60 * task.speed:.1f} runs/min" if task.speed else ""
        return Text(f"{task.completed:.1f}/{task.total:.0f}{rate}")


def folder_name(words: str, seed: int) -> str:
    """Folder name of a run, different for all pairs of words and seed."""
    readable = "".join(c if c.isalnum() or c in "-." else "-" for c in words).strip(".-")
    return f"{readable}-{hashlib.sha256(words.encode()).hexdigest()[:6]}-{seed}"


def default_jobs(models: Sequence[str], threads: int) -> int:
    """Number of parallel runs that devices, or cores and memory, allow. A model that is not downloaded yet counts as large."""
    if torch.accelerator.is_available():
        return max(1, torch.accelerator.device_count())
    sizes = [_parameters(Path(model_path(model))) for model in models]
    cores = max(1, (os.cpu_count() or 1) // threads)
    if not all(sizes):
        return 1
    return max(1, min(cores, int(psutil.virtual_memory().available / (4 * FLOAT32_COPIES * max(sizes) + 2**30))))


def require_results(results: Sequence[Any], failures: Mapping[str, str]) -> None:
    """Raise HeadwayError with the first failure if there is no result."""
    if not results:
        raise HeadwayError(f"Every run failed; the first: {next(iter(failures.values()))}")


def _parameters(folder: Path) -> int:
    total = 0
    for file in folder.glob("*.safetensors"):
        with safe_open(file, framework="pt") as tensors:
            for name in tensors.keys():  # noqa: SIM118  (not a mapping)
                total += math.prod(tensors.get_slice(name).get_shape())
    return total


def _finished(folder: Path, spec: dict[str, Any]) -> dict[str, Any] | None:
    """Result in the folder, or None if there is none of an equal spec."""
    path = folder / RESULT
    if not path.is_file():
        return None
    known = json.loads(path.read_text(encoding="utf-8"))
    return dict(known["result"]) if known["run"] == spec else None


def _start(folder: Path, spec: dict[str, Any], slot: int, threads: int, module: str) -> subprocess.Popen[bytes]:
    if (folder / SPEC).is_file() and json.loads((folder / SPEC).read_text(encoding="utf-8")) != spec:
        shutil.rmtree(folder)  # checkpoints of another spec
    write_json(folder / SPEC, spec)
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "TOKENIZERS_PARALLELISM": "false"}
    if torch.cuda.is_available() and "CUDA_VISIBLE_DEVICES" not in os.environ:
        environment["CUDA_VISIBLE_DEVICES"] = str(slot)
    with (folder / LOG).open("ab") as log:
        command = [sys.executable, "-m", "headway.experiments.worker", module, str(folder)]
        return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment)


def _share_done(folder: Path) -> float:
    """Share of a running run, below 1: scores are measured after the last step."""
    path = folder / PROGRESS
    return min(0.95, float(path.read_text(encoding="utf-8"))) if path.is_file() else 0.0


def _failure_reason(folder: Path, code: int) -> str:
    """Last line of the log, or the signal that ended the process."""
    text = (folder / LOG).read_text(encoding="utf-8", errors="replace").strip()
    last = text.splitlines()[-1][-MAX_REASON_CHARS:] if text else ""
    reason = last if code > 0 and last else f"killed by signal {-code}" if code < 0 else f"exit code {code}"
    return f"{reason} (log: {folder / LOG})"


def _end(processes: Sequence["subprocess.Popen[bytes]"]) -> None:
    """End the processes. Ctrl-C reaches the processes too: give all processes time to save a checkpoint."""
    for process in processes:
        try:
            process.wait(GRACE_SECONDS if sys.exc_info()[0] is KeyboardInterrupt else 0)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
