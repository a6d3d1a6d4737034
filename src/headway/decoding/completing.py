"""`complete`: many requests through an engine; finished sequences make room for waiting sequences."""

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import Any

from headway.decoding.autoregressive import decode_autoregressive
from headway.decoding.batch import SequenceState
from headway.decoding.draftable import DraftableModel
from headway.decoding.drafters.base import DrafterFactory
from headway.decoding.engine import Engine
from headway.decoding.exactness import exactness_issue, length_issue
from headway.decoding.generation_config import context_issue, new_token_limit, prompt_tokens, resolve
from headway.decoding.padding import left_block
from headway.decoding.requests import Completion, Handle, Request
from headway.decoding.sampler import new_generator
from headway.decoding.stopping import (
    FinishReason,
    GeneratedTextMatcher,
    StoppingCriteria,
    check_stop_strings,
    completion_text,
    eos_tokens,
)
from headway.trunk import eval_mode

OnRequestTokens = Callable[[int, int, list[int]], None]  # request index, sample index, new tokens


def complete(
    model: DraftableModel,
    tokenizer: Any,
    requests: Iterable[Request],
    *,
    drafter: DrafterFactory | None = None,
    max_batch_size: int = 16,
    max_tokens: int | None = None,
    adaptive: bool = True,
    compile: bool = False,
    on_tokens: OnRequestTokens | None = None,
) -> Iterator[Completion]:
    """Completions of all requests, in the order of completion.

    All requests are submitted before the first completion, in order of descending prompt length: a lack of memory shows at once.
    A request that the engine cannot serve exactly is decoded autoregressively, at the end.

    Args:
        tokenizer: decodes completions, and searches stop strings.
        drafter: factory of the drafter; None decodes autoregressively.
        max_batch_size, max_tokens, adaptive, compile: see `Engine`.
        on_tokens: called with the request index, the sample index and the new tokens after each step.
    Raises:
        ConfigError: as `Engine.submit`, before anything is decoded.
        Exception: the first exception that ended a sample, after all completions.
    """
    numbered = dict(enumerate(requests))
    issues = {index: issue for index, request in numbered.items() if (issue := _engine_issue(model, request))}
    apart = {index: numbered[index] for index in issues}
    if issues and drafter is not None:
        reason = next(iter(issues.values()))
        message = f"{type(model.trunk).__name__} cannot be decoded exactly with drafts ({reason}); it decodes autoregressively."
        warnings.warn(message, UserWarning, stacklevel=2)
    samples: dict[SequenceState, tuple[Handle, int, int]] = {}
    if len(apart) < len(numbered):
        limits: dict[str, Any] = {"max_batch_size": max_batch_size, "max_tokens": max_tokens}
        engine = Engine(model, drafter, tokenizer=tokenizer, adaptive=adaptive, compile=compile, **limits)
        for index, request in sorted(numbered.items(), key=lambda item: -len(item[1].prompt)):
            if index not in apart:
                handle = engine.submit(request, None if on_tokens is None else partial(on_tokens, index))
                samples |= {sample: (handle, number, index) for number, sample in enumerate(handle.samples)}
    errors: list[Exception] = []
    while samples:
        for sample in engine.run_until_finished():
            handle, number, index = samples.pop(sample)
            if sample.error is None:
                yield handle.completion(number, index)
            else:
                errors.append(sample.error)
    yield from _one_by_one(model, tokenizer, apart, on_tokens)
    if errors:
        raise errors[0]


def _engine_issue(model: DraftableModel, request: Request) -> str | None:
    """The reason why the engine cannot serve a request exactly; None for a request that the engine can serve."""
    if issue := exactness_issue(model.trunk):
        return issue
    config = resolve(model.trunk, request.sampling.generation_config, request.sampling.arguments, one_row=True)
    return length_issue(model.trunk, len(request.prompt) + new_token_limit(model.trunk, config, len(request.prompt)))


def _one_by_one(
    model: DraftableModel, tokenizer: Any, requests: Mapping[int, Request], on_tokens: OnRequestTokens | None
) -> Iterator[Completion]:
    """Completions by transformers' `generate`, a sample at a time."""
    trunk, device = model.trunk, model.device
    noted = False
    for index, request in requests.items():
        sampling = request.sampling
        config = resolve(trunk, sampling.generation_config, sampling.arguments, one_row=True)
        prompt = prompt_tokens(trunk, request.prompt)
        limit = new_token_limit(trunk, config, len(prompt))
        note = context_issue(model.view.context, len(prompt), sampling.strict_context)
        if note and not noted:
            noted = True
            warnings.warn(note, UserWarning, stacklevel=3)
        strings = check_stop_strings(config.stop_strings, tokenizer) + check_stop_strings(sampling.stop_strings, tokenizer)
        stopping = StoppingCriteria(eos_tokens(config), GeneratedTextMatcher(strings, tokenizer) if strings else None)
        block, mask = left_block([prompt], 0, device)
        for number in range(request.n):
            generator = new_generator(device, sampling.seed, number) if config.do_sample else None
            with eval_mode(model):
                (row,), _ = decode_autoregressive(
                    trunk, block, mask, config, [limit], stopping, batch_size=1, generator=generator, logprobs=sampling.logprobs
                )
            if on_tokens is not None:
                on_tokens(index, number, list(row.tokens))
            yield Completion(
                index,
                number,
                tuple(row.tokens),
                completion_text(tokenizer, row.tokens, strings, sampling.keep_stop_string),
                tuple(row.logprobs) if sampling.logprobs else None,
                FinishReason.STOP if row.stopped else FinishReason.LENGTH,
                row.stats,
            )
