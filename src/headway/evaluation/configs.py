"""Settings of the measuring verbs. Importing this is fast: no torch, so that `--help` answers at once."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from headway.config import at_least, field
from headway.errors import ConfigError
from headway.evaluation.tasks import CODE, TASKS, check_task

Quantize = Literal["none", "auto", "int8", "int4", "int8-dynamic", "fp8-dynamic"]
Dtype = Literal["saved", "float32", "bfloat16", "float16"]
DTYPE_HELP = "of weights and arithmetic; int4 takes bfloat16"
REFERENCE = "reference"  # in place of a model: the solutions that come with the problems
QUANTIZE_HELP = "quantise the layers before use; auto measures which scheme is fastest here, if any"


@dataclass(frozen=True, kw_only=True)
class EvalConfig:
    """Score a model on a task. Raises ConfigError where a number is out of range."""

    model: str = field(help="folder or hub id of the model, `embedded`, or for code `reference`: the data set's own solutions")
    task: str = field("gsm8k", help="what --list-tasks shows: a task of Headway, lm-eval:NAME,NAME or suite:CAPABILITY")
    data: str | None = field(None, help="source of the examples, a file, folder or hub id (none: the task's own)")
    split: str = field("test", help="split of hub and preset data sets")
    limit: int | None = field(None, help="score only this many examples")
    shots: int | None = field(None, help="solved examples before each question (none: the task's own number)")
    max_new_tokens: int | None = field(None, help="longest answer (none: the task's own, 256 or 1024)")
    batch_size: int = field(16, help="prompts decoded together")
    max_length: int = field(512, help="tokens in a row of held-out text")
    speculative: bool = field(True, help="draft and verify; else a token at a time")
    drafter: Literal["heads", "ngram"] = field("heads", help="what drafts for code and lm-eval tasks")
    samples: int = field(1, help="programs drawn for each problem")
    pass_at: list[int] = field([1], help="k of pass@k, at most --samples each")
    temperature: float = field(0.0, help="of the samples, 0 for greedy; Chen et al. took 0.2 for pass@1 and 0.8 for pass@100")
    top_p: float = field(0.95, help="of the samples: draw from the likeliest tokens that together have this probability")
    allow_code: bool = field(False, help="run what the model wrote, in a sandbox (docs/sandbox.md)")
    code_seconds: int = field(5, help="processor time of a program")
    code_memory: int = field(1024, help="MiB that a program may use")
    include_path: Path | None = field(None, help="folder of further lm-eval task files")
    speed: bool = field(True, help="time the heads against plain decoding of the same prompts")
    speed_prompts: int = field(8, help="how many of the prompts to time, one at a time")
    dtype: Dtype = field("saved", help=DTYPE_HELP)
    quantize: Quantize = field("none", help=f"{QUANTIZE_HELP}; losses are reported before and after")
    output_file: Path | None = field(None, help="JSON file for the results, with every answer")
    seed: int = field(0, help="of the solved examples that are shown, and of what is drawn")

    def __post_init__(self) -> None:
        check_task(self.task)
        at_least(self, 1, "batch_size", "max_length", "speed_prompts", "samples", "code_seconds", "code_memory", "max_new_tokens")
        if not self.pass_at or min(self.pass_at) < 1 or max(self.pass_at) > self.samples:
            raise ConfigError(f"pass_at must be from 1 to the number of samples, {self.samples}, got {self.pass_at}.")
        if self.temperature < 0 or not 0 < self.top_p <= 1:
            raise ConfigError(
                f"temperature must be at least 0 and top_p above 0 and at most 1, got {self.temperature}, {self.top_p}."
            )
        if self.samples > 1 and not self.temperature and self.model != REFERENCE:
            raise ConfigError(
                f"{self.samples} greedy samples would all be equal: give --temperature, 0.2 for pass@1 or 0.8 for larger k."
            )
        if self.model == REFERENCE and self.task not in (*CODE, "suite:code"):
            raise ConfigError(f"{REFERENCE} solutions come with {' and '.join(CODE)}, not with {self.task}; give --model.")
        if self.quantize != "none" and (self.task not in TASKS or self.task in CODE):
            raise ConfigError(f"--quantize is not measured on {self.task}: quantize and save the model, then score that.")
        if self.data is not None and self.task not in TASKS:
            raise ConfigError(f"{self.task}: tasks of lm-eval name their data themselves; leave out --data (see --include-path).")
        if self.shots is not None and self.shots < 0:
            raise ConfigError(f"shots cannot be negative, got {self.shots}.")

    @property
    def partial_file(self) -> Path | None:
        """File for the finished parts of a task until the results are written."""
        file = self.output_file
        return file.with_name(f"{file.name}.{self.task}.unfinished") if file is not None else None

    @property
    def timed_tokens(self) -> int:
        """New tokens of each prompt while timing."""
        return min(64, self.max_new_tokens or 64)


@dataclass(frozen=True, kw_only=True)
class BenchConfig:
    """A training step beside stock transformers. Raises ConfigError where a number is out of range."""

    heads: int = field(4, help="number of heads")
    vocabulary: int = field(128_256, help="tokens in the vocabulary")
    hidden_size: int = field(256, help="width of the trunk")
    layers: int = field(8, help="layers of the trunk")
    rows: int = field(2, help="rows in a batch")
    max_length: int = field(512, help="tokens in a row")
    repeats: int = field(3, help="timed steps after one that is not counted")
    threads: int = field(1, help="torch threads")
    output_file: Path | None = field(None, help="JSON file for the results")
    seed: int = field(0, help="of weights and tokens")


@dataclass(frozen=True, kw_only=True)
class DecodeBenchConfig:
    """Ways to decode, side by side. Raises ConfigError where a number is out of range."""

    model: str = field("embedded", help="folder or hub id of the model, or `embedded`")
    data: str = field("word-problems", help="source of the prompts")
    prompts: int = field(16, help="how many prompts")
    prompt_tokens: int = field(64, help="longest prompt; longer ones are cut")
    max_new_tokens: int = field(64, help="tokens to add to each prompt, no fewer either")
    batches: list[int] = field([1, 4, 16], help="prompts decoded together; each size is measured")
    assistant: str | None = field(None, help="smaller model with the same vocabulary that drafts as well")
    compile: bool = field(False, help="time compiled decoding too, Headway's and transformers'; takes minutes")
    dtype: Dtype = field("saved", help=DTYPE_HELP)
    repeats: int = field(5, help="timed rounds of all ways after one that warms up")
    threads: int = field(1, help="torch threads")
    output_file: Path | None = field(None, help="JSON file for the results; a plot lies beside it")
    seed: int = field(0, help="no number is drawn here")

    def __post_init__(self) -> None:
        at_least(self, 1, "prompts", "prompt_tokens", "max_new_tokens", "repeats", "threads")
        _batch_sizes(self.batches)


@dataclass(frozen=True, kw_only=True)
class PlanConfig:
    """Whether heads would pay. Raises ConfigError where a number is out of range."""

    model: str = field("embedded", help="folder or hub id of the model, or `embedded`; heads it has are left aside")
    shape: str | None = field(None, help="a random Llama in place of a model: HIDDENxLAYERSxHEADSxKV_HEADSxMLPxVOCABULARY")
    family: str = field("parallel", help="family of the heads, see headway heads train --list-recipes")
    heads: int = field(4, help="how many heads")
    rates: list[float] = field([0.5, 0.7, 0.9], help="shares of drafts that are right")
    batches: list[int] = field([1, 4, 16], help="prompts decoded together; each size is measured")
    context: int = field(128, help="tokens of each prompt, random ones")
    max_new_tokens: int = field(32, help="tokens to add")
    turns: int = field(3, help="prompts for each place in the batch: rows end apart, and others take their places")
    free: bool = field(False, help="drafts that cost nothing: what verifying alone allows")
    adaptive: bool = field(False, help="let decoding choose how many drafts pay, in place of one of each head")
    dtype: Literal["float32", "bfloat16"] = field("float32", help="of weights and arithmetic")
    repeats: int = field(3, help="timed rounds after one that warms up")
    threads: int = field(1, help="torch threads")
    output_file: Path | None = field(None, help="JSON file for the results")
    seed: int = field(0, help="of the prompts and of which drafts are right")

    def __post_init__(self) -> None:
        at_least(self, 1, "heads", "context", "max_new_tokens", "turns", "repeats", "threads")
        if not self.rates or not all(0 <= rate <= 1 for rate in self.rates):
            raise ConfigError(f"rates must be from 0 to 1, got {self.rates}.")
        _batch_sizes(self.batches)


def _batch_sizes(batches: list[int]) -> None:
    if not batches or min(batches) < 1:
        raise ConfigError(f"batches must be whole numbers from 1 on, got {batches}.")
