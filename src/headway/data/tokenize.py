"""Token ids and labels of examples. The text of an example is tokenised once, as a whole, and labels follow from character offsets.

Parts tokenised apart would differ from the text: a sentencepiece tokenizer begins every part with a space.
"""

import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any, TypedDict

from transformers import PreTrainedTokenizerBase

from headway.data.chat_templates import Span, render_prompt, render_turns
from headway.data.examples import Chat, Example, Preference, PromptCompletion, Text, shared_length
from headway.errors import DataError
from headway.ops.labels import IGNORE

BATCH = 1000  # documents to tokenise at once


class Encoded(TypedDict):
    """Lists of equal length. Labels are not shifted; -100 marks tokens without a loss."""

    input_ids: list[int]
    labels: list[int]


def tokenize(example: Example, tokenizer: PreTrainedTokenizerBase, max_length: int, completion_only: bool = True) -> list[Encoded]:
    """Token ids and labels of an example, closed by the tokenizer's eos token.

    A text of more than `max_length` tokens becomes several pieces. A prompt and completion stay whole, or are left out if too long,
    because a completion cut short would teach the model to stop early. A completion that was cut off by a token limit gets no eos.
    A conversation becomes a row, or a row for every turn of the assistant, see `headway.data.chat_templates`.

    A token has a label if the token contains a character of a completion or of the assistant. A token that begins in the prompt and
    ends in the completion has a label, because the completion would otherwise lack characters.

    Args:
        max_length: tokens a row.
        completion_only: label only completions and the assistant's turns.
    Raises:
        DataError: the tokenizer has no eos token, a conversation cannot be rendered, or the example is a preference pair.
    """
    documents = list(_documents(example, tokenizer))
    return [row for rows in _rows(documents, tokenizer, max_length, completion_only) for row in rows]


def tokenize_all(
    examples: Iterable[Example], tokenizer: PreTrainedTokenizerBase, max_length: int, completion_only: bool = True
) -> tuple[list[Encoded], int]:
    """Rows of all examples as from `tokenize`, in order, and the number of examples left out as too long, with a warning."""
    encoded: list[Encoded] = []
    total = left_out = 0
    documents = (document for example in examples for document in _documents(example, tokenizer))
    while batch := list(islice(documents, BATCH)):
        for rows in _rows(batch, tokenizer, max_length, completion_only):
            encoded += rows
            total += 1
            left_out += not rows
    if left_out:
        message = f"{left_out} of {total} examples are longer than {max_length} tokens and were left out."
        warnings.warn(message, UserWarning, stacklevel=2)
    return encoded, left_out


