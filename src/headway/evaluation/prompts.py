"""Prompts to continue, from examples of any kind."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from headway.data import Chat, Example, PromptCompletion, Text, tokenize_prompt
from headway.errors import DataError


def prompt_tokens(example: Example, tokenizer: Any, max_text_tokens: int = 64) -> list[int]:
    """Tokens to continue: the prompt, a conversation up to the first answer, or the first `max_text_tokens` tokens of a text.

    A conversation that begins with an answer has no prompt: the list is empty.
    """
    if isinstance(example, Text):
        return tokenize_prompt(example, tokenizer)[:max_text_tokens]
    if isinstance(example, Chat):
        roles = [message.get("role") for message in example.messages]
        turns = example.messages[: roles.index("assistant")] if "assistant" in roles else example.messages
        return tokenize_prompt(replace(example, messages=turns), tokenizer) if turns else []
    return tokenize_prompt(example, tokenizer)


def prompts_with_completions(examples: Sequence[Example], source: str) -> list[PromptCompletion]:
    """The examples, all of which are prompts with completions.

    Raises:
        DataError: an example of the source is of another kind.
    """
    pairs = [example for example in examples if isinstance(example, PromptCompletion)]
    if len(pairs) < len(examples):
        raise DataError(f"{source} has no prompts and completions, so there is no right answer to compare with.")
    return pairs
