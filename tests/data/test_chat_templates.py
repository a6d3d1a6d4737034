"""Chat templates render all columns that the template names, as at inference, and a failure names file and row."""

import warnings

import pytest

from headway.data import Chat, example_of, tokenize, tokenize_prompt
from headway.data.chat_templates import render_prompt, render_turns, template_variables
from headway.errors import DataError
from tests.data.tokenizers import CHATML, HEADINGS, LLAMA3, byte_level

TURN = "<|im_start|>{}\n{}<|im_end|>\n"
TOOLS = [{"type": "function", "function": {"name": "weather", "description": "w", "parameters": {"type": "object"}}}]
QUESTION = [{"role": "user", "content": "Rome?"}, {"role": "assistant", "content": "sunny"}]
IMAGE = [{"role": "user", "content": [{"type": "text", "text": "See"}, {"type": "image_url", "image_url": "x"}]}, QUESTION[1]]


def chatml(before="", template=CHATML):
    return byte_level(["<|im_start|>", "<|im_end|>"], "<|im_end|>", before + template)


def text_of(chat, tokenizer):
    return render_turns(chat, tokenizer)[0][0]


def learnt(chat, tokenizer):
    """The texts that the assistant wrote, by row."""
    return [[text[start:end] for start, end in spans] for text, spans in render_turns(chat, tokenizer)]


def test_turns_that_end_in_a_token_that_merges_with_the_next_turn_are_found():
    tokenizer = byte_level(["<eos>"], "<eos>", HEADINGS)
    chat = Chat([*QUESTION, *QUESTION])
    assert learnt(chat, tokenizer) == [["sunny\n\n", "sunny\n\n"]]
    ids, labels = tokenize(chat, tokenizer, 512)[0].values()
    assert tokenizer.decode([token for token in labels if token != -100]) == "sunny\n\nsunny\n\n<eos>"
    assert tokenizer.decode(ids) == text_of(chat, tokenizer) + "<eos>"


def test_a_token_across_the_border_of_a_turn_has_a_label():
    """The template ends turns with a newline, and the next turn begins with a newline: both are one token."""
    template = "{% for m in messages %}{{ '\n' + m.role + '>' + m.content + '\n' }}{% endfor %}"
    tokenizer = byte_level(["<eos>"], "<eos>", template)
    tokenizer.add_tokens(["\n\n"])
    chat = Chat([*QUESTION, QUESTION[0]])
    (row,) = tokenize(chat, tokenizer, 512)
    assert tokenizer.decode([token for token in row["labels"] if token != -100]) == "\n\nassistant>sunny\n\n"


@pytest.mark.parametrize("as_json", [False, True])
def test_tools_documents_and_other_columns_reach_a_template_that_names_them(as_json):
    before = (
        "{% for t in tools or [] %}{{ 'Tool ' + t.function.name + '. ' }}{% endfor %}"
        "{% for d in documents or [] %}{{ 'Document ' + d.title + '. ' }}{% endfor %}{{ mood | default('no') }} mood. "
        "{% if enable_thinking is defined and not enable_thinking %}{{ 'No thinking. ' }}{% endif %}"
    )
    row = {
        "messages": QUESTION,
        "tools": '[{"function": {"name": "weather"}}]' if as_json else TOOLS,
        "documents": [{"title": "Forecast", "text": "sun"}],
        "mood": "good",
        "chat_template_kwargs": {"enable_thinking": False},
    }
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        example, tokenizer = example_of("x", row), chatml(before)
        text = text_of(example, tokenizer)
    expected = "Tool weather. Document Forecast. good mood. No thinking. "
    assert text == expected + TURN.format("user", "Rome?") + TURN.format("assistant", "sunny")
    assert render_prompt(Chat(QUESTION[:1], example.tools, example.variables), tokenizer).startswith(expected)
    assert tokenizer.decode(tokenize(example, tokenizer, 512)[0]["input_ids"]).startswith(expected)


def test_the_tool_use_template_of_several_is_chosen_where_there_are_tools():
    tokenizer = chatml()
    tokenizer.chat_template = {"default": CHATML, "tool_use": "{{ tools[0].function.name }} " + CHATML}
    assert text_of(Chat(QUESTION, TOOLS), tokenizer).startswith("weather <|im_start|>")
    assert text_of(Chat(QUESTION), tokenizer).startswith("<|im_start|>")


