"""Settings of the probes. Importing this is fast: no torch, so that `--help` answers at once."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from headway.config import at_least, field
from headway.errors import ConfigError

Category = Literal["HighlyKnown", "MaybeKnown", "WeaklyKnown", "Unknown"]


@dataclass(frozen=True, kw_only=True)
class AnsweringConfig:
    """What all probes share that let a model answer. Raises ConfigError where a number is out of range."""

    model: str = field("embedded", help="folder or hub id of the model, or `embedded`")
    limit: int | None = field(None, help="use only this many examples, drawn with the seed")
    max_new_tokens: int = field(100, help="longest answer")
    batch_size: int = field(16, help="prompts decoded together")
    chat: bool = field(False, help="wrap each prompt as a user's message in the model's chat template")
    speculative: bool = field(True, help="draft and verify; the answers are the same without")
    output_file: Path | None = field(None, help="JSON file for the results; a plot and the answers, to go on from, lie beside it")
    seed: int = field(0, help="of everything that is drawn")

    def __post_init__(self) -> None:
        at_least(self, 1, "limit", "max_new_tokens", "batch_size")


@dataclass(frozen=True, kw_only=True)
class SimpleQAConfig(AnsweringConfig):
    """Short questions of fact: correct, incorrect, not attempted (arXiv 2411.04368)."""

    data: Path = field(help="SimpleQA as published (.csv), or .jsonl with problem and answer")
    grader: str = field("string", help="string (a stand-in), model (needs --grader-model), or module:function of your own")
    grader_model: str | None = field(None, help="folder or hub id of the model that grades")
    grader_check: int = field(10, help="try the grader on as many questions first, with answers whose grade is known; 0: do not")

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(self, 0, "grader_check")
        if self.grader not in ("string", "model") and ":" not in self.grader:
            raise ConfigError(f"grader must be string, model or module:function, not {self.grader!r}.")
        if (self.grader == "model") != (self.grader_model is not None):
            raise ConfigError("--grader model and --grader-model FOLDER belong together; give both or neither.")


@dataclass(frozen=True, kw_only=True)
class LostInTheMiddleConfig(AnsweringConfig):
    """Score by the place of the document that holds the answer (arXiv 2307.03172, section 2)."""

    data: Path = field(help=".jsonl with question, answers and ctxs (the gold passage: title and text)")
    documents: list[int] = field([10, 20, 30], help="how many documents in a context; each is measured")
    positions: list[int] | None = field(None, help="places of the gold document, from 0 (none: first, every fifth and last)")
    skip_long: bool = field(False, help="leave out questions whose context the model cannot read, and count them")

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.documents or min(self.documents) < 2:
            raise ConfigError(f"documents must be whole numbers from 2 on, got {self.documents}.")
        _places(self.positions, min(self.documents), "documents")


@dataclass(frozen=True, kw_only=True)
class KeyValueConfig(AnsweringConfig):
    """Retrieval of a value from JSON by its key, by the key's place (arXiv 2307.03172, section 3)."""

    data: Path | None = field(None, help=".jsonl with ordered_kv_records, key and value (none: random UUIDs)")
    pairs: list[int] = field([75], help="pairs in a generated task; each number is measured")
    tasks: int = field(100, help="how many tasks to generate")
    positions: list[int] | None = field(None, help="places of the pair that is asked for, from 0 (none: five, evenly spread)")

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(self, 1, "tasks")
        if not self.pairs or min(self.pairs) < 2:
            raise ConfigError(f"pairs must be whole numbers from 2 on, got {self.pairs}.")
        if self.data is None:
            _places(self.positions, min(self.pairs), "pairs")


