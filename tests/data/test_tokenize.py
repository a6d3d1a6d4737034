"""What is learnt from an example: completions and assistant turns, and the end of each document."""

import json

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from headway.data import Chat, PromptCompletion, Text, load_examples, tokenize, tokenize_all
from headway.errors import DataError

WORDS = ["a", "b", "c", "d", "hello", "there", "user", "assistant", ":", "<eos>", "<unk>"]
PLAIN = (
    "{% for m in messages %}{{ m.role }} : {{ m.content }} <eos> {% endfor %}{% if add_generation_prompt %}assistant : {% endif %}"
)
MARKED = (
    "{% for m in messages %}{{ m.role }} : {% if m.role == 'assistant' %}{% generation %}{{ m.content }} <eos>{% endgeneration %} "
    "{% else %}{{ m.content }} <eos> {% endif %}{% endfor %}"
)
CHAT = [
    {"role": "user", "content": "a b"},
    {"role": "assistant", "content": "c"},
    {"role": "user", "content": "hello"},
    {"role": "assistant", "content": "there d"},
]


def tokenizer(template=None, eos="<eos>"):
    raw = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="<unk>"))
    raw.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    made = PreTrainedTokenizerFast(tokenizer_object=raw, eos_token=eos, unk_token="<unk>")
    made.chat_template = template
    return made


def words(ids):
    return " ".join("_" if i == -100 else WORDS[i] for i in ids)


def test_completion_and_end_are_learnt_and_the_prompt_is_not():
    found = tokenize(PromptCompletion("a b", " c d"), tokenizer(), 10)[0]
    assert words(found["input_ids"]) == "a b c d <eos>"
    assert words(found["labels"]) == "_ _ c d <eos>"
    assert words(tokenize(PromptCompletion("a b", " c d"), tokenizer(), 10, completion_only=False)[0]["labels"]) == "a b c d <eos>"


def test_long_text_becomes_pieces_and_a_long_answer_is_left_out():
    pieces = tokenize(Text("a b c d a"), tokenizer(), 4)
    assert [words(p["input_ids"]) for p in pieces] == ["a b c d", "a <eos>"]
    assert tokenize(PromptCompletion("a b", " c d"), tokenizer(), 4) == []


@pytest.mark.parametrize("template", [PLAIN, MARKED])
def test_only_the_assistants_turns_are_learnt(template):
    found = tokenize(Chat(CHAT), tokenizer(template), 40)[0]
    assert words(found["input_ids"]) == "user : a b <eos> assistant : c <eos> user : hello <eos> assistant : there d <eos>"
    assert words(found["labels"]) == "_ _ _ _ _ _ _ c <eos> _ _ _ _ _ _ there d <eos>"


def test_examples_left_out_are_counted_and_warned_about():
    examples = [PromptCompletion("a b", " c d"), PromptCompletion("a", " c"), Text("a b c d a")]
    with pytest.warns(UserWarning, match="1 of 3 examples are longer than 4 tokens"):
        encoded, left_out = tokenize_all(examples, tokenizer(), 4)
    assert left_out == 1
    assert [words(row["input_ids"]) for row in encoded] == ["a c <eos>", "a b c d", "a <eos>"]


def test_a_conversation_whose_template_sets_no_eos_is_closed_by_a_learnt_one():
    found = tokenize(Chat(CHAT[:2]), tokenizer(PLAIN.replace(" <eos>", "")), 40)[0]
    assert words(found["input_ids"]) == "user : a b assistant : c <eos>"
    assert words(found["labels"]) == "_ _ _ _ _ _ c <eos>"


def test_a_generation_prompt_that_the_conversation_does_not_contain_shifts_no_label():
    template = PLAIN.replace("assistant : {% endif %}", "assistant : hello {% endif %}")  # as <think> in some templates
    found = tokenize(Chat(CHAT[:2]), tokenizer(template), 40)[0]
    assert words(found["labels"]) == "_ _ _ _ _ _ _ c <eos>"


def test_a_template_that_drops_reasoning_from_earlier_turns_gives_one_row_for_each_turn():
    template = (
        "{% for m in messages %}{{ m.role }} : {% if m.thinking and loop.index0 > messages | length - 2 %}{{ m.thinking }} : "
        "{% endif %}{{ m.content }} <eos> {% endfor %}{% if add_generation_prompt %}assistant : {% endif %}"
    )
    chat = Chat([CHAT[0], CHAT[1] | {"thinking": "a"}, CHAT[2], CHAT[3] | {"thinking": "b"}])
    first, second = tokenize(chat, tokenizer(template), 40)
    assert words(first["input_ids"]) == "user : a b <eos> assistant : a : c <eos>"
    assert words(first["labels"]) == "_ _ _ _ _ _ _ a : c <eos>"
    assert words(second["input_ids"]) == "user : a b <eos> assistant : c <eos> user : hello <eos> assistant : b : there d <eos>"
    assert words(second["labels"]) == "_ _ _ _ _ _ _ _ _ _ _ _ _ _ _ b : there d <eos>"
    assert len(tokenize(Chat(chat.messages[:2]), tokenizer(template), 40)) == 1


def test_a_template_that_refuses_a_conversation_is_an_error_with_file_and_line():
    chat = Chat(CHAT, location="chats.jsonl, line 3")
    with pytest.raises(DataError, match=r"^chats.jsonl, line 3: .*refuses a conversation of 4 messages: roles must take turns"):
        tokenize(chat, tokenizer("{{ raise_exception('roles must take turns') }}"), 40)


def test_messages_without_a_template_and_text_without_an_eos_are_clear_errors():
    with pytest.raises(DataError, match="no chat template"):
        tokenize(Chat(CHAT), tokenizer(), 10)
    with pytest.raises(DataError, match="no eos token"):
        tokenize(Text("a"), tokenizer(eos=None), 10)


def test_what_was_cut_off_where_it_was_written_is_not_closed(tmp_path):
    file = tmp_path / "cut.jsonl"
    rows = [{"prompt": "a b", "completion": " c d", "finish_reason": reason} for reason in ("length", "stop")]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    cut, whole = (tokenize(example, tokenizer(), 10)[0] for example in load_examples(file))
    assert words(cut["labels"]) == "_ _ c d" and words(whole["labels"]) == "_ _ c d <eos>"
    for template in (PLAIN, MARKED):
        found = tokenize(Chat(CHAT, cut_off=True), tokenizer(template), 40)[0]
        assert words(found["input_ids"]) == "user : a b <eos> assistant : c <eos> user : hello <eos> assistant : there d"
        assert words(found["labels"]) == "_ _ _ _ _ _ _ c <eos> _ _ _ _ _ _ there d"
