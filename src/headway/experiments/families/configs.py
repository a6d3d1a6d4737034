"""Settings of `headway heads compare`. Importing this is fast: no torch, so that `--help` answers at once."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from headway.config import at_least, field
from headway.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class HeadsCompareConfig:
    """Head families x seeds on one trunk. Raises ConfigError where a number is out of range."""

    output_dir: Path = field(help="folder for report.html, plots, results.parquet, results.json and the runs")
    model: str = field("embedded", help="folder or hub id of the trunk, or `embedded`; heads it has are left aside")
    data: list[str] | str = field(help="what heads learn from: its train split; whatever `headway heads train` takes")
    validation: str = field(help="what they are scored on, and where prompts come from: its test split")
    families: list[str | dict[str, Any]] = field(
        [],
        help="names of families (none: all there are); in a file also {family: NAME, label: TEXT, options: {...}} with any "
        "settings of `headway heads train`, or with joint of `headway finetune`",
    )
    num_heads: int = field(4, help="heads of each")
    joint: bool = field(False, help="the trunk learns too, and may get better or worse; else it is frozen, the same for all")
    max_steps: int = field(300, help="optimiser steps of each run")
    max_seconds: float | None = field(
        None, help="training seconds of each run in place of steps: slow families get fewer, by the time of a step measured first"
    )
    batch_size: int = field(8, help="rows in a step")
    max_length: int = field(256, help="tokens in a row")
    learning_rate: float | None = field(None, help="peak learning rate of all (none: each family's own default)")
    settings: dict[str, Any] = field({}, help="settings of `headway heads train` (joint: `headway finetune`) that all share")
    limit: int | None = field(None, help="learn from only this many examples of each source")
    test_examples: int = field(50, help="held-out examples that losses are measured on")
    prompts: int = field(8, help="beginnings of held-out examples that are continued, one at a time")
    prompt_tokens: int = field(64, help="longest prompt; of plain text, half of it at most")
    max_new_tokens: int = field(48, help="longest continuation")
    tree_nodes: int = field(24, help="drafts in a tree, the same for all families that draft trees")
    temperatures: list[float] = field([0.0], help="decoding is measured at each; 0 is greedy")
    repeats: int = field(3, help="timed rounds of all ways to decode after one that warms up")
    seeds: int = field(1, help="runs of each family")
    seed: int = field(0, help="the first seed; the others count on from it")
    jobs: int = field(1, help="runs at a time; more of them on one device blur all times")
    threads: int = field(1, help="torch threads of each run")

    def __post_init__(self) -> None:
        at_least(
            self, 1, "num_heads", "max_steps", "batch_size", "max_length", "limit", "test_examples", "prompts", "prompt_tokens"
        )
        at_least(self, 1, "max_new_tokens", "tree_nodes", "repeats", "seeds", "jobs", "threads")
        if self.max_seconds is not None and self.max_seconds <= 0:
            raise ConfigError(f"max_seconds must be above 0, got {self.max_seconds}.")
        if not self.temperatures or min(self.temperatures) < 0:
            raise ConfigError(f"temperatures must be from 0 on, got {self.temperatures}.")
