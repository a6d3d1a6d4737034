"""End of a sequence: an end-of-sequence token, a stop string, or the maximum length."""

from collections.abc import Sequence
from enum import StrEnum
from typing import Any, Protocol

import torch
from transformers import GenerationConfig, StopStringCriteria

from headway.errors import ConfigError


class FinishReason(StrEnum):
    """Reason for the end of a sequence: a stop (token or string), the maximum length, a cancellation or an exception."""

    STOP = "stop"
    LENGTH = "length"
    CANCELLED = "cancelled"
    ERROR = "error"


class StopStringMatcher(Protocol):
    """A search for stop strings in a growing text."""

    def found(self, tokens: Sequence[int], prompt_length: int) -> bool:
        """True if the last token completes a stop string."""

    def close(self, tokens: Sequence[int], prompt_length: int, new: Sequence[int]) -> bool:
        """False if none of the new tokens can complete a stop string; a cheap test before `found`."""


class StoppingCriteria:
    """End of a sequence.

    Args:
        eos: end-of-sequence tokens.
        matcher: search for stop strings; None without any.
    """

    def __init__(self, eos: Sequence[int], matcher: StopStringMatcher | None = None) -> None:
        self.eos, self.matcher = frozenset(eos), matcher

    def truncate_at_stop(self, tokens: Sequence[int], prompt_length: int, new: Sequence[int]) -> tuple[int, bool]:
        """Number of `new` tokens up to the first stop, and True if there is a stop.

        Args:
            tokens: prompt and committed tokens.
            prompt_length: number of prompt tokens.
            new: candidates that follow `tokens`.
        """
        matcher = self.matcher
        if matcher is not None and not matcher.close(tokens, prompt_length, new):
            matcher = None
        for count, token in enumerate(new, 1):
            if token in self.eos or (matcher is not None and matcher.found([*tokens, *new[:count]], prompt_length)):
                return count, True
        return len(new), False


class WholeTextMatcher:
    """transformers' search, as `generate(stop_strings=...)` does: over prompt and continuation, token by token."""

    def __init__(self, strings: Sequence[str], tokenizer: Any) -> None:
        self.criteria = StopStringCriteria(tokenizer=tokenizer, stop_strings=list(strings))

    def found(self, tokens: Sequence[int], prompt_length: int) -> bool:
        return bool(self.criteria(torch.tensor([tokens[-self.criteria.maximum_token_len :]]), None))

    def close(self, tokens: Sequence[int], prompt_length: int, new: Sequence[int]) -> bool:
        return True


class GeneratedTextMatcher:
    """Search in the generated text alone, never across the end of the prompt, as lm-eval and human-eval search."""

    def __init__(self, strings: Sequence[str], tokenizer: Any) -> None:
        self.strings, self.tokenizer = tuple(strings), tokenizer
        # a character is at most four tokens; a token that begins before or ends after the string adds a few
        self.reach = max(len(text.encode()) for text in strings) + 4

    def found(self, tokens: Sequence[int], prompt_length: int) -> bool:
        text = self.tokenizer.decode(tokens[prompt_length:])
        return any(string in text for string in self.strings)

    def close(self, tokens: Sequence[int], prompt_length: int, new: Sequence[int]) -> bool:
        return self.found([*tokens[max(prompt_length, len(tokens) - self.reach) :], *new], 0)


def check_stop_strings(strings: Any, tokenizer: Any) -> list[str]:
    """Stop strings as a list; a single string becomes a list.

    Raises:
        ConfigError: for stop strings without a tokenizer, and for a stop string that is no text or is empty.
    """
    if not strings:
        return []
    if not hasattr(tokenizer, "get_vocab"):
        raise ConfigError("stop_strings needs the tokenizer: pass tokenizer=... along with it.")
    strings = [strings] if isinstance(strings, str) else list(strings)
    if not all(isinstance(text, str) and text for text in strings):
        raise ConfigError(f"stop_strings must be texts, none of them empty, got {strings!r}.")
    return strings


def cut_at_stop(text: str, strings: Sequence[str], keep: bool = False) -> str:
    """The text before the first stop string, or up to the end of that string if `keep`."""
    ends = [(start, start + len(string)) for string in strings if (start := text.find(string)) >= 0]
    return text[: min(ends)[keep]] if ends else text


def completion_text(tokenizer: Any, tokens: Sequence[int], strings: Sequence[str], keep: bool = False) -> str:
    """Text of generated tokens without special tokens, cut at the first stop string; empty without a tokenizer.

    A kept stop string that consists of special tokens is decoded as well.
    """
    if tokenizer is None:
        return ""
    text = str(tokenizer.decode(tokens, skip_special_tokens=True))
    if keep and not any(string in text for string in strings):
        raw = str(tokenizer.decode(tokens, skip_special_tokens=False))
        if any(string in raw for string in strings):
            text = raw
    return cut_at_stop(text, strings, keep)


def eos_tokens(config: GenerationConfig) -> list[int]:
    """End-of-sequence tokens of a generation config."""
    eos = config.eos_token_id
    return [] if eos is None else [eos] if isinstance(eos, int) else list(eos)


def pad_token(config: GenerationConfig) -> int:
    """Token that pads finished rows: the padding token, else the first end-of-sequence token as in transformers."""
    if config.pad_token_id is not None:
        return int(config.pad_token_id)
    return next(iter(eos_tokens(config)), 0)
