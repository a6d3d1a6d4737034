"""SimpleQA (Wei et al. 2024, arXiv 2411.04368): short questions of fact, and whether a model knows what it does not know.

Each answer is correct, incorrect or not attempted. F is the harmonic mean of the share that is correct and the share of the
attempted ones that is correct: it rewards knowing, and not guessing.
"""

import ast
import csv
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy

from headway.data import load_rows
from headway.errors import DataError
from headway.evaluation.probes.answering import Answerer, Answers, drawn
from headway.evaluation.probes.configs import SimpleQAConfig
from headway.evaluation.probes.graders import GRADES, Grader, grader_of
from headway.evaluation.probes.report import SIZE, save_results, share
from headway.reports.plots import labelled_axes
from headway.reports.tables import print_table

STAND_IN = "Graded by string match, a stand-in: a judge that understands answers gives other figures, mostly higher ones."
RESAMPLES = 2000


@dataclass(frozen=True)
class Question:
    problem: str
    answer: str
    topic: str = "all"


def run(config: SimpleQAConfig) -> dict[str, Any]:
    """Measure, show, and write JSON and a plot if asked. Raises DataError, CheckpointError and ConfigError."""
    asked = drawn(questions(config.data), config.limit, config.seed)
    grade = grader_of(config)  # before the long work
    answer = Answerer.from_config(config, stop=[] if config.chat else ["\n"])
    checked = check(grade, asked, config.grader_check, config.seed)
    results = probe(answer, asked, grade, config.chat, config.seed) | {"grader_check": checked}
    results["settings"] = asdict(config) | {"data": str(config.data), "output_file": str(config.output_file)}
    results["tokens_per_forward"] = answer.tokens_per_forward
    rows = [_row("all", results["all"]), *(_row(topic, found) for topic, found in results["topics"].items())]
    headings = ["topic", "questions", "correct", "incorrect", "not attempted", "correct of attempted", "F", "95 % of F"]
    remarks = [STAND_IN] if config.grader == "string" else []
    if checked:
        said = ", ".join(f"{name} {found['right']} of {found['of']}" for name, found in checked.items())
        remarks.append(f"The grader, tried on answers whose grade is known, is right about: {said}.")
    print_table(f"SimpleQA: {config.model}, grader {config.grader}", headings, rows, remarks)
    figure, axes = labelled_axes("", "answers (%)", SIZE)
    left = [0.0] * len(rows)
    for name, colour in (("correct", "#2f7ed8"), ("not_attempted", "#c9d0d8"), ("incorrect", "#e4572e")):
        values = [100 * found[name]["share"] for found in (results["all"], *results["topics"].values())]
        axes.bar([row[0] for row in rows], values, bottom=left, color=colour, label=name.replace("_", " "))
        left = [low + value for low, value in zip(left, values, strict=True)]
    axes.tick_params(axis="x", rotation=60, labelsize=8)
    axes.legend(frameon=False, fontsize=8)
    save_results(config.output_file, results, figure)
    return results


def probe(answer: Answers, asked: Sequence[Question], grade: Grader, chat: bool = False, seed: int = 0) -> dict[str, Any]:
    """Answer and grade. A base model (`chat` false) gets `Question: ... Answer:`, a chat model the question alone.

    Raises: DataError for a grade that is none of CORRECT, INCORRECT, NOT_ATTEMPTED.
    """
    texts = answer([q.problem if chat else f"Question: {q.problem}\nAnswer:" for q in asked])
    graded = []
    for question, text in zip(asked, texts, strict=True):
        found = grade(question.problem, question.answer, text.strip())
        if found not in GRADES:
            raise DataError(f"the grader said {found!r} of {question.problem!r}; it must say one of {', '.join(GRADES)}.")
        graded.append(found)
    topics = {
        topic: scores([g for g, q in zip(graded, asked, strict=True) if q.topic == topic], seed)
        for topic in sorted({question.topic for question in asked})
    }
    items = [asdict(q) | {"text": text, "grade": g} for q, text, g in zip(asked, texts, graded, strict=True)]
    return {"all": scores(graded, seed), "topics": topics if len(topics) > 1 else {}, "answers": items}


