"""Drafts from mask tokens in the verification forward ("quadratic decoding", Samragh et al. 2025, arXiv 2507.11851).

The forward that verifies drafts also has mask tokens after the last committed token and after every draft. Whatever is
accepted, the answers of the mask tokens after the last accepted token are the next drafts, and drafting needs no forward of
the trunk. Prompts have mask tokens at their end as well.

A step without drafts has no mask tokens. The first speculative step afterwards has no drafts: the step only appends mask
tokens, and the next step can draft.
"""

from dataclasses import replace

import torch
from torch import Tensor

from headway.decoding.batch import DecodingBatch
from headway.decoding.drafters.base import Draft
from headway.decoding.drafters.recursive import RecursiveDrafter
from headway.decoding.drafters.tree_shape import TreeOption
from headway.decoding.kv_cache import RaggedKVCache
from headway.heads import HeadStack
from headway.trunk import HiddenStates, TrunkView


class MaskTokenDrafter(RecursiveDrafter):
    """Hidden states of the mask tokens after the last processed token of every sequence."""

    def __init__(self, heads: HeadStack, view: TrunkView, cache: RaggedKVCache, tree: TreeOption = "dynamic") -> None:
        super().__init__(heads, view, cache, tree)
        self.states = None  # (rows, mask tokens * hidden)
        self.evaluated = [(-1, 0)] * cache.rows  # position that the newest mask tokens follow, and their number

    def num_mask_tokens(self, num_draft_tokens: int, max_accepted: int) -> int:
        return max(0, min(num_draft_tokens, self.depth, max_accepted - 1))

    def catch_up_tokens(self, batch: DecodingBatch, num_draft_tokens: int) -> int:
        """Number of mask tokens that the last step should have had in addition."""
        depth = min(num_draft_tokens, self.depth)
        pairs = zip(batch.rows, self._num_evaluated(batch), strict=True)
        return sum(max(0, min(depth, row.max_accepted) - evaluated) for row, evaluated in pairs)

    def observe(self, hidden_states: HiddenStates, positions: Tensor, first: int = 0) -> None:
        if hidden_states.mask_tokens is None:
            return
        rows, groups, width = hidden_states.mask_tokens.shape
        if self.states is None:
            self.states = hidden_states.last.new_zeros(self.cache.rows, self.depth * hidden_states.last.shape[2])
        newest, node = positions.max(dim=1)
        states = hidden_states.mask_tokens[torch.arange(rows, device=node.device), node.clamp(max=groups - 1)]
        stored = self.states[first : first + rows, :width]
        stored.copy_(torch.where(newest[:, None] >= 0, states, stored))
        for row, position in enumerate(newest.tolist(), first):
            if position >= 0:
                self.evaluated[row] = (position, width // hidden_states.last.shape[2])

    def draft(self, batch: DecodingBatch, num_draft_tokens: int) -> Draft:
        evaluated = self._num_evaluated(batch)
        if not any(evaluated):
            return Draft([], evaluated)
        return replace(super().draft(batch, num_draft_tokens), lengths=evaluated)

    def newest(self, batch: DecodingBatch) -> tuple[Tensor, Tensor]:
        assert self.states is not None, "no mask tokens were evaluated"
        positions = batch.ends - 2
        return positions, self.states[: len(positions), None]

    def copy_row(self, source: int, target: int) -> None:
        self.evaluated[target] = self.evaluated[source]
        if self.states is not None:
            self.states[target] = self.states[source]

    def reset_row(self, row: int) -> None:
        self.evaluated[row] = (-1, 0)

    def extra_bytes(self, rows: int, capacity: int) -> int:
        return rows * self.depth * self.view.config.hidden_size * self.view.model.dtype.itemsize

    def resize(self, rows: int, capacity: int) -> None:
        self.evaluated += [(-1, 0)] * (rows - len(self.evaluated))
        if (old := self.states) is not None:
            self.states = old.new_zeros(rows, old.shape[1])
            self.states[: len(old)] = old[:rows]

    def _num_evaluated(self, batch: DecodingBatch) -> list[int]:
        """Per sequence: number of mask tokens evaluated after the last processed token."""
        pairs = zip(batch.lengths, self.evaluated, strict=False)
        return [count if position == length - 2 else 0 for length, (position, count) in pairs]

    def _free_slots(self, batch: DecodingBatch) -> int:
        return max(self._num_evaluated(batch)) - 1
