"""`generate`: a batch of prompts through the engine, with the arguments and defaults of transformers' `generate`."""

import warnings
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor
from transformers import GenerationConfig

from headway.decoding.autoregressive import decode_autoregressive
from headway.decoding.batch import SequenceState
from headway.decoding.draft_length import DraftLengthController
from headway.decoding.draftable import DraftableModel
from headway.decoding.drafters.base import Drafter, DrafterFactory
from headway.decoding.drafters.heads import heads_drafter
from headway.decoding.engine import Engine, new_controller
from headway.decoding.exactness import exactness_issue, length_issue
from headway.decoding.generation_config import check_known, context_issue, is_whole, new_token_limit, resolve, seed_number
from headway.decoding.padding import left_pad, right_block, token_lists
from headway.decoding.sampler import Sampler, first_seed, new_generator
from headway.decoding.stats import DecodeStats
from headway.decoding.stopping import StoppingCriteria, WholeTextMatcher, check_stop_strings, eos_tokens, pad_token
from headway.decoding.verify import acceptance_rules
from headway.errors import ConfigError
from headway.trunk import eval_mode

# controllers of earlier calls, by model and configuration; a call takes its controller out while it decodes
_controllers: WeakKeyDictionary[DraftableModel, dict[Hashable, DraftLengthController]] = WeakKeyDictionary()


@dataclass(frozen=True)
class Generation:
    """Result of `generate`.

    Args:
        sequences: (batch, width + new), the prompts as given and the new tokens, padded on the right.
        stats: cost of the call.
    """

    sequences: Tensor
    stats: DecodeStats


