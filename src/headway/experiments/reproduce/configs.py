"""Settings of `headway reproduce`. The module imports no torch, for a fast `--help`."""

from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

from headway.config import field, nearest
from headway.errors import ConfigError

FROM_SCALE = "from the scale"
MAY_BE_ZERO = ("seed", "pauses", "bf16")


@dataclass(frozen=True)
class Shape:
    """Shape of a small model."""

    width: int
    layers: int
    attention_heads: int


# by number of parameters beside the embeddings; shapes from 1M on are the paper's (section 4.1, table S14)
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
    """Settings of all experiments. Raises ConfigError for a number out of range."""

    output_dir: Path = field(Path("headway-reproduce"), help="parent folder of the experiment's folder", group="output")

    scale: Literal["cpu", "paper"] = field("cpu", help="about 20 minutes on a CPU, or the paper's size for a GPU", group="scale")
    seeds: int = field(3, help="runs of each arm; at least 2", group="scale")
    seed: int = field(0, help="first seed; the following seeds count up", group="scale")
    test_examples: int | None = field(None, help="held-out examples of each kind", group="scale", default_text=FROM_SCALE)

    steps: int | None = field(None, help="optimiser steps of each run", group="training", default_text=FROM_SCALE)
    batch_size: int | None = field(None, help="rows in a step", group="training", default_text=FROM_SCALE)
    learning_rate: float | None = field(None, help="peak learning rate", group="training", default_text=FROM_SCALE)

    gradient_accumulation: int = field(1, help="forward passes of a step", group="hardware")
    bf16: bool = field(False, help="compute in bfloat16; weights and optimiser stay in float32", group="hardware")
    threads: int = field(1, help="torch threads", group="hardware")

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
        """Config with the values of the scale for all settings that are None. Raises ConfigError for indivisible rows."""
        missing = {name: value for name, value in self.SCALES[self.scale].items() if getattr(self, name) is None}
        whole = replace(self, **missing)
        if whole.batch_size is not None and whole.batch_size % whole.gradient_accumulation:
            raise ConfigError(f"{whole.batch_size} rows cannot be divided into {whole.gradient_accumulation} equal forward passes.")
        return whole


@dataclass(frozen=True, kw_only=True)
class ScratchConfig(ReproduceConfig):
    """Settings of models from scratch. Raises ConfigError for an unknown size, or a size with too few layers."""

    tokens: list[int] | None = field(
        None, help="numbers of predicted tokens, an arm per number; 1 is the baseline", group="model", default_text=FROM_SCALE
    )
    sizes: list[str] | None = field(None, help="sizes of the models", group="model", choices=tuple(SHAPES), default_text=FROM_SCALE)
    points: int = field(8, help="times that a run is scored, the end included", group="training")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.tokens is not None and (1 not in self.tokens or len(set(self.tokens)) != len(self.tokens)):
            raise ConfigError(f"tokens must be different and hold 1, the baseline of the differences, got {self.tokens}.")
        for size in self.sizes or ():
            if size not in SHAPES:
                close = nearest(size, SHAPES) or f"; there are: {', '.join(SHAPES)}."
                raise ConfigError(f"There is no size {size!r}{close}")
            if self.tokens is not None and max(self.tokens) > SHAPES[size].layers:
                raise ConfigError(f"{size} has {SHAPES[size].layers} layers, too few to predict {max(self.tokens)} tokens.")


@dataclass(frozen=True, kw_only=True)
class InductionConfig(ScratchConfig):
    """Induction: names of two tokens in children's stories (section 4.1)."""

    stories: str = field(
        "generated", help="`generated`, or a data source of stories with common names, such as TinyStories", group="data"
    )
    max_length: int | None = field(None, help="maximum length of a story, in tokens", group="data", default_text=FROM_SCALE)
    syllables: int | None = field(
        None, help="number of first tokens of names, and of second tokens", group="data", default_text=FROM_SCALE
    )

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

    pauses: list[int] | None = field(
        None, help="numbers of pause tokens before the equals sign, compared separately", group="data", default_text=FROM_SCALE
    )
    trained: int | None = field(
        None, help="maximum number of operations of a training expression", group="data", default_text=FROM_SCALE
    )
    tested: int | None = field(
        None,
        help="maximum number of operations of a test expression; more operations than in training are out of domain",
        group="data",
        default_text=FROM_SCALE,
    )

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
            "trained": 2,  # the paper's 5 need more steps than a CPU can do
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
    """Number of heads against the size of the model (section 3.1)."""

    text: str = field("stdlib", help="data source of texts: stdlib, files, folders or hub ids", group="data")
    tokenizer: str = field("bytes", help="folder or hub id of a tokenizer, or `bytes`", group="data")
    max_length: int | None = field(None, help="tokens in a row", group="data", default_text=FROM_SCALE)

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
    """Fine-tuning with randomly initialised and with pretrained heads (table S6)."""

    model: str | None = field(None, help="folder or hub id of the model, or `embedded`", group="model", default_text=FROM_SCALE)
    heads: str | None = field(None, help="folder of pretrained heads", group="model", default_text="heads of the model")
    num_heads: int = field(3, help="number of heads; the paper predicts 4 tokens, so 3", group="model")
    data: str = field("word-problems:2", help="data source, as of `headway finetune`", group="data")
    examples: int | None = field(None, help="training examples", group="data", default_text=FROM_SCALE)
    max_length: int | None = field(None, help="tokens in a packed row", group="data", default_text=FROM_SCALE)
    small_weight: float = field(0.1, help="final loss weight of the heads in arms with a small weight", group="training")

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
