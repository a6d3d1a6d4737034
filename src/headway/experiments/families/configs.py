"""Settings of `headway heads compare`. The module imports no torch, for a fast `--help`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from headway.config import at_least, field
from headway.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class HeadsCompareConfig:
    """Settings of a comparison of head families on one trunk. Raises ConfigError for a number out of range."""

    output_dir: Path = field(help="folder for report.html, plots, results.json, results.parquet and the runs", group="output")

    model: str = field(
        "embedded", help="folder or hub id of the trunk, or `embedded`; heads of the model are ignored", group="heads"
    )
    families: list[str | dict[str, Any]] = field(
        [],
        help="names of families; in a file also {family: NAME, label: TEXT, options: {...}} with settings of "
        "`headway heads train`, or with --joint of `headway finetune`",
        group="heads",
        default_text="all families",
    )
    num_heads: int = field(4, help="heads of each family", group="heads")

    data: list[str] | str = field(help="training data: data sources of which the train split is used", group="data")
    validation: str = field(help="data source of held-out text and of prompts: its test split", group="data")
    limit: int | None = field(None, help="train on the first examples of each source", group="data", default_text="all examples")
    max_length: int = field(256, help="tokens in a row", group="data")

    joint: bool = field(False, help="train the trunk too", group="training")
    max_steps: int = field(300, help="optimiser steps of each run", group="training")
    max_seconds: float | None = field(
        None,
        help="seconds of training of each run, in place of steps; the time of a step of each family is measured first",
        group="training",
    )
    batch_size: int = field(8, help="rows in a step", group="training")
    learning_rate: float | None = field(
        None, help="peak learning rate of all families", group="training", default_text="the default of each family"
    )
    settings: dict[str, Any] = field(
        {}, help="settings of `headway heads train`, or with --joint of `headway finetune`, for all families", group="training"
    )
    seeds: int = field(1, help="runs of each family", group="training")
    seed: int = field(0, help="first seed; the following seeds count up", group="training")

    test_examples: int = field(50, help="held-out examples for losses", group="measurement")
    prompts: int = field(8, help="prompts to continue, at batch size 1", group="measurement")
    prompt_tokens: int = field(64, help="maximum length of a prompt; of plain text, half the text at most", group="measurement")
    max_new_tokens: int = field(48, help="maximum number of new tokens", group="measurement")
    tree_nodes: int = field(24, help="drafts in a tree", group="measurement")
    temperatures: list[float] = field([0.0], help="temperatures of decoding; 0 is greedy", group="measurement")
    repeats: int = field(3, help="timed repeats of all decoding variants, after one warm-up", group="measurement")

    jobs: int = field(1, help="parallel runs; on one device, parallel runs distort the times", group="hardware")
    threads: int = field(1, help="torch threads of each run", group="hardware")

    def __post_init__(self) -> None:
        at_least(
            self, 1, "num_heads", "max_steps", "batch_size", "max_length", "limit", "test_examples", "prompts", "prompt_tokens"
        )
        at_least(self, 1, "max_new_tokens", "tree_nodes", "repeats", "seeds", "jobs", "threads")
        if self.max_seconds is not None and self.max_seconds <= 0:
            raise ConfigError(f"max_seconds must be above 0, got {self.max_seconds}.")
        if not self.temperatures or min(self.temperatures) < 0:
            raise ConfigError(f"temperatures must be at least 0, got {self.temperatures}.")