@dataclass(frozen=True, kw_only=True)
class SlickConfig(AnsweringConfig):
    """What a model knows of a fine-tuning set (arXiv 2405.05904, section 3)."""

    data: str = field(help="what is to be learnt, with prompts and completions: a file, folder, hub id or generated task")
    split: str = field("train", help="split of hub and preset data sets")
    group: str | None = field(None, help="column of a .jsonl file; solved examples come from the same group, such as a relation")
    exemplar_sets: int = field(10, help="random sets of solved examples before each question (the paper's N_ex)")
    shots: int = field(4, help="solved examples in a set")
    samples: int = field(16, help="answers drawn for each set")
    temperature: float = field(0.5, help="of the drawn answers")
    top_k: int = field(0, help="draw from the k likeliest tokens, 0 for all")
    max_new_tokens: int = field(32, help="longest answer")
    match: Literal["text", "number"] = field("text", help="compare the first line, or the number after #### as GSM8K does")
    sample_all: bool = field(False, help="draw answers also where the greedy ones settle the category")
    keep: list[Category] = field([], help="write the examples of these categories to a file that `headway finetune --data` reads")

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
    """How much of answers is copied from their sources (arXiv 1804.11283). Raises ConfigError for lengths below 1."""

    data: Path = field(help=".jsonl with an answer and its sources in each line")
    answer: str = field("answer", help="column of the answer")
    sources: str = field("sources", help="column of the sources: a text, a list of texts, or objects with text or content")
    lengths: list[int] = field([1, 2, 4, 8, 16], help="spans that count as copied: this many words or more")
    tokenizer: str | None = field(None, help="count the tokens of this model in place of words")
    limit: int | None = field(None, help="use only this many lines, from the start")
    output_file: Path | None = field(None, help="JSON file for the results; a plot lies beside it")
    seed: int = field(0, help="taken as every verb takes it; nothing here is random")

    def __post_init__(self) -> None:
        at_least(self, 1, "limit")
        _lengths(self.lengths)


@dataclass(frozen=True, kw_only=True)
class VerbatimConfig:
    """How much of what models write stands verbatim in their training data. Raises ConfigError for what contradicts."""

    run: Path | None = field(None, help="folder of a `headway finetune` run: its start, checkpoints and end")
    models: list[str] = field([], help="folders or hub ids, in order, in place of a run")
    data: list[str] = field([], help="what they were trained on, as `headway finetune --data` (none: what the run was)")
    split: str = field("train", help="split of the training data, where it is given here")
    prompts: str = field(help="what to let them write on: held-out examples, as `--data`")
    prompts_split: str = field("test", help="split of the prompts")
    prompt_tokens: int = field(32, help="how much of a held-out text without a prompt is shown")
    limit: int | None = field(100, help="use only this many prompts")
    lengths: list[int] = field([8, 16], help="n-grams of so many tokens are looked up")
    max_new_tokens: int = field(100, help="tokens to write on each prompt at most")
    batch_size: int = field(16, help="prompts decoded together")
    temperature: float = field(0.0, help="0 takes the likeliest tokens; above 0 draws")
    speculative: bool = field(True, help="draft and verify; the text is the same without")
    output_file: Path | None = field(None, help="JSON file for the results; a plot and the texts, to go on from, lie beside it")
    seed: int = field(0, help="of what is drawn")

    def __post_init__(self) -> None:
        at_least(self, 1, "limit", "max_new_tokens", "batch_size", "prompt_tokens")
        at_least(self, 0, "temperature")
        _lengths(self.lengths)
        if (self.run is None) == (not self.models):
            raise ConfigError("give either --run FOLDER, whose checkpoints are compared, or --models, in order.")
        if self.models and not self.data:
            raise ConfigError("--models needs --data: what they were trained on.")


def _lengths(lengths: list[int]) -> None:
    if not lengths or min(lengths) < 1:
        raise ConfigError(f"lengths must be whole numbers from 1 on, got {lengths}.")


def _places(positions: list[int] | None, count: int, of: str) -> None:
    if positions is not None and (not positions or min(positions) < 0 or max(positions) >= count):
        raise ConfigError(f"positions must be from 0 to {count - 1}, since there are contexts of {count} {of}, got {positions}.")
