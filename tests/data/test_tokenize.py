"""Labels of examples: completions, assistant turns, and the eos token of a document."""

import json

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from headway.data import Chat, Preference, PromptCompletion, Text, load_examples, tokenize, tokenize_all, tokenize_prompt
from headway.errors import DataError
from tests.data.tokenizers import LINES, byte_level, sentencepiece_like

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


def test_completion_and_eos_have_labels_and_the_prompt_has_none():
    found = tokenize(PromptCompletion("a b", " c d"), tokenizer(), 10)[0]
    assert words(found["input_ids"]) == "a b c d <eos>"
    assert words(found["labels"]) == "_ _ c d <eos>"
    assert words(tokenize(PromptCompletion("a b", " c d"), tokenizer(), 10, completion_only=False)[0]["labels"]) == "a b c d <eos>"


def test_long_text_becomes_pieces_and_a_long_answer_is_left_out():
    pieces = tokenize(Text("a b c d a"), tokenizer(), 4)
    assert [words(p["input_ids"]) for p in pieces] == ["a b c d", "a <eos>"]
    assert tokenize(PromptCompletion("a b", " c d"), tokenizer(), 4) == []


@pytest.mark.parametrize("template", [PLAIN, MARKED])
def test_only_the_assistants_turns_have_labels(template):
    found = tokenize(Chat(CHAT), tokenizer(template), 40)[0]
    assert words(found["input_ids"]) == "user : a b <eos> assistant : c <eos> user : hello <eos> assistant : there d <eos>"
    assert words(found["labels"]) == "_ _ _ _ _ _ _ c <eos> _ _ _ _ _ _ there d <eos>"


def test_examples_left_out_are_counted_and_warned_about():
    examples = [PromptCompletion("a b", " c d"), PromptCompletion("a", " c"), Text("a b c d a")]
    with pytest.warns(UserWarning, match="1 of 3 examples are longer than 4 tokens"):
        encoded, left_out = tokenize_all(examples, tokenizer(), 4)
    assert left_out == 1
    assert [words(row["input_ids"]) for row in encoded] == ["a c <eos>", "a b c d", "a <eos>"]


def test_a_template_without_eos_gets_an_eos_with_a_label():
    found = tokenize(Chat(CHAT[:2]), tokenizer(PLAIN.replace(" <eos>", "")), 40)[0]
    assert words(found["input_ids"]) == "user : a b assistant : c <eos>"
    assert words(found["labels"]) == "_ _ _ _ _ _ c <eos>"


def test_a_generation_prompt_longer_than_the_header_of_a_turn_shifts_no_label():
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


def test_a_completion_that_was_cut_off_has_no_eos(tmp_path):
    file = tmp_path / "cut.jsonl"
    rows = [{"prompt": "a b", "completion": " c d", "finish_reason": reason} for reason in ("length", "stop")]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    cut, whole = (tokenize(example, tokenizer(), 10)[0] for example in load_examples(file))
    assert words(cut["labels"]) == "_ _ c d" and words(whole["labels"]) == "_ _ c d <eos>"
    for template in (PLAIN, MARKED):
        found = tokenize(Chat(CHAT, cut_off=True), tokenizer(template), 40)[0]
        assert words(found["input_ids"]) == "user : a b <eos> assistant : c <eos> user : hello <eos> assistant : there d"
        assert words(found["labels"]) == "_ _ _ _ _ _ _ c <eos> _ _ _ _ _ _ there d"


def test_a_sentencepiece_tokenizer_adds_no_space_before_a_completion():
    spm = sentencepiece_like()
    for prompt, completion in [("Tim liked", " to run"), ('Tim: "', "Hello"), ("Story:\n", "Once"), ("", "Once"), ("a ", "b")]:
        (row,) = tokenize(PromptCompletion(prompt, completion), spm, 64)
        assert row["input_ids"] == [*spm(prompt + completion)["input_ids"], spm.eos_token_id]
        assert spm.decode([token for token in row["labels"] if token != -100]).removesuffix("</s>").endswith(completion.strip())


