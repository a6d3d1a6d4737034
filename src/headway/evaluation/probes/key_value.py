"""Key-value retrieval (Liu et al. 2023, arXiv 2307.03172, section 3): copying the value of a key out of a JSON object.

Keys and values are random UUIDs: only the context helps. A correct answer contains the value.
"""

import json
import random
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from headway.data import load_rows
from headway.errors import ConfigError, DataError
from headway.evaluation.probes import positions
from headway.evaluation.probes.answering import Answerer, Answers, subsample
from headway.evaluation.probes.configs import KeyValueConfig
from headway.evaluation.probes.context_limit import context_tokens, require_context
from headway.evaluation.probes.positions import PositionScores
from headway.evaluation.probes.report import save_results
from headway.reports.tables import print_table

PROMPT = 'Give the value that belongs to the key in this JSON object.\n\nJSON:\n{records}\n\nKey: "{key}"\nValue:'


@dataclass(frozen=True)
class KeyValueTask:
    """Pairs of a key and a value, and the index of the pair asked for."""

    records: tuple[tuple[str, str], ...]
    target: int

    @property
    def value(self) -> str:
        """The correct answer."""
        return self.records[self.target][1]


@dataclass(frozen=True)
class KeyValueResult:
    """Scores by number of pairs and position.

    tasks: number of tasks by number of pairs.
    contexts: scores by kind of context.
    answers: texts by kind of context and position.
    """

    tasks: dict[int, int]
    contexts: dict[str, PositionScores]
    answers: dict[str, list[str]]


def run(config: KeyValueConfig) -> KeyValueResult:
    """Run the probe, print a table, and write JSON and a plot.

    Raises:
        DataError: a row is no task, or a context does not fit the model.
        CheckpointError: the model cannot be loaded.
        ConfigError: a position is beyond the pairs of the data.
    """
    tasks = {count: generated(config.tasks, count, config.seed) for count in config.pairs}
    if config.data is not None:
        tasks = by_pairs(load_tasks(config.data))
    tasks = {count: subsample(of_count, config.limit, config.seed) for count, of_count in tasks.items()}
    answer = Answerer.from_config(config)
    result = probe(answer, tasks, config)
    remarks = [scores.remark(name) for name, scores in result.contexts.items()]
    headings = ["context", "pair at", "correct", "95 % interval"]
    print_table(f"Key-value retrieval: {config.model}", headings, positions.table_rows(result.contexts), remarks)
    figure = positions.plot(result.contexts, "position of the pair asked for")
    save_results(config, result, figure, answer.tokens_per_forward)
    return result


def probe(answer: Answers, tasks: Mapping[int, list[KeyValueTask]], config: KeyValueConfig) -> KeyValueResult:
    """Scores by number of pairs and position. The target pair moves; the rest keep the order.

    Raises:
        DataError: a context does not fit the model.
        ConfigError: a position is beyond the pairs of the data.
    """

    def prompts(of_count: Sequence[KeyValueTask], position: int, size: int) -> list[str]:
        return [prompt(moved(shortened(task, size), position)) for task in of_count]

    def lengths_of_size(of_count: Sequence[KeyValueTask], size: int) -> list[int]:
        return context_tokens(answer, [prompts(of_count, 0, size)])

    def target_positions(count: int) -> list[int]:
        return config.positions or positions.evenly(count)

    for count, of_count in tasks.items():  # before anything is decoded
        if config.positions is not None and max(config.positions) >= count:
            raise ConfigError(f"position {max(config.positions)} is beyond tasks of {count} pairs: it is counted from 0.")
        if answer.context_length is not None:
            lengths = context_tokens(answer, [prompts(of_count, position, count) for position in target_positions(count)])
            require_context(answer.context_length, lengths, partial(lengths_of_size, of_count), count, "pairs")
    contexts, texts = {}, {}
    for count, of_count in sorted(tasks.items()):
        correct = {}
        for position in target_positions(count):
            answers = answer(prompts(of_count, position, count))
            texts[f"{count} pairs, asked at {position}"] = answers
            correct[position] = [task.value.lower() in text.lower() for task, text in zip(of_count, answers, strict=True)]
        contexts[f"{count} pairs"] = positions.by_position(correct)
    return KeyValueResult({count: len(of_count) for count, of_count in tasks.items()}, contexts, texts)


def generated(tasks: int, pairs: int, seed: int) -> list[KeyValueTask]:
    """Tasks with random UUIDs (version 4) as keys and values. The same seed gives the same tasks."""
    rng = random.Random(f"{seed} {pairs}")

    def random_uuid() -> str:
        return str(uuid.UUID(int=rng.getrandbits(128), version=4))

    return [KeyValueTask(tuple((random_uuid(), random_uuid()) for _ in range(pairs)), rng.randrange(pairs)) for _ in range(tasks)]


def load_tasks(path: Path) -> list[KeyValueTask]:
    """Tasks in the published form: ordered_kv_records, key and value.

    Raises:
        DataError: a row, named with the line, has another form, or there is no row.
    """
    tasks = []
    for location, row in load_rows(path):
        try:
            records = tuple((str(key), str(value)) for key, value in row["ordered_kv_records"])
            target = [key for key, _ in records].index(row["key"])
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(f"{location} needs ordered_kv_records, a list of pairs, and a key that is one of theirs.") from error
        if len(records) < 2:
            raise DataError(f"{location} has {len(records)} pair, and at least 2 are needed.")
        tasks.append(KeyValueTask(records, target))
    if not tasks:
        raise DataError(f"{path} has no tasks.")
    return tasks


def by_pairs(tasks: Sequence[KeyValueTask]) -> dict[int, list[KeyValueTask]]:
    """Tasks by number of pairs."""
    return {count: [t for t in tasks if len(t.records) == count] for count in sorted({len(t.records) for t in tasks})}


def moved(task: KeyValueTask, position: int) -> KeyValueTask:
    """The task with the target pair at `position` and the rest in order."""
    others = [record for index, record in enumerate(task.records) if index != task.target]
    return KeyValueTask((*others[:position], task.records[task.target], *others[position:]), position)


def shortened(task: KeyValueTask, size: int) -> KeyValueTask:
    """The task with the target pair and the first `size` - 1 pairs of the rest."""
    others = [record for index, record in enumerate(task.records) if index != task.target]
    return moved(KeyValueTask((task.records[task.target], *others[: size - 1]), 0), min(task.target, size - 1))


def prompt(task: KeyValueTask) -> str:
    """The prompt of the paper, a pair a line."""
    records = ",\n ".join(f"{json.dumps(key)}: {json.dumps(value)}" for key, value in task.records)
    return PROMPT.replace("{key}", task.records[task.target][0]).replace("{records}", f"{{{records}}}")