@torch.no_grad()
def generate(
    model: DraftableModel,
    input_ids: Tensor,
    attention_mask: Tensor | None = None,
    *,
    generation_config: GenerationConfig | str | None = None,
    streamer: Any = None,
    tokenizer: Any = None,
    generator: torch.Generator | None = None,
    seed: int | None = None,
    speculative: bool = True,
    drafter: DrafterFactory | None = None,
    adaptive: bool = True,
    acceptance: str = "coupled",
    compile: bool = False,
    max_batch_size: int | None = None,
    strict_context: bool = False,
    **kwargs: Any,
) -> Generation:
    """Continue prompts, with the model's heads as drafters; arguments and defaults of transformers' `generate`.

    A trunk without exact ragged batches decodes autoregressively, with a UserWarning; a model without heads does too, silently.

    Args:
        input_ids: prompts, (batch, seq), padded on either side.
        attention_mask: (batch, seq), 0 for padding.
        generation_config: base of the settings instead of the model's own; "none" keeps only the model's special tokens.
        streamer: receives the prompt and then every token; for a single row.
        tokenizer: needed for `stop_strings`.
        generator: source of the sampled tokens, on the model's device; the global generator is never used.
        seed: seed of a new generator; without a seed or a generator, sampling differs from call to call. The same seed gives the
            same tokens with any drafter and without, unless `acceptance` says otherwise.
        speculative: False decodes autoregressively.
        drafter: factory of the drafter; default: the model's heads.
        adaptive: verify as many drafts as pay, none if none pay; otherwise as many as the drafter can propose.
        acceptance: acceptance rule of drafts when sampling. `coupled`: trunk and drafter sample with the same noise. `token`,
            `block`: rejection sampling of chains, per token or per block. `multi-candidate`: rejection sampling of trees.
            `typical`: lossy, the output is not the trunk's distribution.
        compile: see `Engine`.
        max_batch_size: maximum number of sequences decoded at once; default: all.
        strict_context: refuse a prompt with more tokens than the context that the model was trained for, instead of a warning.
    Raises:
        ConfigError: for an argument that is unknown, not supported or out of range.
    """
    trunk = model.trunk
    config = resolve(trunk, generation_config, kwargs)
    block, mask = left_pad(input_ids, attention_mask, config)
    given, block, mask = (rows.to(trunk.device) for rows in (input_ids, block, mask))
    check_known(trunk, *(int(bound) for bound in block[mask].aminmax()))
    if streamer is not None and block.shape[0] * config.num_return_sequences > 1:
        raise ConfigError("A streamer takes one row at a time, but this batch has more.")
    if max_batch_size is not None and not is_whole(max_batch_size, 1):
        raise ConfigError(f"max_batch_size must be a whole number of at least 1, got {max_batch_size!r}.")
    given, block, mask = (rows.repeat_interleave(config.num_return_sequences, 0) for rows in (given, block, mask))
    prompts = token_lists(block, mask)
    limits = [new_token_limit(trunk, config, len(prompt), block.shape[1]) for prompt in prompts]
    if note := context_issue(model.view.context, max(map(len, prompts)), strict_context):
        warnings.warn(note, UserWarning, stacklevel=3)
    batch_size = min(max_batch_size or len(prompts), len(prompts))
    strings = check_stop_strings(config.stop_strings, tokenizer)
    stopping = StoppingCriteria(eos_tokens(config), WholeTextMatcher(strings, tokenizer) if strings else None)
    rules = acceptance_rules(acceptance)
    if config.min_length and config.min_new_tokens is None:  # counts columns of the block, padding included
        config.min_length, config.min_new_tokens = 0, max(0, config.min_length - block.shape[1])
    generator = _generator(model, generator, seed, bool(config.do_sample))
    if not speculative:
        drafter = None
    elif drafter is None and model.heads is not None:
        drafter = heads_drafter(compile=compile)
    with eval_mode(model):
        longest = max(len(prompt) + limit for prompt, limit in zip(prompts, limits, strict=True))
        if reason := exactness_issue(trunk) or length_issue(trunk, longest):
            if drafter is not None:
                message = f"{type(trunk).__name__} cannot be decoded exactly with drafts ({reason}); it decodes autoregressively."
                warnings.warn(message, UserWarning, stacklevel=3)
            options = {"batch_size": batch_size, "streamer": streamer, "generator": generator}
            continuations, stats = decode_autoregressive(trunk, block, mask, config, limits, stopping, **options)
            new = [continuation.tokens for continuation in continuations]
        else:
            controllers = _controllers.setdefault(model, {})
            shared = (compile, config.do_sample and acceptance, trunk.dtype, model.device, torch.get_num_threads())
            engine = Engine(
                model,
                drafter,
                max_batch_size=batch_size,
                adaptive=adaptive,
                compile=compile,
                controller=lambda built: controllers.pop((*_key(built), *shared), None) or new_controller(built, compile),
            )
            sampler = Sampler(config, block.device, generator, *rules, vocabulary=model.view.unembedding.size)
            start = 0 if generator is None else first_seed(generator)
            rows = [
                SequenceState(tokens, len(tokens), len(tokens) + limit, sampler, stopping, start + number)
                for number, (tokens, limit) in enumerate(zip(prompts, limits, strict=True))
            ]
            if streamer is not None:
                streamer.put(block.cpu())
                rows[0].on_tokens = _put_each(streamer)
            try:
                new = _run(engine, rows)
            finally:
                if engine.drafter is not None and engine.controller is not None:
                    controllers[(*_key(engine.drafter), *shared)] = engine.controller
            if streamer is not None:
                streamer.end()
            stats = engine.stats()
    return Generation(torch.cat([given, right_block(new, pad_token(config), block.device)], dim=1), stats)


def _generator(
    model: DraftableModel, generator: torch.Generator | None, seed: int | None, do_sample: bool
) -> torch.Generator | None:
    """The generator to sample from: the given generator, or a new generator with the given or a random seed.

    Raises:
        ConfigError: for both a seed and a generator, and for a seed that is no whole number.
    """
    if seed is not None:
        if generator is not None:
            raise ConfigError("seed and generator exclude each other; give one of them.")
        seed = seed_number(seed)
    return new_generator(model.trunk.device, seed) if generator is None and do_sample else generator


def _key(drafter: Drafter) -> tuple[Hashable, ...]:
    """Configuration of a drafter: timing statistics are shared by drafters with the same key."""
    return type(drafter), drafter.draft_sizes, drafter.config_key


def _put_each(streamer: Any) -> Callable[[list[int]], None]:
    def put(tokens: list[int]) -> None:
        for token in tokens:
            streamer.put(torch.tensor([token]))

    return put


def _run(engine: Engine, rows: list[SequenceState]) -> list[list[int]]:
    """New tokens of all rows; the first error of a row is raised."""
    for row in rows:
        engine.add(row)
    engine.run()
    for row in rows:
        if row.error is not None:
            raise row.error
    return [row.new_tokens for row in rows]