def test_columns_that_the_template_does_not_render_are_named():
    called = {"role": "assistant", "content": "a", "tool_calls": [{"function": {"name": "f"}}], "thinking": "b"}
    row = {"messages": [QUESTION[0], called], "tools": TOOLS, "source": "web", "id": 3}
    with pytest.warns(UserWarning, match="these columns: source, id, tools, tool_calls of messages, thinking of messages"):
        tokenize(example_of("x", row), chatml(), 512)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tokenize(example_of("x", {"messages": QUESTION}), chatml(), 512)


def test_variables_with_a_default_count_as_variables_of_the_template():
    template = "{% if not date is defined %}{% set date = 'today' %}{% endif %}{% set x = 1 %}{{ date }}{{ bos_token }}"
    assert template_variables(template) == {"date", "bos_token"}
    assert template_variables("{% for m in messages %}{% generation %}{{ m.a ~ b }}{% endgeneration %}{% break %}{% endfor %}") == {
        "b"
    }
    tokenizer = chatml(template.replace("{{ bos_token }}", ""))
    assert text_of(example_of("x", {"messages": QUESTION, "date": "Monday"}), tokenizer).startswith("Monday")
    assert text_of(Chat(QUESTION), tokenizer).startswith("today")


@pytest.mark.parametrize("template", [CHATML, CHATML.replace("+ m['content'] +", "~ (m['content'] | trim) ~"), LLAMA3])
def test_text_parts_are_joined_for_a_template_of_strings(template):
    parts = [{"type": "text", "text": "Ro"}, {"type": "text", "text": "me?"}]
    chat = Chat([{"role": "user", "content": parts}, {"role": "assistant", "content": ["sun", "ny"]}])
    tokenizer = chatml(template=template)
    assert render_turns(chat, tokenizer) == render_turns(Chat(QUESTION), tokenizer)
    assert tokenize_prompt(Chat(chat.messages[:1]), tokenizer) == tokenize_prompt(Chat(QUESTION[:1]), tokenizer)


