"""Runs in processes of their own, several at a time: what is finished is kept, what fails is noted, and the rest goes on."""

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
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from safetensors import safe_open

from headway import model_path
from headway.experiments.compare.worker import RESULT, SPEC
from headway.files import write_json

LOG = "log.txt"
COPIES = 6  # of the weights in float32: those, their gradients, two moments, and what a step computes
WAIT = 0.2  # seconds between looks at what runs
PATIENCE = 60  # seconds for a run to save a checkpoint after Ctrl-C
SAID = 500  # characters of a failed run's last words


@dataclass(frozen=True)
class Done:
    """Results and failures by the name of the run, in the order in which they were asked for."""

    results: dict[str, dict[str, Any]]
    failures: dict[str, str]


def execute(
    specs: Mapping[str, dict[str, Any]],
    folder: Path,
    jobs: int,
    threads: int,
    console: Console,
    title: str = "runs",
    after: Callable[[str], None] = lambda name: None,
    module: str = "headway.experiments.compare.worker",
) -> Done:
    """Run what is not finished yet, each spec in `folder` / its name, in the order given.

    Args:
        specs: what the module reads that each run is a process of. A run is finished where a result of the same spec lies in its
            folder.
        after: called with the name of each run that has finished, also in an earlier call, which may have been killed before.
    Raises: KeyboardInterrupt, once all runs have saved what they can.
    """
    results: dict[str, dict[str, Any]] = {}
    failures: dict[str, str] = {}
    left = []
    for name, spec in specs.items():
        if (result := _finished(folder / name, spec)) is not None:
            results[name] = result
            after(name)
        else:
            left.append(name)
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.completed}/{task.total}"))
    running: dict[int, tuple[str, subprocess.Popen[bytes]]] = {}  # by slot
    with Progress(*columns, TimeElapsedColumn(), TimeRemainingColumn(), console=console, transient=True) as progress:
        bar = progress.add_task(title, total=len(left))
        try:
            while left or running:
                for slot in range(jobs):
                    if left and slot not in running:
                        name = left.pop(0)
                        running[slot] = (name, _start(folder / name, specs[name], slot, threads, module))
                time.sleep(WAIT)
                for slot, (name, process) in list(running.items()):
                    if process.poll() is None:
                        continue
                    del running[slot]
                    result = _finished(folder / name, specs[name])
                    if result is None:
                        failures[name] = _last_words(folder / name, process.returncode)
                        console.print(f"[red]{name.replace('[', '')} failed:[/red]", end=" ")
                        console.print(failures[name], markup=False, highlight=False)
                    else:
                        results[name] = result
                        after(name)
                    progress.advance(bar)
        finally:
            _end([process for _, process in running.values()])
    kept = {name: results[name] for name in specs if name in results}
    return Done(kept, {name: failures[name] for name in specs if name in failures})


def jobs_for(models: Sequence[str], threads: int) -> int:
    """How many runs there is room for: devices, or cores and memory. Models that are not here yet are taken to be large."""
    if torch.accelerator.is_available():
        return max(1, torch.accelerator.device_count())
    sizes = [_parameters(Path(model_path(model))) for model in models]
    cores = max(1, (os.cpu_count() or 1) // threads)
    if not all(sizes):
        return 1
    return max(1, min(cores, int(psutil.virtual_memory().available / (4 * COPIES * max(sizes) + 2**30))))


def _parameters(folder: Path) -> int:
    total = 0
    for file in folder.glob("*.safetensors"):
        with safe_open(file, framework="pt") as tensors:
            for name in tensors.keys():  # noqa: SIM118  (it is no mapping)
                total += math.prod(tensors.get_slice(name).get_shape())
    return total


def _finished(folder: Path, spec: dict[str, Any]) -> dict[str, Any] | None:
    path = folder / RESULT
    if not path.is_file():
        return None
    known = json.loads(path.read_text(encoding="utf-8"))
    return dict(known["result"]) if known["run"] == spec else None


def _start(folder: Path, spec: dict[str, Any], slot: int, threads: int, module: str) -> subprocess.Popen[bytes]:
    if (folder / SPEC).is_file() and json.loads((folder / SPEC).read_text(encoding="utf-8")) != spec:
        shutil.rmtree(folder)  # what it began was another run
    write_json(folder / SPEC, spec)
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "TOKENIZERS_PARALLELISM": "false"}
    if torch.cuda.is_available() and "CUDA_VISIBLE_DEVICES" not in os.environ:
        environment["CUDA_VISIBLE_DEVICES"] = str(slot)
    with (folder / LOG).open("ab") as log:
        command = [sys.executable, "-m", module, str(folder)]
        return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment)


def _last_words(folder: Path, code: int) -> str:
    text = (folder / LOG).read_text(encoding="utf-8", errors="replace").strip()
    last = text.splitlines()[-1][-SAID:] if text else ""
    reason = last if code > 0 and last else f"killed by signal {-code}" if code < 0 else f"exit code {code}"
    return f"{reason} (log: {folder / LOG})"


def _end(processes: Sequence["subprocess.Popen[bytes]"]) -> None:
    """After Ctrl-C, which reached them too, or an error: let them save, then end them."""
    for process in processes:
        try:
            process.wait(PATIENCE if sys.exc_info()[0] is KeyboardInterrupt else 0)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
