"""Drafter with known answers: drafts are correct at a given rate and cost as much as drafts of real heads.

The drafter measures the speed-up that heads of this quality would give, before any training.
"""

import random
from collections.abc import Mapping

import torch
from torch import Tensor

from headway.decoding.batch import DecodingBatch
from headway.decoding.draftable import DraftableModel
from headway.decoding.drafters.base import ChainDrafter, Draft, Drafter, DrafterFactory, build_drafter
from headway.decoding.kv_cache import RaggedKVCache
from headway.trunk import HiddenStates


def oracle_drafter(
    answers: Mapping[tuple[int, ...], list[int]], rate: float, depth: int, heads: DrafterFactory | None, seed: int = 0
) -> DrafterFactory:
    """Factory of drafters for sequences with known texts.

    Args:
        answers: maps the tokens of a prompt to the tokens of the whole text, the prompt included.
        rate: probability that a draft is correct, 0 to 1.
        depth: number of consecutive drafts.
        heads: factory of a drafter with at least this depth. The drafter runs in every step, and the oracle overwrites the
            drafts. None: drafts cost nothing.
        seed: seed of the choice of correct drafts.
    """

    def build(model: DraftableModel, cache: RaggedKVCache) -> Drafter:
        inner = build_drafter(heads, model, cache) if heads is not None else None
        return OracleDrafter(answers, rate, depth, inner, seed)

    return DrafterFactory(build)


class OracleDrafter(ChainDrafter):
    """Drafts from known texts; see `oracle_drafter`."""

    def __init__(
        self, answers: Mapping[tuple[int, ...], list[int]], rate: float, depth: int, inner: Drafter | None, seed: int
    ) -> None:
        super().__init__(depth)
        self.answers, self.rate, self.inner = answers, rate, inner
        self.hidden_state_layers = inner.hidden_state_layers if inner is not None else ()
        self.random = random.Random(seed)

    def draft(self, batch: DecodingBatch, num_draft_tokens: int) -> Draft:
        if self.inner is not None:
            self.inner.draft(batch, num_draft_tokens)
        drafts = []
        for row in batch.rows:
            text = self.answers[tuple(row.tokens[: row.prompt_length])]
            correct = text[len(row.tokens) : len(row.tokens) + num_draft_tokens]
            correct += [0] * (num_draft_tokens - len(correct))
            # the trunk is greedy, so that any other token is wrong
            drafts.append([token if self.random.random() < self.rate else token - 1 if token else 1 for token in correct])
        batch.set_draft_tokens(torch.tensor(drafts, device=batch.device))
        return Draft([])

    def catch_up_tokens(self, batch: DecodingBatch, num_draft_tokens: int) -> int:
        return self.inner.catch_up_tokens(batch, num_draft_tokens) if self.inner is not None else 0

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