def tokenize_prompt(prompt: str | Example, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Token ids of a prompt to continue: of a text, or of the prompt of an example.

    A conversation is rendered through its last message, and ends with the header of the assistant's next turn.

    Raises:
        DataError: the conversation cannot be rendered.
    """
    if isinstance(prompt, Preference):
        prompt = prompt.prompt if isinstance(prompt.prompt, str) else Chat(prompt.prompt, location=prompt.location)
    if isinstance(prompt, Chat):
        return _tokens_of([render_prompt(prompt, tokenizer)], tokenizer)[0].ids
    text = prompt if isinstance(prompt, str) else prompt.text if isinstance(prompt, Text) else prompt.prompt
    tokens = _tokens_of([text], tokenizer)[0]
    return tokens.front + tokens.ids


@dataclass(frozen=True)
class _Document:
    """Text of a row before tokenisation.

    Args:
        text: the whole text.
        label_spans: spans of characters with labels; None for a plain text, with labels everywhere and cut into pieces if too long.
        begun: add no special tokens in front.
        closed: add no eos token.
        eos_has_label: label of an added eos token.
    """

    text: str
    label_spans: list[Span] | None
    begun: bool = False
    closed: bool = False
    eos_has_label: bool = True


def _documents(example: Example, tokenizer: PreTrainedTokenizerBase) -> Iterator[_Document]:
    if tokenizer.eos_token_id is None:
        raise DataError("The tokenizer has no eos token, so nothing could tell the model where a document ends.")
    eos = str(tokenizer.eos_token)
    match example:
        case Text():
            yield _Document(example.text, None, closed=example.text.rstrip().endswith(eos))
        case PromptCompletion():
            text = example.prompt + example.completion
            closed = example.cut_off or example.completion.rstrip().endswith(eos)
            yield _Document(text, [(len(example.prompt), len(text))], closed=closed)
        case Chat():
            rows = render_turns(example, tokenizer)
            for number, (text, spans) in enumerate(rows, 1):
                last = spans[-1][0] if spans else 0
                closed = (example.cut_off and number == len(rows)) or eos in text[last:]
                answered = number < len(rows) or example.messages[-1].get("role") == "assistant"
                yield _Document(text, spans, begun=True, closed=closed, eos_has_label=answered)
        case Preference():
            location = f"{example.location}: " if example.location else ""
            raise DataError(f"{location}a preference pair has no single text. Give texts, prompts with completions, or messages.")


def _rows(
    documents: list[_Document], tokenizer: PreTrainedTokenizerBase, max_length: int, completion_only: bool
) -> Iterator[list[Encoded]]:
    """Lists of the rows of the documents, in order; an empty list for a document that is too long."""
    offsets = completion_only and any(document.label_spans is not None for document in documents)
    tokenized = _tokens_of([document.text for document in documents], tokenizer, offsets)
    for document, tokens in zip(documents, tokenized, strict=True):
        spans = document.label_spans if completion_only else None
        has_label = [True] * len(tokens.ids) if spans is None else _covered(spans, document.text, tokens, tokenizer)
        front = [] if document.begun else tokens.front
        eos = [] if document.closed else [tokenizer.eos_token_id]
        ids = [*front, *tokens.ids, *eos]
        has_label = [*[spans is None] * len(front), *has_label, *[spans is None or document.eos_has_label] * len(eos)]
        labels = [token if keep else IGNORE for token, keep in zip(ids, has_label, strict=True)]
        if document.label_spans is None:
            cuts = range(0, len(ids), max_length)
            yield [Encoded(input_ids=ids[cut : cut + max_length], labels=labels[cut : cut + max_length]) for cut in cuts]
        else:
            yield [Encoded(input_ids=ids, labels=labels)] if len(ids) <= max_length else []


@dataclass(frozen=True)
class _Tokens:
    """Tokens of a text.

    Args:
        ids: tokens of the text itself.
        front: special tokens to add in front.
        offsets: spans of characters of the tokens; None from slow tokenizers, and if nobody asked for offsets.
    """

    ids: list[int]
    front: list[int]
    offsets: list[Span] | None


def _tokens_of(texts: list[str], tokenizer: PreTrainedTokenizerBase, offsets: bool = False) -> list[_Tokens]:
    """Tokens of texts, without the special tokens that the tokenizer sets around a text, or that the text begins with itself."""
    offsets = offsets and tokenizer.is_fast
    options: dict[str, Any] = {"return_special_tokens_mask": True, "return_attention_mask": False}
    options |= {"return_offsets_mapping": True} if offsets else {}
    encoding = tokenizer(texts, verbose=False, **options) if texts else {"input_ids": []}
    found = []
    for number, ids in enumerate(encoding["input_ids"]):
        added = encoding["special_tokens_mask"][number]  # not the special tokens that stand in the text
        start = next((index for index, flag in enumerate(added) if not flag), len(ids))
        end = len(ids) - next((index for index, flag in enumerate(reversed(added)) if not flag), 0)
        front, body = ids[:start], ids[start:end]
        if not body and front[-1:] == [tokenizer.eos_token_id]:
            front = front[:-1]
        if body[: len(front)] == front:
            front = []
        found.append(_Tokens(body, front, encoding["offset_mapping"][number][start:end] if offsets else None))
    return found


def _covered(spans: list[Span], text: str, tokens: _Tokens, tokenizer: PreTrainedTokenizerBase) -> list[bool]:
    """Flags of the tokens: True if a token has a character of a span."""
    if tokens.offsets is None:
        return _covered_without_offsets(spans, text, tokens.ids, tokenizer)
    # some tokenizers leave spaces out of the offsets; a token of spaces then seems empty, and begins at the end before
    ends = [0, *(end for _, end in tokens.offsets)]
    offsets = [(before if start == end else start, end) for before, (start, end) in zip(ends, tokens.offsets, strict=False)]
    covered = [False] * len(offsets)
    for first, last in spans:
        covered = [was or (start < last and end > first) for was, (start, end) in zip(covered, offsets, strict=True)]
    return covered


def _covered_without_offsets(spans: list[Span], text: str, ids: list[int], tokenizer: PreTrainedTokenizerBase) -> list[bool]:
    """As `_covered`, by tokenising the text up to a border: the tokens agree until a token crosses the border."""
    covered = [False] * len(ids)
    for span in spans:
        parts = [tokenizer(text[:border], add_special_tokens=False, verbose=False)["input_ids"] for border in span]
        first, last = (shared_length(part, ids) for part in parts)
        last += last < len(parts[1])  # a token crosses the end
        covered[first:last] = [True] * (last - first)
    return covered
