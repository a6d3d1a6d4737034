"""The gold document moves, the others keep their order, and known models have known scores."""

import json
import random
import re
from pathlib import Path

import pytest

from headway.cli import main
from headway.errors import DataError
from headway.evaluation.probes.configs import LostInTheMiddleConfig
from headway.evaluation.probes.lost_in_the_middle import Document, OpenQuestion, context_prompt, distractors, load_questions, probe
from tests.evaluation.probes.fakes import Fake

NAMES = ["Ada", "Bertil", "Chun", "Dragomir", "Edda", "Fiete", "Giulia", "Hedwig", "Ingmar", "Jussi", "Katya", "Lorenzo"]
POOL = [
    OpenQuestion(f"who built house {n}", (name,), Document(f"House {n}", f"House {n} was built by {name}."))
    for n, name in enumerate(NAMES)
]


def sees(places: range) -> Fake:
    """Knows what it reads in the documents at these places, and nothing else."""

    def answer(prompt: str, _: int | None) -> str:
        house = re.findall(r"house (\d+)\n", prompt)[0]
        documents = re.findall(r"Document \[\d+\] \(Title: House \d+\) House (\d+) was built by (\w+)\.", prompt)
        known = dict(documents[place] for place in places if place < len(documents))
        return f" {known.get(house, 'nobody')}\nQuestion: and {' '.join(NAMES)}"

    return Fake(answer)


def config(**settings: object) -> LostInTheMiddleConfig:
    return LostInTheMiddleConfig(data=Path("unused"), **settings)


def test_a_model_that_reads_all_is_right_everywhere_and_closed_book_never() -> None:
    result = probe(sees(range(99)), POOL[:5], POOL, config(documents=[4, 10]))
    assert result.closed_book.share == 0 and result.oracle.share == 1
    assert {at.score.share for scores in result.contexts.values() for at in scores.positions} == {1.0}
    assert [at.position for at in result.contexts["10 documents"].positions] == [0, 4, 9]


def test_a_model_that_reads_the_first_three_is_lost_behind_them() -> None:
    scores = probe(sees(range(3)), POOL[:5], POOL, config(documents=[6])).contexts["6 documents"]
    assert [at.score.share for at in scores.positions] == [1, 1, 1, 0, 0, 0]
    assert scores.ends_over_middle is not None and scores.ends_over_middle.mean == 0  # half of the ends, half of the middle


def test_only_the_gold_document_moves_and_shorter_contexts_hold_the_first_others() -> None:
    others = distractors(POOL[0], POOL, 6, random.Random(3))
    prompts = {place: context_prompt(POOL[0], others, place) for place in range(7)}
    for place, prompt in prompts.items():
        titles = re.findall(r"Document \[(\d+)\] \(Title: (.*?)\)", prompt)
        assert [int(number) for number, _ in titles] == list(range(1, 8))
        assert titles[place][1] == "House 0"
        assert [title for _, title in titles if title != "House 0"] == [d.title for d in others]
    fake = sees(range(99))
    probe(fake, POOL[:1], POOL, config(documents=[3, 5]))
    contexts = [re.findall(r"Title: (.*?)\)", prompt) for prompt, _ in fake.asked]
    three, five = ([title for title in c if title != "House 0"] for c in contexts if len(c) in (3, 5) and c[0] == "House 0")
    assert five[:2] == three


def test_no_distractor_holds_an_answer_or_comes_twice() -> None:
    pool = [*POOL, *POOL, OpenQuestion("x", ("y",), Document("Builders", "Among the builders: ada and others."))]
    found = distractors(POOL[0], pool, 11, random.Random(0))
    assert len({d.text for d in found}) == 11 and not any("ada" in d.text.lower() for d in found)
    with pytest.raises(DataError, match="12 distractors are needed, and the data has 11"):
        distractors(POOL[0], pool, 12, random.Random(0))


def test_a_context_that_is_too_long_is_an_error_that_names_what_fits() -> None:
    fake = sees(range(99))
    fake.context_length = 80
    with pytest.raises(DataError, match=r"5 of 5 contexts of 8 documents .* Ask for --documents (\d)") as raised:
        probe(fake, POOL[:5], POOL, config(documents=[8]))
    assert fake.asked == []
    fits = int(re.findall(r"--documents (\d)", str(raised.value))[0])
    assert len(probe(fake, POOL[:5], POOL, config(documents=[fits])).questions) == 5
    with pytest.raises(DataError):
        probe(fake, POOL[:5], POOL, config(documents=[fits + 1]))


def test_questions_that_do_not_fit_are_left_out_everywhere_and_counted() -> None:
    long = OpenQuestion("who built house 77", ("Zoe",), Document("House 77", "House 77 was built by Zoe." + " Really." * 60))
    fake = sees(range(99))
    fake.context_length = 80
    result = probe(fake, [POOL[0], long], POOL, config(documents=[3], skip_long=True))
    assert result.left_out == 1 and result.questions == ["who built house 0"] and result.oracle.of == 1
    with pytest.raises(DataError, match="no context of 3 documents fits"):
        probe(fake, [long], POOL, config(documents=[3], skip_long=True))


def test_a_row_without_a_question_is_named_with_its_line(tmp_path: Path) -> None:
    (tmp_path / "q.jsonl").write_text('{"question": "who", "answers": ["x"], "ctxs": []}\n')
    with pytest.raises(DataError, match=r"q\.jsonl, line 1 needs question, answers"):
        load_questions(tmp_path / "q.jsonl")


def test_the_real_passages_hold_their_answers_and_their_distractors_do_not(shared: Path) -> None:
    found = load_questions(shared / "data" / "lost_in_the_middle" / "nq-open-oracle.jsonl.gz")
    assert len(found) == 2655
    asked = random.Random(0).sample(found, 40)
    reader = Fake(lambda prompt, _: " ".join(prompt.split()))  # one line: all that it read
    result = probe(reader, asked, found, config(documents=[10], positions=[0, 5]))
    assert result.oracle.share == 1
    assert [at.score.share for at in result.contexts["10 documents"].positions] == [1, 1]
    blind = Fake(
        lambda prompt, _: " ".join(prompt.split("Document [10]")[0].split("search results")[-1].split("Question:")[0].split())
    )
    result = probe(blind, asked, found, config(documents=[10], positions=[9]))
    assert result.contexts["10 documents"].positions[0].score.right == 0  # what is left are the distractors


def test_the_command_measures_the_embedded_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [
        {"question": q.text, "answers": list(q.answers), "ctxs": [{"title": q.gold.title, "text": q.gold.text, "isgold": True}]}
        for q in POOL
    ]
    (tmp_path / "q.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    words = ["probe", "lost-in-the-middle", "--data", str(tmp_path / "q.jsonl"), "--limit", "2", "--max-new-tokens", "4"]
    assert main([*words, "--documents", "3", "--output-file", str(tmp_path / "r.json")]) == 0
    assert "not the published retrieved ones" in capsys.readouterr().out
    found = json.loads((tmp_path / "r.json").read_text())
    assert "not the published" in found["distractors"] and (tmp_path / "r.svg").is_file()
    assert main([*words, "--documents", "3", "--positions", "3"]) == 2
    assert "positions must be from 0 to 2" in capsys.readouterr().err
