"""When a row is finished: an end-of-sequence token, a stop string, or its length."""

from collections.abc import Sequence
from typing import Any

import torch
from transformers import GenerationConfig, StopStringCriteria

from headway.errors import ConfigError


class StoppingCriteria:
    """The tokens and strings that end a row.

    Raises: ConfigError for stop strings without a tokenizer, or that are no texts.
    """

    def __init__(self, config: GenerationConfig, tokenizer: Any = None) -> None:
        self.eos = frozenset(eos_tokens(config))
        self.strings = None
        if config.stop_strings:
            if not hasattr(tokenizer, "get_vocab"):
                raise ConfigError("stop_strings needs the tokenizer: pass tokenizer=... along with it.")
            strings = [config.stop_strings] if isinstance(config.stop_strings, str) else list(config.stop_strings)
            if not all(isinstance(text, str) and text for text in strings):
                raise ConfigError(f"stop_strings must be texts, none of them empty, got {strings!r}.")
            self.strings = StopStringCriteria(tokenizer=tokenizer, stop_strings=strings)
            self.tokenizer = tokenizer  # engines tell settings apart by its id, which no other may get

    def cut(self, tokens: Sequence[int], new: Sequence[int]) -> tuple[int, bool]:
        """How many of the `new` tokens after `tokens` belong to the row, and whether the last of them ends it."""
        for count, token in enumerate(new, 1):
            if token in self.eos or (self.strings is not None and self._ends([*tokens, *new[:count]])):
                return count, True
        return len(new), False

    def _ends(self, tokens: list[int]) -> bool:
        assert self.strings is not None
        return bool(self.strings(torch.tensor([tokens[-self.strings.maximum_token_len :]]), None))


def eos_tokens(config: GenerationConfig) -> list[int]:
    eos = config.eos_token_id
    return [] if eos is None else [eos] if isinstance(eos, int) else list(eos)


def pad_token(config: GenerationConfig) -> int:
    """What fills finished rows: transformers takes the first end-of-sequence token where there is no padding token."""
    if config.pad_token_id is not None:
        return int(config.pad_token_id)
    return next(iter(eos_tokens(config)), 0)
