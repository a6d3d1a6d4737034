"""Many prompts through the engine, each with settings of its own; what ends makes room for what waits.

Stop strings are looked for in what was generated alone, never across the end of the prompt, as lm-eval and human-eval do.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from transformers import GenerationConfig

from headway.decoding import DecodeStats, Engine, exactness_issue, generate, heads_drafter, ngram_drafter
from headway.decoding.batch import SequenceState, first_seed
from headway.decoding.draftable import DraftableModel
from headway.decoding.drafters.base import DrafterFactory
from headway.decoding.generation_config import resolve
from headway.decoding.stopping import StoppingCriteria
from headway.trunk.attention import decoding


@dataclass(frozen=True)
class Request:
    """prompt: its tokens. stops: strings that end the text. settings: arguments of `generate`, max_new_tokens among them.
    seed: as that of `generate`, which with the same arguments draws the same tokens."""

    prompt: list[int]
    stops: tuple[str, ...] = ()
    settings: dict[str, Any] = field(default_factory=dict)
    seed: int = 0


def drafter_of(model: DraftableModel, name: str, plain: bool) -> DrafterFactory | None:
    """What drafts: `heads`, where the model has any, or `ngram`; nothing if `plain`."""
    if plain or (name == "heads" and model.heads is None):
        return None
    return ngram_drafter() if name == "ngram" else heads_drafter()


def complete(
    model: DraftableModel,
    tokenizer: Any,
    requests: Sequence[Request],
    done: Callable[[int, list[int]], None],
    batch_size: int = 16,
    drafter: DrafterFactory | None = None,
    adaptive: bool = True,
) -> DecodeStats:
    """Continue all prompts; `done(number of the request, new tokens)` is called as each ends.

    A trunk that cannot be decoded exactly by the engine is decoded plainly, a prompt at a time.

    Raises: ConfigError as `Engine.submit`, before anything is decoded.
    """
    if exactness_issue(model.trunk):
        return _one_by_one(model, requests, done)
    engine = Engine(model, drafter, max_rows=batch_size, adaptive=adaptive)
    numbers: dict[SequenceState, int] = {}
    touched: list[SequenceState] = []  # rows that got tokens in this step
    # the longest first: if memory runs out, then at once
    for number in sorted(range(len(requests)), key=lambda n: -len(requests[n].prompt)):
        request = requests[number]
        seed = first_seed(torch.Generator(model.device).manual_seed(request.seed))
        row = engine.submit(request.prompt, seed=seed, **request.settings)
        row.emit = partial(_note, touched, row)
        row.stops = GeneratedStoppingCriteria(resolve(model.trunk, None, request.settings), request.stops, tokenizer, row.prompt)
        numbers[row] = number
    with decoding(engine.view.config):
        while not engine.idle:
            engine.step()
            for row in touched:
                if row in numbers and row.finished and row.error is None:  # the first round may follow the prompt in one step
                    done(numbers.pop(row), row.new)
            touched.clear()
    for row in numbers:
        if row.error is not None:
            raise row.error
    return engine.stats_collector.stats()


class GeneratedStoppingCriteria(StoppingCriteria):
    """Ends a row with a token that ends sequences, or once what was generated contains one of `strings`."""

    def __init__(self, config: GenerationConfig, strings: Sequence[str], tokenizer: Any, prompt: int) -> None:
        super().__init__(config)
        self.wanted, self.tokenizer, self.prompt = [text for text in strings if text], tokenizer, prompt
        # a character is at most four tokens; a word that spans the end of the string, a few more
        self.reach = max((len(text.encode()) for text in self.wanted), default=0) + 4

    def cut(self, tokens: Sequence[int], new: Sequence[int]) -> tuple[int, bool]:
        settled = list(tokens[max(self.prompt, len(tokens) - self.reach) :])
        near = self.wanted and self._contained([*settled, *new])
        for count, token in enumerate(new, 1):
            if token in self.eos or (near and self._contained([*tokens[self.prompt :], *new[:count]])):
                return count, True
        return len(new), False

    def _contained(self, tokens: list[int]) -> bool:
        text = self.tokenizer.decode(tokens)
        return any(wanted in text for wanted in self.wanted)


def before_stops(text: str, stops: Sequence[str]) -> str:
    """The text up to the first stop."""
    for stop in stops:
        text = text.split(stop)[0]
    return text


def _note(touched: list[SequenceState], row: SequenceState, tokens: list[int]) -> None:
    touched.append(row)


def _one_by_one(model: DraftableModel, requests: Sequence[Request], done: Callable[[int, list[int]], None]) -> DecodeStats:
    stats = []
    for number, request in enumerate(requests):
        ids = torch.tensor([request.prompt], device=model.device)
        settings = request.settings | ({"seed": request.seed} if request.settings.get("do_sample") else {})
        out = generate(model, ids, plain=True, **settings)
        stats.append(out.stats)
        done(number, out.sequences[0, len(request.prompt) :].tolist())
    return DecodeStats.together(stats)