def check(grade: Grader, asked: Sequence[Question], count: int, seed: int = 0) -> dict[str, Any]:
    """How often the grader is right about the reference itself, a refusal, and the reference of another question."""
    if not count or len(asked) < 2:
        return {}
    pairs = list(zip(asked, [*asked[1:], asked[0]], strict=True))
    tried = [(q, other) for q, other in drawn(pairs, count, seed) if q.answer != other.answer]
    answers: dict[str, tuple[str, Callable[[Question, Question], str]]] = {
        "references": ("CORRECT", lambda question, _: question.answer),
        "refusals": ("NOT_ATTEMPTED", lambda *_: "I don't know."),
        "other references": ("INCORRECT", lambda _, other: other.answer),
    }
    return {
        name: share(sum(grade(q.problem, q.answer, make(q, other)) == right for q, other in tried), len(tried))
        for name, (right, make) in answers.items()
        if tried
    }


def scores(grades: Sequence[str], seed: int = 0) -> dict[str, Any]:
    """Shares with Wilson's intervals, and F with an interval from the bootstrap over questions; all at 95 %."""
    counted = Counter(grades)
    counts = [counted[grade] for grade in GRADES]
    found: dict[str, Any] = {name.lower(): share(count, len(grades)) for name, count in zip(GRADES, counts, strict=True)}
    attempted = counts[0] + counts[1]
    found["correct_given_attempted"] = share(counts[0], attempted) if attempted else None
    resampled = numpy.random.default_rng(seed).multinomial(len(grades), numpy.divide(counts, len(grades)), RESAMPLES)
    low, high = numpy.percentile([f_score(*map(int, each)) for each in resampled], (2.5, 97.5))
    return found | {"questions": len(grades), "f": f_score(*counts), "f_low": float(low), "f_high": float(high)}


def f_score(correct: int, incorrect: int, not_attempted: int) -> float:
    """2 / (all / correct + attempted / correct), 0 where nothing is correct."""
    return 2 * correct / (correct + incorrect + not_attempted + correct + incorrect) if correct else 0.0


def questions(path: Path) -> list[Question]:
    """From .jsonl with problem and answer (topic, if there), or from the published .csv. Raises DataError for what is neither."""
    found = [_question(place, row) for place, row in (_csv_rows(path) if path.suffix == ".csv" else load_rows(path))]
    if not found:
        raise DataError(f"{path} has no questions.")
    return found


def _question(place: str, row: Mapping[str, Any]) -> Question:
    if not all(isinstance(row.get(name), str) and row[name].strip() for name in ("problem", "answer")):
        raise DataError(f"{place} needs problem and answer, both text; it has: {', '.join(row)}.")
    return Question(row["problem"], row["answer"], str(row.get("topic") or "all"))


def _csv_rows(path: Path) -> list[tuple[str, Mapping[str, Any]]]:
    """The published file keeps the topic in a column `metadata`, written as a Python dictionary."""
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows: list[dict[str, Any]] = list(csv.DictReader(file))
        for row in rows:
            if row.get("metadata"):
                row["topic"] = dict(ast.literal_eval(row["metadata"])).get("topic")
    except (OSError, UnicodeDecodeError, csv.Error, SyntaxError, ValueError, TypeError) as error:
        raise DataError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}.") from error
    return [(f"{path}, row {number}", row) for number, row in enumerate(rows, 1)]


def _row(name: str, found: Mapping[str, Any]) -> list[str]:
    attempted = found["correct_given_attempted"]
    cells = [f"{found[grade.lower()]['share']:.1%}" for grade in GRADES]
    cells += [f"{attempted['share']:.1%}" if attempted else "-", f"{100 * found['f']:.1f}"]
    return [name, str(found["questions"]), *cells, f"{100 * found['f_low']:.1f} - {100 * found['f_high']:.1f}"]