def test_parts_reach_a_template_that_renders_parts():
    template = CHATML.replace("m['content'] +", "(m['content'] | map(attribute='text') | join('|')) +")
    chat = Chat([{"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}])
    assert text_of(chat, chatml(template=template)) == TURN.format("user", "a|b")


@pytest.mark.parametrize("content", [{"content": None}, {}])
def test_a_message_without_content_is_empty(content):
    called = {"role": "assistant", "tool_calls": [{"function": {"name": "weather"}}], **content}
    row = {"messages": [QUESTION[0], called, QUESTION[1]]}
    template = CHATML.replace("+ '<|im_end|>", "+ (m.tool_calls[0].function.name if m.tool_calls else '') + '<|im_end|>")
    expected = [[TURN.format("", "weather")[len("<|im_start|>\n") :], TURN.format("", "sunny")[len("<|im_start|>\n") :]]]
    assert learnt(example_of("x", row), chatml(template=template)) == expected
    aware = template.replace("m['content'] +", "(m['content'] if m['content'] is defined else '[call] ') +")
    assert "[call] weather" in text_of(example_of("x", row), chatml(template=aware))


@pytest.mark.parametrize(
    ("messages", "template", "message"),
    [
        (IMAGE, CHATML, "content of type 'image_url': only text can be learnt"),
        ([{"role": "user", "content": [{"type": "odd", "value": 3}]}], CHATML, "parts without text"),
        ([{"role": "user", "content": [3]}], LLAMA3.replace("+ m['content'] ", "+ m['content'] | string "), "parts without text"),
        (QUESTION, "{{ messages[5].content + 'x' }}", "refuses a conversation of 2 messages"),
        (QUESTION, "{{ 1 // 0 }}", "refuses a conversation of 2 messages: integer"),
        (QUESTION, "{{ messages['a'].b.c }}", "refuses a conversation"),
        (QUESTION, "{% for m in messages %}", "cannot be used"),
        (QUESTION, None, "no chat template. Use prompt and completion columns"),
    ],
)
def test_an_error_while_rendering_is_one_line_with_file_and_row(messages, template, message):
    chat, tokenizer = Chat(messages, location="chats.jsonl, line 7"), chatml()
    tokenizer.chat_template = template
    for use in (lambda: tokenize(chat, tokenizer, 64), lambda: tokenize_prompt(chat, tokenizer)):
        with pytest.raises(DataError, match=message) as found:
            use()
        assert str(found.value).startswith("chats.jsonl, line 7: ") and "\n" not in str(found.value)


THINKING = (  # in the manner of Qwen 3
    "{% set ns = namespace(last=0) %}{% for m in messages %}{% if m.role == 'user' %}{% set ns.last = loop.index0 %}{% endif %}"
    "{% endfor %}"
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' }}{% if m.role == 'assistant' %}"
    "{% if loop.index0 > ns.last %}{{ '<think>\n' + m.reasoning_content + '\n</think>\n\n' }}{% endif %}"
    "{{ m.content + '<|im_end|>\n' }}{% else %}{{ m.content + '<|im_end|>\n' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
THOUGHT = [{**QUESTION[1], "reasoning_content": "look"}, {**QUESTION[1], "content": "rain", "reasoning_content": "again"}]


@pytest.mark.parametrize("marked", [False, True])
def test_a_template_that_drops_reasoning_gives_a_row_for_each_turn_as_at_inference(marked):
    template = THINKING
    if marked:
        template = template.replace("{% if loop.index0 >", "{% generation %}{% if loop.index0 >")
        template = template.replace(
            "{{ m.content + '<|im_end|>\n' }}{% else", "{{ m.content + '<|im_end|>' }}{% endgeneration %}{{ '\n' }}{% else"
        )
    tokenizer = chatml(template=template)
    messages = [QUESTION[0], THOUGHT[0], QUESTION[0], THOUGHT[1]]
    end = "<|im_end|>" if marked else "<|im_end|>\n"
    turns = [[f"<think>\nlook\n</think>\n\nsunny{end}"], [f"<think>\nagain\n</think>\n\nrain{end}"]]
    assert learnt(Chat(messages), tokenizer) == turns
    assert learnt(Chat(messages[:2]), tokenizer) == turns[:1]
    first, second = tokenize(Chat(messages), tokenizer, 512)
    for row, asked in ((first, messages[:1]), (second, messages[:3])):
        prompt = tokenize_prompt(Chat(asked), tokenizer)
        assert row["input_ids"][: len(prompt)] == prompt
        assert [label == -100 for label in row["labels"]][: len(prompt) + 1] == [True] * len(prompt) + [False]


def test_a_template_that_shows_a_message_only_while_it_is_last_keeps_the_prompt_of_inference():
    """The hint stands in the last message alone, so the rendering through the answer lacks the hint that inference has."""
    template = CHATML.replace("m['content'] +", "m['content'] + (' (be brief)' if loop.last and m['role'] == 'user' else '') +")
    tokenizer = chatml(template=template)
    ((text, spans),) = render_turns(Chat(QUESTION), tokenizer)
    assert text == TURN.format("user", "Rome? (be brief)") + TURN.format("assistant", "sunny")
    assert text[: spans[0][0]] == render_prompt(Chat(QUESTION[:1]), tokenizer)


def test_a_header_that_opens_reasoning_is_no_part_of_an_answer_without_reasoning():
    template = CHATML.replace("assistant\n' }}{% endif %}", "assistant\n<think>\n' }}{% endif %}")
    for answer in ("sunny", "<b>sunny</b>"):
        chat = Chat([QUESTION[0], {"role": "assistant", "content": answer}])
        assert learnt(chat, chatml(template=template)) == [[f"{answer}<|im_end|>\n"]]


def test_marks_without_an_answer_leave_nothing_to_learn():
    template = CHATML.replace("{% endfor %}", "{% generation %}{% endgeneration %}{% endfor %}", 1)
    assert learnt(Chat(QUESTION), chatml(template=template)) == [["", ""]]


def test_the_last_turn_of_a_conversation_that_was_cut_off_has_no_end():
    for template, answer in ((CHATML, QUESTION[1]), (THINKING, THOUGHT[0])):
        tokenizer = chatml(template=template)
        row = tokenize(Chat([QUESTION[0], answer], cut_off=True), tokenizer, 64)[-1]
        assert tokenizer.decode(row["input_ids"]).endswith("sunny") and row["labels"][-1] != -100


def test_the_bos_of_a_template_is_not_doubled():
    names = ["<|begin_of_text|>", "<|eot_id|>", "<|start_header_id|>", "<|end_header_id|>"]
    tokenizer = byte_level(names, "<|eot_id|>", LLAMA3, "<|begin_of_text|>", prepend=True)
    ids = tokenize(Chat(QUESTION), tokenizer, 64)[0]["input_ids"]
    assert ids.count(tokenizer.bos_token_id) == 1 and ids.count(tokenizer.eos_token_id) == 2
    assert tokenize_prompt(Chat(QUESTION[:1]), tokenizer).count(tokenizer.bos_token_id) == 1
    assert tokenize_prompt(render_prompt(Chat(QUESTION[:1]), tokenizer), tokenizer) == tokenize_prompt(
        Chat(QUESTION[:1]), tokenizer
    )
