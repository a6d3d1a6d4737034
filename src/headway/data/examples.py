"""Examples: a frozen dataclass for every kind of training data, and the table from column names to examples.

Conversations follow OpenAI's and transformers' format of messages. Preference pairs follow TRL's columns, with an explicit or an
implicit prompt.
"""

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from headway.errors import DataError

Row = Mapping[str, Any]  # column -> value
Message = dict[str, Any]  # role, content, tool_calls, ...

CUT_OFF = "length"  # OpenAI's finish_reason of a text that ended at the token limit: the text has no end to learn
TURN = "\n\nAssistant:"  # header of an answer in the text of HH-RLHF (Bai et al. 2022, arXiv 2204.05862)


@dataclass(frozen=True, kw_only=True)
class _Located:
    location: str = field(default="", compare=False, repr=False)  # file and line or row, for error messages


@dataclass(frozen=True)
class Text(_Located):
    """A document without a prompt."""

    text: str


@dataclass(frozen=True)
class PromptCompletion(_Located):
    """A prompt and a completion. cut_off: the completion ended at a token limit."""

    prompt: str
    completion: str = ""
    cut_off: bool = field(default=False, kw_only=True)


@dataclass(frozen=True)
class Scored(PromptCompletion):
    """A prompt and a completion, with scores of the completion by aspect."""

    scores: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Chat(_Located):
    """A conversation.

    Args:
        messages: objects with role and content.
        tools: JSON schemas of the tools that the assistant can call, for the chat template.
        variables: further columns, for example documents; a chat template receives the columns that the template names.
        cut_off: the last message ended at a token limit.
    """

    messages: list[Message]
    tools: list[dict[str, Any]] | None = None
    variables: Mapping[str, Any] = field(default_factory=dict)
    cut_off: bool = False


@dataclass(frozen=True)
class Preference(_Located):
    """A preferred and a rejected completion of a prompt. All three are text, or all three are lists of messages.

    Args:
        aspect: quality that the preference judges; empty for an overall preference.
        margin: difference of the two scores, if the data has scores.
    """

    prompt: str | list[Message]
    chosen: str | list[Message]
    rejected: str | list[Message]
    aspect: str = ""
    margin: float | None = None

    def pair(self) -> tuple[PromptCompletion | Chat, PromptCompletion | Chat]:
        """The preferred and the rejected completion as examples to tokenise."""
        return self._with(self.chosen), self._with(self.rejected)

    def _with(self, completion: str | list[Message]) -> PromptCompletion | Chat:
        if isinstance(self.prompt, str) and isinstance(completion, str):
            return PromptCompletion(self.prompt, completion, location=self.location)
        return Chat([*self.prompt, *completion], location=self.location)  # type: ignore[list-item]


Example = Text | PromptCompletion | Chat | Preference | Scored


@dataclass(frozen=True)
class Shape:
    """Columns that together make an example."""

    required: tuple[str, ...]
    build: Callable[[Row, str], Example]
    optional: tuple[str, ...] = ()


def example_of(location: str, row: Row, columns: Mapping[str, str] | None = None) -> Example:
    """Example of a row. The first shape with all required columns in the row decides the kind.

    Args:
        columns: names used here -> names in the data. The mapped columns alone then decide the shape.
    Raises:
        DataError: no shape fits, a mapped column is missing, or a column has the wrong type.
    """
    if columns:
        if missing := [name for name in columns.values() if name not in row]:
            raise DataError(f"{location} has no column {missing[0]!r}; it has: {', '.join(row)}.")
        mapped = {name: row[column] for name, column in columns.items()}
        required = {name for shape in SHAPES for name in shape.required}
        row = {name: row[name] for name in row if name not in columns.values() and name not in required} | mapped
    present = {name: value for name, value in row.items() if value is not None}
    if shape := shape_of(present) or shape_of(row):
        return shape.build(present if shape_of(present) else row, location)
    raise DataError(
        f"{location} has the columns {', '.join(row) or 'none'}, but one of these is needed: "
        f"{'; '.join(' and '.join(shape.required) for shape in SHAPES)}. Map them with --columns."
    )


def shape_of(columns: Iterable[str]) -> Shape | None:
    """First shape with all required columns present, or None."""
    present = set(columns)
    return next((shape for shape in SHAPES if present.issuperset(shape.required)), None)


SAMPLE_COLUMNS = {"number", "sample", "seed", "tokens"}  # provenance of a sample, beside prompt and completion or messages


def unused_columns(row: Row) -> list[str]:
    """Columns of a row without a use in the shape of the row. Columns that `headway heads distill` adds to samples do not count."""
    shape = shape_of(name for name, value in row.items() if value is not None)
    known = SAMPLE_COLUMNS if row.keys() >= SAMPLE_COLUMNS else set()
    return [name for name in row if shape is not None and name not in {*shape.required, *shape.optional, *known}]


def row_of_example(example: Example) -> dict[str, Any]:
    """The row that `example_of` reads as the same example."""
    match example:
        case Text():
            return {"text": example.text}
        case PromptCompletion():
            row: dict[str, Any] = {"prompt": example.prompt, "completion": example.completion}
            row |= {"scores": dict(example.scores)} if isinstance(example, Scored) else {}
        case Chat():
            row = {"messages": example.messages, **({"tools": example.tools} if example.tools else {}), **example.variables}
        case Preference():
            row = {"prompt": example.prompt, "chosen": example.chosen, "rejected": example.rejected}
            row |= {"aspect": example.aspect} if example.aspect else {}
            return row | ({"margin": example.margin} if example.margin is not None else {})
    return row | ({"finish_reason": CUT_OFF} if example.cut_off else {})


