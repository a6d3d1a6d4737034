"""Prompts to continue come from examples of any kind."""

import pytest
from transformers import AutoTokenizer

from headway import embedded_path
from headway.data import Chat, PromptCompletion, Text
from headway.errors import DataError
from headway.evaluation.prompts import prompt_tokens, prompts_with_completions

TEMPLATE = (
    "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}{% if add_generation_prompt %}assistant:{% endif %}"
)
TURNS = [{"role": "user", "content": "one"}, {"role": "assistant", "content": "two"}, {"role": "user", "content": "three"}]


@pytest.fixture(scope="module")
def tokenizer():
    tokenizer = AutoTokenizer.from_pretrained(embedded_path())
    tokenizer.chat_template = TEMPLATE
    return tokenizer


def test_a_text_gives_its_first_tokens_and_a_prompt_all_of_them(tokenizer) -> None:
    words = "word " * 100
    assert len(prompt_tokens(Text(words), tokenizer, max_text_tokens=7)) == 7
    prompt = prompt_tokens(PromptCompletion(words, " end"), tokenizer, max_text_tokens=7)
    assert prompt == tokenizer(words)["input_ids"] and len(prompt) > 64


def test_a_conversation_gives_the_turns_before_its_first_answer_as_the_template_renders_them(tokenizer) -> None:
    expected = tokenizer("user: one\nassistant:", add_special_tokens=False)["input_ids"]
    assert prompt_tokens(Chat(TURNS), tokenizer) == expected
    assert prompt_tokens(Chat(TURNS[:1]), tokenizer) == expected
    assert prompt_tokens(Chat(TURNS[1:]), tokenizer) == []


def test_examples_without_a_completion_are_refused() -> None:
    pair = PromptCompletion("a", "b")
    assert prompts_with_completions([pair], "here") == [pair]
    with pytest.raises(DataError, match="here has no prompts and completions"):
        prompts_with_completions([pair, Text("c")], "here")
