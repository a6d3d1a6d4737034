"""Copy rates of answers from their sources: all, nothing, half, and people's own answers."""

import json
from pathlib import Path

import pytest

from headway.cli import main
from headway.errors import DataError
from headway.evaluation.probes.copying import probe

SOURCE = "one two three four five six seven eight nine ten"


def test_a_copy_is_all_copied_and_other_words_are_not() -> None:
    result = probe([(SOURCE, ["x", SOURCE]), ("quite other words", [SOURCE]), ("", [SOURCE])], [1, 8])
    assert result.answers == 2 and result.empty == 1
    assert result.copied[8].mean == result.coverage.mean == 0.5
    assert result.density.mean == 5.0 and result.longest.median == 5.0
    with pytest.raises(DataError, match="no answer"):
        probe([("", [SOURCE])], [1])


def test_the_command_reads_sources_of_all_forms(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sources = [SOURCE, [SOURCE], [{"text": SOURCE}], [{"content": SOURCE}], [["one two three four", "five six"]]]
    rows = [{"answer": "four five six [bold]", "sources": each} for each in sources]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    words = ["probe", "copying", "--data", str(tmp_path / "a.jsonl")]
    assert main([*words, "--lengths", "3", "--output-file", str(tmp_path / "r.json")]) == 0
    assert "copied in spans of 3 words or more" in capsys.readouterr().out
    found = json.loads((tmp_path / "r.json").read_text())
    assert found["answers"] == 5 and found["copied"]["3"]["mean"] == pytest.approx(3 / 6) and (tmp_path / "r.svg").is_file()
    assert main([*words, "--tokenizer", "embedded", "--lengths", "2"]) == 0
    assert "tokens or more" in capsys.readouterr().out
    assert main([*words, "--answer", "reply"]) == 2
    assert "line 1 has no text in column 'reply'" in capsys.readouterr().err
    assert main([*words, "--sources", "answers"]) == 2
    assert "line 1: column 'answers' must be text" in capsys.readouterr().err


def test_real_answers_copy_more_than_half_in_long_spans(shared: Path, tmp_path: Path) -> None:
    out = tmp_path / "r.json"
    words = ["--data", str(shared / "data" / "qa_feedback" / "dev_feedback.jsonl.gz"), "--limit", "50", "--output-file", str(out)]
    assert main(["probe", "copying", *words, "--answer", "prediction 1", "--sources", "passages"]) == 0
    answers = json.loads(out.read_text())
    assert main(["probe", "copying", *words, "--answer", "question", "--sources", "passages"]) == 0
    questions = json.loads(out.read_text())
    assert answers["copied"]["8"]["mean"] > 0.5 > 0.1 > questions["copied"]["8"]["mean"]
