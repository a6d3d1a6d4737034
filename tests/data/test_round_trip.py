"""Tokens decode to the text of the data, and labels cover exactly the completion, for every kind of tokenizer and example."""

import re
from itertools import accumulate

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headway.data import Chat, PromptCompletion, Text, load_examples, tokenize, tokenize_prompt
from headway.data.chat_templates import render_turns
from tests.data.tokenizers import all_kinds

KINDS = all_kinds()
SOME = 200  # rows of each data set
# without the replacement character, which stands for half a character in decoded text, and the space of sentencepiece
characters = st.characters(exclude_categories=["Cs"], exclude_characters="\ufffd▁\x00")
words = st.sampled_from([" ", "\n", "\n\n", " the", "Tim", "dog", ".", "###", " 42", "é", "🙂", "日本", "  ", "user:", "\t"])
texts = st.one_of(st.text(characters, max_size=12), st.lists(words, max_size=10).map("".join))
kinds = pytest.mark.parametrize("kind", KINDS)


def characters_of(tokenizer, ids):
    """The first character of each token and the character after the last, by decoding ever longer prefixes of the tokens."""
    decoded = [tokenizer.decode(ids[:end]) for end in range(len(ids) + 1)]
    lengths = list(accumulate((len(text.rstrip("\ufffd")) for text in decoded), max))
    partial = [text.endswith("\ufffd") for text in decoded]  # the last token ends within a character
    return [(lengths[i], max(lengths[i + 1], lengths[i] + (partial[i] or partial[i + 1]))) for i in range(len(ids))]


def check(tokenizer, row, text, spans):
    """The tokens of the text decode to the text; a token has a label if it has a character of the spans."""
    ids, labels = list(row["input_ids"]), list(row["labels"])
    if ids[0] == tokenizer.bos_token_id and not text.startswith(tokenizer.bos_token):
        assert labels.pop(0) == -100 or spans is None
        ids = ids[1:]
    if ids and ids[-1] == tokenizer.eos_token_id and not text.endswith(tokenizer.eos_token):
        ids, labels = ids[:-1], labels[:-1]
    assert tokenizer.decode(ids) == text
    for token, label, (start, end) in zip(ids, labels, characters_of(tokenizer, ids), strict=True):
        if start < end:
            learnt = spans is None or any(end > first and start < last for first, last in spans)
            assert label == (token if learnt else -100), (tokenizer.decode([token]), start, end, spans)


@kinds
@settings(max_examples=60, deadline=None)
@given(text=texts)
def test_a_text_decodes_to_itself(kind, text):
    (row,) = tokenize(Text(text), KINDS[kind], 10_000)
    check(KINDS[kind], row, text, None)


@kinds
@settings(max_examples=100, deadline=None)
@given(prompt=texts, completion=texts)
def test_prompt_and_completion_decode_to_their_text_and_the_completion_has_labels(kind, prompt, completion):
    (row,) = tokenize(PromptCompletion(prompt, completion), KINDS[kind], 10_000)
    check(KINDS[kind], row, prompt + completion, [(len(prompt), len(prompt + completion))])


@kinds
@settings(max_examples=60, deadline=None)
@given(contents=st.lists(texts, min_size=2, max_size=6))
def test_a_conversation_decodes_to_its_rendering_and_the_assistants_turns_have_labels(kind, contents):
    tokenizer = KINDS[kind]
    chat = Chat([{"role": ("user", "assistant")[number % 2], "content": content} for number, content in enumerate(contents)])
    rendered = tokenizer.apply_chat_template(chat.messages, tokenize=False)
    spans, end = [], 0
    for number, message in enumerate(chat.messages):  # the answers one after the other, each after the header of its turn
        through = tokenizer.apply_chat_template(chat.messages[: number + 1], tokenize=False)
        if message["role"] == "assistant":
            header = tokenizer.apply_chat_template(chat.messages[:number], tokenize=False, add_generation_prompt=True)
            assert rendered.startswith(through) and through.startswith(header)
            spans.append((len(header), len(through)))
        end = len(through)
    assert end == len(rendered)
    assert render_turns(chat, tokenizer) == [(rendered, spans)]
    (row,) = tokenize(chat, tokenizer, 10_000)
    check(tokenizer, row, rendered, spans)


