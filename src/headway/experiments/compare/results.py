"""Results of a comparison, and their JSON form."""

from dataclasses import dataclass, field, fields
from typing import Any

from headway.evaluation.benchmarks.speed import SpeedResult
from headway.evaluation.results import as_json
from headway.experiments.compare.configs import CompareConfig
from headway.experiments.metrics import Metric, RunResult
from headway.experiments.output import settings_json
from headway.experiments.pairing import Difference
from headway.experiments.timing import Point

# A further metric takes one line here, and a value in `headway.experiments.compare.training.score`.
METRICS = (
    Metric("score", "solved", description="exact match", format="{:.1%}", paired=True),
    Metric("loss", "held-out loss", higher_is_better=False, unit="nats", paired=True),
    Metric("training_seconds", "seconds", higher_is_better=False, format="{:.0f}", wide_only=True),
    Metric("tokens_per_forward", "tokens/forward", format="{:.2f}"),
    Metric("speed_up", "speed-up", format="{:.2f}x"),
)


@dataclass(frozen=True, kw_only=True)
class ArmResult(RunResult):
    """Result of a run of an arm on a task.

    Args:
        steps: optimiser steps of fine-tuning.
        seconds: time of the fine-tuning steps.
        warm_up_seconds: time of the warm-up steps.
        head_losses: held-out loss by head, in nats.
        agreement: by head, top-1 agreement with the trunk.
        acceptance: per-position acceptance rate while answering.
        sample: an answer.
        curve: training loss by logged step.
        points: scores along the way.
    """

    task: str
    model: str
    steps: int
    seconds: float
    warm_up_seconds: float
    head_losses: list[float] = field(default_factory=list)
    agreement: list[float] = field(default_factory=list)
    acceptance: list[float] | None = None
    sample: str | None = None
    curve: list[tuple[int, float]] | None = None
    points: list[Point] | None = None

    def to_json(self) -> dict[str, Any]:
        values: dict[str, Any] = as_json(self)
        if self.points is not None:
            values["points"] = [{"step": p.step, "seconds": p.seconds, **p.metrics} for p in self.points]
        return values

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "ArmResult":
        names = {item.name for item in fields(cls)}
        known = {name: value for name, value in values.items() if name in names}
        if "points" in known:
            known["points"] = [Point(p.pop("step"), seconds=p.pop("seconds"), metrics=p) for p in map(dict, known["points"])]
        return cls(**known, metrics={name: value for name, value in values.items() if name not in names})


@dataclass(frozen=True)
class BaselineReached:
    """Steps until an arm has the final score of the baseline."""

    seeds: int  # that get there
    of: int
    median: float | None


@dataclass(frozen=True)
class ArmComparison:
    """Comparison of an arm with the baseline: differences and steps to the baseline's end, by key of the metric."""

    baseline: str
    seeds: tuple[int, ...]
    differences: dict[str, Difference]
    steps_to_baseline: dict[str, BaselineReached | None]

    def to_json(self) -> dict[str, Any]:
        differences = {
            key: {**as_json(found.interval), "verdict": found.verdict, "seeds_needed": found.seeds_needed}
            for key, found in self.differences.items()
        }
        shared = {"baseline": self.baseline, "seeds": list(self.seeds)}
        return {**shared, **differences, "steps_to_baseline": as_json(self.steps_to_baseline)}


@dataclass(frozen=True)
class Comparison:
    """All results of a comparison.

    Args:
        untrained: scores of the models before training.
        failures: reason by name of the run.
        comparison: by task and arm.
        speed: by task and arm with heads.
        seconds: of the whole command.
    """

    title: str
    config: CompareConfig
    untrained: list[ArmResult]
    runs: list[ArmResult]
    failures: dict[str, str]
    comparison: dict[str, dict[str, ArmComparison]]
    speed: dict[str, dict[str, SpeedResult]]
    seconds: float

    def runs_of(self, task: str, arm: str) -> list[ArmResult]:
        return [run for run in self.runs if (run.task, run.arm) == (task, arm)]

    def values(self, task: str, arm: str, metric: Metric) -> list[float]:
        """Values of an arm, by seed; for metrics of the speed measurement a single value."""
        values = [run.metrics[metric.key] for run in self.runs_of(task, arm) if metric.key in run.metrics]
        if not values and (timed := self.speed.get(task, {}).get(arm)) is not None:
            values = [{"speed_up": timed.ratio, "tokens_per_forward": timed.chain}[metric.key]] if metric.key in TIMED else []
        return values

    def metrics(self, task: str) -> list[Metric]:
        """Metrics that the runs of a task have. The first metric gives the verdict."""
        runs = [*self.untrained, *self.runs]
        known = {key for run in runs if run.task == task for key in run.metrics}
        return [metric for metric in METRICS if metric.key in known or metric.key in TIMED]

    def to_json(self) -> dict[str, Any]:
        return {
            "title": self.title,
            "settings": settings_json(self.config),
            "untrained": [run.to_json() for run in self.untrained],
            "runs": [run.to_json() for run in self.runs],
            "failures": self.failures,
            "comparison": {task: {arm: found.to_json() for arm, found in arms.items()} for task, arms in self.comparison.items()},
            "speed": as_json(self.speed),
            "seconds": self.seconds,
        }


TIMED = ("tokens_per_forward", "speed_up")  # keys of metrics that the speed measurement has
