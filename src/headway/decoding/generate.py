"""Self-speculative decoding of a batch: draft a chain with the heads, verify it in one pass of the trunk, keep what it agrees to.

Blockwise parallel decoding (Stern et al. 2018) as Gloeckle et al. 2024 use it, for rows of any length; sampling is exact through
speculative sampling. In float32 the tokens are those of the trunk's own `generate`.
"""

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Generator, Tensor
from transformers import GenerationConfig

from headway.decoding.cache import RaggedCache
from headway.decoding.drafting import Draft, HeadsDrafter, Passed
from headway.decoding.probe import can_be_served
from headway.decoding.settings import Settings
from headway.decoding.stats import DecodeStats
from headway.errors import ConfigError
from headway.heads import HeadStack
from headway.ops.acceptance import Accepted, accept_greedy, accept_sampled
from headway.trunk import TrunkView

if TYPE_CHECKING:
    from headway.model import HeadwayModel


@dataclass(frozen=True)
class Generation:
    """Sequences as transformers pads them, (batch, prompt + new), and what they cost."""

    sequences: Tensor
    stats: DecodeStats


@torch.no_grad()
def generate(
    model: "HeadwayModel",
    input_ids: Tensor,
    attention_mask: Tensor | None = None,
    *,
    generation_config: GenerationConfig | None = None,
    tokenizer: Any = None,
    streamer: Any = None,
    seed: int | None = None,
    plain: bool = False,
    **arguments: Any,
) -> Generation:
    """Decode with the heads as drafters.

    Args:
        input_ids: prompts, padded on either side, (batch, seq); attention_mask: 1 for tokens, same shape.
        generation_config, arguments: as transformers' `generate` has them, with its defaults: max_new_tokens, max_length,
            do_sample, temperature, top_k, top_p, min_p, repetition_penalty, no_repeat_ngram_size, min_new_tokens, suppress_tokens,
            eos_token_id (one or several), pad_token_id, num_return_sequences, stop_strings (with `tokenizer`).
        streamer: gets tokens as they are final; one prompt only, as in transformers.
        seed: of the draws; default: torch's global generator.
        plain: do not draft.
    Returns: sequences and statistics. Greedy gives the trunk's own tokens, sampling its own distribution.
    Raises: ConfigError for arguments that are unknown, not served or out of range.
    Warns: UserWarning where the trunk cannot be served exactly; it then decodes through transformers.
    """
    if input_ids.dim() != 2 or input_ids.numel() == 0:
        raise ConfigError(f"input_ids must be (batch, seq) and not empty, got {tuple(input_ids.shape)}.")
    mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
    if mask.shape != input_ids.shape or not bool((mask.sum(1) > 0).all()):
        raise ConfigError("attention_mask must have the shape of input_ids and show at least one token in every row.")
    settings = Settings.resolve(model.trunk, input_ids.shape[1], generation_config, tokenizer, arguments)
    if settings.returned > 1:
        if not settings.do_sample:
            raise ConfigError("num_return_sequences above 1 needs do_sample=True: greedy rows would all be equal.")
        input_ids, mask = (tensor.repeat_interleave(settings.returned, 0) for tensor in (input_ids, mask))
    if streamer is not None and len(input_ids) > 1:
        raise ConfigError("A streamer takes one prompt at a time.")
    training = model.training
    model.eval()
    try:
        if not can_be_served(model.view):
            warnings.warn(
                f"{type(model.trunk).__name__} cannot be served exactly with several tokens a step; it decodes plainly.",
                stacklevel=2,
            )
            return _through_transformers(model, input_ids, mask, settings, streamer, seed, generation_config, tokenizer, arguments)
        heads = None if plain else model.heads
        return _Decoding(model.view, heads, settings, input_ids, mask, streamer, seed).run()
    finally:
        model.train(training)


