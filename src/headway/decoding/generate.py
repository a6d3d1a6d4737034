"""Self-speculative decoding of chains: prefill, draft, verify, accept, again (Stern et al. 2018, arXiv 1811.03115;
Leviathan et al. 2022, arXiv 2211.17192). Greedy output is the trunk's own, sampled output has the trunk's distribution.
"""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import GenerationConfig

from headway.decoding.arguments import new_token_limit, resolve
from headway.decoding.cache import RaggedCache
from headway.decoding.drafting import Forward, drafter_for
from headway.decoding.plain import decode_plainly
from headway.decoding.probe import why_not_exact, why_not_this_long
from headway.decoding.rows import Rows, left_pad
from headway.decoding.scores import Scores
from headway.decoding.stats import DecodeStats, Tally
from headway.decoding.stopping import Stops, pad_token
from headway.errors import ConfigError
from headway.model import HeadwayModel
from headway.ops.acceptance import Accepted, accept_greedy, accept_sampled
from headway.trunk import TrunkView


@dataclass(frozen=True)
class Generation:
    """sequences: (batch, width + new), the prompts as given and the new tokens, padded on the right."""

    sequences: Tensor
    stats: DecodeStats


@torch.no_grad()
def generate(
    model: HeadwayModel,
    input_ids: Tensor,
    attention_mask: Tensor | None = None,
    *,
    generation_config: GenerationConfig | None = None,
    streamer: Any = None,
    tokenizer: Any = None,
    generator: torch.Generator | None = None,
    seed: int | None = None,
    plain: bool = False,
    **kwargs: Any,
) -> Generation:
    """Continue prompts, with the heads as drafters. Arguments and defaults are those of transformers' `generate`.

    A trunk that cannot be decoded exactly this way is decoded plainly, with a UserWarning; so is a model without heads.

    Args:
        input_ids: (batch, seq), padded on either side; attention_mask: same shape, 0 for padding.
        streamer: gets the prompt and then each token; one row only.
        tokenizer: needed for `stop_strings`.
        generator, seed: where drawn tokens come from, a generator on the model's device or the seed of a fresh one;
            without either, sampling differs from call to call. The global generator is never touched.
        plain: decode with the trunk alone.
    Raises: ConfigError for an argument that is unknown, not supported or out of range.
    """
    trunk = model.trunk
    config = resolve(trunk, generation_config, kwargs)
    given = input_ids.to(trunk.device)
    block, mask = left_pad(given, attention_mask, config)
    if streamer is not None and block.shape[0] * config.num_return_sequences > 1:
        raise ConfigError("A streamer takes one row at a time, but this batch has more.")
    limit = new_token_limit(trunk, config, block.shape[1])
    given, block, mask = (rows.repeat_interleave(config.num_return_sequences, 0) for rows in (given, block, mask))
    stops = Stops(config, tokenizer)
    if generator is None and config.do_sample:
        generator = torch.Generator(trunk.device)
        _ = generator.seed() if seed is None else generator.manual_seed(seed)
    with _evaluating(model):
        if not plain and model.heads is not None and (reason := _why_plain(model, block.shape[1] + limit)):
            message = f"{type(trunk).__name__} cannot be decoded exactly with drafts ({reason}); it decodes plainly."
            warnings.warn(message, UserWarning, stacklevel=2)
            plain = True
        if plain or model.heads is None:
            new, stats = decode_plainly(trunk, block, mask, config, limit, stops, streamer, tokenizer, generator)
        else:
            scores = Scores(config, block.shape[1], block.shape[1] + limit, block.device, generator)
            new, stats = _decode_chains(model, block, mask, scores, limit, stops, pad_token(config), streamer)
    return Generation(torch.cat([given, new], dim=1), stats)


def _decode_chains(
    model: HeadwayModel,
    block: Tensor,
    mask: Tensor,
    scores: Scores,
    new_tokens: int,
    stops: Stops,
    padding: int,
    streamer: Any = None,
) -> tuple[Tensor, DecodeStats]:
    """New tokens (batch, new), padded on the right, for left-padded prompts (batch, width)."""
    heads = model.heads
    assert heads is not None
    view = model.view
    width = block.shape[1]
    limit = width + new_tokens  # columns of a row of full length
    rows = Rows.start(block, mask, new_tokens + heads.count)
    cache = RaggedCache(limit - min(rows.pads))
    drafter = drafter_for(heads, view, cache)
    finished: dict[int, list[int]] = {}
    tally = Tally(heads.count)
    if streamer is not None:
        streamer.put(block.cpu())

    with tally.timed("prefill"):
        forward, at, accepted = _prefill(view, cache, rows, scores)
    usable = [0] * len(rows.index)
    while True:
        with tally.timed("accept"):
            tally.forward(len(rows.index))
            running = _settle(rows, accepted, usable, limit, stops, tally, finished, width, streamer)
        if not running:
            break
        with tally.timed("draft"):
            drafter.observe(forward, at)
            if len(running) < len(rows.index):
                for part in (rows, drafter):
                    part.select(running)
                cache.select(torch.tensor(running, device=block.device))
            usable = [min(heads.count, limit - end - 1) for end in rows.ends]
            distributions = drafter.draft(rows, max(usable), scores)
        with tally.timed("verify"):
            forward, logits = _verify(view, cache, rows, usable)
        with tally.timed("accept"):
            accepted = _accept(rows, logits, distributions, usable, scores)
            at = accepted.kept
    if streamer is not None:
        streamer.end()
    longest = max(len(tokens) for tokens in finished.values())
    padded = [finished[r] + [padding] * (longest - len(finished[r])) for r in range(block.shape[0])]
    return torch.tensor(padded, device=block.device), tally.stats()


