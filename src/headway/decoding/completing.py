"""`complete`: many requests through one engine; a finished sequence makes room for a waiting one."""

import warnings
from collections.abc import Iterable, Iterator
from typing import Any

import torch

from headway.decoding.autoregressive import decode_autoregressive
from headway.decoding.batch import SequenceState
from headway.decoding.draftable import DraftableModel
from headway.decoding.drafters.base import DrafterFactory
from headway.decoding.engine import Engine
from headway.decoding.exactness import exactness_issue
from headway.decoding.generation_config import context_issue, new_token_limit, prompt_tokens, resolve, seed_number
from headway.decoding.padding import left_block
from headway.decoding.requests import Completion, Handle, Request
from headway.decoding.stopping import (
    FinishReason,
    GeneratedTextMatcher,
    StoppingCriteria,
    check_stop_strings,
    completion_text,
    eos_tokens,
)
from headway.trunk import eval_mode


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
) -> Iterator[Completion]:
    """Completions of all requests, in the order in which they end.

    Requests are submitted before the first completion is yielded, those with the longest prompts first: if memory runs out, then at
    once. A trunk without exact ragged batches decodes one prompt at a time, autoregressively.

    Args:
        tokenizer: decodes completions, and searches stop strings.
        drafter: factory of the drafter; None decodes autoregressively.
        max_batch_size, max_tokens, adaptive, compile: see `Engine`.
    Raises:
        ConfigError: as `Engine.submit`, before anything is decoded.
        Exception: the first exception that ended a sample, after all other completions.
    """
    requests = list(requests)
    with eval_mode(model):
        if exactness_issue(model.trunk):
            yield from _one_by_one(model, tokenizer, requests)
            return
        engine = Engine(
            model,
            drafter,
            tokenizer=tokenizer,
            max_batch_size=max_batch_size,
            max_tokens=max_tokens,
            adaptive=adaptive,
            compile=compile,
        )
        samples: dict[SequenceState, tuple[Handle, int, int]] = {}
        for index in sorted(range(len(requests)), key=lambda index: -len(requests[index].prompt)):
            handle = engine.submit(requests[index])
            samples |= {sample: (handle, number, index) for number, sample in enumerate(handle.samples)}
        errors: list[Exception] = []
        while samples:
            for sample in engine.run_until_finished():
                handle, number, index = samples.pop(sample)
                if sample.error is None:
                    yield handle.completion(number, index)
                else:
                    errors.append(sample.error)
    if errors:
        raise errors[0]


def _one_by_one(model: DraftableModel, tokenizer: Any, requests: list[Request]) -> Iterator[Completion]:
    """Completions by transformers' `generate`, a sample at a time."""
    trunk, device = model.trunk, model.device
    noted = False
    for index, request in enumerate(requests):
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
            generator = None
            if config.do_sample:
                generator = torch.Generator(device)
                _ = (
                    generator.seed()
                    if sampling.seed is None
                    else generator.manual_seed(seed_number(seed_number(sampling.seed) + number))
                )
            (row,), _ = decode_autoregressive(
                trunk, block, mask, config, [limit], stopping, batch_size=1, generator=generator, logprobs=sampling.logprobs
            )
            yield Completion(
                index,
                number,
                tuple(row.tokens),
                completion_text(tokenizer, row.tokens, strings, sampling.keep_stop_string),
                tuple(row.logprobs) if sampling.logprobs else None,
                FinishReason.STOP if row.stopped else FinishReason.LENGTH,
                row.stats,
            )