class _Decoding:
    """The state of one call: rows, their cache, and which of them still run."""

    def __init__(
        self,
        view: TrunkView,
        heads: HeadStack | None,
        settings: Settings,
        ids: Tensor,
        mask: Tensor,
        streamer: Any,
        seed: int | None,
    ) -> None:
        self.view, self.settings, self.streamer, self.block = view, settings, streamer, ids
        self.device = ids.device
        self.generator = None if seed is None else Generator(self.device).manual_seed(seed)
        self.rows = [row[keep.bool()].tolist() for row, keep in zip(ids, mask, strict=True)]
        self.prompts = [len(row) for row in self.rows]
        self.running = list(range(len(self.rows)))
        self.stats = DecodeStats()
        self.limit = getattr(view.config, "max_position_embeddings", None)
        depth = heads.count if heads is not None else 0
        capacity = max(self.prompts) + settings.max_new_tokens + depth
        self.cache = RaggedCache(len(self.rows), capacity)
        self.depth = depth
        self.heads = heads
        self.drafter = HeadsDrafter(heads, view, settings, self.generator) if heads is not None else None
        self.unembedding = view.unembedding

    def run(self) -> Generation:
        if self.streamer is not None:
            self.streamer.put(self.block.cpu())
        with self.stats.timed("prefill"):
            passed, base = self._prefill()
        draft = Draft(torch.zeros(len(self.rows), 0, dtype=torch.long, device=self.device), None)
        while True:
            with self.stats.timed("accept"):
                accepted = self._accept(passed, base, draft)
                kept = self._append(accepted, draft)
            if not self.running:
                break
            base = (base + accepted.kept)[kept]
            passed = _select(passed, kept)
            with self.stats.timed("draft"):
                draft = self._draft(passed, base)
            with self.stats.timed("verify"):
                passed = self._verify(draft)
            base = torch.zeros(len(self.running), dtype=torch.long, device=self.device)
        if self.streamer is not None:
            self.streamer.end()
        return Generation(self._padded(), self.stats)

    def _prefill(self) -> tuple[Passed, Tensor]:
        length = max(self.prompts)
        ids = torch.tensor([row + [0] * (length - len(row)) for row in self.rows], device=self.device)
        positions = torch.arange(length, device=self.device).expand(len(ids), length)
        return self._pass(ids, positions), torch.tensor(self.prompts, device=self.device) - 1

    def _verify(self, draft: Draft) -> Passed:
        """One pass over each row's last token and its drafts."""
        last = torch.tensor([[self.rows[r][-1]] for r in self.running], device=self.device)
        first = torch.tensor([[len(self.rows[r]) - 1] for r in self.running], device=self.device)
        ids = torch.cat([last, draft.tokens], 1)
        return self._pass(ids, first + torch.arange(ids.shape[1], device=self.device))

    def _pass(self, ids: Tensor, positions: Tensor) -> Passed:
        self.stats.forwards += len(ids)
        keys = self.cache.place(positions, int(positions.max()) + 1)
        masks = self.view.masks(positions, keys)
        if self.limit is not None:  # drafts past the context's end are never kept, but must not break the embedding
            positions = positions.clamp(max=self.limit - 1)
        tapped = self.view.run(ids, positions, masks, self.cache)
        states: list[Tensor] = []
        if self.heads is not None and not self.heads.sequential:
            states = self.heads.states(tapped, ids, positions, masks, self.view, self.cache)
        return Passed(tapped, positions, states)

    def _accept(self, passed: Passed, base: Tensor, draft: Draft) -> Accepted:
        depth = draft.tokens.shape[1]
        index = base[:, None] + torch.arange(depth + 1, device=self.device)
        states = passed.tapped.last
        states = states.gather(1, index[..., None].expand(-1, -1, states.shape[2]))
        rows, prompts = [self.rows[r] for r in self.running], [self.prompts[r] for r in self.running]
        scores = self.settings.scores(self.unembedding.logits(states), rows, prompts, draft.tokens)
        if not self.settings.do_sample:
            return accept_greedy(scores, draft.tokens)
        target = scores.softmax(-1)
        drawn = target[:, :0] if draft.probabilities is None else draft.probabilities
        return accept_sampled(target, drawn, draft.tokens, self.generator)

    def _append(self, accepted: Accepted, draft: Draft) -> Tensor:
        """Add what was accepted to the rows; returns the indices, among those that ran, of the rows that go on."""
        if draft.tokens.shape[1]:
            self.stats.count_drafts(accepted.kept, draft.tokens.shape[1])
        going, kept_rows = [], []
        chains = zip(accepted.kept.tolist(), accepted.following.tolist(), draft.tokens.tolist(), strict=True)
        for index, (r, (kept, following, tokens)) in enumerate(zip(self.running, chains, strict=True)):
            if not any(self._ends(r, token) for token in [*tokens[:kept], following]):
                going.append(index)
                kept_rows.append(r)
        finished = len(going) < len(self.running)
        self.running = kept_rows
        indices = torch.tensor(going, dtype=torch.long, device=self.device)
        if finished and going:
            self.cache.select(indices)
            if self.drafter is not None:
                self.drafter.select(indices)
        return indices

    def _ends(self, r: int, token: int) -> bool:
        """Add one token to row r; whether the row ends with it."""
        row = self.rows[r]
        row.append(token)
        self.stats.tokens += 1
        if self.streamer is not None:
            self.streamer.put(torch.tensor([token]))
        if token in self.settings.eos or len(row) - self.prompts[r] >= self.settings.max_new_tokens:
            return True
        stop = self.settings.stop
        return stop is not None and bool(stop(torch.tensor([row]), None)[0])

    def _draft(self, passed: Passed, base: Tensor) -> Draft:
        left = max(self.settings.max_new_tokens - len(self.rows[r]) + self.prompts[r] for r in self.running)
        depth = min(self.depth, left - 1)
        if self.drafter is None or depth < 1:
            return Draft(torch.zeros(len(self.running), 0, dtype=torch.long, device=self.device), None)
        length = self.cache.capacity + 1
        sequence = torch.tensor([self.rows[r] + [0] * (length - len(self.rows[r])) for r in self.running], device=self.device)
        return self.drafter.draft(passed, base, sequence, self.cache, depth)

    def _padded(self) -> Tensor:
        new = [row[prompt:] for row, prompt in zip(self.rows, self.prompts, strict=True)]
        longest = max(map(len, new))
        block = torch.tensor([row + [self.settings.pad] * (longest - len(row)) for row in new], device=self.device)
        return torch.cat([self.block, block], 1)


