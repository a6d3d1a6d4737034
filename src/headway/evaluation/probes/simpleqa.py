"""SimpleQA (Wei et al. 2024, arXiv 2411.04368): short questions of fact, and calibration of refusals.

An answer is correct, incorrect or not attempted. F is the harmonic mean of two shares: correct of all answers, and correct of the
attempted answers. F rewards knowledge and penalises guesses.
"""

import ast
import csv
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy
from matplotlib.figure import Figure

from headway.data import load_rows
from headway.errors import DataError
from headway.evaluation.probes.answering import Answerer, Answers, subsample
from headway.evaluation.probes.configs import SimpleQAConfig
from headway.evaluation.probes.graders import GRADES, Grader, build_grader
from headway.evaluation.probes.report import SIZE, Proportion, proportion, save_results
from headway.reports.plots import labelled_axes
from headway.reports.tables import print_table

STAND_IN = "Graded by string match, a stand-in: a judge that understands answers gives other scores, mostly higher ones."
RESAMPLES = 2000


@dataclass(frozen=True)
class SimpleQAQuestion:
    problem: str
    answer: str
    topic: str = "all"


@dataclass(frozen=True)
class GradedAnswer:
    """A question with the model's answer and the grade."""

    problem: str
    answer: str  # reference
    topic: str
    text: str  # of the model
    grade: str


@dataclass(frozen=True)
class SimpleQAScores:
    """Scores over questions."""

    correct: Proportion
    incorrect: Proportion
    not_attempted: Proportion
    correct_given_attempted: Proportion | None  # None if nothing was attempted
    questions: int
    f: float
    f_low: float  # 95 % interval of F, by bootstrap over questions
    f_high: float


@dataclass(frozen=True)
class SimpleQAResult:
    """Scores over all questions and by topic.

    grader_check: share of answers with a known grade that the grader graded correctly, by kind of answer.
    """

    all: SimpleQAScores
    topics: dict[str, SimpleQAScores]
    answers: list[GradedAnswer]
    grader_check: dict[str, Proportion]


def run(config: SimpleQAConfig) -> SimpleQAResult:
    """Run the probe, print a table, and write JSON and a plot.

    Raises:
        DataError: a row is no question, or the grader returns no grade.
        CheckpointError: a model cannot be loaded.
        ConfigError: the grader does not exist.
    """
    asked = subsample(load_questions(config.data), config.limit, config.seed)
    grade = build_grader(config)  # before the long work
    answer = Answerer.from_config(config, stop=[] if config.chat else ["\n"])
    grader_check = check_grader(grade, asked, config.grader_check, config.seed)
    result = probe(answer, asked, grade, config.chat, config.seed, grader_check)
    rows = [_row("all", result.all), *(_row(topic, scores) for topic, scores in result.topics.items())]
    headings = ["topic", "questions", "correct", "incorrect", "not attempted", "correct of attempted", "F", "95 % of F"]
    remarks = [STAND_IN] if config.grader == "string" else []
    if grader_check:
        checked = ", ".join(f"{name} {share.right} of {share.of}" for name, share in grader_check.items())
        remarks.append(f"The grader, tried on answers whose grade is known, is right about: {checked}.")
    print_table(f"SimpleQA: {config.model}, grader {config.grader}", headings, rows, remarks)
    save_results(config, result, _plot(result), answer.tokens_per_forward)
    return result


def probe(
    answer: Answers,
    asked: Sequence[SimpleQAQuestion],
    grade: Grader,
    chat: bool = False,
    seed: int = 0,
    grader_check: Mapping[str, Proportion] | None = None,
) -> SimpleQAResult:
    """Answer and grade the questions.

    Args:
        chat: ask a chat model the bare question; a base model gets `Question: ... Answer:`.
        seed: seed of the bootstrap.
        grader_check: result of `check_grader`, copied to the result.
    Raises:
        DataError: the grader returns something else than CORRECT, INCORRECT or NOT_ATTEMPTED.
    """
    texts = answer([q.problem if chat else f"Question: {q.problem}\nAnswer:" for q in asked])
    answers = []
    for question, text in zip(asked, texts, strict=True):
        verdict = grade(question.problem, question.answer, text.strip())
        if verdict not in GRADES:
            raise DataError(f"the grader said {verdict!r} of {question.problem!r}; it must say one of {', '.join(GRADES)}.")
        answers.append(GradedAnswer(question.problem, question.answer, question.topic, text, verdict))
    names = sorted({question.topic for question in asked})
    topics = {name: scores([graded.grade for graded in answers if graded.topic == name], seed) for name in names}
    return SimpleQAResult(
        all=scores([graded.grade for graded in answers], seed),
        topics=topics if len(topics) > 1 else {},
        answers=answers,
        grader_check=dict(grader_check or {}),
    )


