"""Prompts in, texts out, through the engine: rows join and leave one by one, heads draft, and the texts are the trunk's own."""

import random
from collections.abc import Iterator, Sequence
from typing import Any, Protocol, Self, TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from headway import model_path
from headway.decoding import DecodeStats, Engine, exactness_issue
from headway.decoding.batch import SequenceState
from headway.decoding.requests import drafter_of
from headway.errors import ConfigError, DataError
from headway.evaluation.probes.answer_log import AnswerLog, fingerprint, key_of
from headway.evaluation.probes.configs import AnsweringConfig
from headway.evaluation.tasks.exact_match import left_padded
from headway.model import HeadwayModel, load_model_and_tokenizer
from headway.trunk.attention import decoding

T = TypeVar("T")
JOURNAL = ".answers.jsonl"  # in place of the suffix of the results


class Answers(Protocol):
    """All that a probe needs of a model; `Answerer` is one, and so is any function of yours with these three."""

    window: int | None

    def __call__(self, prompts: Sequence[str], seeds: Sequence[int] | None = None) -> list[str]: ...

    def length(self, prompt: str) -> int: ...


def drawn(items: Sequence[T], limit: int | None, seed: int) -> list[T]:
    """`limit` of the items at random, in their order; all where there are no more."""
    if limit is None or limit >= len(items):
        return list(items)
    return [items[place] for place in sorted(random.Random(seed).sample(range(len(items)), limit))]