def _select(passed: Passed, rows: Tensor) -> Passed:
    if len(rows) == len(passed.positions):
        return passed
    tapped = type(passed.tapped)(*(tensor[rows] for tensor in passed.tapped))
    return Passed(tapped, passed.positions[rows], [state[rows] for state in passed.states])


def _through_transformers(
    model: "HeadwayModel",
    ids: Tensor,
    mask: Tensor,
    settings: Settings,
    streamer: Any,
    seed: int | None,
    config: GenerationConfig | None,
    tokenizer: Any,
    arguments: dict[str, Any],
) -> Generation:
    width = ids.shape[1]
    rows = [row[keep.bool()] for row, keep in zip(ids, mask, strict=True)]
    ragged = any(len(row) < width for row in rows)
    filled = torch.full_like(ids, settings.pad)
    shown = torch.zeros_like(mask)
    for r, row in enumerate(rows):  # transformers generates from left-padded rows
        filled[r, width - len(row) :] = row
        shown[r, width - len(row) :] = 1
    stats = DecodeStats()
    arguments = {
        **arguments,
        "pad_token_id": settings.pad,
        "max_new_tokens": settings.max_new_tokens,
        "num_return_sequences": 1,
    }
    with torch.random.fork_rng(enabled=seed is not None), stats.timed("transformers"):
        if seed is not None:
            torch.manual_seed(seed)
        trunk: Any = model.trunk
        out = trunk.generate(
            filled, attention_mask=shown, generation_config=config, tokenizer=tokenizer, streamer=streamer, **arguments
        )
    new = out[:, width:]
    for row in new.tolist():
        end = next((i + 1 for i, token in enumerate(row) if token in settings.eos), len(row))
        stats.tokens += end
        stats.forwards += end
    return Generation(torch.cat([ids, new], 1) if ragged else out, stats)
