"""All file formats give the same examples, and a mistake is named by file and line."""

import gzip
import json
import lzma

import pyarrow
import pyarrow.parquet
import pytest

from headway.data import PromptCompletion, Text, load_examples
from headway.errors import DataError

ROWS = [{"prompt": "a?", "completion": " b"}, {"prompt": "c?", "completion": " d"}]
EXAMPLES = [PromptCompletion("a?", " b"), PromptCompletion("c?", " d")]
LINES = "".join(json.dumps(row) + "\n" for row in ROWS)


def test_all_formats_give_the_same_examples(tmp_path):
    (tmp_path / "x.jsonl").write_text(LINES)
    with gzip.open(tmp_path / "x.jsonl.gz", "wt") as file:
        file.write(LINES)
    with lzma.open(tmp_path / "x.jsonl.xz", "wt") as file:
        file.write(LINES)
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(ROWS), tmp_path / "x.parquet")
    for suffix in ("jsonl", "jsonl.gz", "jsonl.xz", "parquet"):
        assert load_examples(tmp_path / f"x.{suffix}") == EXAMPLES


def test_a_folder_gives_the_file_of_the_split(tmp_path):
    (tmp_path / "train.jsonl").write_text('{"text": "one"}\n')
    (tmp_path / "test.jsonl").write_text('{"text": "two"}\n')
    assert load_examples(tmp_path, "test") == [Text("two")]


def test_columns_can_be_mapped(tmp_path):
    (tmp_path / "x.jsonl").write_text('{"q": "a?", "a": " b"}\n')
    assert load_examples(tmp_path / "x.jsonl", columns={"prompt": "q", "completion": "a"}) == [PromptCompletion("a?", " b")]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"text": "a"}\n{"text": \n', r"x\.jsonl, line 2 is not JSON"),
        ('{"text": "a"}\n[1]\n', r"x\.jsonl, line 2 is a list"),
        ('{"txt": "a"}\n', r"x\.jsonl, line 1 has the columns txt"),
        ('{"text": 3}\n', r"line 1: column 'text' is int"),
        ('{"text": "a"}\n\n{"text": "b"\n', r"x\.jsonl, line 3 is not JSON"),
        ('{"messages": "hello"}\n', r"line 1: column 'messages' is not a list"),
        (
            '{"text": "a"}\n{"text": "a\\ud83d"}\n',
            r"line 2 has text that is not Unicode: '\\ud83d' is one half of a surrogate pair",
        ),
        ('{"messages": [{"role": "user", "content": "\\uDE00"}]}\n', r"line 1 has text that is not Unicode"),
        ("", "has no examples"),
    ],
)
def test_mistakes_are_named_by_file_and_line(tmp_path, content, message):
    (tmp_path / "x.jsonl").write_text(content)
    with pytest.raises(DataError, match=message):
        load_examples(tmp_path / "x.jsonl")


def test_escaped_surrogate_pairs_are_characters(tmp_path):
    (tmp_path / "x.jsonl").write_text('{"text": "\\ud83d\\ude00 \\\\ud83d"}\n')
    assert [example.text for example in load_examples(tmp_path / "x.jsonl")] == ["\U0001f600 \\ud83d"]


def test_invalid_utf8_is_named_by_line_and_a_byte_order_mark_is_skipped(tmp_path):
    (tmp_path / "x.jsonl").write_bytes(b'{"text": "a"}\n{"text": "\xff"}\n')
    with pytest.raises(DataError, match=r"x\.jsonl, line 2 is not UTF-8"):
        load_examples(tmp_path / "x.jsonl")
    (tmp_path / "y.jsonl").write_bytes(b'\xef\xbb\xbf{"text": "a"}\n')
    assert load_examples(tmp_path / "y.jsonl") == [Text("a")]


@pytest.mark.parametrize("name", ["x.jsonl.gz", "x.jsonl.xz", "x.parquet"])
def test_damaged_files_are_clear_errors(tmp_path, name):
    (tmp_path / name).write_bytes(b"neither of these")
    with pytest.raises(DataError, match="damaged"):
        load_examples(tmp_path / name)


def test_a_download_cut_short_is_noticed(tmp_path):
    (tmp_path / "x.jsonl.gz").write_bytes(gzip.compress((LINES * 3000).encode())[:-30])
    with pytest.raises(DataError, match=r"damaged .*line \d+"):
        load_examples(tmp_path / "x.jsonl.gz")


def test_a_folder_never_gives_training_data_for_a_missing_split(tmp_path):
    (tmp_path / "train-00.jsonl").write_text('{"text": "one"}\n')
    (tmp_path / "train-01.jsonl").write_text('{"text": "two"}\n')
    (tmp_path / "valid.jsonl").write_text('{"text": "three"}\n')
    assert load_examples(tmp_path, "train") == [Text("one"), Text("two")]
    assert load_examples(tmp_path, "validation") == [Text("three")]
    with pytest.raises(DataError, match="none of 'test'"):
        load_examples(tmp_path, "test")


def test_unknown_names_in_a_mapping_and_limits_below_one_are_refused(tmp_path):
    (tmp_path / "x.jsonl").write_text(LINES)
    with pytest.raises(DataError, match="Did you mean prompt"):
        load_examples(tmp_path / "x.jsonl", columns={"promt": "prompt"})
    with pytest.raises(DataError, match="no column 'input'; it has: prompt, completion"):
        load_examples(tmp_path / "x.jsonl", columns={"prompt": "input"})
    with pytest.raises(DataError, match="limit is 0"):
        load_examples(tmp_path / "x.jsonl", limit=0)


def test_a_missing_file_names_the_nearest(tmp_path):
    (tmp_path / "train.jsonl").write_text(LINES)
    with pytest.raises(DataError, match=r"Did you mean .*train\.jsonl"):
        load_examples(tmp_path / "trian.jsonl")


def test_gsm8k_is_prompted_as_lm_eval_does(shared):
    example = load_examples(shared / "data" / "gsm8k" / "test.jsonl.gz", limit=1)[0]
    assert example.prompt.startswith("Question: Janet") and example.prompt.endswith("\nAnswer:")
    assert example.completion.endswith("#### 18")


@pytest.mark.slow
def test_the_standard_library_is_split_by_module():
    train, test = load_examples("stdlib", "train"), load_examples("stdlib", "test")
    assert len(train) > 300 and len(test) > 5
    assert not {e.text for e in train if e.text} & {e.text for e in test if e.text}


def test_validation_of_the_standard_library_is_held_out_and_other_splits_are_refused():
    assert load_examples("stdlib", "validation") == load_examples("stdlib", "test")
    with pytest.raises(DataError, match="splits train, test, validation"):
        load_examples("stdlib", "dev")
