"""Drafts looked up in the text itself: what followed the last tokens where they stood before (prompt lookup decoding,
Saxena 2023, https://github.com/apoorvumang/prompt-lookup-decoding; transformers' PromptLookupCandidateGenerator).

It needs no heads and no second model, and pays where the output repeats the prompt or itself: summaries, edits, code.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from headway.decoding.batch import DecodingBatch
from headway.decoding.drafters.base import ChainDrafter, Draft, DrafterFactory
from headway.decoding.generation_config import is_whole
from headway.errors import ConfigError
from headway.trunk import HiddenStates


def ngram_drafter(depth: int = 8, longest: int = 3, shortest: int = 1) -> DrafterFactory:
    """Makes drafters for `generate(..., drafter=ngram_drafter())`.

    Args:
        depth: most tokens drafted at once.
        longest, shortest: how many last tokens are looked up, longer matches first. A larger `shortest` drafts less often
            and has more of it kept: on stories, 2 in place of 1 takes a tenth more forwards.
    Raises: ConfigError where these are out of range.
    """
    if not is_whole(depth, 1):
        raise ConfigError(f"An n-gram drafter needs a depth of at least 1, got {depth!r}.")
    if not is_whole(shortest, 1) or not is_whole(longest, shortest):
        raise ConfigError(f"N-grams need 1 <= shortest <= longest, got shortest={shortest!r} and longest={longest!r}.")

    return DrafterFactory(lambda _model, cache: NgramDrafter(cache.rows, depth, longest, shortest))


class NgramDrafter(ChainDrafter):
    """An index for each row. The same text always gets the same drafts: they are certain, and need no distribution."""

    def __init__(self, rows: int, depth: int, longest: int, shortest: int) -> None:
        super().__init__(depth)
        self.longest, self.shortest = longest, shortest
        self.config_key = (depth, longest, shortest)
        self.indexes: list[NgramIndex] = []
        self.resize(rows, 0)

    def observe(self, hidden_states: HiddenStates, positions: Tensor, first: int = 0) -> None:
        """What the trunk computes is not read."""

    def draft(self, batch: DecodingBatch, count: int) -> Draft:
        found = [
            self.indexes[r].continuation(row.tokens, max(0, min(count, row.max_accepted)))  # not beyond what the row can take
            for r, row in enumerate(batch.rows)
        ]
        lengths = [len(tokens) for tokens in found]
        if width := max(lengths):
            padded = torch.tensor([tokens + [0] * (width - len(tokens)) for tokens in found], device=batch.device)
            batch.set_draft_tokens(padded)
        return Draft([], lengths)

    def copy_row(self, source: int, target: int) -> None:
        self.indexes[target] = self.indexes[source].copy()

    def reset_row(self, row: int) -> None:
        self.indexes[row] = NgramIndex(self.longest, self.shortest)

    def resize(self, rows: int, capacity: int) -> None:
        self.indexes += [NgramIndex(self.longest, self.shortest) for _ in range(rows - len(self.indexes))]


class NgramIndex:
    """Where each n-gram of a growing text ended last. New tokens cost a few entries each; nothing is ever searched through."""

    def __init__(self, longest: int, shortest: int) -> None:
        self.longest, self.shortest = longest, shortest
        self.ends: dict[tuple[int, ...], int] = {}  # position of the token after the latest occurrence that has one
        self.read = 0  # n-grams that end here or before are indexed

    def copy(self) -> "NgramIndex":
        index = NgramIndex(self.longest, self.shortest)
        index.ends, index.read = dict(self.ends), self.read
        return index

    def continuation(self, tokens: Sequence[int], count: int) -> list[int]:
        """The `count` tokens that follow if `tokens` go on as they did after their last n-gram; none if it is new.

        Args: tokens: the whole text, which only grows from call to call.
        """
        for end in range(self.read + 1, len(tokens)):  # up to the last token: nothing follows it yet
            for n in range(self.shortest, min(self.longest, end) + 1):
                self.ends[tuple(tokens[end - n : end])] = end
        self.read = max(self.read, len(tokens) - 1)
        for n in range(min(self.longest, len(tokens)), self.shortest - 1, -1):
            start = self.ends.get(tuple(tokens[len(tokens) - n :]))
            if start is not None:
                period = len(tokens) - start  # where the copy reaches the end of the text, it goes on with itself
                return [tokens[start + k % period] for k in range(count)]
        return []