def _text(row: Row, location: str) -> Text:
    return Text(_string(row, "text", location), location=location)


def _prompt_completion(row: Row, location: str) -> PromptCompletion:
    prompt, completion = (_string(row, name, location) for name in ("prompt", "completion"))
    return PromptCompletion(prompt, completion, cut_off=_is_cut_off(row), location=location)


def _question_answer(row: Row, location: str) -> PromptCompletion:
    """The prompt of lm-eval's gsm8k task."""
    question, answer = (_string(row, name, location) for name in ("question", "answer"))
    return PromptCompletion(f"Question: {question}\nAnswer:", f" {answer}", cut_off=_is_cut_off(row), location=location)


def _chat(row: Row, location: str) -> Chat:
    tools = _from_json(row.get("tools"), "tools", location)
    if tools is not None and not (isinstance(tools, list) and all(isinstance(tool, dict) for tool in tools)):
        raise DataError(f"{location}: column 'tools' is not a list of objects.")
    variables = {name: value for name, value in row.items() if name not in ("messages", "tools", "finish_reason")}
    options = _from_json(variables.pop("chat_template_kwargs", None), "chat_template_kwargs", location)
    if not isinstance(options, dict | None):
        raise DataError(f"{location}: column 'chat_template_kwargs' is not an object.")
    messages = _messages(row, "messages", location)
    return Chat(messages, tools or None, {**variables, **(options or {})}, _is_cut_off(row), location=location)


def _preference(row: Row, location: str) -> Preference:
    is_text = isinstance(row["chosen"], str)
    read = _string if is_text else _messages
    chosen, rejected = read(row, "chosen", location), read(row, "rejected", location)
    if "prompt" in row and isinstance(row["prompt"], str) == is_text:
        prompt = read(row, "prompt", location)
    else:  # also where a prompt of text only repeats the first message, as in UltraFeedback
        shared = shared_prompt(chosen, rejected)
        prompt, chosen, rejected = chosen[:shared], chosen[shared:], rejected[shared:]
    margin = row.get("margin")
    if not (margin is None or _is_number(margin)):
        raise DataError(f"{location}: column 'margin' is {type(margin).__name__}, not a number.")
    aspect = _string(row, "aspect", location) if "aspect" in row else ""
    return Preference(prompt, chosen, rejected, aspect, margin, location=location)


def shared_prompt(chosen: str | list[Message], rejected: str | list[Message]) -> int:
    """Length of the prompt that two completions begin with: in messages, or in characters.

    A dialogue in text is cut after the last shared "Assistant:", and plain text at the last shared end of a word.
    """
    if isinstance(chosen, list) and isinstance(rejected, list):
        # an answer is never part of the prompt
        return min(shared_length(chosen, rejected), len(chosen) - 1, len(rejected) - 1)
    assert isinstance(chosen, str) and isinstance(rejected, str)
    common = chosen[: shared_length(chosen, rejected)]
    if TURN in common:
        return common.rindex(TURN) + len(TURN)
    word_end = re.match(r".*\S(?=\s)", common, re.DOTALL)
    return word_end.end() if word_end else 0


def shared_length(one: Sequence[Any], other: Sequence[Any]) -> int:
    """Length of the longest common prefix."""
    return next((index for index, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))


def _scored(row: Row, location: str) -> Scored:
    scores = _from_json(row["scores"], "scores", location)
    scores = {"score": scores} if _is_number(scores) else scores
    if not (isinstance(scores, dict) and scores and all(_is_number(score) for score in scores.values())):
        raise DataError(f"{location}: column 'scores' is neither a number nor an object of numbers by aspect.")
    prompt, completion = (_string(row, name, location) for name in ("prompt", "completion"))
    return Scored(prompt, completion, scores, cut_off=_is_cut_off(row), location=location)


def _string(row: Row, name: str, location: str) -> Any:
    if not isinstance(row[name], str):
        raise DataError(f"{location}: column {name!r} is {type(row[name]).__name__}, not text.")
    return row[name]


def _messages(row: Row, name: str, location: str) -> Any:
    value = row[name]
    if not (isinstance(value, list) and value and all(isinstance(message, dict) and "role" in message for message in value)):
        raise DataError(f"{location}: column {name!r} is not a list of objects with role and content.")
    return [{key: part for key, part in message.items() if part is not None} for message in value]


def _from_json(value: Any, name: str, location: str) -> Any:
    """The value of a column that some data sets keep as a string of JSON."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value) if value.strip() else None
    except json.JSONDecodeError as error:
        raise DataError(f"{location}: column {name!r} is not JSON: {error.msg} at column {error.colno}.") from error


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_cut_off(row: Row) -> bool:
    return bool(row.get("finish_reason") == CUT_OFF)


# in order of preference: a row with the columns of several shapes becomes the first
SHAPES = (
    Shape(("messages",), _chat, ("tools", "documents", "chat_template_kwargs", "finish_reason")),
    Shape(("prompt", "completion", "scores"), _scored, ("finish_reason",)),
    Shape(("prompt", "completion"), _prompt_completion, ("finish_reason",)),
    Shape(("question", "answer"), _question_answer, ("finish_reason",)),
    Shape(("chosen", "rejected"), _preference, ("prompt", "aspect", "margin")),
    Shape(("text",), _text),
)
COLUMNS = tuple(dict.fromkeys(name for shape in SHAPES for name in (*shape.required, *shape.optional)))