def check_grader(grade: Grader, asked: Sequence[SimpleQAQuestion], count: int, seed: int = 0) -> dict[str, Proportion]:
    """Accuracy of the grader on `count` references, refusals, and references of different questions."""
    if not count or len(asked) < 2:
        return {}
    pairs = list(zip(asked, [*asked[1:], asked[0]], strict=True))
    tried = [(q, other) for q, other in subsample(pairs, count, seed) if q.answer != other.answer]
    kinds: dict[str, tuple[str, Callable[[SimpleQAQuestion, SimpleQAQuestion], str]]] = {
        "references": ("CORRECT", lambda question, _: question.answer),
        "refusals": ("NOT_ATTEMPTED", lambda *_: "I don't know."),
        "other references": ("INCORRECT", lambda _, other: other.answer),
    }
    return {
        name: proportion(sum(grade(q.problem, q.answer, make(q, other)) == expected for q, other in tried), len(tried))
        for name, (expected, make) in kinds.items()
        if tried
    }


def scores(grades: Sequence[str], seed: int = 0) -> SimpleQAScores:
    """Shares with Wilson's intervals, and F with a bootstrap interval over questions; all at 95 %."""
    counted = Counter(grades)
    counts = [counted[grade] for grade in GRADES]
    shares = [proportion(count, len(grades)) for count in counts]
    attempted = counts[0] + counts[1]
    resampled = numpy.random.default_rng(seed).multinomial(len(grades), numpy.divide(counts, len(grades)), RESAMPLES)
    low, high = numpy.percentile([f_score(*map(int, sample)) for sample in resampled], (2.5, 97.5))
    return SimpleQAScores(
        correct=shares[0],
        incorrect=shares[1],
        not_attempted=shares[2],
        correct_given_attempted=proportion(counts[0], attempted) if attempted else None,
        questions=len(grades),
        f=f_score(*counts),
        f_low=float(low),
        f_high=float(high),
    )


def f_score(correct: int, incorrect: int, not_attempted: int) -> float:
    """2 / (all / correct + attempted / correct); 0 if nothing is correct."""
    return 2 * correct / (correct + incorrect + not_attempted + correct + incorrect) if correct else 0.0


def load_questions(path: Path) -> list[SimpleQAQuestion]:
    """Questions from .jsonl with problem, answer and perhaps topic, or from the published .csv.

    Raises:
        DataError: a row is no question, or there is no row.
    """
    rows = _csv_rows(path) if path.suffix == ".csv" else load_rows(path)
    questions = [_question(location, row) for location, row in rows]
    if not questions:
        raise DataError(f"{path} has no questions.")
    return questions


def _question(location: str, row: Mapping[str, Any]) -> SimpleQAQuestion:
    if not all(isinstance(row.get(name), str) and row[name].strip() for name in ("problem", "answer")):
        raise DataError(f"{location} needs problem and answer, both text; it has: {', '.join(row)}.")
    return SimpleQAQuestion(row["problem"], row["answer"], str(row.get("topic") or "all"))


def _csv_rows(path: Path) -> list[tuple[str, Mapping[str, Any]]]:
    """Rows of the published file. The column `metadata` holds the topic in a Python dictionary."""
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows: list[dict[str, Any]] = list(csv.DictReader(file))
        for row in rows:
            if row.get("metadata"):
                row["topic"] = dict(ast.literal_eval(row["metadata"])).get("topic")
    except (OSError, UnicodeDecodeError, csv.Error, SyntaxError, ValueError, TypeError) as error:
        raise DataError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}.") from error
    return [(f"{path}, row {number}", row) for number, row in enumerate(rows, 1)]


def _row(name: str, scores: SimpleQAScores) -> list[str]:
    shares = [f"{share.share:.1%}" for share in (scores.correct, scores.incorrect, scores.not_attempted)]
    attempted = scores.correct_given_attempted
    cells = [*shares, f"{attempted.share:.1%}" if attempted else "-", f"{100 * scores.f:.1f}"]
    return [name, str(scores.questions), *cells, f"{100 * scores.f_low:.1f} - {100 * scores.f_high:.1f}"]


def _plot(result: SimpleQAResult) -> Figure:
    figure, axes = labelled_axes("", "answers (%)", SIZE)
    bars = {"all": result.all} | result.topics
    left = [0.0] * len(bars)
    for name, colour in (("correct", "#2f7ed8"), ("not_attempted", "#c9d0d8"), ("incorrect", "#e4572e")):
        values = [100 * getattr(scores, name).share for scores in bars.values()]
        axes.bar(list(bars), values, bottom=left, color=colour, label=name.replace("_", " "))
        left = [low + value for low, value in zip(left, values, strict=True)]
    axes.tick_params(axis="x", rotation=60, labelsize=8)
    axes.legend(frameon=False, fontsize=8)
    return figure
