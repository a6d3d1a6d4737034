"""Settings of `headway reproduce`. Importing this is fast: no torch, so that `--help` answers at once."""

from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

from headway.config import field, nearest
from headway.errors import ConfigError

BY_SCALE = "(none: as the scale has it)"
MAY_BE_ZERO = ("seed", "pauses", "bf16")


@dataclass(frozen=True)
class Shape:
    """Width, layers and attention heads of a small model."""

    width: int
    layers: int
    attention_heads: int


# by parameters beside the embeddings; from 1M on they are the paper's (section 4.1, table S14), the smaller ones are ours
SHAPES = {
    "0.05M": Shape(32, 5, 2),
    "0.25M": Shape(64, 5, 4),
    "1M": Shape(128, 5, 4),
    "3M": Shape(256, 4, 8),
    "10M": Shape(384, 6, 8),
    "30M": Shape(512, 10, 8),
    "100M": Shape(768, 14, 12),
    "0.3B": Shape(1024, 18, 16),
    "0.6B": Shape(1280, 27, 20),
    "1.3B": Shape(2048, 24, 16),
    "3B": Shape(2560, 36, 20),
}


@dataclass(frozen=True, kw_only=True)
class ReproduceConfig:
    """What all experiments share. Raises ConfigError where a number is out of range."""

    output_dir: Path = field(Path("headway-reproduce"), help="folder of the results; each experiment has one of its own in it")
    scale: Literal["cpu", "paper"] = field("cpu", help="what a CPU does in about 20 minutes, or the paper's size for a GPU")
    seeds: int = field(3, help="runs of each arm; at least 2, since a difference needs a spread")
    seed: int = field(0, help="of the first run; the others count on from it")
    steps: int | None = field(None, help=f"optimiser steps of each run {BY_SCALE}")
    batch_size: int | None = field(None, help=f"rows in a step {BY_SCALE}")
    learning_rate: float | None = field(None, help=f"peak learning rate {BY_SCALE}")
    test_examples: int | None = field(None, help=f"held-out examples to score, of each kind {BY_SCALE}")
    gradient_accumulation: int = field(1, help="forward passes that the rows of a step are divided into")
    bf16: bool = field(False, help="compute in bfloat16; weights and optimiser stay in float32")
    threads: int = field(1, help="torch threads")

    EXPERIMENT: ClassVar[str] = ""
    SCALES: ClassVar[dict[str, dict[str, Any]]] = {}

    def __post_init__(self) -> None:
        if self.seeds < 2:
            raise ConfigError(f"seeds must be at least 2, got {self.seeds}: one run says nothing about chance.")
        for item in fields(self):
            value = getattr(self, item.name)
            numbers = value if isinstance(value, list) else [value]
            if item.name in MAY_BE_ZERO:
                continue
            if any(isinstance(number, int | float) and number <= 0 for number in numbers):
                raise ConfigError(f"{item.name} must be above 0, got {value}.")

    def resolved(self) -> Self:
        """The same with the scale's own values in place of every none. Raises ConfigError where they do not go together."""
        missing = {name: value for name, value in self.SCALES[self.scale].items() if getattr(self, name) is None}
        whole = replace(self, **missing)
        if whole.batch_size is not None and whole.batch_size % whole.gradient_accumulation:
            raise ConfigError(f"{whole.batch_size} rows cannot be divided into {whole.gradient_accumulation} equal forward passes.")
        return whole


@dataclass(frozen=True, kw_only=True)
class ScratchConfig(ReproduceConfig):
    """Models from scratch. Raises ConfigError for a size that is unknown or too shallow, and as its parent does."""

    tokens: list[int] | None = field(None, help=f"how many tokens are predicted at once, an arm each; 1 is the baseline {BY_SCALE}")
    sizes: list[str] | None = field(None, help=f"models, of {', '.join(SHAPES)} {BY_SCALE}")
    points: int = field(8, help="scores along a run, the last one at its end")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.tokens is not None and (1 not in self.tokens or len(set(self.tokens)) != len(self.tokens)):
            raise ConfigError(f"tokens must be different and hold 1, the baseline of the differences, got {self.tokens}.")
        for size in self.sizes or ():
            if size not in SHAPES:
                raise ConfigError(f"There is no size {size!r}{nearest(size, SHAPES) or '; there are: ' + ', '.join(SHAPES) + '.'}")
            if self.tokens is not None and max(self.tokens) > SHAPES[size].layers:
                raise ConfigError(f"{size} has {SHAPES[size].layers} layers, too few to predict {max(self.tokens)} tokens.")


