"""Prompts to continue, from examples of any kind, and batches of prompts."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from headway.data import Example, encode_prompt


def prompt_tokens(example: Example, tokenizer: Any, max_text_tokens: int = 64) -> list[int]:
    """Tokens to continue: the prompt, a conversation up to its first answer, or the first `max_text_tokens` tokens of a text.

    A conversation that begins with an answer has no prompt: its list is empty.
    """
    if "text" in example:
        ids: list[int] = tokenizer(example["text"], verbose=False)["input_ids"]
        return ids[:max_text_tokens]
    if "messages" in example:
        roles = [message.get("role") for message in example["messages"]]
        turns = example["messages"][: roles.index("assistant")] if "assistant" in roles else example["messages"]
        return encode_prompt({"messages": turns}, tokenizer) if turns else []
    return encode_prompt(example, tokenizer)


def left_padded(prompts: Sequence[Sequence[int]], device: torch.device) -> tuple[Tensor, Tensor]:
    """Token ids and attention mask of a batch, both (batch, longest), padded on the left."""
    width = max(map(len, prompts))
    ids = torch.tensor([[0] * (width - len(prompt)) + list(prompt) for prompt in prompts], device=device)
    mask = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts], device=device)
    return ids, mask
