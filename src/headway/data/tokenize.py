"""From an example to token ids and labels: completion-only where there is a prompt, chat templates where there are messages."""

import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import takewhile
from typing import Any, TypedDict

import jinja2
from transformers import PreTrainedTokenizerBase

from headway.data.readers import CUT, CUT_OFF, Example
from headway.errors import DataError
from headway.ops.labels import IGNORE


class Encoded(TypedDict):
    """Equally long lists; labels are not shifted, -100 where nothing is learnt."""

    input_ids: list[int]
    labels: list[int]


def encode(example: Example, tokenizer: PreTrainedTokenizerBase, max_length: int, completion_only: bool = True) -> list[Encoded]:
    """Encode one document, closed by the tokenizer's eos token.

    A text longer than `max_length` becomes several pieces. A prompt with its completion stays whole: what is too long is left
    out (an empty list), since a solution cut short would teach to stop short. An example with finish_reason `length` was cut off
    where it was written, and is not closed.

    Raises: DataError if the tokenizer has no eos token, or no chat template where there are messages.
    """
    if tokenizer.eos_token_id is None:
        raise DataError("The tokenizer has no eos token, so nothing could tell the model where a document ends.")
    cut_off = example.get(CUT) == CUT_OFF
    eos = [] if cut_off else [tokenizer.eos_token_id]
    if "text" in example:
        ids = _ids(tokenizer, example["text"]) + eos
        return [Encoded(input_ids=part, labels=list(part)) for part in _pieces(ids, max_length)]
    if "messages" in example:
        ids, learnt = _chat(example["messages"], tokenizer, cut_off)
    else:
        prompt = _ids(tokenizer, example["prompt"])
        completion = _ids(tokenizer, example["completion"], special=False) + eos
        ids, learnt = prompt + completion, [False] * len(prompt) + [True] * len(completion)
    if len(ids) > max_length:
        return []  # `encode_all` counts them
    labels = [token if own or not completion_only else IGNORE for token, own in zip(ids, learnt, strict=True)]
    return [Encoded(input_ids=ids, labels=labels)]


def encode_prompt(example: Example, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Tokens of the prompt of {"prompt", ...}, or of a conversation, {"messages"}, that the assistant has to answer.

    Raises: DataError as `encode`.
    """
    if "messages" not in example:
        return _ids(tokenizer, example["prompt"])
    with _explained(example["messages"], tokenizer):
        found: Any = tokenizer.apply_chat_template(example["messages"], return_dict=True, add_generation_prompt=True)
        return list(found["input_ids"])


def encode_all(
    examples: Iterable[Example], tokenizer: PreTrainedTokenizerBase, max_length: int, completion_only: bool = True
) -> tuple[list[Encoded], int]:
    """Encode all, in order, and count those left out since they are longer than `max_length`; warns if there are any."""
    encoded: list[Encoded] = []
    total = left_out = 0
    for example in examples:
        found = encode(example, tokenizer, max_length, completion_only)
        encoded += found
        total += 1
        left_out += not found
    if left_out:
        message = f"{left_out} of {total} examples are longer than {max_length} tokens and were left out."
        warnings.warn(message, UserWarning, stacklevel=2)
    return encoded, left_out


def _ids(tokenizer: PreTrainedTokenizerBase, text: str, special: bool = True) -> list[int]:
    ids: list[int] = tokenizer(text, add_special_tokens=special, verbose=False)["input_ids"]
    if special and ids and ids[-1] == tokenizer.eos_token_id:  # some tokenizers close what they are given
        ids = ids[:-1]
    return ids


def _pieces(ids: list[int], length: int) -> list[list[int]]:
    return [ids[start : start + length] for start in range(0, len(ids), length)]


def _chat(
    messages: list[dict[str, Any]], tokenizer: PreTrainedTokenizerBase, cut_off: bool = False
) -> tuple[list[int], list[bool]]:
    """Token ids of a conversation, and which of them the assistant wrote. An eos closes it, where the template sets none, unless
    the last answer was cut off."""
    with _explained(messages, tokenizer):
        template = str(tokenizer.chat_template)
        marked = "{% generation" in template or "{%- generation" in template
        ids, learnt = (_marked_turns if marked else _found_turns)(messages, tokenizer)
    if cut_off:
        found: Any = tokenizer.apply_chat_template(messages, return_dict=True, continue_final_message=True)
        shared = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(ids, found["input_ids"], strict=False)))
        return ids[:shared], learnt[:shared]
    last = max((place for place, own in enumerate(learnt) if own), default=0)
    start = next((place + 1 for place in range(last, -1, -1) if not learnt[place]), 0)
    if tokenizer.eos_token_id not in ids[start:]:
        ids, learnt = [*ids, tokenizer.eos_token_id], [*learnt, messages[-1].get("role") == "assistant"]
    return ids, learnt


@contextmanager
def _explained(messages: list[dict[str, Any]], tokenizer: PreTrainedTokenizerBase) -> Iterator[None]:
    """Raises DataError where there is no chat template, or it refuses the conversation."""
    if not tokenizer.chat_template:
        raise DataError("The data has messages, but this tokenizer has no chat template. Use prompt and completion columns.")
    try:
        yield
    except jinja2.TemplateError as error:  # such as roles that must take turns
        raise DataError(f"The chat template refuses a conversation of {len(messages)} messages: {error}") from error


def _marked_turns(messages: list[dict[str, Any]], tokenizer: PreTrainedTokenizerBase) -> tuple[list[int], list[bool]]:
    """The template says itself what the assistant generates."""
    found: Any = tokenizer.apply_chat_template(messages, return_dict=True, return_assistant_tokens_mask=True)
    return list(found["input_ids"]), [bool(own) for own in found["assistant_masks"]]


def _found_turns(messages: list[dict[str, Any]], tokenizer: PreTrainedTokenizerBase) -> tuple[list[int], list[bool]]:
    """A turn is what the conversation through it has more than the prompt before it.

    Raises: DataError if the template rewrites earlier turns once later ones follow.
    """

    def ids_of(upto: int, prompt: bool = False) -> list[int]:
        found: Any = tokenizer.apply_chat_template(messages[:upto], return_dict=True, add_generation_prompt=prompt)
        return list(found["input_ids"])

    ids = ids_of(len(messages))
    learnt = [False] * len(ids)
    for index, message in enumerate(messages):
        if message.get("role") == "assistant":
            before = ids_of(index, prompt=True) if index else []
            through = ids_of(index + 1)
            if ids[: len(through)] != through:
                raise DataError(
                    "This chat template rewrites earlier turns, so the assistant's tokens cannot be told apart. "
                    "Mark them in the template with {% generation %}."
                )
            start = next((place for place, token in enumerate(before) if through[place : place + 1] != [token]), len(before))
            learnt[start : len(through)] = [True] * (len(through) - start)
    return ids, learnt
