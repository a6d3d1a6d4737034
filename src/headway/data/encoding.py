"""From an example to token ids and labels: completion-only where there is a prompt, chat templates where there are messages."""

from typing import Any, TypedDict

from transformers import PreTrainedTokenizerBase

from headway.data.sources import Example
from headway.errors import DataError
from headway.ops.labels import IGNORE


class Encoded(TypedDict):
    """Equally long lists; labels are not shifted, -100 where nothing is learnt."""

    input_ids: list[int]
    labels: list[int]


def encode(example: Example, tokenizer: PreTrainedTokenizerBase, max_length: int, completion_only: bool = True) -> list[Encoded]:
    """Encode one document, closed by the tokenizer's eos token.

    A text longer than `max_length` becomes several pieces. A prompt with its completion stays whole: what is too long is left
    out (an empty list), since a solution cut short would teach to stop short.

    Raises: DataError if the tokenizer has no eos token, or no chat template where there are messages.
    """
    if tokenizer.eos_token_id is None:
        raise DataError("The tokenizer has no eos token, so nothing could tell the model where a document ends.")
    eos = [tokenizer.eos_token_id]
    if "text" in example:
        ids = _ids(tokenizer, example["text"]) + eos
        return [Encoded(input_ids=part, labels=list(part)) for part in _pieces(ids, max_length)]
    if "messages" in example:
        ids, learnt = _chat(example["messages"], tokenizer)
    else:
        prompt = _ids(tokenizer, example["prompt"])
        completion = _ids(tokenizer, example["completion"], special=False) + eos
        ids, learnt = prompt + completion, [False] * len(prompt) + [True] * len(completion)
    if len(ids) > max_length:
        return []
    labels = [token if own or not completion_only else IGNORE for token, own in zip(ids, learnt, strict=True)]
    return [Encoded(input_ids=ids, labels=labels)]


def _ids(tokenizer: PreTrainedTokenizerBase, text: str, special: bool = True) -> list[int]:
    ids: list[int] = tokenizer(text, add_special_tokens=special, verbose=False)["input_ids"]
    if special and ids and ids[-1] == tokenizer.eos_token_id:  # some tokenizers close what they are given
        ids = ids[:-1]
    return ids


def _pieces(ids: list[int], length: int) -> list[list[int]]:
    return [ids[start : start + length] for start in range(0, len(ids), length)]


def _chat(messages: list[dict[str, Any]], tokenizer: PreTrainedTokenizerBase) -> tuple[list[int], list[bool]]:
    """Token ids of a conversation, and which of them the assistant wrote."""
    template = tokenizer.chat_template
    if not template:
        raise DataError("The data has messages, but this tokenizer has no chat template. Use prompt and completion columns.")
    if "{% generation" in str(template) or "{%- generation" in str(template):
        found: Any = tokenizer.apply_chat_template(messages, return_dict=True, return_assistant_tokens_mask=True)
        return list(found["input_ids"]), [bool(own) for own in found["assistant_masks"]]
    whole: Any = tokenizer.apply_chat_template(messages, return_dict=True)
    ids: list[int] = list(whole["input_ids"])
    learnt = [False] * len(ids)
    for index, message in enumerate(messages):
        if message.get("role") == "assistant":
            before: Any = tokenizer.apply_chat_template(messages[:index], return_dict=True, add_generation_prompt=True)
            through: Any = tokenizer.apply_chat_template(messages[: index + 1], return_dict=True)
            start, end = len(before["input_ids"]), len(through["input_ids"])
            if ids[:end] != list(through["input_ids"]):
                raise DataError(
                    "This chat template rewrites earlier turns, so the assistant's tokens cannot be told apart. "
                    "Mark them in the template with {% generation %}."
                )
            learnt[start:end] = [True] * (end - start)
    return ids, learnt
