"""Exact match of final answers, extracted and compared as in lm-eval's `gsm8k` task (version 3)."""

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rich.progress import track

from headway.data import PromptCompletion, load_examples, tokenize_prompt
from headway.decoding import DecodeStats, Request, SamplingParams, complete, heads_drafter
from headway.evaluation.benchmarks.quantization_effect import quantize_and_compare
from headway.evaluation.benchmarks.speed import timed_prompts
from headway.evaluation.configs import EvalConfig
from headway.evaluation.loading import load_evaluated
from headway.evaluation.prompts import prompts_with_completions
from headway.evaluation.results import Scored, TaskResult
from headway.evaluation.tasks import TASKS
from headway.evaluation.tasks.held_out import HeldOut, held_out_on
from headway.model import HeadwayModel

MAX_NEW_TOKENS = 256
STOPS = ("Question:", "</s>", "<|im_end|>")
STRICT = re.compile(r"#### (\-?[0-9\.\,]+)")
FLEXIBLE = re.compile(r"(-?[$0-9.,]{2,})|(-?[0-9]+)")
IGNORED = [re.compile(pattern) for pattern in (",", r"\$", r"(?s).*#### ", r"\.$")]
INVALID = "[invalid]"


@dataclass(frozen=True)
class Answer:
    """A decoded answer, and the results of both comparisons."""

    prompt: str
    text: str
    strict: bool
    flexible: bool


@dataclass(frozen=True)
class ExactMatch:
    """Answers in the order of the examples, and the statistics of decoding."""

    answers: list[Answer]
    stats: DecodeStats

    @property
    def strict(self) -> float:
        """Share of answers with a matching first number after ####."""
        return sum(answer.strict for answer in self.answers) / len(self.answers)

    @property
    def flexible(self) -> float:
        """Share of answers with a matching last number."""
        return sum(answer.flexible for answer in self.answers) / len(self.answers)


@dataclass(frozen=True, kw_only=True)
class ExactMatchResult(TaskResult):
    data: str
    examples: int
    exact_match: float
    flexible_match: float
    tokens_per_forward: float
    acceptance: tuple[float, ...]  # per-position acceptance rate
    answers: list[Answer]


def score(config: EvalConfig) -> Scored:
    """Exact match on the examples of the task.

    Raises:
        DataError: an example has no prompt and completion.
    """
    model, tokenizer = load_evaluated(config, config.dtype)
    source = config.data or TASKS[config.task].data
    examples = load_examples(source, config.split, config.limit)
    problems = prompts_with_completions(examples, source)
    prompts = [tokenize_prompt(problem, tokenizer) for problem in problems]
    effect = None
    if config.quantize != "none":

        def metrics() -> HeldOut:
            return held_out_on(model, tokenizer, examples, config.max_length, config.batch_size)

        effect, _ = quantize_and_compare(model, config.quantize, metrics, timed_prompts(prompts, config), config.timed_tokens)
    shots: Sequence[PromptCompletion] = ()
    if config.shots:
        solved = prompts_with_completions(load_examples(source, "train"), source)
        shots = random.Random(config.seed).sample(solved, config.shots)
    matched = exact_match(
        model,
        tokenizer,
        problems,
        max_new_tokens=config.max_new_tokens or MAX_NEW_TOKENS,
        batch_size=config.batch_size,
        speculative=config.speculative,
        shots=shots,
    )
    result = ExactMatchResult(
        model=config.model,
        task=config.task,
        data=source,
        examples=len(examples),
        quantized=effect,
        exact_match=matched.strict,
        flexible_match=matched.flexible,
        tokens_per_forward=matched.stats.tokens_per_forward,
        acceptance=matched.stats.acceptance,
        answers=matched.answers,
    )
    return Scored(result, model, prompts)


def extract_strict(text: str) -> str:
    """The first number after ####."""
    numbers = STRICT.findall(text)
    return numbers[0].strip() if numbers else INVALID


def extract_flexible(text: str) -> str:
    """The last number of the text."""
    matches = FLEXIBLE.findall(text)
    return next((group for group in matches[-1] if group), INVALID).strip() if matches else INVALID


def same_answer(answer: str, reference: str) -> bool:
    """True if both are equal without commas, dollar signs, text up to ####, and a final full stop, as in lm-eval."""
    for pattern in IGNORED:
        answer, reference = pattern.sub("", answer), pattern.sub("", reference)
    return answer.lower() == reference.lower()


def exact_match(
    model: HeadwayModel,
    tokenizer: Any,
    examples: Sequence[PromptCompletion],
    max_new_tokens: int = MAX_NEW_TOKENS,
    batch_size: int = 16,
    speculative: bool = True,
    shots: Sequence[PromptCompletion] = (),
    quiet: bool = False,
) -> ExactMatch:
    """Decode answers greedily and compare the answers with the references.

    Every head drafts a token in every step, even if drafting does not pay: the acceptance is then a property of the heads, not of
    the machine.

    Args:
        examples: prompts and completions.
        shots: solved examples to put before the prompts.
        quiet: show no progress bar.
    """
    shown = "".join(f"{shot.prompt}{shot.completion}\n\n" for shot in shots)
    sampling = SamplingParams(max_new_tokens=max_new_tokens, do_sample=False, stop_strings=STOPS)
    requests = [Request(tokenize_prompt(shown + example.prompt, tokenizer), sampling) for example in examples]
    drafter = heads_drafter("chain") if speculative and model.heads is not None else None
    completions = complete(model, tokenizer, requests, drafter=drafter, max_batch_size=batch_size, adaptive=False)
    texts, stats = [""] * len(examples), []
    for completion in completions if quiet else track(completions, "answering", total=len(examples), transient=True):
        texts[completion.request_index] = completion.text
        stats.append(completion.stats)
    answers = []
    for text, example in zip(texts, examples, strict=True):
        reference = example.completion.strip()
        strict, flexible = (same_answer(extract(text), reference) for extract in (extract_strict, extract_flexible))
        answers.append(Answer(example.prompt, text, strict, flexible))
    return ExactMatch(answers, DecodeStats.merge(stats))
