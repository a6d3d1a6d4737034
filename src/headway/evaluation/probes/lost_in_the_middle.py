"""Lost in the middle (Liu et al. 2023, arXiv 2307.03172, section 2): answers by the position of the relevant document.

The document with the answer (gold) moves through a context of distractors. The published distractors were retrieved for the
question. Here, distractors are gold passages of different questions. The gold document is then easier to tell apart, and scores are
not comparable with the paper.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from headway.data import load_rows
from headway.errors import DataError
from headway.evaluation.probes import positions
from headway.evaluation.probes.answering import Answerer, Answers, subsample
from headway.evaluation.probes.configs import LostInTheMiddleConfig
from headway.evaluation.probes.context_limit import context_tokens, require_context
from headway.evaluation.probes.matching import contains_any, first_line
from headway.evaluation.probes.positions import PositionScores
from headway.evaluation.probes.report import Proportion, proportion, save_results
from headway.reports.tables import print_table

DISTRACTORS = "gold passages of other questions, not the published retrieved ones: easier, and not comparable with the paper"
CLOSED_BOOK = "Answer the question in a few words.\n\nQuestion: {question}\nAnswer:"
OPEN_BOOK = (
    "Below are search results, of which some may not help. Use them to answer the question in a few words.\n\n"
    "{documents}\n\nQuestion: {question}\nAnswer:"
)


@dataclass(frozen=True)
class Document:
    title: str
    text: str


@dataclass(frozen=True)
class OpenQuestion:
    """A question with accepted answers and a document that holds an answer."""

    text: str
    answers: tuple[str, ...]
    gold: Document


QuestionInContext = tuple[OpenQuestion, Sequence[Document]]  # with its distractors


@dataclass(frozen=True)
class LostInTheMiddleResult:
    """Scores of the same questions in all settings.

    questions: texts of the questions.
    left_out: number of questions with a context that does not fit the model.
    distractors: note on the origin of the distractors.
    closed_book: score without documents.
    oracle: score with the gold document alone.
    contexts: scores by number of documents and position.
    answers: texts by setting.
    """

    questions: list[str]
    left_out: int
    distractors: str
    closed_book: Proportion
    oracle: Proportion
    contexts: dict[str, PositionScores]
    answers: dict[str, list[str]]


def run(config: LostInTheMiddleConfig) -> LostInTheMiddleResult:
    """Run the probe, print a table, and write JSON and a plot.

    Raises:
        DataError: a row is no question, a context does not fit the model, or there are too few distractors.
        CheckpointError: the model cannot be loaded.
    """
    pool = load_questions(config.data)
    asked = subsample(pool, config.limit, config.seed)
    answer = Answerer.from_config(config, stop=["\n"])
    result = probe(answer, asked, pool, config)
    baselines = {"oracle": result.oracle, "closed book": result.closed_book}
    rows = [[name, "", *score.cells] for name, score in baselines.items()] + positions.table_rows(result.contexts)
    remarks = [scores.remark(name) for name, scores in result.contexts.items()]
    remarks += [f"{result.left_out} questions do not fit and are left out."] if result.left_out else []
    remarks.append(f"Distractors: {DISTRACTORS}.")
    print_table(f"Lost in the middle: {config.model}", ["context", "gold at", "correct", "95 % interval"], rows, remarks)
    levels = {name: score.share for name, score in baselines.items()}
    figure = positions.plot(result.contexts, "position of the gold document", levels)
    save_results(config, result, figure, answer.tokens_per_forward)
    return result


def probe(
    answer: Answers, asked: Sequence[OpenQuestion], pool: Sequence[OpenQuestion], config: LostInTheMiddleConfig
) -> LostInTheMiddleResult:
    """Scores without documents, with the gold document alone, and with the gold document at all positions among distractors.

    A question has the same distractors in the same order at all positions; a shorter context has the first distractors. With
    `skip_long`, only questions with a longest context that fits the model are asked.

    Args:
        answer: the model.
        asked: questions to ask.
        pool: questions with gold documents that serve as distractors.
        config: numbers of documents, and positions.
    Raises:
        DataError: a context does not fit the model, or there are too few distractors.
    """
    count = max(config.documents) - 1
    every = [(q, distractors(q, pool, count, random.Random(f"{config.seed} {q.text}"))) for q in asked]
    chosen = _fitting(answer, every, config)
    asked = [question for question, _ in chosen]
    texts: dict[str, list[str]] = {}

    def is_correct(name: str, prompts: list[str]) -> list[bool]:
        texts[name] = answer(prompts)
        return [correct(text, question) for text, question in zip(texts[name], asked, strict=True)]

    closed_book = is_correct("closed_book", [CLOSED_BOOK.replace("{question}", question.text) for question in asked])
    oracle = is_correct("oracle", [context_prompt(question, [], 0) for question in asked])
    contexts = {}
    for size in config.documents:
        scored = {at: is_correct(f"{size} documents, gold at {at}", _prompts(chosen, size, at)) for at in _positions(config, size)}
        contexts[f"{size} documents"] = positions.by_position(scored)
    return LostInTheMiddleResult(
        questions=[question.text for question in asked],
        left_out=len(every) - len(asked),
        distractors=DISTRACTORS,
        closed_book=proportion(sum(closed_book), len(asked)),
        oracle=proportion(sum(oracle), len(asked)),
        contexts=contexts,
        answers=texts,
    )


def _fitting(answer: Answers, asked: Sequence[QuestionInContext], config: LostInTheMiddleConfig) -> list[QuestionInContext]:
    """All questions, or with `skip_long` the questions that fit the model at every size. Raises DataError as `probe`."""
    context_length, fits = answer.context_length, [True] * len(asked)
    if context_length is None:
        return list(asked)
    for size in sorted(config.documents):
        lengths = context_tokens(answer, [_prompts(asked, size, position) for position in _positions(config, size)])
        if not config.skip_long:
            hint = " leave out those with --skip-long,"
            require_context(
                context_length, lengths, lambda n: context_tokens(answer, [_prompts(asked, n, 0)]), size, "documents", hint
            )
        fits = [fit and length <= context_length for fit, length in zip(fits, lengths, strict=True)]
        if not any(fits):
            raise DataError(
                f"no context of {size} documents fits the {context_length} tokens that the model reads, answer included."
            )
    return [question for question, fit in zip(asked, fits, strict=True) if fit]


def _positions(config: LostInTheMiddleConfig, size: int) -> list[int]:
    return config.positions or paper_positions(size)


def _prompts(asked: Sequence[QuestionInContext], size: int, position: int) -> list[str]:
    return [context_prompt(question, others[: size - 1], position) for question, others in asked]


def load_questions(path: Path) -> list[OpenQuestion]:
    """Questions with answers and gold passages.

    Raises:
        DataError: a row, named with the line, lacks question, answers or gold passage, or there is no row.
    """
    questions = []
    for location, row in load_rows(path):
        try:
            gold = next(passage for passage in row["ctxs"] if passage.get("isgold", True))
            document = Document(str(gold["title"]), str(gold["text"]))
            questions.append(OpenQuestion(str(row["question"]), tuple(map(str, row["answers"])), document))
        except (KeyError, TypeError, AttributeError, StopIteration) as error:
            raise DataError(f"{location} needs question, answers (a list) and ctxs with a gold passage (title, text).") from error
    if not questions:
        raise DataError(f"{path} has no questions.")
    return questions


def distractors(question: OpenQuestion, pool: Sequence[OpenQuestion], count: int, rng: random.Random) -> list[Document]:
    """Distinct passages of further questions that contain no answer to this question. Raises DataError if there are too few."""
    chosen: dict[str, Document] = {}
    order = list(range(len(pool)))
    rng.shuffle(order)
    for index in order:
        document = pool[index].gold
        if document.text not in (question.gold.text, *chosen) and not contains_any(document.text, question.answers):
            chosen[document.text] = document
        if len(chosen) == count:
            return list(chosen.values())
    raise DataError(
        f"{count} distractors are needed, and the data has {len(chosen)}: ask for fewer --documents, or give more data."
    )


def context_prompt(question: OpenQuestion, others: Sequence[Document], position: int) -> str:
    """Prompt with the gold document at `position`, counted from 0, among the distractors."""
    documents = [*others[:position], question.gold, *others[position:]]
    shown = "\n".join(f"Document [{number}] (Title: {d.title}) {d.text}" for number, d in enumerate(documents, 1))
    return OPEN_BOOK.replace("{question}", question.text).replace("{documents}", shown)


def correct(text: str, question: OpenQuestion) -> bool:
    """True if the first line contains an answer. Only the first line counts, as in the paper: a copied context has all answers."""
    return contains_any(first_line(text), question.answers)


def paper_positions(count: int) -> list[int]:
    """Positions 0, 4, 9, 14, ...: the first, every fifth and the last; below 10 documents, all."""
    return list(range(count)) if count < 10 else sorted({0, *range(4, count, 5), count - 1})