@dataclass(frozen=True, kw_only=True)
class InductionConfig(ScratchConfig):
    """Names of two tokens in children's stories (section 4.1)."""

    stories: str = field("generated", help="where stories come from: generated, or files with known names, such as TinyStories")
    max_length: int | None = field(None, help=f"tokens of a story; longer ones are cut {BY_SCALE}")
    syllables: int | None = field(None, help=f"different first, and different second, tokens of names {BY_SCALE}")

    EXPERIMENT: ClassVar[str] = "induction"
    SCALES: ClassVar[dict[str, dict[str, Any]]] = {
        "cpu": {
            "tokens": [1, 2, 4],
            "sizes": ["0.25M"],
            "steps": 800,
            "batch_size": 8,
            "learning_rate": 3e-3,
            "test_examples": 100,
            "max_length": 128,
            "syllables": 20,
        },
        # batches of 2^18 tokens for 100,000 steps at 1e-4, 100 test stories
        "paper": {
            "tokens": [1, 2],
            "sizes": ["1M", "3M", "10M", "30M"],
            "steps": 100_000,
            "batch_size": 1024,
            "learning_rate": 1e-4,
            "test_examples": 100,
            "max_length": 256,
            "syllables": 200,
        },
    }


@dataclass(frozen=True, kw_only=True)
class PolynomialConfig(ScratchConfig):
    """Arithmetic in F7[X]/(X^5) (section 4.2)."""

    pauses: list[int] | None = field(None, help=f"pause tokens before the equals sign, an experiment each {BY_SCALE}")
    trained: int | None = field(None, help=f"most operations of an expression in training: more is out of domain {BY_SCALE}")
    tested: int | None = field(None, help=f"most operations of an expression in the test {BY_SCALE}")

    EXPERIMENT: ClassVar[str] = "polynomial"
    SCALES: ClassVar[dict[str, dict[str, Any]]] = {
        "cpu": {
            "tokens": [1, 2, 4],
            "sizes": ["0.25M"],
            "steps": 1200,
            "batch_size": 32,
            "learning_rate": 3e-3,
            "test_examples": 300,
            "pauses": [0, 5],
            "trained": 2,  # of the paper's 5, a CPU's share of steps teaches nothing
            "tested": 5,
        },
        # batches of 2^18 tokens (8,192 expressions of about 32) for 100,000 steps at 1e-4, 2,000 test expressions for each m
        "paper": {
            "tokens": [1, 2, 4],
            "sizes": ["30M", "100M"],
            "steps": 100_000,
            "batch_size": 8192,
            "learning_rate": 1e-4,
            "test_examples": 2000,
            "pauses": [0, 5, 10],
            "trained": 5,
            "tested": 10,
        },
    }


@dataclass(frozen=True, kw_only=True)
class ScaleConfig(ScratchConfig):
    """Head count against the size of the model (section 3.1)."""

    text: str = field("stdlib", help="what to learn from: stdlib, files, folders or hub ids")
    tokenizer: str = field("bytes", help="folder or hub id of a tokenizer; `bytes`: a token a byte")
    max_length: int | None = field(None, help=f"tokens in a row {BY_SCALE}")

    EXPERIMENT: ClassVar[str] = "scale"
    SCALES: ClassVar[dict[str, dict[str, Any]]] = {
        "cpu": {
            "tokens": [1, 2, 4],
            "sizes": ["0.05M", "0.25M", "1M"],
            "steps": 500,
            "batch_size": 8,
            "learning_rate": 3e-3,
            "test_examples": 64,
            "max_length": 128,
        },
        # table S13: batches of 2^23 tokens, 3e-4; 91 billion tokens, the least that table S7 is of
        "paper": {
            "tokens": [1, 2, 4],
            "sizes": ["0.3B", "0.6B", "1.3B", "3B"],
            "steps": 10_848,
            "batch_size": 2048,
            "learning_rate": 3e-4,
            "test_examples": 1024,
            "max_length": 4096,
        },
    }


@dataclass(frozen=True, kw_only=True)
class FinetuningConfig(ReproduceConfig):
    """The failure of fine-tuning with fresh heads (table S6)."""

    model: str | None = field(None, help=f"folder or hub id of the model, or `embedded` {BY_SCALE}")
    heads: str | None = field(None, help="folder of pretrained heads (none: the model's own)")
    num_heads: int = field(3, help="heads; 3 are the paper's 4 tokens")
    data: str = field("word-problems:2", help="what to learn: a source as of `headway finetune`")
    examples: int | None = field(None, help=f"examples to learn from {BY_SCALE}")
    max_length: int | None = field(None, help=f"tokens in a packed row {BY_SCALE}")
    small_weight: float = field(0.1, help="factor that the losses of pretrained heads are ramped up to")

    EXPERIMENT: ClassVar[str] = "finetuning"
    SCALES: ClassVar[dict[str, dict[str, Any]]] = {
        "cpu": {
            "model": "embedded",
            "steps": 150,
            "batch_size": 4,
            "learning_rate": 1e-3,
            "test_examples": 200,
            "examples": 2400,
            "max_length": 256,
        },
        # 200 billion tokens in batches of 2^23; `data` has to name code
        "paper": {
            "model": "meta-llama/Llama-2-7b-hf",
            "steps": 23_842,
            "batch_size": 2048,
            "learning_rate": 3e-4,
            "test_examples": 1024,
            "examples": 10_000_000,
            "max_length": 4096,
        },
    }


EXPERIMENTS: dict[str, type[ReproduceConfig]] = {
    config.EXPERIMENT: config for config in (InductionConfig, PolynomialConfig, FinetuningConfig, ScaleConfig)
}
