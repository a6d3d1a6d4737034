"""Lost in the middle (Liu et al. 2023, arXiv 2307.03172, section 2): does a model find an answer wherever its document stands?

The document that holds the answer moves through a context of others. The published distractors were retrieved for each
question; here they are the gold passages of other questions, which are easier to tell apart: figures are not comparable.
"""

import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from headway.data import load_rows
from headway.errors import DataError
from headway.evaluation.probes import positions
from headway.evaluation.probes.answering import Answerer, Answers, drawn
from headway.evaluation.probes.configs import LostInTheMiddleConfig
from headway.evaluation.probes.context_limit import lengths_of, require_room
from headway.evaluation.probes.matching import contains_any, first_line
from headway.evaluation.probes.report import percent, save_results, share
from headway.reports.tables import print_table

DISTRACTORS = "gold passages of other questions, not the published retrieved ones: easier, and not comparable with the paper"
CLOSED = "Answer the question in a few words.\n\nQuestion: {question}\nAnswer:"
OPEN = (
    "Below are search results, of which some may not help. Use them to answer the question in a few words.\n\n"
    "{documents}\n\nQuestion: {question}\nAnswer:"
)


@dataclass(frozen=True)
class Document:
    title: str
    text: str


@dataclass(frozen=True)
class Question:
    text: str
    answers: tuple[str, ...]
    gold: Document


Asked = tuple[Question, Sequence[Document]]  # with its distractors


def run(config: LostInTheMiddleConfig) -> dict[str, Any]:
    """Measure, show, and write JSON and a plot if asked. Raises DataError, CheckpointError and ConfigError."""
    everything = questions(config.data)
    asked = drawn(everything, config.limit, config.seed)
    answer = Answerer.from_config(config, stop=["\n"])
    results = probe(answer, asked, everything, config)
    results["settings"] = asdict(config) | {"data": str(config.data), "output_file": str(config.output_file)}
    results["tokens_per_forward"] = answer.tokens_per_forward
    contexts = results["contexts"]
    lines = {"oracle": results["oracle"], "closed book": results["closed_book"]}
    rows = [[name, "", *percent(line)] for name, line in lines.items()] + positions.rows(contexts)
    remarks = [positions.remark(name, found) for name, found in contexts.items()]
    remarks += [f"{results['left_out']} questions do not fit and are left out."] if results["left_out"] else []
    print_table(f"Lost in the middle: {config.model}", ["context", "gold at", "correct", "95 % interval"], rows, remarks)
    print(f"Distractors: {DISTRACTORS}.")
    levels = {name: line["share"] for name, line in lines.items()}
    save_results(config.output_file, results, positions.plot(contexts, "position of the gold document", levels))
    return results


def probe(answer: Answers, asked: Sequence[Question], pool: Sequence[Question], config: LostInTheMiddleConfig) -> dict[str, Any]:
    """Scores without documents, with the gold one alone, and with it at each position among others from `pool`.

    All positions of a question have the same distractors in the same order, and a shorter context the first of a longer one's.
    All scores are of the same questions: with `skip_long`, those whose longest context fits the model.
    Raises: DataError where contexts do not fit the model, or there are too few other passages.
    """
    most = max(config.documents)
    everyone = [(q, distractors(q, pool, most - 1, random.Random(f"{config.seed} {q.text}"))) for q in asked]
    chosen = _fitting(answer, everyone, config)
    asked = [question for question, _ in chosen]
    results: dict[str, Any] = {
        "questions": [question.text for question in asked],
        "left_out": len(everyone) - len(asked),
        "distractors": DISTRACTORS,
    }
    texts: dict[str, list[str]] = {}
    for name, baseline in (
        ("closed_book", [CLOSED.replace("{question}", question.text) for question in asked]),
        ("oracle", [context_prompt(question, [], 0) for question in asked]),
    ):
        texts[name] = answer(baseline)
        right = [correct(text, question) for text, question in zip(texts[name], asked, strict=True)]
        results[name] = share(sum(right), len(right))
    contexts: dict[str, Any] = {}
    for size in config.documents:
        solved = {}
        for place in _places(config, size):
            texts[f"{size} documents, gold at {place}"] = found = answer(_prompts(chosen, size, place))
            solved[place] = [correct(text, question) for text, question in zip(found, asked, strict=True)]
        contexts[f"{size} documents"] = positions.by_position(solved)
    return results | {"contexts": contexts, "answers": texts}


