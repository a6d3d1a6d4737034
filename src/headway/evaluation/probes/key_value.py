"""Key-value retrieval (Liu et al. 2023, arXiv 2307.03172, section 3): can a model copy the value of a key out of JSON at all?

Keys and values are random UUIDs, so that nothing but the context helps. An answer is right if the value stands in it.
"""

import json
import random
import uuid
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from headway.data import load_rows
from headway.errors import ConfigError, DataError
from headway.evaluation.probes import positions
from headway.evaluation.probes.answering import Answerer, Answers, drawn
from headway.evaluation.probes.configs import KeyValueConfig
from headway.evaluation.probes.context_limit import lengths_of, require_room
from headway.evaluation.probes.report import save_results
from headway.reports.tables import print_table

PROMPT = 'Give the value that belongs to the key in this JSON object.\n\nJSON:\n{records}\n\nKey: "{key}"\nValue:'


@dataclass(frozen=True)
class Task:
    """Pairs, and which of them is asked for."""

    records: tuple[tuple[str, str], ...]
    asked: int


def run(config: KeyValueConfig) -> dict[str, Any]:
    """Measure, show, and write JSON and a plot if asked. Raises DataError, CheckpointError and ConfigError."""
    tasks = {count: generated(config.tasks, count, config.seed) for count in config.pairs}
    if config.data is not None:
        tasks = by_pairs(load_tasks(config.data))
    tasks = {count: drawn(given, config.limit, config.seed) for count, given in tasks.items()}
    answer = Answerer.from_config(config)
    results = probe(answer, tasks, config)
    results["settings"] = asdict(config) | {"data": str(config.data), "output_file": str(config.output_file)}
    results["tokens_per_forward"] = answer.tokens_per_forward
    contexts = results["contexts"]
    remarks = [positions.remark(name, found) for name, found in contexts.items()]
    rows = positions.rows(contexts)
    print_table(f"Key-value retrieval: {config.model}", ["context", "pair at", "correct", "95 % interval"], rows, remarks)
    save_results(config.output_file, results, positions.plot(contexts, "position of the pair that is asked for"))
    return results


def probe(answer: Answers, tasks: dict[int, list[Task]], config: KeyValueConfig) -> dict[str, Any]:
    """Scores for each number of pairs and position; the pair that is asked for moves, the others keep their order.

    Raises: DataError where contexts do not fit the model, ConfigError for a position beyond the pairs of the data.
    """

    def prompts(given: Sequence[Task], place: int, size: int) -> list[str]:
        return [prompt(moved(shortened(task, size), place)) for task in given]

    def shorter(given: Sequence[Task], size: int) -> list[int]:
        return lengths_of(answer, [prompts(given, 0, size)])

    def places(count: int) -> list[int]:
        return config.positions or positions.evenly(count)

    for count, given in tasks.items():  # before anything is decoded
        if config.positions is not None and max(config.positions) >= count:
            raise ConfigError(f"position {max(config.positions)} is beyond tasks of {count} pairs: it is counted from 0.")
        if answer.window is not None:
            lengths = lengths_of(answer, [prompts(given, place, count) for place in places(count)])
            require_room(answer.window, lengths, partial(shorter, given), count, "pairs")
    contexts, texts = {}, {}
    for count, given in sorted(tasks.items()):
        solved = {}
        for place in places(count):
            found = answer(prompts(given, place, count))
            texts[f"{count} pairs, asked at {place}"] = found
            solved[place] = [value(task).lower() in text.lower() for task, text in zip(given, found, strict=True)]
        contexts[f"{count} pairs"] = positions.by_position(solved)
    return {"tasks": {count: len(given) for count, given in tasks.items()}, "contexts": contexts, "answers": texts}


def generated(tasks: int, pairs: int, seed: int) -> list[Task]:
    """Random UUIDs (version 4) as keys and values; the same seed gives the same tasks."""
    draw = random.Random(f"{seed} {pairs}")

    def fresh() -> str:
        return str(uuid.UUID(int=draw.getrandbits(128), version=4))

    return [Task(tuple((fresh(), fresh()) for _ in range(pairs)), draw.randrange(pairs)) for _ in range(tasks)]


def load_tasks(path: Path) -> list[Task]:
    """The published form: ordered_kv_records, key and value. Raises DataError, with its line, for a row that is not of it."""
    found = []
    for place, row in load_rows(path):
        try:
            records = tuple((str(key), str(each)) for key, each in row["ordered_kv_records"])
            asked = [key for key, _ in records].index(row["key"])
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(f"{place} needs ordered_kv_records, a list of pairs, and a key that is one of theirs.") from error
        if len(records) < 2:
            raise DataError(f"{place} has {len(records)} pair, and at least 2 are needed.")
        found.append(Task(records, asked))
    if not found:
        raise DataError(f"{path} has no tasks.")
    return found


def by_pairs(tasks: Sequence[Task]) -> dict[int, list[Task]]:
    return {count: [t for t in tasks if len(t.records) == count] for count in sorted({len(t.records) for t in tasks})}


def moved(task: Task, place: int) -> Task:
    """The pair that is asked for at `place`, the others in their order."""
    rest = [record for number, record in enumerate(task.records) if number != task.asked]
    return Task((*rest[:place], task.records[task.asked], *rest[place:]), place)


def shortened(task: Task, size: int) -> Task:
    """The pair that is asked for, and the first others."""
    rest = [record for number, record in enumerate(task.records) if number != task.asked]
    return moved(Task((task.records[task.asked], *rest[: size - 1]), 0), min(task.asked, size - 1))


def prompt(task: Task) -> str:
    """One pair a line, as the paper shows them."""
    records = ",\n ".join(f"{json.dumps(key)}: {json.dumps(each)}" for key, each in task.records)
    return PROMPT.replace("{key}", task.records[task.asked][0]).replace("{records}", f"{{{records}}}")


def value(task: Task) -> str:
    return task.records[task.asked][1]