class Answerer:
    """Continues prompts with a model, greedily, or drawn where there are seeds.

    Args:
        window: tokens that prompt and answer may have together, None where the model says nothing about it.
        stop: strings that end an answer; they are part of it. journal: answers of earlier calls, which are not computed again.
        name: what tells this model's answers from another's in a journal.
    """

    def __init__(
        self,
        model: HeadwayModel,
        tokenizer: Any,
        *,
        max_new_tokens: int,
        batch_size: int = 16,
        plain: bool = False,
        chat: bool = False,
        stop: Sequence[str] = (),
        temperature: float = 1.0,
        top_k: int = 0,
        journal: AnswerLog | None = None,
        name: Any = None,
    ) -> None:
        if chat and not tokenizer.chat_template:
            raise ConfigError("this model has no chat template; leave out --chat.")
        self.model, self.tokenizer, self.batch_size = model, tokenizer, batch_size
        self.plain, self.chat, self.max_new_tokens, self.stop = plain, chat, max_new_tokens, list(stop)
        self.sampling = {"do_sample": True, "temperature": temperature, "top_k": top_k, "top_p": 1.0}
        self.journal, self.name = journal or AnswerLog(None), name
        self.stats: list[DecodeStats] = []
        self.window: int | None = model.view.context

    @classmethod
    def from_config(cls, config: AnsweringConfig, **how: Any) -> Self:
        """Load what the settings of a probe ask for. Raises CheckpointError and ConfigError."""
        model, tokenizer = load_model_and_tokenizer(config.model)
        journal = AnswerLog(config.output_file.with_suffix(JOURNAL) if config.output_file is not None else None)
        if journal.texts:
            Console(stderr=True).print(f"{len(journal.texts)} answers are kept from before.", style="dim", markup=False)
        how |= {name: getattr(config, name) for name in ("max_new_tokens", "batch_size", "chat")} | {
            "plain": not config.speculative
        }
        return cls(model, tokenizer, journal=journal, name=fingerprint(model_path(config.model)), **how)

    def __call__(self, prompts: Sequence[str], seeds: Sequence[int] | None = None) -> list[str]:
        """The text that follows each prompt, special tokens left out; with a seed each, drawn.

        Raises: DataError for a prompt that leaves no room for its answer in the model's window; nothing is cut.
        """
        encoded = [self.encode(prompt) for prompt in prompts]
        longest = max(map(len, encoded), default=0)
        if self.window is not None and longest + self.max_new_tokens > self.window:
            raise DataError(
                f"a prompt of {longest} tokens and an answer of {self.max_new_tokens} are more than the {self.window} tokens "
                "that the model reads. Use shorter prompts, fewer --max-new-tokens, or a model with a longer context."
            )
        given = [None] * len(prompts) if seeds is None else list(seeds)
        settings = (self.name, self.plain, self.chat, self.max_new_tokens, self.stop, self.sampling if seeds is not None else None)
        shared = key_of(*settings)
        keys = [key_of(shared, ids, seed) for ids, seed in zip(encoded, given, strict=True)]
        missing = {key: place for place, key in enumerate(keys) if key not in self.journal.texts}
        places = sorted(missing.values(), key=lambda place: -len(encoded[place]))
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, transient=True, console=Console(stderr=True)) as progress:
            task = progress.add_task("answering", total=len(prompts), completed=len(prompts) - len(places))
            decode = self._together if exactness_issue(self.model.trunk) is None else self._in_batches
            for found in decode([(encoded[place], given[place]) for place in places]):
                self.journal.add({keys[places[number]]: text for number, text in found.items()})
                progress.advance(task, len(found))
        return [self.journal.texts[key] for key in keys]

    def length(self, prompt: str) -> int:
        """Tokens that the prompt takes with those of the answer."""
        return len(self.encode(prompt)) + self.max_new_tokens

    def encode(self, prompt: str) -> list[int]:
        if self.chat:
            turns = [{"role": "user", "content": prompt}]
            prompt = self.tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
        ids: list[int] = self.tokenizer(prompt, add_special_tokens=not self.chat, verbose=False)["input_ids"]
        if not self.chat and len(ids) > 1 and ids[-1] == self.tokenizer.eos_token_id:  # some tokenizers close what they get
            ids = ids[:-1]
        if not ids:
            raise DataError("a prompt is empty; leave its example out.")
        return ids

    @property
    def tokens_per_forward(self) -> float:
        """Of what was decoded in this process, answers from the journal left aside."""
        return DecodeStats.together(self.stats).tokens_per_forward

    def _together(self, asked: list[tuple[list[int], int | None]]) -> Iterator[dict[int, str]]:
        """Number -> text, as rows of one running batch end."""
        engine = Engine(self.model, drafter_of(self.model, "heads", self.plain), max_rows=self.batch_size)
        waiting, running = iter(enumerate(asked)), dict[int, SequenceState]()
        with decoding(self.model.view.config):
            while True:
                while len(running) < 2 * self.batch_size and (new := next(waiting, None)) is not None:
                    number, (ids, seed) = new
                    settings = self._settings(seed is not None)
                    running[number] = engine.submit(ids, tokenizer=self.tokenizer, seed=seed, **settings)
                if not running:
                    break
                engine.step()
                done = {number: row for number, row in running.items() if row.finished}
                for number, row in done.items():
                    if row.error is not None:
                        raise row.error
                    del running[number]
                if done:
                    yield {number: self._text(row.new) for number, row in done.items()}
        if asked:
            self.stats.append(engine.stats_collector.stats())

    def _in_batches(self, asked: list[tuple[list[int], int | None]]) -> Iterator[dict[int, str]]:
        """For trunks that ragged batches do not suit."""
        for start in range(0, len(asked), self.batch_size):
            batch = asked[start : start + self.batch_size]
            ids, mask = left_padded([ids for ids, _ in batch], self.model.device)
            settings = self._settings(batch[0][1] is not None)
            out = self.model.generate(ids, attention_mask=mask, tokenizer=self.tokenizer, plain=True, seed=batch[0][1], **settings)
            self.stats.append(out.stats)
            yield {start + row: self._text(new) for row, new in enumerate(out.sequences[:, ids.shape[1] :].tolist())}

    def _settings(self, sampled: bool) -> dict[str, Any]:
        how = self.sampling if sampled else {"do_sample": False}
        return {"max_new_tokens": self.max_new_tokens, "stop_strings": self.stop or None, **how}

    def _text(self, new: list[int]) -> str:
        return str(self.tokenizer.decode(new, skip_special_tokens=True))
