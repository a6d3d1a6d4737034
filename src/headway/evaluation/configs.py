"""Settings of `headway eval` and `headway bench`. Importing this module is fast (no torch) for `--help`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from headway.config import at_least, choices_from, field
from headway.errors import ConfigError
from headway.evaluation.tasks import CODE, TASKS, check_task
from headway.training.configs import GENERATION_CONFIG_HELP, GenerationConfigChoice

Dtype = Literal["saved", "float32", "bfloat16", "float16"]
DTYPE_HELP = "data type of weights and arithmetic; int4 needs bfloat16"
QUANTIZE_HELP = "quantise the linear layers; auto times the schemes and takes the fastest, if one is faster"
QUANTIZE_CHOICES = choices_from("headway.trunk.scheme_names:QUANTIZE_CHOICES")
DRAFTER_CHOICES = choices_from("headway.decoding.drafters:DRAFTERS")
REFERENCE = "reference"  # in place of a model: the data set's own solutions
TASK, MODEL, DECODING, CODE_TASKS, SPEED, OUTPUT = "task", "model", "decoding", "code", "speed", "output"


@dataclass(frozen=True, kw_only=True)
class EvalConfig:
    """Settings of `headway eval`. Raises ConfigError for a value out of range or a contradiction."""

    model: str = field(
        help="folder or hub id; `embedded`; for code tasks also `reference`, the data set's own solutions", group=MODEL
    )
    task: str = field("gsm8k", help="name from --list-tasks, lm-eval:NAME,NAME or suite:CAPABILITY", group=TASK)
    data: str | None = field(None, help="file, folder or hub id of the examples", group=TASK, default_text="the task's own")
    split: str = field("test", help="split of hub and preset data sets", group=TASK)
    limit: int | None = field(None, help="number of examples to score", group=TASK, default_text="all")
    shots: int | None = field(None, help="solved examples before each question", group=TASK, default_text="the task's own")
    include_path: Path | None = field(None, help="folder with further lm-eval task files", group=TASK)
    max_length: int = field(512, help="tokens in a row of held-out text", group=TASK)
    dtype: Dtype = field("saved", help=DTYPE_HELP, group=MODEL)
    quantize: str = field(
        "none", help=f"{QUANTIZE_HELP}; losses are reported before and after", group=MODEL, choices=QUANTIZE_CHOICES
    )
    generation_config: GenerationConfigChoice = field("model", help=GENERATION_CONFIG_HELP, group=DECODING)
    max_new_tokens: int | None = field(
        None, help="maximum number of tokens in an answer", group=DECODING, default_text="the task's own, 256 or 1024"
    )
    batch_size: int = field(16, help="maximum number of prompts decoded at the same time", group=DECODING)
    speculative: bool = field(True, help="draft and verify; the scores are the same without", group=DECODING)
    drafter: str = field("heads", help="source of drafts for code and lm-eval tasks", group=DECODING, choices=DRAFTER_CHOICES)
    seed: int = field(0, help="seed of the samples and of the solved examples", group=DECODING)
    allow_code: bool = field(False, help="run generated code, in a sandbox (docs/sandbox.md)", group=CODE_TASKS)
    samples: int = field(1, help="programs to sample for each problem", group=CODE_TASKS)
    pass_at: list[int] = field([1], help="values of k for pass@k, at most --samples each", group=CODE_TASKS)
    temperature: float = field(
        0.0, help="temperature of the samples, 0 for greedy; Chen et al. use 0.2 for pass@1 and 0.8 for pass@100", group=CODE_TASKS
    )
    top_p: float = field(0.95, help="sample from the most probable tokens with this total probability", group=CODE_TASKS)
    code_seconds: int = field(5, help="processor time of a program", group=CODE_TASKS)
    code_memory: int = field(1024, help="memory of a program in MiB", group=CODE_TASKS)
    speed: bool = field(True, help="time the heads beside autoregressive decoding of the same prompts", group=SPEED)
    speed_prompts: int = field(8, help="number of prompts to time, one at a time", group=SPEED)
    output_file: Path | None = field(None, help="JSON file for the results, with every answer", group=OUTPUT)

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
        """New tokens a prompt while timing."""
        return min(64, self.max_new_tokens or 64)


@dataclass(frozen=True, kw_only=True)
class BenchConfig:
    """Settings of `headway bench train`."""

    heads: int = field(4, help="number of heads")
    vocabulary: int = field(128_256, help="tokens in the vocabulary")
    hidden_size: int = field(256, help="width of the trunk")
    layers: int = field(8, help="layers of the trunk")
    rows: int = field(2, help="rows in a batch")
    max_length: int = field(512, help="tokens in a row")
    repeats: int = field(3, help="timed steps, after a warm-up step")
    threads: int = field(1, help="torch threads")
    output_file: Path | None = field(None, help="JSON file for the results")
    seed: int = field(0, help="seed of weights and tokens")


@dataclass(frozen=True, kw_only=True)
class DecodeBenchConfig:
    """Settings of `headway bench decode`. Raises ConfigError for a value out of range."""

    model: str = field("embedded", help="folder or hub id of the model, or `embedded`")
    data: str = field("word-problems", help="source of the prompts")
    prompts: int = field(16, help="number of prompts")
    prompt_tokens: int = field(64, help="maximum number of tokens in a prompt; longer prompts are cut")
    max_new_tokens: int = field(64, help="exact number of tokens to add to each prompt")
    batches: list[int] = field([1, 4, 16], help="batch sizes to measure")
    assistant: str | None = field(None, help="smaller model with the same vocabulary, as a further source of drafts")
    compile: bool = field(False, help="time compiled decoding too, of Headway and of transformers; takes minutes")
    dtype: Dtype = field("saved", help=DTYPE_HELP)
    repeats: int = field(5, help="timed repeats of all variants, after a warm-up")
    threads: int = field(1, help="torch threads")
    output_file: Path | None = field(None, help="JSON file for the results, with a plot beside it")

    def __post_init__(self) -> None:
        at_least(self, 1, "prompts", "prompt_tokens", "max_new_tokens", "repeats", "threads")
        _check_batch_sizes(self.batches)


@dataclass(frozen=True, kw_only=True)
class PlanConfig:
    """Settings of `headway bench plan`. Raises ConfigError for a value out of range."""

    model: str = field("embedded", help="folder or hub id of the model, or `embedded`; its own heads are ignored")
    shape: str | None = field(
        None, help="measure a randomly initialised Llama: HIDDENxLAYERSxHEADSxKV_HEADSxMLPxVOCABULARY", default_text="the model"
    )
    family: str = field("parallel", help="family of the heads, see headway heads train --list-recipes")
    heads: int = field(4, help="number of heads")
    rates: list[float] = field([0.5, 0.7, 0.9], help="acceptance rates to simulate")
    batches: list[int] = field([1, 4, 16], help="batch sizes to measure")
    context: int = field(128, help="tokens in each prompt; the tokens are random")
    max_new_tokens: int = field(32, help="number of tokens to add")
    turns: int = field(3, help="prompts for each batch slot: sequences end at different steps, and the next prompts follow")
    free: bool = field(False, help="use drafts without cost, to see the limit set by verification alone")
    adaptive: bool = field(False, help="let decoding choose the number of drafts; otherwise one draft from each head")
    dtype: Literal["float32", "bfloat16"] = field("float32", help="data type of weights and arithmetic")
    repeats: int = field(3, help="timed repeats, after a warm-up")
    threads: int = field(1, help="torch threads")
    output_file: Path | None = field(None, help="JSON file for the results")
    seed: int = field(0, help="seed of the prompts and of the accepted drafts")

    def __post_init__(self) -> None:
        at_least(self, 1, "heads", "context", "max_new_tokens", "turns", "repeats", "threads")
        if not self.rates or not all(0 <= rate <= 1 for rate in self.rates):
            raise ConfigError(f"rates must be from 0 to 1, got {self.rates}.")
        _check_batch_sizes(self.batches)


def _check_batch_sizes(batches: list[int]) -> None:
    if not batches or min(batches) < 1:
        raise ConfigError(f"batches must be whole numbers from 1 on, got {batches}.")
