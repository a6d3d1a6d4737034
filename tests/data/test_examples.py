"""Columns decide the kind of an example, and an example converts back to the same row."""

import json

import pytest

from headway.data import Chat, Preference, PromptCompletion, Scored, Text, example_of, load_examples, row_of_example
from headway.data.examples import shared_length, shared_prompt, unused_columns
from headway.errors import DataError

USER, GOOD, BAD = ({"role": role, "content": text} for role, text in (("user", "q"), ("assistant", "yes"), ("assistant", "no")))
EXAMPLES = [
    Text("a"),
    PromptCompletion("a", " b"),
    PromptCompletion("a", " b", cut_off=True),
    Chat([USER, GOOD]),
    Chat([USER, GOOD], [{"function": {}}], {"documents": [{"title": "t"}], "mood": "good"}, cut_off=True),
    Preference("a", " b", " c"),
    Preference([USER], [GOOD], [BAD], "helpful", 0.5),
    Scored("a", " b", {"helpful": 1, "short": 0.25}),
    Scored("a", " b", {"helpful": 1}, cut_off=True),
]


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: type(example).__name__)
def test_an_example_becomes_a_row_and_the_row_the_example(example):
    row = json.loads(json.dumps(row_of_example(example)))
    assert example_of("x", row) == example
    assert isinstance(example, Chat) or unused_columns(row) == []


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"chosen": [USER, GOOD], "rejected": [USER, BAD]}, Preference([USER], [GOOD], [BAD])),
        ({"prompt": "q", "chosen": [USER, GOOD], "rejected": [USER, BAD]}, Preference([USER], [GOOD], [BAD])),
        ({"chosen": [USER, GOOD], "rejected": [USER, GOOD]}, Preference([USER], [GOOD], [GOOD])),
        (
            {"chosen": "\n\nHuman: q\n\nAssistant: I do", "rejected": "\n\nHuman: q\n\nAssistant: I don't"},
            Preference("\n\nHuman: q\n\nAssistant:", " I do", " I don't"),
        ),
        ({"chosen": "What is it? A cat", "rejected": "What is it? A car"}, Preference("What is it? A", " cat", " car")),
        ({"chosen": "cat", "rejected": "car"}, Preference("", "cat", "car")),
        ({"prompt": "a", "completion": "b", "scores": 0.5}, Scored("a", "b", {"score": 0.5})),
        ({"prompt": "a", "completion": "b", "scores": '{"x": 1}'}, Scored("a", "b", {"x": 1})),
        ({"prompt": "a", "completion": "b", "scores": None, "messages": None}, PromptCompletion("a", "b")),
        ({"messages": [USER | {"name": None}], "tools": None, "finish_reason": "stop"}, Chat([USER])),
        ({"messages": [USER], "tools": "[]"}, Chat([USER])),
    ],
)
def test_rows_of_every_shape_are_read(row, expected):
    assert example_of("x", row) == expected


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"prompt": "a", "completion": None}, "x: column 'completion' is NoneType, not text"),
        ({"chosen": "a", "rejected": [BAD]}, "x: column 'rejected' is list, not text"),
        ({"chosen": [GOOD], "rejected": "a"}, "x: column 'rejected' is not a list of objects"),
        ({"chosen": "a", "rejected": "b", "margin": "much"}, "x: column 'margin' is str, not a number"),
        ({"prompt": "a", "completion": "b", "scores": ["x"]}, "x: column 'scores' is neither a number nor an object"),
        ({"prompt": "a", "completion": "b", "scores": {}}, "x: column 'scores' is neither"),
        ({"messages": [USER], "tools": [3]}, "x: column 'tools' is not a list of objects"),
        ({"messages": [USER], "tools": "{"}, "x: column 'tools' is not JSON"),
        ({"messages": [USER], "chat_template_kwargs": [1]}, "x: column 'chat_template_kwargs' is not an object"),
        ({"messages": []}, "x: column 'messages' is not a list"),
    ],
)
def test_a_column_of_the_wrong_type_is_named(row, message):
    with pytest.raises(DataError, match=message):
        example_of("x", row)


def test_mapped_columns_decide_the_shape_and_the_others_stay():
    row = {"q": "a", "a": "b", "text": "c", "finish_reason": "length"}
    assert example_of("x", row, {"prompt": "q", "completion": "a"}) == PromptCompletion("a", "b", cut_off=True)
    row = {"chat": [USER], "functions": [{"function": {}}], "mood": "good"}
    expected = Chat([USER], [{"function": {}}], {"mood": "good"})
    assert example_of("x", row, {"messages": "chat", "tools": "functions"}) == expected


def test_columns_without_a_use_are_named_in_one_warning(tmp_path):
    file = tmp_path / "x.jsonl"
    file.write_text('{"text": "a", "id": 1}\n{"text": "b", "id": 2, "url": "u"}\n')
    with pytest.warns(UserWarning, match=r"x\.jsonl: these columns are not used: id, url\.") as found:
        load_examples(file)
    assert len(found) == 1


def test_the_location_of_an_example_is_no_part_of_its_value(tmp_path):
    (tmp_path / "x.jsonl").write_text('{"text": "a"}\n{"text": "a"}\n')
    first, second = load_examples(tmp_path / "x.jsonl")
    assert first == second and first.location != second.location == f"{tmp_path / 'x.jsonl'}, line 2"


def test_shared_prompts_leave_both_an_answer():
    assert shared_length("abc", "abd") == 2 and shared_length([1], [1, 2]) == 1 and shared_length("", "a") == 0
    assert shared_prompt([USER, GOOD], [USER, GOOD, USER]) == 1
    assert shared_prompt("a b", "a b") == 1


def test_columns_of_samples_are_known_and_foreign_columns_are_named():
    sample = {"prompt": "a", "completion": " b", "number": 0, "sample": 1, "seed": 7, "tokens": 3, "finish_reason": "stop"}
    assert unused_columns(sample) == []
    assert unused_columns(sample | {"source": "x"}) == ["source"]
    assert unused_columns({"text": "a", "number": 0}) == ["number"]
