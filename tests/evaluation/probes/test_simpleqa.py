"""SimpleQA's figures: by hand, from the published table, and as a harmonic mean."""

import json
from pathlib import Path
from statistics import harmonic_mean

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headway.cli import main
from headway.errors import DataError
from headway.evaluation.probes.graders import GRADES, by_string
from headway.evaluation.probes.simpleqa import SimpleQAQuestion, check_grader, f_score, load_questions, probe, scores
from tests.evaluation.probes.fakes import Fake

ROWS = [{"problem": f"What is {n} plus {n}?", "answer": str(2 * n), "topic": "odd" if n % 2 else "even"} for n in range(1, 7)]


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 500), st.integers(0, 500), st.integers(0, 500))
def test_f_is_the_harmonic_mean_of_correct_and_correct_given_attempted(right: int, wrong: int, refused: int) -> None:
    expected = harmonic_mean([right / (right + wrong + refused), right / (right + wrong)])
    assert f_score(right, wrong, refused) == pytest.approx(expected)


def test_f_is_that_of_the_published_table_and_zero_without_correct_answers() -> None:
    assert round(100 * f_score(289, 361, 350), 1) == 35.0  # Claude 3.5 Sonnet: 28.9 % correct, 35.0 % not attempted
    assert f_score(0, 5, 5) == f_score(0, 0, 5) == 0


def test_shares_are_those_counted_by_hand() -> None:
    found = scores(["CORRECT"] * 5 + ["INCORRECT"] * 3 + ["NOT_ATTEMPTED"] * 2)
    assert [getattr(found, grade.lower()).share for grade in GRADES] == [0.5, 0.3, 0.2]
    assert found.correct_given_attempted is not None and found.correct_given_attempted.share == 0.625
    assert found.f == pytest.approx(5 / 9)
    assert found.f_low < 5 / 9 < found.f_high
    assert scores(["NOT_ATTEMPTED"] * 3).correct_given_attempted is None


def test_the_interval_of_f_covers_the_truth_about_as_often_as_it_says() -> None:
    import numpy

    draw = numpy.random.default_rng(1)
    covered = 0
    for _ in range(100):
        counts = draw.multinomial(150, [0.4, 0.35, 0.25])
        found = scores([grade for grade, count in zip(GRADES, counts, strict=True) for _ in range(count)])
        covered += found.f_low <= 2 * 0.4 / 1.75 <= found.f_high
    assert 88 <= covered <= 100


def test_a_model_that_knows_half_and_refuses_some_gets_what_it_deserves() -> None:
    asked = [SimpleQAQuestion(row["problem"], row["answer"], row["topic"]) for row in ROWS]
    replies = {"1": "2", "2": "It is 4.", "3": "6", "4": "9", "5": "I don't know", "6": "no idea"}
    fake = Fake(lambda prompt, _: replies[prompt.split()[3]])
    found = probe(fake, asked, by_string)
    assert [answer.grade[0] for answer in found.answers] == ["C", "C", "C", "I", "N", "N"]
    assert found.all.f == pytest.approx(2 * 3 / (6 + 4)) and list(found.topics) == ["even", "odd"]
    assert found.topics["odd"].correct.right == 2
    assert fake.asked[0][0] == "Question: What is 1 plus 1?\nAnswer:"
    probe(fake := Fake(lambda *_: "2"), asked, by_string, chat=True)
    assert fake.asked[0][0] == "What is 1 plus 1?"


def test_an_unknown_grade_is_named() -> None:
    with pytest.raises(DataError, match="said 'A' of 'Who"):
        probe(Fake(lambda *_: "x"), [SimpleQAQuestion("Who?", "I")], lambda *_: "A")


def test_a_grader_that_accepts_everything_is_detected() -> None:
    asked = [SimpleQAQuestion(row["problem"], row["answer"]) for row in ROWS]
    found = check_grader(lambda *_: "CORRECT", asked, 4)
    assert [share.share for share in found.values()] == [1.0, 0.0, 0.0]
    assert [share.share for share in check_grader(by_string, asked, 4).values()] == [1.0, 1.0, 1.0]
    assert check_grader(by_string, asked, 0) == {}


def test_the_published_csv_and_jsonl_are_read_alike(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(
        "metadata,problem,answer\n\"{'topic': 'Art', 'urls': ['x']}\",\"Who, then?\",Ann\n", encoding="utf-8"
    )
    (tmp_path / "a.jsonl").write_text(json.dumps({"problem": "Who, then?", "answer": "Ann", "topic": "Art"}))
    assert (
        load_questions(tmp_path / "a.csv") == load_questions(tmp_path / "a.jsonl") == [SimpleQAQuestion("Who, then?", "Ann", "Art")]
    )
    (tmp_path / "b.jsonl").write_text('{"problem": "Who?", "answer": 3}')
    with pytest.raises(DataError, match=r"b\.jsonl, line 1 needs problem and answer"):
        load_questions(tmp_path / "b.jsonl")
    (tmp_path / "b.csv").write_text("metadata,problem,answer\n{oops,Who?,Ann\n")
    with pytest.raises(DataError, match=r"b\.csv cannot be read"):
        load_questions(tmp_path / "b.csv")


def test_the_real_questions_can_be_read_and_their_references_are_correct(shared: Path) -> None:
    found = load_questions(shared / "data" / "simpleqa" / "simple_qa_test_set.jsonl.gz")
    assert len(found) == 4326 and len({question.topic for question in found}) == 10
    grades = [by_string(q.problem, q.answer, f"I believe it is {q.answer}.") for q in found]
    assert grades.count("CORRECT") == 4326
    assert {by_string(q.problem, q.answer, "I don't know.") for q in found} == {"NOT_ATTEMPTED"}


def test_the_command_answers_with_the_embedded_model_and_continues_from_its_log(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "q.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    words = ["probe", "simpleqa", "--data", str(tmp_path / "q.jsonl"), "--max-new-tokens", "8"]
    assert main([*words, "--output-file", str(tmp_path / "r.json")]) == 0
    assert "a stand-in" in capsys.readouterr().out
    first = json.loads((tmp_path / "r.json").read_text())
    assert len(first["answers"]) == 6 and (tmp_path / "r.svg").read_text().startswith("<svg")
    assert main([*words, "--output-file", str(tmp_path / "r.json")]) == 0
    assert "6 answers are kept" in capsys.readouterr().err
    again = json.loads((tmp_path / "r.json").read_text())
    assert again["answers"] == first["answers"] and first["tokens_per_forward"] > 0 == again["tokens_per_forward"]
    assert main([*words, "--no-speculative", "--output-file", str(tmp_path / "p.json")]) == 0
    assert json.loads((tmp_path / "p.json").read_text())["answers"] == first["answers"]