def _fitting(answer: Answers, asked: Sequence[Asked], config: LostInTheMiddleConfig) -> list[Asked]:
    """All that is asked, or with `skip_long` what fits the model at every size. Raises DataError as `probe`."""
    window, fits = answer.window, [True] * len(asked)
    if window is None:
        return list(asked)
    for size in sorted(config.documents):
        lengths = lengths_of(answer, [_prompts(asked, size, place) for place in _places(config, size)])
        if not config.skip_long:
            hint = " leave out those with --skip-long,"
            require_room(window, lengths, lambda n: lengths_of(answer, [_prompts(asked, n, 0)]), size, "documents", hint)
        fits = [fit and length <= window for fit, length in zip(fits, lengths, strict=True)]
        if not any(fits):
            raise DataError(f"no context of {size} documents fits the {window} tokens that the model reads, answer included.")
    return [each for each, fit in zip(asked, fits, strict=True) if fit]


def _places(config: LostInTheMiddleConfig, size: int) -> list[int]:
    return config.positions or paper_positions(size)


def _prompts(asked: Sequence[Asked], size: int, place: int) -> list[str]:
    return [context_prompt(question, others[: size - 1], place) for question, others in asked]


def questions(path: Path) -> list[Question]:
    """Raises DataError, with its line, for a row without question, answers and a gold passage, and for an empty file."""
    found = []
    for place, row in load_rows(path):
        try:
            gold = next(passage for passage in row["ctxs"] if passage.get("isgold", True))
            document = Document(str(gold["title"]), str(gold["text"]))
            found.append(Question(str(row["question"]), tuple(map(str, row["answers"])), document))
        except (KeyError, TypeError, AttributeError, StopIteration) as error:
            raise DataError(f"{place} needs question, answers (a list) and ctxs with a gold passage (title, text).") from error
    if not found:
        raise DataError(f"{path} has no questions.")
    return found


def distractors(question: Question, pool: Sequence[Question], count: int, draw: random.Random) -> list[Document]:
    """Passages of other questions, without repeats, in which no answer to this one stands. Raises DataError if too few."""
    found: dict[str, Document] = {}
    order = list(range(len(pool)))
    draw.shuffle(order)
    for place in order:
        document = pool[place].gold
        if document.text not in (question.gold.text, *found) and not contains_any(document.text, question.answers):
            found[document.text] = document
        if len(found) == count:
            return list(found.values())
    raise DataError(f"{count} distractors are needed, and the data has {len(found)}: ask for fewer --documents, or give more data.")


def context_prompt(question: Question, others: Sequence[Document], place: int) -> str:
    """The gold document at `place`, counted from 0, among the others."""
    documents = [*others[:place], question.gold, *others[place:]]
    shown = "\n".join(f"Document [{number}] (Title: {d.title}) {d.text}" for number, d in enumerate(documents, 1))
    return OPEN.replace("{question}", question.text).replace("{documents}", shown)


def correct(text: str, question: Question) -> bool:
    """Only the first line counts, since all of the context would hold the answer (as in the paper's evaluation)."""
    return contains_any(first_line(text), question.answers)


def paper_positions(count: int) -> list[int]:
    """0, 4, 9, 14, ...: the first, every fifth and the last; below 10 documents, all."""
    return list(range(count)) if count < 10 else sorted({0, *range(4, count, 5), count - 1})
