"""When a row is finished: an end-of-sequence token, a stop string, or its length."""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from torch import Tensor
from transformers import GenerationConfig, StopStringCriteria

from headway.errors import ConfigError


class Stops:
    """The tokens and strings that end a row.

    Raises: ConfigError for stop strings without a tokenizer.
    """

    def __init__(self, config: GenerationConfig, tokenizer: Any = None) -> None:
        self.eos = frozenset(eos_tokens(config))
        self.strings = None
        if config.stop_strings:
            if tokenizer is None:
                raise ConfigError("stop_strings needs the tokenizer: pass tokenizer=... along with it.")
            self.strings = StopStringCriteria(tokenizer=tokenizer, stop_strings=config.stop_strings)

    def cut(self, tokens: Tensor, starts: Sequence[int], counts: Sequence[int]) -> list[tuple[int, bool]]:
        """For each row, how many of its newest tokens belong to it and whether the last of them ends it.

        Args:
            tokens: (rows, columns); the newest of row r stand in columns starts[r] .. starts[r] + counts[r] - 1.
        """
        ends = self._string_ends(tokens, starts, counts)
        found = []
        for r, (start, count) in enumerate(zip(starts, counts, strict=True)):
            newest = tokens[r, start : start + count].tolist() if self.eos else []
            at = next((i for i in range(count) if (start + i) in ends[r] or (self.eos and newest[i] in self.eos)), None)
            found.append((count, False) if at is None else (at + 1, True))
        return found

    def _string_ends(self, tokens: Tensor, starts: Sequence[int], counts: Sequence[int]) -> dict[int, set[int]]:
        """By row: the columns whose token completes a stop string."""
        ends: defaultdict[int, set[int]] = defaultdict(set)
        if self.strings is None:
            return ends
        rows_at: defaultdict[int, list[int]] = defaultdict(list)
        for r, (start, count) in enumerate(zip(starts, counts, strict=True)):
            for column in range(start, start + count):
                rows_at[column].append(r)
        for column, rows in rows_at.items():
            done = self.strings(tokens[rows, : column + 1], None)
            for r, ended in zip(rows, done.tolist(), strict=True):
                if ended:
                    ends[r].add(column)
        return ends


def eos_tokens(config: GenerationConfig) -> list[int]:
    eos = config.eos_token_id
    return [] if eos is None else [eos] if isinstance(eos, int) else list(eos)


def pad_token(config: GenerationConfig) -> int:
    """What fills finished rows: transformers takes the first end-of-sequence token where there is no padding token."""
    if config.pad_token_id is not None:
        return int(config.pad_token_id)
    return next(iter(eos_tokens(config)), 0)
