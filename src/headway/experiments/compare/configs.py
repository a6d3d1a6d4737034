"""Settings of `headway compare` and `headway demo`. The module imports no torch, for a fast `--help`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from headway.config import at_least, field
from headway.errors import ConfigError
from headway.training.configs import GENERATION_CONFIG_HELP, GenerationConfigChoice


@dataclass(frozen=True, kw_only=True)
class TaskConfig:
    """Data of a task: training set, test set, and metric. Raises ConfigError for a number out of range."""

    data: str = field(help="training data: a data source, of which the train split is used")
    test: str | None = field(None, help="data source of the test split", default_text="the source of the training data")
    metric: Literal["exact-match", "held-out"] = field("exact-match", help="exact match of answers, or held-out loss alone")
    examples: int | None = field(None, help="training examples, sampled anew for each seed", default_text="all examples")
    test_examples: int = field(200, help="held-out examples to score")
    max_new_tokens: int = field(256, help="maximum number of tokens of an answer")
    generation_config: GenerationConfigChoice = field("model", help=GENERATION_CONFIG_HELP)

    def __post_init__(self) -> None:
        at_least(self, 1, "examples", "test_examples", "max_new_tokens")


@dataclass(frozen=True, kw_only=True)
class CompareConfig:
    """Settings of a comparison.

    Raises:
        ConfigError: a number is out of range, or a baseline is not among the arms.
    """

    output_dir: Path = field(help="folder for report.html, plots, results.json, results.parquet and the runs", group="output")
    keep: Literal["first-seed", "all"] = field("first-seed", help="fine-tuned models that are kept", group="output")

    arms: dict[str, dict[str, Any]] = field(
        help="by name, settings of `headway finetune`; warm_up: settings of `headway heads train` for a stage before", group="arms"
    )
    settings: dict[str, Any] = field({}, help="settings of `headway finetune` for all arms", group="arms")
    baseline: list[str] = field(["next-token"], help="arms that the other arms of the same model are compared with", group="arms")
    model: str = field("embedded", help="model to start from: folder, hub id, `embedded`, or a name from models", group="arms")
    models: dict[str, str] = field({}, help="short names of models, for the setting `model` of an arm", group="arms")

    tasks: dict[str, TaskConfig] = field(help="by name, data and metric of a task", group="tasks")
    points: int = field(5, help="times that a run is scored during training, the end included", group="tasks")
    point_examples: int = field(100, help="held-out examples to score during training", group="tasks")

    match: Literal["steps", "tokens", "seconds"] = field("steps", help="unit of the budget", group="budget")
    budget: float = field(100, help="steps, tokens of text, or seconds of training for each run", group="budget")
    seeds: int = field(5, help="runs of each arm, paired by seed; at least 2", group="budget")
    seed: int = field(0, help="first seed; the following seeds count up", group="budget")

    speed: bool = field(True, help="time decoding with the heads of each arm's first seed", group="speed")
    speed_prompts: int = field(16, help="prompts to time, at batch size 1", group="speed")

    jobs: int | None = field(
        None, help="parallel runs", group="hardware", default_text="as many as devices, or cores and memory, allow"
    )
    threads: int = field(1, help="torch threads of each run", group="hardware")

    def __post_init__(self) -> None:
        if self.seeds < 2:
            raise ConfigError(f"seeds must be at least 2, got {self.seeds}: one run says nothing about chance.")
        at_least(self, 1, "points", "point_examples", "speed_prompts", "threads", "jobs")
        if self.budget <= 0:
            raise ConfigError(f"budget must be above 0, got {self.budget}.")
        if not self.arms or not self.tasks:
            raise ConfigError("A comparison needs arms and tasks.")
        if unknown := [name for name in self.baseline if name not in self.arms]:
            raise ConfigError(f"baseline names {unknown[0]!r}, but the arms are: {', '.join(self.arms)}.")


@dataclass(frozen=True, kw_only=True)
class DemoConfig:
    """Settings of the demo. Raises ConfigError for fewer than three seeds."""

    output_dir: Path = field(Path("headway-demo"), help="folder for report.html, results and the fine-tuned models", group="output")
    model: str = field("embedded", help="folder of a model with two or more heads, or `embedded`", group="model")
    level: int = field(2, help="arithmetic steps of a word problem: 1, 2 or 3", group="data")
    examples: int = field(2400, help="word problems to train on", group="data")
    test_examples: int = field(200, help="held-out word problems to score", group="data")
    speed_prompts: int = field(16, help="prompts to time, at batch size 1", group="data")
    seeds: int = field(5, help="runs of each arm; at least 3", group="training")
    seed: int = field(0, help="first seed; the following seeds count up", group="training")
    steps: int = field(70, help="optimiser steps of each run", group="training")
    batch_size: int = field(4, help="packed rows in a step", group="training")
    max_length: int = field(256, help="tokens in a packed row", group="training")
    learning_rate: float = field(1e-3, help="peak learning rate of trunk and heads", group="training")
    total_weight: float = field(0.3, help="factor on the sum of the heads' losses", group="training")

    def __post_init__(self) -> None:
        if self.seeds < 3:
            raise ConfigError(f"seeds must be at least 3, got {self.seeds}: two runs say nothing about chance.")
