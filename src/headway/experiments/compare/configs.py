"""Settings of the comparing verbs. Importing this is fast: no torch, so that `--help` answers at once."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from headway.config import at_least, field
from headway.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class TaskConfig:
    """What arms learn, and what they are scored on. Raises ConfigError where a number is out of range."""

    data: str = field(help="what arms learn from: its train split")
    test: str | None = field(None, help="what they are scored on, its test split (none: that of data)")
    metric: Literal["exact-match", "held-out"] = field("exact-match", help="answers that match, or next-token loss alone")
    examples: int | None = field(None, help="each seed learns from its own random sample of so many (none: all, the same)")
    test_examples: int = field(200, help="held-out examples that are scored")
    max_new_tokens: int = field(256, help="longest answer")

    def __post_init__(self) -> None:
        at_least(self, 1, "examples", "test_examples", "max_new_tokens")


@dataclass(frozen=True, kw_only=True)
class CompareConfig:
    """Arms x seeds x tasks. Raises ConfigError where a number is out of range or names do not fit together."""

    output_dir: Path = field(help="folder for report.html, plots, results.parquet, results.json and the runs")
    arms: dict[str, dict[str, Any]] = field(
        help="name: settings of `headway finetune` that make this arm; warm_up: settings of `headway heads train` before it"
    )
    tasks: dict[str, TaskConfig] = field(help="name: what is learnt and scored, with data, test, metric, examples ...")
    settings: dict[str, Any] = field({}, help="settings of `headway finetune` that all arms share")
    baseline: list[str] = field(["next-token"], help="arms that others of the same model are compared with")
    model: str = field("embedded", help="what arms start from: folder, hub id, `embedded`, or a name among models")
    models: dict[str, str] = field({}, help="short names for models, which arms' own `model` may use")
    match: Literal["steps", "tokens", "seconds"] = field("steps", help="what arms get equal amounts of")
    budget: float = field(100, help="how many steps, tokens of text, or seconds of training each run gets")
    seeds: int = field(5, help="runs of each arm, paired by seed; at least 2")
    seed: int = field(0, help="the first seed; the others count on from it")
    points: int = field(5, help="measurements of a run on its way, the last one at its end")
    point_examples: int = field(100, help="held-out examples that are scored on the way")
    speed: bool = field(True, help="time decoding with the heads of each arm's first seed against decoding without")
    speed_prompts: int = field(16, help="how many prompts to time, one at a time")
    keep: Literal["first-seed", "all"] = field("first-seed", help="fine-tuned models that stay in output_dir")
    jobs: int | None = field(None, help="runs at a time (none: as many as devices, or cores and memory, allow)")
    threads: int = field(1, help="torch threads of each run")

    def __post_init__(self) -> None:
        if self.seeds < 2:
            raise ConfigError(f"seeds must be at least 2, got {self.seeds}: one run says nothing about chance.")
        at_least(self, 1, "points", "point_examples", "speed_prompts", "threads", "jobs")
        if self.budget <= 0:
            raise ConfigError(f"budget must be above 0, got {self.budget}.")
        if not self.arms or not self.tasks:
            raise ConfigError("A comparison needs arms and tasks.")
        if unknown := [name for name in self.baseline if name not in self.arms]:
            raise ConfigError(f"baseline names {unknown[0]!r}, which is none of the arms: {', '.join(self.arms)}.")


@dataclass(frozen=True, kw_only=True)
class DemoConfig:
    """The whole experiment in minutes. Raises ConfigError where a number is out of range."""

    output_dir: Path = field(Path("headway-demo"), help="folder for report.html, results and the fine-tuned models")
    model: str = field("embedded", help="folder of a model with two heads or more, or `embedded`")
    level: int = field(2, help="steps in a word problem: 1, 2 or 3")
    seeds: int = field(5, help="runs of each arm; at least 3, since a difference needs a spread")
    examples: int = field(2400, help="word problems to learn from")
    test_examples: int = field(200, help="held-out word problems to score")
    speed_prompts: int = field(16, help="how many prompts to time, one at a time")
    steps: int = field(70, help="optimiser steps of each run")
    batch_size: int = field(4, help="packed rows in a step")
    max_length: int = field(256, help="tokens in a packed row")
    learning_rate: float = field(1e-3, help="of the trunk; the heads' is the same here, since both are small")
    total_weight: float = field(0.3, help="factor of all heads' losses")
    seed: int = field(0, help="of the first run; the others count on from it")

    def __post_init__(self) -> None:
        if self.seeds < 3:
            raise ConfigError(f"seeds must be at least 3, got {self.seeds}: two runs say nothing about chance.")