def _prefill(view: TrunkView, cache: RaggedCache, rows: Rows, scores: Scores) -> tuple[Forward, Tensor, Accepted]:
    """The whole prompts, each row from position 0, and the first token of each."""
    lengths = rows.ends_tensor - rows.pads_tensor
    positions = torch.arange(rows.longest, device=rows.device).expand(len(rows.index), -1)
    forward = _forward(view, cache, rows, torch.where(positions < lengths[:, None], positions, -1), rows.longest)
    last = lengths - 1
    states = forward.tapped.last[torch.arange(len(rows.index), device=rows.device), last]
    logits = view.unembedding.logits(states[:, None])
    return forward, last, _accept(rows, logits, [], [0] * len(rows.index), scores)


def _verify(view: TrunkView, cache: RaggedCache, rows: Rows, usable: list[int]) -> tuple[Forward, Tensor]:
    """The last settled token of each row and its drafts in one forward; logits (rows, drafts + 1, vocab)."""
    steps = torch.arange(max(usable) + 1, device=rows.device)
    positions = (rows.ends_tensor - rows.pads_tensor - 1)[:, None] + steps
    positions = torch.where(steps <= torch.tensor(usable, device=rows.device)[:, None], positions, -1)
    visible = max(end - pad + n for end, pad, n in zip(rows.ends, rows.pads, usable, strict=True))
    forward = _forward(view, cache, rows, positions, visible)
    return forward, view.unembedding.logits(forward.tapped.last)


def _forward(view: TrunkView, cache: RaggedCache, rows: Rows, positions: Tensor, visible: int) -> Forward:
    """positions: (rows, seq), -1 for padding."""
    input_ids = rows.at(positions)
    keys = torch.arange(visible, device=rows.device).expand(positions.shape[0], -1)  # slot equals position
    masks = view.masks(positions, keys)
    cache.begin(positions, visible)
    return Forward(view.run(input_ids, positions.clamp(min=0), masks, cache), input_ids, positions, masks)


def _accept(rows: Rows, logits: Tensor, distributions: list[Tensor], usable: list[int], scores: Scores) -> Accepted:
    """How many drafts of each row stay, and the token after them."""
    depth = logits.shape[1] - 1
    processed = scores.processed(logits, rows.tokens, rows.ends, rows.pads_tensor)
    columns = rows.ends_tensor[:, None] + torch.arange(depth, device=rows.device)
    drafts = rows.tokens.gather(1, columns)
    available = torch.tensor(usable, device=rows.device)
    if not scores.sampled:
        return accept_greedy(processed, drafts, available)
    target = scores.probabilities(processed)
    draft = torch.stack(distributions, dim=1) if depth else target[:, :0]
    return accept_sampled(target, draft, drafts, scores.generator, available)


def _settle(
    rows: Rows,
    accepted: Accepted,
    usable: list[int],
    limit: int,
    stops: Stops,
    tally: Tally,
    finished: dict[int, list[int]],
    width: int,
    streamer: Any,
) -> list[int]:
    """Append the accepted tokens, move finished rows to `finished`; return which rows go on."""
    rows.tokens.scatter_(1, (rows.ends_tensor + accepted.kept)[:, None], accepted.following[:, None])
    kept = accepted.kept.tolist()
    running = []
    tokens = rows.tokens.cpu()
    cuts = stops.cut(tokens, rows.ends, [n + 1 for n in kept])
    for r, (count, stopped) in enumerate(cuts):
        tally.accepted(usable[r], kept[r])
        tally.tokens += count
        start, rows.ends[r] = rows.ends[r], rows.ends[r] + count
        if streamer is not None:
            for token in tokens[r, start : rows.ends[r]]:
                streamer.put(token[None])
        if stopped or rows.ends[r] >= limit:
            finished[rows.index[r]] = tokens[r, width : rows.ends[r]].tolist()
        else:
            running.append(r)
    return running


def _why_plain(model: HeadwayModel, length: int) -> str | None:
    return why_not_exact(model.trunk) or why_not_this_long(model.trunk, length)


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    """Without dropout and the like; modules that were training train on afterwards."""
    training = [module for module in model.modules() if module.training]
    for module in training:
        module.training = False
    try:
        yield
    finally:
        for module in training:
            module.training = True
