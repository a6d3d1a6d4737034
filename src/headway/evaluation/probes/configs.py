"""Settings of the probes. Importing this module is fast (no torch) for `--help`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from headway.config import at_least, field
from headway.errors import ConfigError
from headway.training.configs import GENERATION_CONFIG_HELP, GenerationConfigChoice

Category = Literal["HighlyKnown", "MaybeKnown", "WeaklyKnown", "Unknown"]

MODEL, DECODING, DATA, OUTPUT = "model", "decoding", "data", "output"


@dataclass(frozen=True, kw_only=True)
class AnsweringConfig:
    """Settings of every probe with a model that answers. Raises ConfigError for a value out of range."""

    model: str = field("embedded", help="folder or hub id of the model, or `embedded`", group=MODEL)
    limit: int | None = field(None, help="number of examples to use, chosen at random", default_text="all", group=DATA)
    max_new_tokens: int = field(100, help="maximum number of tokens in an answer", group=DECODING)
    batch_size: int = field(16, help="maximum number of prompts decoded at the same time", group=DECODING)
    chat: bool = field(False, help="wrap each prompt as a user's message in the model's chat template", group=DECODING)
    speculative: bool = field(True, help="draft and verify; the answers are the same without", group=DECODING)
    generation_config: GenerationConfigChoice = field("model", help=GENERATION_CONFIG_HELP, group=MODEL)
    output_file: Path | None = field(
        None,
        help="JSON file for the results, with a plot and a log of answers beside it; a repeated command continues from the log",
        group=OUTPUT,
    )
    seed: int = field(0, help="seed of everything random", group=DECODING)

    def __post_init__(self) -> None:
        at_least(self, 1, "limit", "max_new_tokens", "batch_size")


@dataclass(frozen=True, kw_only=True)
class SimpleQAConfig(AnsweringConfig):
    """Short questions of fact: correct, incorrect, not attempted (arXiv 2411.04368)."""

    data: Path = field(help="SimpleQA as published (.csv), or .jsonl with problem and answer")
    grader: str = field(
        "string", help="string (a stand-in for a judge), model (needs --grader-model), or module:function of your own"
    )
    grader_model: str | None = field(None, help="folder or hub id of the grading model")
    grader_check: int = field(10, help="number of questions to test the grader on first, with answers of known grade")

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(self, 0, "grader_check")
        if self.grader not in ("string", "model") and ":" not in self.grader:
            raise ConfigError(f"grader must be string, model or module:function, not {self.grader!r}.")
        if (self.grader == "model") != (self.grader_model is not None):
            raise ConfigError("--grader model and --grader-model FOLDER belong together; give both or neither.")


@dataclass(frozen=True, kw_only=True)
class LostInTheMiddleConfig(AnsweringConfig):
    """Settings of the score by position of the document with the answer (arXiv 2307.03172, section 2)."""

    data: Path = field(help=".jsonl with question, answers and ctxs (the gold passage: title and text)")
    documents: list[int] = field([10, 20, 30], help="numbers of documents in a context to measure")
    positions: list[int] | None = field(
        None, help="positions of the gold document, from 0", default_text="first, every fifth and last"
    )
    skip_long: bool = field(False, help="leave out questions with a context longer than the model reads")

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.documents or min(self.documents) < 2:
            raise ConfigError(f"documents must be whole numbers from 2 on, got {self.documents}.")
        _check_positions(self.positions, min(self.documents), "documents")


@dataclass(frozen=True, kw_only=True)
class KeyValueConfig(AnsweringConfig):
    """Settings of key-value retrieval by position of the key (arXiv 2307.03172, section 3)."""

    data: Path | None = field(None, help=".jsonl with ordered_kv_records, key and value", default_text="random UUIDs")
    pairs: list[int] = field([75], help="numbers of pairs in a generated task to measure")
    tasks: int = field(100, help="number of tasks to generate")
    positions: list[int] | None = field(None, help="positions of the target pair, from 0", default_text="five, evenly spread")

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(self, 1, "tasks")
        if not self.pairs or min(self.pairs) < 2:
            raise ConfigError(f"pairs must be whole numbers from 2 on, got {self.pairs}.")
        if self.data is None:
            _check_positions(self.positions, min(self.pairs), "pairs")


@dataclass(frozen=True, kw_only=True)
class SlickConfig(AnsweringConfig):
    """Settings of the knowledge of a fine-tuning set (arXiv 2405.05904, section 3)."""

    data: str = field(help="fine-tuning set with prompts and completions: a file, folder, hub id or generated task")
    split: str = field("train", help="split of hub and preset data sets")
    group: str | None = field(None, help="column of a .jsonl file, such as a relation; solved examples come from the same group")
    exemplar_sets: int = field(10, help="number of random sets of solved examples for each question (N_ex in the paper)")
    shots: int = field(4, help="solved examples in a set")
    samples: int = field(16, help="answers to sample for each set")
    temperature: float = field(0.5, help="temperature of the sampled answers")
    top_k: int = field(0, help="sample from the k most probable tokens; 0 for all")
    max_new_tokens: int = field(32, help="maximum number of tokens in an answer")
    match: Literal["text", "number"] = field("text", help="compare the first line, or the number after #### as in GSM8K")
    sample_all: bool = field(False, help="sample answers even if the greedy answers decide the category")
    keep: list[Category] = field([], help="categories to write to a file for `headway finetune --data`")

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(self, 1, "exemplar_sets", "samples")
        at_least(self, 0, "shots", "top_k")
        if self.temperature <= 0:
            raise ConfigError(f"temperature must be above 0, got {self.temperature}: greedy answers are taken besides.")
        if self.keep and self.output_file is None:
            raise ConfigError("--keep writes a file beside --output-file; give --output-file FILE.json as well.")


@dataclass(frozen=True, kw_only=True)
class CopyingConfig:
    """Settings of the copy rate of answers from their sources (arXiv 1804.11283). Raises ConfigError for lengths below 1."""

    data: Path = field(help=".jsonl with an answer and its sources in each line")
    answer: str = field("answer", help="column of the answer")
    sources: str = field("sources", help="column of the sources: a text, a list of texts, or objects with text or content")
    lengths: list[int] = field([1, 2, 4, 8, 16], help="minimum numbers of words in a copied span")
    tokenizer: str | None = field(None, help="model whose tokens to count", default_text="words")
    limit: int | None = field(None, help="number of lines to use, from the start", default_text="all")
    output_file: Path | None = field(None, help="JSON file for the results, with a plot beside it")

    def __post_init__(self) -> None:
        at_least(self, 1, "limit")
        _check_lengths(self.lengths)


@dataclass(frozen=True, kw_only=True)
class VerbatimConfig:
    """Settings of the share of verbatim training data in generated text. Raises ConfigError for contradictory settings."""

    run: Path | None = field(None, help="folder of a `headway finetune` run; its start, checkpoints and end are measured")
    models: list[str] = field([], help="folders or hub ids of models, in place of a run")
    data: list[str] = field([], help="training data, as `headway finetune --data`", default_text="the run's own")
    split: str = field("train", help="split of the training data given with --data")
    prompts: str = field(help="held-out examples to continue, as `--data`")
    prompts_split: str = field("test", help="split of the prompts")
    prompt_tokens: int = field(32, help="tokens to show of a held-out text without a prompt")
    limit: int | None = field(100, help="number of prompts to use")
    lengths: list[int] = field([8, 16], help="numbers of tokens in the n-grams to look up")
    max_new_tokens: int = field(100, help="maximum number of tokens to generate for each prompt")
    batch_size: int = field(16, help="maximum number of prompts decoded at the same time")
    temperature: float = field(0.0, help="0 decodes greedily; above 0, tokens are sampled")
    speculative: bool = field(True, help="draft and verify; the text is the same without")
    generation_config: GenerationConfigChoice = field("model", help=GENERATION_CONFIG_HELP)
    output_file: Path | None = field(
        None, help="JSON file for the results, with a plot and a log of texts beside it; a repeated command continues from the log"
    )
    seed: int = field(0, help="seed of the samples")

    def __post_init__(self) -> None:
        at_least(self, 1, "limit", "max_new_tokens", "batch_size", "prompt_tokens")
        at_least(self, 0, "temperature")
        _check_lengths(self.lengths)
        if (self.run is None) == (not self.models):
            raise ConfigError("give either --run FOLDER, whose checkpoints are compared, or --models, in order.")
        if self.models and not self.data:
            raise ConfigError("--models needs --data: what they were trained on.")


def _check_lengths(lengths: list[int]) -> None:
    if not lengths or min(lengths) < 1:
        raise ConfigError(f"lengths must be whole numbers from 1 on, got {lengths}.")


def _check_positions(positions: list[int] | None, count: int, of: str) -> None:
    if positions is not None and (not positions or min(positions) < 0 or max(positions) >= count):
        raise ConfigError(f"positions must be from 0 to {count - 1}, since there are contexts of {count} {of}, got {positions}.")
