"""A drafter that knows the answers: drafts are right as often as it is told to make them, at the cost of real heads.

What decoding would gain from heads of that quality, measured before anyone trains them.
"""

import random
from collections.abc import Mapping

import torch
from torch import Tensor

from headway.decoding import RaggedKVCache
from headway.decoding.batch import DecodingBatch
from headway.decoding.draftable import DraftableModel
from headway.decoding.drafters.base import ChainDrafter, Draft, Drafter, DrafterFactory, build_drafter
from headway.trunk import HiddenStates


def oracle_drafter(
    answers: Mapping[tuple[int, ...], list[int]], rate: float, depth: int, heads: DrafterFactory | None, seed: int = 0
) -> DrafterFactory:
    """Makes drafters for rows whose whole texts are known.

    Args:
        answers: prompt -> all its tokens, the prompt included.
        rate: how often a draft is right. depth: drafts after each other.
        heads: makes a drafter of at least that depth that does the work, and whose drafts are overwritten; None: no work.
    """

    def make(model: DraftableModel, cache: RaggedKVCache) -> Drafter:
        return OracleDrafter(answers, rate, depth, build_drafter(heads, model, cache) if heads is not None else None, seed)

    return DrafterFactory(make)


class OracleDrafter(ChainDrafter):
    """See `oracle_drafter`."""

    def __init__(
        self, answers: Mapping[tuple[int, ...], list[int]], rate: float, depth: int, inner: Drafter | None, seed: int
    ) -> None:
        super().__init__(depth)
        self.answers, self.rate, self.inner = answers, rate, inner
        self.hidden_state_layers = inner.hidden_state_layers if inner is not None else ()
        self.random = random.Random(seed)

    def draft(self, batch: DecodingBatch, count: int) -> Draft:
        if self.inner is not None:
            self.inner.draft(batch, count)
        drafts = []
        for row in batch.rows:
            known = self.answers[tuple(row.tokens[: row.prompt_length])]
            right = known[len(row.tokens) : len(row.tokens) + count]
            right += [0] * (count - len(right))
            # any other token is wrong: the trunk is greedy
            drafts.append([token if self.random.random() < self.rate else token - 1 if token else 1 for token in right])
        batch.set_draft_tokens(torch.tensor(drafts, device=batch.device))
        return Draft([])

    def catch_up_tokens(self, batch: DecodingBatch, count: int) -> int:
        return self.inner.catch_up_tokens(batch, count) if self.inner is not None else 0

    def observe(self, hidden_states: HiddenStates, positions: Tensor, first: int = 0) -> None:
        if self.inner is not None:
            self.inner.observe(hidden_states, positions, first)

    def copy_row(self, source: int, target: int) -> None:
        if self.inner is not None:
            self.inner.copy_row(source, target)

    def reset_row(self, row: int) -> None:
        if self.inner is not None:
            self.inner.reset_row(row)

    def extra_bytes(self, rows: int, capacity: int) -> int:
        return self.inner.extra_bytes(rows, capacity) if self.inner is not None else 0

    def resize(self, rows: int, capacity: int) -> None:
        if self.inner is not None:
            self.inner.resize(rows, capacity)
