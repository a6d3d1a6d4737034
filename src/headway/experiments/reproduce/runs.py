"""All runs of an experiment, one after the other: finished ones are kept, a failed one is reported and does not sink the rest."""

import dataclasses
import json
import re
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from headway.errors import HeadwayError
from headway.experiments.reproduce.configs import ReproduceConfig
from headway.files import write_json

Measures = dict[str, float]
RESULT, SETTINGS = "result.json", "settings.json"
# what a run may differ in and still be the same run
FREE = ("output_dir", "seeds", "seed", "tokens", "sizes", "pauses", "threads")


@dataclass(frozen=True)
class Run:
    """One training: its arm among those compared, the size or setting within which they are, and its seed."""

    arm: str
    size: str
    seed: int
    n: int = 1
    pauses: int = 0

    @property
    def group(self) -> str:
        """What is compared only with its like."""
        return self.size if not self.pauses else f"{self.size}, {self.pauses} pauses"

    @property
    def name(self) -> str:
        """Of its folder."""
        return "-".join(re.findall(r"[\w.]+", f"{self.group} {self.arm.replace('=', '')} {self.seed}"))


# trains and scores one run in a folder, telling how many steps it has advanced; returns curve and measures
Learn = Callable[[Run, Path, Callable[[int], None]], dict[str, Any]]


def perform(config: ReproduceConfig, runs: Sequence[Run], learn: Learn, console: Console) -> list[dict[str, Any]]:
    """Every run's result: `curve` and `measures`, or `error`. A killed run goes on from its last checkpoint.

    Raises: HeadwayError where `config.output_dir` cannot be written, KeyboardInterrupt after Ctrl-C.
    """
    torch.set_num_threads(config.threads)
    settings = _settings(config)
    results = []
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:.0f}%"))
    with Progress(*columns, TimeElapsedColumn(), TimeRemainingColumn(), console=console) as progress:
        steps = config.steps or 1
        bar = progress.add_task(config.EXPERIMENT, total=len(runs) * steps)
        for index, run in enumerate(runs):
            label = f"{run.arm}, {run.group}, seed {run.seed}"
            progress.update(bar, description=f"{config.EXPERIMENT}: {label}", completed=index * steps)
            results.append(_one(config, run, settings, learn, lambda steps: progress.advance(bar, steps)))
            if "error" in results[-1]:
                console.print(f"[red]{label} failed:[/red] {escape(results[-1]['error'])}")
        progress.update(bar, description=config.EXPERIMENT, completed=len(runs) * steps)
    return results


def _one(
    config: ReproduceConfig, run: Run, settings: dict[str, Any], learn: Learn, advance: Callable[[int], None]
) -> dict[str, Any]:
    folder = config.output_dir / config.EXPERIMENT / "runs" / run.name
    if folder.is_dir() and _read(folder / SETTINGS) != settings:
        shutil.rmtree(folder)
    if known := _read(folder / RESULT):
        return known
    write_json(folder / SETTINGS, settings)
    started = time.perf_counter()
    result = {**dataclasses.asdict(run), "group": run.group}
    try:
        result |= learn(run, folder, advance)
    except (HeadwayError, RuntimeError, ValueError) as error:  # torch reports too little memory as a RuntimeError
        return result | {"error": f"{type(error).__name__}: {error}"}
    result["seconds"] = time.perf_counter() - started
    write_json(folder / RESULT, result)
    for checkpoint in folder.glob("checkpoint-*"):
        shutil.rmtree(checkpoint)
    return result


def _read(path: Path) -> dict[str, Any] | None:
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def _settings(config: ReproduceConfig) -> dict[str, Any]:
    """What a result depends on beside its own arm, size and seed, as JSON has it."""
    return {name: str(value) if isinstance(value, Path) else value for name, value in vars(config).items() if name not in FREE}
