"""Answers of a model to prompts, through the engine, with a log of the answers already computed."""

import random
from collections.abc import Iterator, Sequence
from typing import Any, Protocol, Self, TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from headway import model_path
from headway.data import Chat, tokenize_prompt
from headway.decoding import DecodeStats, Request, SamplingParams, complete
from headway.decoding.drafters import drafter_by_name
from headway.errors import ConfigError, DataError
from headway.evaluation.loading import load_evaluated
from headway.evaluation.probes.answer_log import AnswerLog, answer_key, fingerprint
from headway.evaluation.probes.configs import AnsweringConfig
from headway.model import HeadwayModel

T = TypeVar("T")
LOG_SUFFIX = ".answers.jsonl"  # replaces the suffix of the output file


class Answers(Protocol):
    """The part of a model that a probe uses, implemented by `Answerer`.

    context_length: tokens of prompt and answer together that the model reads; None if unknown.
    """

    context_length: int | None

    def __call__(self, prompts: Sequence[str], seeds: Sequence[int] | None = None) -> list[str]: ...

    def num_tokens(self, prompt: str) -> int: ...


def subsample(items: Sequence[T], limit: int | None, seed: int) -> list[T]:
    """At most `limit` random items, in their original order."""
    if limit is None or limit >= len(items):
        return list(items)
    return [items[index] for index in sorted(random.Random(seed).sample(range(len(items)), limit))]


class Answerer:
    """Answers of a model: greedy, or sampled with a seed a prompt.

    Args:
        model: the model.
        tokenizer: tokenizer of the model.
        max_new_tokens: longest answer.
        batch_size: prompts decoded together.
        speculative: draft with the heads. The answers are the same without drafts.
        chat: wrap prompts as messages of a user in the chat template.
        stop: strings that end an answer. The string stays at the end of the answer.
        temperature: temperature of sampled answers.
        top_k: sample from the k tokens with the highest probability; 0 for all tokens.
        answer_log: answers of earlier calls, not computed again.
        identity: distinguishes this model's answers in the log from answers of further models.
    Raises:
        ConfigError: `chat` without a chat template.
    """

    def __init__(
        self,
        model: HeadwayModel,
        tokenizer: Any,
        *,
        max_new_tokens: int,
        batch_size: int = 16,
        speculative: bool = True,
        chat: bool = False,
        stop: Sequence[str] = (),
        temperature: float = 1.0,
        top_k: int = 0,
        answer_log: AnswerLog | None = None,
        identity: Any = None,
    ) -> None:
        if chat and not tokenizer.chat_template:
            raise ConfigError("this model has no chat template; leave out --chat.")
        self.model, self.tokenizer, self.batch_size = model, tokenizer, batch_size
        self.speculative, self.chat, self.max_new_tokens, self.stop = speculative, chat, max_new_tokens, list(stop)
        self.sampling = {"do_sample": True, "temperature": temperature, "top_k": top_k, "top_p": 1.0}
        self.answer_log, self.identity = answer_log or AnswerLog(None), identity
        self.stats: list[DecodeStats] = []
        self.context_length: int | None = model.view.context

    @classmethod
    def from_config(cls, config: AnsweringConfig, **options: Any) -> Self:
        """The model of a probe's settings. Raises CheckpointError if the model cannot be loaded."""
        model, tokenizer = load_evaluated(config)
        answer_log = AnswerLog(config.output_file.with_suffix(LOG_SUFFIX) if config.output_file is not None else None)
        if answer_log.texts:
            Console(stderr=True).print(f"{len(answer_log.texts)} answers are kept from before.", style="dim", markup=False)
        options |= {name: getattr(config, name) for name in ("max_new_tokens", "batch_size", "chat", "speculative")}
        identity = fingerprint(model_path(config.model))
        if config.generation_config != "model":
            identity.append(config.generation_config)
        return cls(model, tokenizer, answer_log=answer_log, identity=identity, **options)

    def __call__(self, prompts: Sequence[str], seeds: Sequence[int] | None = None) -> list[str]:
        """The answers to the prompts, without special tokens.

        Args:
            prompts: the prompts.
            seeds: seeds of the prompts; answers are then sampled.
        Raises:
            DataError: prompt and answer are longer than the context length. No prompt is cut.
        """
        encoded = [self.encode(prompt) for prompt in prompts]
        longest = max(map(len, encoded), default=0)
        if self.context_length is not None and longest + self.max_new_tokens > self.context_length:
            raise DataError(
                f"a prompt of {longest} tokens and an answer of {self.max_new_tokens} are more than the {self.context_length} "
                "tokens that the model reads. Use shorter prompts, fewer --max-new-tokens, or a model with a longer context."
            )
        seed_of = [None] * len(prompts) if seeds is None else list(seeds)
        sampling = self.sampling if seeds is not None else None
        shared = answer_key(self.identity, not self.speculative, self.chat, self.max_new_tokens, self.stop, sampling)
        keys = [answer_key(shared, ids, seed) for ids, seed in zip(encoded, seed_of, strict=True)]
        missing = {key: index for index, key in enumerate(keys) if key not in self.answer_log.texts}
        todo = sorted(missing.values(), key=lambda index: -len(encoded[index]))
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, transient=True, console=Console(stderr=True)) as progress:
            task = progress.add_task("answering", total=len(prompts), completed=len(prompts) - len(todo))
            for number, text in self._decode([(encoded[index], seed_of[index]) for index in todo]):
                self.answer_log.add({keys[todo[number]]: text})
                progress.advance(task)
        return [self.answer_log.texts[key] for key in keys]

    def num_tokens(self, prompt: str) -> int:
        """Tokens of the prompt and of the longest answer together."""
        return len(self.encode(prompt)) + self.max_new_tokens

    def encode(self, prompt: str) -> list[int]:
        """Tokens of the prompt. Raises DataError if there is none."""
        ids = tokenize_prompt(Chat([{"role": "user", "content": prompt}]) if self.chat else prompt, self.tokenizer)
        if not ids:
            raise DataError("a prompt is empty; leave its example out.")
        return ids

    @property
    def tokens_per_forward(self) -> float:
        """Tokens per forward of the answers computed in this process, without answers from the log."""
        return DecodeStats.merge(self.stats).tokens_per_forward

    def _decode(self, prompts: list[tuple[list[int], int | None]]) -> Iterator[tuple[int, str]]:
        """Numbers and texts of the answers, in the order of completion."""
        requests = [Request(ids, self._sampling(seed)) for ids, seed in prompts]
        drafter = drafter_by_name("heads", self.model, self.speculative)
        for completion in complete(self.model, self.tokenizer, requests, drafter=drafter, max_batch_size=self.batch_size):
            self.stats.append(completion.stats)
            yield completion.request_index, completion.text

    def _sampling(self, seed: int | None) -> SamplingParams:
        return SamplingParams(
            max_new_tokens=self.max_new_tokens,
            stop_strings=tuple(self.stop),
            keep_stop_string=True,
            seed=seed,
            options=self.sampling if seed is not None else {"do_sample": False},
        )
