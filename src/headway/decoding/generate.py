"""`generate`: a batch of prompts through the engine, with the arguments and defaults of transformers' `generate`."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor
from transformers import GenerationConfig

from headway.decoding.autoregressive import decode_autoregressive
from headway.decoding.batch import SequenceState, first_seed, left_pad, token_lists
from headway.decoding.draft_length import DraftLengthController
from headway.decoding.draftable import DraftableModel
from headway.decoding.drafters.base import DrafterFactory
from headway.decoding.drafters.heads import heads_drafter
from headway.decoding.engine import Engine
from headway.decoding.exactness import exactness_issue, length_issue
from headway.decoding.generation_config import check_known, is_whole, new_token_limit, resolve, seed_number
from headway.decoding.sampler import Sampler
from headway.decoding.stats import DecodeStats
from headway.decoding.stopping import StoppingCriteria, pad_token
from headway.errors import ConfigError
from headway.trunk import eval_mode

# what earlier calls learnt, by model and by way of drafting
_controllers: WeakKeyDictionary[DraftableModel, dict[Any, DraftLengthController]] = WeakKeyDictionary()


@dataclass(frozen=True)
class Generation:
    """sequences: (batch, width + new), the prompts as given and the new tokens, padded on the right."""

    sequences: Tensor
    stats: DecodeStats


@torch.no_grad()
def generate(
    model: DraftableModel,
    input_ids: Tensor,
    attention_mask: Tensor | None = None,
    *,
    generation_config: GenerationConfig | None = None,
    streamer: Any = None,
    tokenizer: Any = None,
    generator: torch.Generator | None = None,
    seed: int | None = None,
    plain: bool = False,
    drafter: DrafterFactory | None = None,
    adaptive: bool = True,
    acceptance: str = "coupled",
    compile: bool = False,
    max_rows: int | None = None,
    **kwargs: Any,
) -> Generation:
    """Continue prompts, with the heads as drafters. Arguments and defaults are those of transformers' `generate`.

    A trunk that cannot be decoded exactly this way is decoded plainly, with a UserWarning; so is a model without heads.

    Args:
        input_ids: (batch, seq), padded on either side; attention_mask: same shape, 0 for padding.
        streamer: gets the prompt and then each token; one row only.
        tokenizer: needed for `stop_strings`.
        generator, seed: where drawn tokens come from, a generator on the model's device or the seed of a fresh one;
            without either, sampling differs from call to call. The global generator is never touched. The same seed gives
            the same tokens with any drafter and with none, unless `acceptance` says otherwise.
        plain: decode with the trunk alone.
        drafter: makes what drafts; default: the model's heads, if it has any.
        adaptive: verify as many drafts as pay, none if none do; otherwise always as many as the drafter can propose.
        acceptance: of drafts when sampling: `coupled`, trunk and drafter draw with the same noise; `block` and `token`,
            chains drawn from the drafter, judged together or one by one; `multi-candidate`, trees drawn from the drafter,
            siblings judged one after the other; `typical`, which is lossy: the output is no
            longer the trunk's.
        compile: see `Engine`.
        max_rows: decoded together at most, while others wait for a place; default: all.
    Raises: ConfigError for an argument that is unknown, not supported or out of range.
    """
    trunk = model.trunk
    config = resolve(trunk, generation_config, kwargs)
    block, mask = left_pad(input_ids, attention_mask, config)
    given, block, mask = (rows.to(trunk.device) for rows in (input_ids, block, mask))
    check_known(trunk, *(int(most) for most in block[mask].aminmax()))
    if streamer is not None and block.shape[0] * config.num_return_sequences > 1:
        raise ConfigError("A streamer takes one row at a time, but this batch has more.")
    if max_rows is not None and not is_whole(max_rows, 1):
        raise ConfigError(f"max_rows must be a whole number of at least 1, got {max_rows!r}.")
    limit = new_token_limit(trunk, config, block.shape[1])
    given, block, mask = (rows.repeat_interleave(config.num_return_sequences, 0) for rows in (given, block, mask))
    together = min(max_rows or block.shape[0], block.shape[0])
    stops = StoppingCriteria(config, tokenizer)
    if seed is not None:
        if generator is not None:
            raise ConfigError("seed and generator exclude each other; give one of them.")
        seed = seed_number(seed)
    if generator is None and config.do_sample:
        generator = torch.Generator(trunk.device)
        _ = generator.seed() if seed is None else generator.manual_seed(seed)
    if plain:
        drafter = None
    elif drafter is None and model.heads is not None:
        drafter = heads_drafter(compile=compile)
    with eval_mode(model):
        if reason := exactness_issue(trunk) or length_issue(trunk, block.shape[1] + limit):
            if drafter is not None:
                message = f"{type(trunk).__name__} cannot be decoded exactly with drafts ({reason}); it decodes plainly."
                warnings.warn(message, UserWarning, stacklevel=3)
            parts = [
                decode_autoregressive(trunk, *rows, config, limit, stops, streamer, tokenizer, generator)
                for rows in zip(block.split(together), mask.split(together), strict=True)
            ]
            new = _padded([row for part, _ in parts for row in part.tolist()], pad_token(config), block.device)
            stats = DecodeStats.together([part for _, part in parts])
        else:
            engine = Engine(model, drafter, max_rows=together, adaptive=adaptive, compile=compile)
            if engine.drafter is not None and engine.controller is not None:
                drafts = (type(engine.drafter), engine.drafter.draft_sizes, engine.drafter.config_key)
                key = (*drafts, compile, config.do_sample and acceptance, trunk.dtype, model.device, torch.get_num_threads())
                engine.controller = _controllers.setdefault(model, {}).setdefault(key, engine.controller)
            if config.min_length and config.min_new_tokens is None:  # counts columns of the block, padding included
                config.min_length, config.min_new_tokens = 0, max(0, config.min_length - block.shape[1])
            scores = Sampler(config, block.device, generator, acceptance, model.view.unembedding.size)
            start = 0 if generator is None else first_seed(generator)
            rows = [
                SequenceState(tokens, len(tokens), len(tokens) + limit, scores, stops, start + number)
                for number, tokens in enumerate(token_lists(block, mask))
            ]
            if streamer is not None:
                streamer.put(block.cpu())
                rows[0].emit = _put_each(streamer)
            new, stats = _run(engine, rows, pad_token(config))
            if streamer is not None:
                streamer.end()
    return Generation(torch.cat([given, new], dim=1), stats)


def _put_each(streamer: Any) -> Callable[[list[int]], None]:
    def put(tokens: list[int]) -> None:
        for token in tokens:
            streamer.put(torch.tensor([token]))

    return put


def _run(engine: Engine, rows: list[SequenceState], padding: int) -> tuple[Tensor, DecodeStats]:
    """New tokens (batch, new) of all rows, padded on the right."""
    for row in rows:
        engine.add(row)
    engine.run()
    for row in rows:
        if row.error is not None:
            raise row.error
    return _padded([row.new for row in rows], padding, engine.batch.device), engine.stats_collector.stats()


def _padded(rows: list[list[int]], padding: int, device: torch.device) -> Tensor:
    """On the right, (rows, longest)."""
    longest = max(map(len, rows))
    return torch.tensor([row + [padding] * (longest - len(row)) for row in rows], device=device)