def test_the_token_across_the_border_has_a_label():
    tokenizer = byte_level(["<eos>"], "<eos>", LINES)
    (row,) = tokenize(PromptCompletion("a dog ", "named"), tokenizer, 64)  # " n" is one token
    texts = [tokenizer.decode([token]) for token in row["input_ids"]]
    assert texts[texts.index(" dog") + 1].startswith(" n")
    assert row["labels"].count(-100) == texts.index(" dog") + 1


def test_special_tokens_of_the_text_are_not_doubled():
    bos_and_eos = byte_level(["<eos>", "<bos>"], "<eos>", LINES, "<bos>", prepend=True)
    bos, eos = bos_and_eos.bos_token_id, bos_and_eos.eos_token_id
    for example in (
        Text("<bos>Hi there<eos>"),
        Text("<bos>user: Hi<eos>\n"),
        PromptCompletion("<bos>Hi", " there"),
        PromptCompletion("<bos>Hi", " there<eos>"),
        PromptCompletion("Hi", " there<eos>\n"),
        Text("Hi"),
    ):
        ids = tokenize(example, bos_and_eos, 64)[0]["input_ids"]
        assert ids[0] == bos and ids.count(bos) == 1 and ids.count(eos) == 1
    assert tokenize_prompt("<bos>Hi", bos_and_eos) == tokenize_prompt("Hi", bos_and_eos)
    closes = byte_level(["<eos>", "<bos>"], "<eos>", LINES, "<bos>")
    special = [("<bos>", closes.bos_token_id), ("<eos>", closes.eos_token_id)]
    closes._tokenizer.post_processor = processors.TemplateProcessing(single="<bos> $A <eos>", special_tokens=special)
    for prompt in ("Hi", "<bos>Hi"):
        ids = tokenize(PromptCompletion(prompt, " there"), closes, 64)[0]["input_ids"]
        assert ids.count(closes.bos_token_id) == 1 and ids.count(closes.eos_token_id) == 1 and ids[-1] == closes.eos_token_id
        assert ids[: len(tokenize_prompt(prompt, closes))] == tokenize_prompt(prompt, closes)
    assert tokenize_prompt("a<eos>", bos_and_eos)[-1] == eos  # of the text itself


def test_tokens_of_spaces_outside_the_offsets_have_the_right_labels():
    trimming = byte_level(["<eos>"], "<eos>", LINES)
    trimming._tokenizer.post_processor = processors.ByteLevel(trim_offsets=True)
    for prompt, completion in [("a", "  \n"), ("a  ", "\n"), ("a", " b"), ("a\n", "\n\nb")]:
        (row,) = tokenize(PromptCompletion(prompt, completion), trimming, 64)
        assert trimming.decode([token for token in row["labels"] if token != -100]) == completion + "<eos>"


def test_a_preference_pair_is_tokenised_as_two_texts():
    pair = Preference("a b", " c", " d", location="pairs.jsonl, line 2")
    chosen, rejected = (tokenize(example, tokenizer(), 10)[0] for example in pair.pair())
    assert words(chosen["labels"]) == "_ _ c <eos>" and words(rejected["labels"]) == "_ _ d <eos>"
    assert tokenize_prompt(pair, tokenizer()) == tokenize_prompt("a b", tokenizer())
    with pytest.raises(DataError, match=r"pairs.jsonl, line 2: a preference pair"):
        tokenize(pair, tokenizer(), 10)


def test_examples_tokenised_together_equal_examples_tokenised_alone():
    examples = [Text("a b c"), PromptCompletion("a b", " c d"), Chat(CHAT), Text(""), Text("d" + " a" * 20)]
    encoded, left_out = tokenize_all(examples * 300, tokenizer(PLAIN), 30)
    assert encoded == [row for example in examples for row in tokenize(example, tokenizer(PLAIN), 30)] * 300 and not left_out
