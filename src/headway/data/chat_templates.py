"""Conversations rendered by a chat template, with the characters that the assistant wrote.

A turn of the assistant is found by rendering: the conversation through the turn, less the prompt before the turn. Characters are
compared and not tokens, because a tokenizer may join the end of one turn with the start of the next.
"""

import re
import warnings
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import jinja2
import jinja2.meta
from transformers import PreTrainedTokenizerBase
from transformers.utils.chat_template_utils import render_jinja_template

from headway.data.examples import Chat, Message, shared_length
from headway.errors import DataError, first_line

Span = tuple[int, int]  # first character, and the character after the last
# the exceptions that a template of other people's raises on data that it does not expect
TEMPLATE_ERRORS = (jinja2.TemplateError, ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)
GENERATION = re.compile(r"\{%-?\s*(end)?generation\s*-?%\}")  # transformers' tags around the assistant's text
GLOBALS = {"messages", "add_generation_prompt", "raise_exception", "strftime_now", "namespace", "dict"}  # of chat templates
REASONING = ("reasoning_content", "thinking", "reasoning")  # transformers gives a template all three, from any one
MEDIA = ("image", "audio", "video", "file")


def render_prompt(chat: Chat, tokenizer: PreTrainedTokenizerBase) -> str:
    """The conversation and the header of the assistant's next turn, as at inference. Raises DataError as `render_turns`."""
    return _Renderer(chat, tokenizer).prompt(len(chat.messages))


def render_turns(chat: Chat, tokenizer: PreTrainedTokenizerBase) -> list[tuple[str, list[Span]]]:
    """The rendered conversation with the spans of characters that the assistant wrote.

    Some templates change earlier turns once later turns follow, for example by dropping the reasoning. The result is then a text
    for every turn of the assistant: the conversation through that turn, as rendered at inference.

    Raises:
        DataError: the tokenizer has no chat template, the template fails, or the content is not text.
    """
    renderer = _Renderer(chat, tokenizer)
    text = renderer.render(len(chat.messages))
    turns = [renderer.turn(index) for index, message in enumerate(chat.messages) if message.get("role") == "assistant"]
    if all(text.startswith(through) for through, _ in turns):
        marked = renderer.marked_spans(text)
        rows = [(text, [(start, len(through)) for through, start in turns] if marked is None else marked)]
    else:
        rows = [(through, renderer.spans_from(start, through)) for through, start in turns]
    if chat.cut_off:
        text, spans = rows[-1]
        text = text[: shared_length(text, renderer.unfinished())]
        rows[-1] = text, [(start, min(end, len(text))) for start, end in spans if start < len(text)]
    return rows


