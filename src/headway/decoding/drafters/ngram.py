"""Drafts from the text itself: the tokens that followed the last n-gram at the previous occurrence (prompt lookup decoding, Saxena
2023, https://github.com/apoorvumang/prompt-lookup-decoding; transformers' PromptLookupCandidateGenerator).

The drafter needs no heads and no second model. The drafter pays for output that repeats the prompt or earlier output:
summaries, edits, code.
"""

from collections.abc import Sequence

import torch

from headway.decoding.batch import DecodingBatch
from headway.decoding.drafters.base import ChainDrafter, Draft, DrafterFactory
from headway.decoding.generation_config import is_whole
from headway.errors import ConfigError


def ngram_drafter(depth: int = 8, longest: int = 3, shortest: int = 1) -> DrafterFactory:
    """Factory for `generate(..., drafter=ngram_drafter())`.

    Args:
        depth: maximum number of drafts per step.
        longest: number of last tokens to look up first.
        shortest: number of last tokens to look up if no longer n-gram is found. A larger number drafts less often, and more of the
            drafts are accepted: on stories, 2 instead of 1 takes a tenth more forwards.
    Raises:
        ConfigError: a value is out of range.
    """
    if not is_whole(depth, 1):
        raise ConfigError(f"An n-gram drafter needs a depth of at least 1, got {depth!r}.")
    if not is_whole(shortest, 1) or not is_whole(longest, shortest):
        raise ConfigError(f"N-grams need 1 <= shortest <= longest, got shortest={shortest!r} and longest={longest!r}.")
    return DrafterFactory(lambda _model, cache: NgramDrafter(cache.rows, depth, longest, shortest))


class NgramDrafter(ChainDrafter):
    """An n-gram index per sequence. The same text always has the same drafts, and drafts have no distribution."""

    def __init__(self, rows: int, depth: int, longest: int, shortest: int) -> None:
        super().__init__(depth)
        self.longest, self.shortest = longest, shortest
        self.config_key = (depth, longest, shortest)
        self.indexes: list[NgramIndex] = []
        self.resize(rows, 0)

    def draft(self, batch: DecodingBatch, num_draft_tokens: int) -> Draft:
        drafts = [
            self.indexes[r].continuation(row.tokens, max(0, min(num_draft_tokens, row.max_accepted)))
            for r, row in enumerate(batch.rows)
        ]
        lengths = [len(tokens) for tokens in drafts]
        if width := max(lengths):
            padded = torch.tensor([tokens + [0] * (width - len(tokens)) for tokens in drafts], device=batch.device)
            batch.set_draft_tokens(padded)
        return Draft([], lengths)

    def copy_row(self, source: int, target: int) -> None:
        self.indexes[target] = self.indexes[source].copy()

    def reset_row(self, row: int) -> None:
        self.indexes[row] = NgramIndex(self.longest, self.shortest)

    def resize(self, rows: int, capacity: int) -> None:
        self.indexes += [NgramIndex(self.longest, self.shortest) for _ in range(rows - len(self.indexes))]


class NgramIndex:
    """Position after the last occurrence of every n-gram of a growing text.

    A new token costs a few dictionary entries; the text is never searched.
    """

    def __init__(self, longest: int, shortest: int) -> None:
        self.longest, self.shortest = longest, shortest
        self.ends: dict[tuple[int, ...], int] = {}  # n-gram -> position of the token after its last occurrence
        self.indexed_length = 0  # n-grams that end here or before are indexed

    def copy(self) -> "NgramIndex":
        index = NgramIndex(self.longest, self.shortest)
        index.ends, index.indexed_length = dict(self.ends), self.indexed_length
        return index

    def continuation(self, tokens: Sequence[int], count: int) -> list[int]:
        """The `count` tokens that followed the last n-gram of the text at the previous occurrence; empty for a new n-gram.

        Args:
            tokens: the whole text; from call to call the text only grows.
        """
        for end in range(self.indexed_length + 1, len(tokens)):  # no token follows the last n-gram yet
            for n in range(self.shortest, min(self.longest, end) + 1):
                self.ends[tuple(tokens[end - n : end])] = end
        self.indexed_length = max(self.indexed_length, len(tokens) - 1)
        for n in range(min(self.longest, len(tokens)), self.shortest - 1, -1):
            start = self.ends.get(tuple(tokens[len(tokens) - n :]))
            if start is not None:
                period = len(tokens) - start  # at the end of the text, the copy continues with itself
                return [tokens[start + k % period] for k in range(count)]
        return []