@kinds
@settings(max_examples=60, deadline=None)
@given(prompt=texts, completion=texts)
def test_the_prompt_at_inference_has_the_tokens_of_training(kind, prompt, completion):
    """Between a letter and a space no token of these tokenizers goes on."""
    tokenizer = KINDS[kind]
    ids = tokenize_prompt(f"{prompt}x", tokenizer)
    (row,) = tokenize(PromptCompletion(f"{prompt}x", f" y{completion}"), tokenizer, 10_000)
    assert row["input_ids"][: len(ids)] == ids and set(row["labels"][: len(ids)]) <= {-100}
    chat = Chat([{"role": "user", "content": prompt}, {"role": "assistant", "content": f"y{completion}"}])
    ids = tokenize_prompt(Chat(chat.messages[:1]), tokenizer)
    (row,) = tokenize(chat, tokenizer, 10_000)
    if tokenizer.decode(ids)[-1:] == "\n":  # elsewhere the space after the header joins the answer
        assert row["input_ids"][: len(ids)] == ids and set(row["labels"][: len(ids)]) <= {-100}


def dialogue(text):
    """The messages of a dialogue of HH-RLHF."""
    parts = re.split(r"\n\n(Human|Assistant): ?", text)[1:]
    roles = {"Human": "user", "Assistant": "assistant"}
    return Chat([{"role": roles[who], "content": said} for who, said in zip(parts[::2], parts[1::2], strict=True)])


def real_examples(folder):
    """Problems of GSM8K, pairs of HH-RLHF as text and as messages, and stories, whole and cut after 40 characters."""
    yield from load_examples(folder / "gsm8k" / "test.jsonl.gz", limit=SOME)
    for pair in load_examples(folder / "hh_rlhf_harmless_test", limit=SOME):
        yield from pair.pair()
        yield dialogue(pair.prompt + pair.chosen)
    for story in load_examples(folder / "tinystories_en", limit=SOME):
        yield story
        yield PromptCompletion(story.text[:40], story.text[40:])


@pytest.mark.slow
@kinds
def test_real_data_decode_to_their_text_and_labels_begin_at_the_border(shared, kind):
    tokenizer = KINDS[kind]
    for example in real_examples(shared / "data"):
        if isinstance(example, Chat):
            text, spans = render_turns(example, tokenizer)[0]
        elif isinstance(example, Text):
            text, spans = example.text, [(0, len(example.text))]
        else:
            text = example.prompt + example.completion
            spans = [(len(example.prompt), len(text))]
        (row,) = tokenize(example, tokenizer, 100_000)
        ids, labels = row["input_ids"], row["labels"]
        front = ids[0] == tokenizer.bos_token_id and not isinstance(example, Chat)
        end = len(ids) - (ids[-1] == tokenizer.eos_token_id and not text.endswith(tokenizer.eos_token))
        assert tokenizer.decode(ids[front:end]) == text
        borders = [index for index in range(1 + front, end) if (labels[index] == -100) != (labels[index - 1] == -100)]
        edges = [edge for span in spans for edge in span if 0 < edge < len(text)]
        assert len(borders) == len(edges)
        for border, edge in zip(borders, edges, strict=True):
            last, after = (len(tokenizer.decode(ids[front:index])) for index in (border, border + 4))  # four bytes: a character
            assert last <= edge < after if labels[border] != -100 else last >= edge
        if isinstance(example, PromptCompletion) and example.completion[:1] == " ":
            prompt = tokenize_prompt(example, tokenizer)
            assert ids[: len(prompt)] == prompt and borders[0] == len(prompt)
