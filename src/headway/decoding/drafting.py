"""How heads propose: all at once from one state (parallel), or one after the other (sequential)."""

from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from headway.decoding.cache import RaggedCache
from headway.decoding.rows import Rows
from headway.decoding.scores import Scores
from headway.heads import HeadStack
from headway.trunk import Masks, Tapped, TrunkView


@dataclass(frozen=True)
class Forward:
    """One forward of the trunk. positions: (rows, seq), -1 for padding."""

    tapped: Tapped
    input_ids: Tensor
    positions: Tensor
    masks: Masks


class Drafter(Protocol):
    """Drafts are written into the rows' tokens after the settled ones."""

    def observe(self, forward: Forward, at: Tensor) -> None:
        """Take up what the trunk computed; `at` (rows,) is where in `forward` the last settled token but one stands."""

    def draft(self, rows: Rows, count: int, scores: Scores) -> list[Tensor]:
        """Write `count` drafts a row; return what they were drawn from, each (rows, vocab), nothing when greedy."""

    def select(self, keep: list[int]) -> None:
        """Keep these rows only."""


def drafter_for(heads: HeadStack, view: TrunkView, cache: RaggedCache) -> Drafter:
    return (SequentialDrafter if heads.sequential else ParallelDrafter)(heads, view, cache)


class ParallelDrafter:
    """Head k at the last verified position predicts the token k + 2 further on, from what verifying left behind."""

    def __init__(self, heads: HeadStack, view: TrunkView, cache: RaggedCache) -> None:
        self.heads, self.view, self.cache = heads, view, cache
        self.states = torch.empty(0)

    def observe(self, forward: Forward, at: Tensor) -> None:
        # same slots and masks as the trunk's own forward, so the heads' cache entries follow the same rule
        states = self.heads.states(
            forward.tapped, forward.input_ids, forward.positions.clamp(min=0), forward.masks, self.view, self.cache
        )
        row = torch.arange(at.shape[0], device=at.device)
        self.states = torch.stack([state[row, at] for state in states], dim=1)  # (rows, heads, hidden)

    def draft(self, rows: Rows, count: int, scores: Scores) -> list[Tensor]:
        logits = self.view.unembedding.logits(self.states[:, :count])  # (rows, count, vocab)
        return [found for k in range(count) if (found := _write(rows, k, logits[:, k], scores)) is not None]

    def select(self, keep: list[int]) -> None:
        self.states = self.states[keep]


class SequentialDrafter:
    """Depth k reads depth k - 1 and the token it predicted.

    A depth's cache entries near the end were computed from drafts. Each round runs the depths again over a trailing
    window that reaches back to the first of those, so that entries left behind always come from true tokens.
    """

    def __init__(self, heads: HeadStack, view: TrunkView, cache: RaggedCache) -> None:
        self.heads: Any = heads  # with the sequential family's step()
        self.view, self.cache = view, cache
        self.last: Tensor | None = None  # the trunk's states by position, (rows, capacity + 1, hidden)
        self.window: int | None = None  # None before the first draft, which takes the whole prompt

    def observe(self, forward: Forward, at: Tensor) -> None:
        states = forward.tapped.last
        if self.last is None:
            self.last = states.new_zeros(states.shape[0], self.cache.capacity + 1, states.shape[2])
        slots = torch.where(forward.positions < 0, self.cache.capacity, forward.positions)
        self.last[torch.arange(states.shape[0], device=states.device)[:, None], slots] = states

    def draft(self, rows: Rows, count: int, scores: Scores) -> list[Tensor]:
        assert self.last is not None, "observe() comes first"
        # the deepest entry made of drafts lies count - 1 before the old end, and up to count + 1 tokens came since
        width = self.window or rows.longest
        self.window = 2 * self.heads.count
        newest = (rows.ends_tensor - rows.pads_tensor - 2)[:, None]  # position of the newest state of the trunk
        positions = newest + torch.arange(1 - width, 1, device=rows.device)  # (rows, width), negative before the start
        slots = torch.where(positions < 0, self.cache.capacity, positions)
        visible = rows.longest - 1
        keys = torch.arange(visible, device=rows.device).expand(positions.shape[0], -1)
        masks = self.view.masks(positions, keys)
        self.cache.begin(positions, visible)
        hidden = self.last.gather(1, slots[..., None].expand(-1, -1, self.last.shape[2]))
        found = []
        for k in range(count):
            tokens = rows.at(positions + k + 1)
            hidden, state = self.heads.step(k, hidden, tokens, positions.clamp(min=0), masks, self.view, self.cache)
            distribution = _write(rows, k, self.view.unembedding.logits(state[:, -1]), scores)
            found += [] if distribution is None else [distribution]
        return found

    def select(self, keep: list[int]) -> None:
        if self.last is not None:
            self.last = self.last[keep]


def _write(rows: Rows, k: int, logits: Tensor, scores: Scores) -> Tensor | None:
    """Choose draft k from logits (rows, vocab), given the drafts before it."""
    lengths = [end + k for end in rows.ends]
    processed = scores.processed(logits[:, None], rows.tokens, lengths, rows.pads_tensor)[:, 0]
    tokens, distribution = scores.choose(processed)
    rows.tokens.scatter_(1, (rows.ends_tensor + k)[:, None], tokens[:, None])
    return distribution