class _Renderer:
    """A conversation and the chat template of a tokenizer."""

    def __init__(self, chat: Chat, tokenizer: PreTrainedTokenizerBase) -> None:
        self.location = f"{chat.location}: " if chat.location else ""
        if not tokenizer.chat_template:
            raise DataError(
                f"{self.location}the data has messages, but this tokenizer has no chat template. Use prompt and completion columns."
            )
        self.messages = chat.messages
        self.tools = chat.tools
        try:
            self.template: str = tokenizer.get_chat_template(tools=chat.tools)
            named = template_variables(self.template) - set(tokenizer.special_tokens_map)
        except TEMPLATE_ERRORS as error:
            raise DataError(f"{self.location}the chat template cannot be used: {first_line(error)}") from error
        self.variables = {name: value for name, value in chat.variables.items() if name in named}
        self._warn_of_unused(chat, named)
        self.variables |= tokenizer.special_tokens_map
        if not all(isinstance(message.get("content"), str) for message in chat.messages) and not self._renders_content():
            self.messages = [message | {"content": self._text_content(message)} for message in chat.messages]

    def render(self, count: int) -> str:
        """The first `count` messages."""
        return self._checked(self.messages[:count])[0]

    def prompt(self, count: int) -> str:
        """The first `count` messages with the header of the assistant's next turn."""
        return self._checked(self.messages[:count], add_generation_prompt=True)[0]

    def unfinished(self) -> str:
        """All messages, without the end of the last turn."""
        return self._checked(self.messages, continue_final_message=True)[0]

    def marked_spans(self, text: str) -> list[Span] | None:
        """The spans of `text` that {% generation %} marks; None without marks, or if `text` is no rendering of the template."""
        if not GENERATION.search(self.template):
            return None
        for count in range(len(self.messages), 0, -1):
            rendered, spans = self._checked(self.messages[:count], return_assistant_tokens_mask=True)
            if rendered == text:
                return spans
        return None

    def spans_from(self, start: int, text: str) -> list[Span]:
        """The spans of `text` from a character on: the marked spans, or the whole rest without marks."""
        marked = self.marked_spans(text)
        return [(start, len(text))] if marked is None else [span for span in marked if span[1] > start]

    def turn(self, index: int) -> tuple[str, int]:
        """The conversation through a turn of the assistant, and the position of the turn's first character."""
        through = self.render(index + 1)
        answer = "".join(text_parts(self.messages[index])).strip()
        content = through.rfind(answer) if answer else -1
        if not index:  # templates without a default system message have no prompt here
            return through, max(content, 0)
        prompt = self.prompt(index)
        if through.startswith(prompt):
            return through, len(prompt)
        if content >= 0 and not through.startswith(self.render(index)):  # earlier turns change: keep the prompt of inference
            return prompt + through[content:], len(prompt)
        shared = shared_length(prompt, through)  # the header has more than the turn, such as an opened <think>
        return through, shared if content < 0 else min(shared, content)

    def _warn_of_unused(self, chat: Chat, named: set[str]) -> None:
        unused = [name for name in chat.variables if name not in named]
        unused += ["tools"] if chat.tools and "tools" not in named else []
        keys = dict.fromkeys(key for message in chat.messages for key in message if key not in ("role", "content"))
        for key in keys:
            aliases = REASONING if key in REASONING else (key,)
            unused += [] if any(alias in self.template for alias in aliases) else [f"{key} of messages"]
        if unused:
            warnings.warn(f"The chat template does not render these columns: {', '.join(unused)}.", UserWarning, stacklevel=4)

    def _renders_content(self) -> bool:
        """True if the template renders lists of parts, and messages without content."""
        lists = [message["content"] for message in self.messages if isinstance(message.get("content"), list)]
        for part in (part for parts in lists for part in parts if isinstance(part, dict)):
            if any(kind in str(part.get("type")) for kind in MEDIA):
                raise DataError(f"{self.location}content of type {part['type']!r}: only text can be learnt.")
        try:
            text = self._call(self.messages)[0]
        except TEMPLATE_ERRORS:
            return False
        return not any(str(parts) in text for parts in lists)

    def _text_content(self, message: Message) -> str:
        content, texts = message.get("content", ""), text_parts(message)
        if len(texts) < (len(content) if isinstance(content, list) else 1):
            raise DataError(f"{self.location}content of a message has parts without text: {str(content)[:80]}")
        return "".join(texts)

    def _checked(self, messages: Sequence[Message], **options: bool) -> tuple[str, list[Span]]:
        try:
            return self._call(messages, **options)
        except TEMPLATE_ERRORS as error:  # for example roles that do not alternate
            message = f"the chat template refuses a conversation of {len(self.messages)} messages: {first_line(error)}"
            raise DataError(f"{self.location}{message}") from error

    def _call(self, messages: Sequence[Message], **options: bool) -> tuple[str, list[Span]]:
        values: dict[str, Any] = {"tools": self.tools, **self.variables, **options}
        rendered: Any = render_jinja_template([list(messages)], chat_template=self.template, **values)
        (text,), spans = rendered
        return text, spans[0] if spans else []


def text_parts(message: Message) -> list[str]:
    """The texts of a message. The content is text or a list of parts in OpenAI's format."""
    content = message.get("content", "")
    texts = [part.get("text") if isinstance(part, dict) else part for part in (content if isinstance(content, list) else [content])]
    return [text for text in texts if isinstance(text, str)]


@lru_cache
def template_variables(template: str) -> set[str]:
    """The variables that a chat template reads, apart from the variables that every template has."""
    environment = jinja2.Environment(extensions=["jinja2.ext.loopcontrols"])
    parsed = environment.parse(GENERATION.sub("", template))
    return jinja2.meta.find_undeclared_variables(parsed) - GLOBALS - set(environment.globals)
