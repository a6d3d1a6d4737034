"""Drafts from mask tokens that ride in the forward that verifies the drafts before them ("quadratic decoding", Samragh et
al. 2025, arXiv 2507.11851).

Behind the last settled token and behind every draft stand masks of their own, so that whatever is accepted, what comes
after it has been asked for: drafting takes no forward of the trunk. They ride behind prompts as well. After rounds without
drafts there are none to go by, and the first round that asks for drafts has none, but masks ride in it.
"""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from headway.decoding.batch import DecodingBatch
from headway.decoding.drafters.base import Draft
from headway.decoding.drafters.recursive import RecursiveDrafter
from headway.decoding.kv_cache import RaggedKVCache
from headway.heads import HeadStack
from headway.trunk import HiddenStates, TrunkView


class MaskDrafter(RecursiveDrafter):
    """Keeps the masks' states behind the newest token of each row that the trunk has read."""

    def __init__(
        self, heads: HeadStack, view: TrunkView, cache: RaggedKVCache, tree: str | Sequence[Sequence[int]] = "dynamic"
    ) -> None:
        super().__init__(heads, view, cache, tree)
        self.states = None  # (rows, masks * hidden)
        self.known = [(-1, 0)] * cache.rows  # the position behind which masks were answered last, and how many

    def num_mask_tokens(self, count: int, max_accepted: int) -> int:
        return max(0, min(count, self.depth, max_accepted - 1))

    def catch_up_tokens(self, batch: DecodingBatch, count: int) -> int:
        """How many more masks would have had to ride in the last round."""
        wanted = min(count, self.depth)
        return sum(max(0, min(wanted, row.max_accepted) - n) for row, n in zip(batch.rows, self._answered(batch), strict=True))

    def observe(self, hidden_states: HiddenStates, positions: Tensor, first: int = 0) -> None:
        if hidden_states.mask_tokens is None:
            return
        rows, groups, width = hidden_states.mask_tokens.shape
        if self.states is None:
            self.states = hidden_states.last.new_zeros(self.cache.rows, self.depth * hidden_states.last.shape[2])
        newest, node = positions.max(dim=1)
        answers = hidden_states.mask_tokens[torch.arange(rows, device=node.device), node.clamp(max=groups - 1)]
        own = self.states[first : first + rows, :width]
        own.copy_(torch.where(newest[:, None] >= 0, answers, own))
        for row, position in enumerate(newest.tolist(), first):
            if position >= 0:
                self.known[row] = (position, width // hidden_states.last.shape[2])

    def draft(self, batch: DecodingBatch, count: int) -> Draft:
        answered = self._answered(batch)
        if not any(answered):
            return Draft([], answered)
        return replace(super().draft(batch, count), lengths=answered)

    def newest(self, batch: DecodingBatch) -> tuple[Tensor, Tensor]:
        assert self.states is not None, "no masks were answered"
        positions = batch.ends - 2
        return positions, self.states[: len(positions), None]

    def copy_row(self, source: int, target: int) -> None:
        self.known[target] = self.known[source]
        if self.states is not None:
            self.states[target] = self.states[source]

    def reset_row(self, row: int) -> None:
        self.known[row] = (-1, 0)

    def extra_bytes(self, rows: int, capacity: int) -> int:
        return rows * self.depth * self.view.config.hidden_size * self.view.model.dtype.itemsize

    def resize(self, rows: int, capacity: int) -> None:
        self.known += [(-1, 0)] * (rows - len(self.known))
        if (old := self.states) is not None:
            self.states = old.new_zeros(rows, old.shape[1])
            self.states[: len(old)] = old[:rows]

    def _answered(self, batch: DecodingBatch) -> list[int]:
        """How many masks behind the newest token that the trunk has read of each row have been answered."""
        lengths = batch.lengths
        return [n if position == length - 2 else 0 for length, (position, n) in zip(lengths, self.known, strict=False)]

    def _room(self, batch: DecodingBatch) -> int:
        return max(self._answered(batch)) - 1
