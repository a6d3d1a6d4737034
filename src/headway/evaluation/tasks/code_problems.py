"""Problems of HumanEval (Chen et al. 2021, arXiv 2107.03374) and MBPP (Austin et al. 2021, arXiv 2108.07732).

Prompts and stop strings equal lm-eval's tasks `humaneval` and `mbpp`, as the tests check.
"""

import ast
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any

from headway.data import load_rows
from headway.errors import ConfigError, DataError

PROMPT_TESTS = 3  # number of its tests in the prompt of an MBPP problem
MBPP_SPLITS = {"prompt": range(1, 11), "test": range(11, 511), "validation": range(511, 601), "train": range(601, 975)}
MBPP_SHOTS = (2, 3, 4)  # task ids, as in lm-eval


@dataclass(frozen=True)
class Problem:
    """A program is `prefix` and the completion of the model. The program passes if `tests` run to their end.

    overridable_builtins: names of builtins that the program may redefine for the tests.
    """

    name: str
    prompt: str
    prefix: str
    reference: str
    tests: str
    overridable_builtins: tuple[str, ...]


@dataclass(frozen=True)
class CodeTask:
    """Format of the problems of a data set."""

    stops: tuple[str, ...]
    max_new_tokens: int
    shots: int
    problems: Callable[[str, str, int], Iterator[Problem]]  # source, split, shots


def load_problems(task: CodeTask, source: str, split: str, limit: int | None, shots: int | None) -> list[Problem]:
    """The first `limit` problems of a source.

    Raises:
        DataError: a row is no problem of the task, or there is no row.
        ConfigError: the task has fewer solved examples than `shots`.
    """
    problems = list(islice(task.problems(source, split, task.shots if shots is None else shots), limit))
    if not problems:
        raise DataError(f"{source} has no problems in its split {split!r}.")
    return problems


def human_eval(source: str, split: str, shots: int) -> Iterator[Problem]:
    if shots:
        raise ConfigError("humaneval shows no solved examples; leave out --shots.")
    for location, row in load_rows(source, split):
        name, prompt, solution, test, entry = _texts(
            location, row, "task_id", "prompt", "canonical_solution", "test", "entry_point"
        )
        yield Problem(name, prompt, prompt, solution, f"{test}\ncheck({entry})\n", (entry,))


def mbpp(source: str, split: str, shots: int) -> Iterator[Problem]:
    """Problems of the full or the sanitized data set (`google-research-datasets/mbpp:sanitized`). Splits are ranges of ids."""
    if shots > len(MBPP_SHOTS):
        raise ConfigError(f"mbpp shows at most {len(MBPP_SHOTS)} solved examples, not {shots}.")
    if split != "all" and split not in MBPP_SPLITS:
        raise ConfigError(f"mbpp has the splits {', '.join(MBPP_SPLITS)} and all, not {split!r}.")
    rows = _mbpp_rows(source, split)
    solved_examples = ""
    if shots:
        pool = rows if set(MBPP_SHOTS) <= set(rows) else _mbpp_rows(source, "prompt")
        if missing := [number for number in MBPP_SHOTS[:shots] if number not in pool]:
            raise DataError(f"{source} has no problem {missing[0]}, one of those that are shown solved; give --shots 0.")
        for number in MBPP_SHOTS[:shots]:
            location, row = pool[number]
            solved_examples += f"{_mbpp_prompt(location, row)}{row['code']}\n[DONE]\n\n"
    for number, (location, row) in rows.items():
        if split != "all" and number not in MBPP_SPLITS[split]:
            continue
        (code,) = _texts(location, row, "code")
        before = [*([row["test_setup_code"]] if row.get("test_setup_code") else []), *(row.get("test_imports") or [])]
        tests = "\n".join([*before, *row["test_list"]])
        yield Problem(f"MBPP/{number}", solved_examples + _mbpp_prompt(location, row), "", code, tests, _defined(code))


CODE_TASKS = {
    "humaneval": CodeTask(("\nclass", "\ndef", "\n#", "\nif", "\nprint"), 1024, 0, human_eval),
    "mbpp": CodeTask(("[DONE]",), 256, 3, mbpp),
}


def _mbpp_rows(source: str, split: str) -> dict[int, tuple[str, Mapping[str, Any]]]:
    """(location, row) by task id. In a folder with both data sets, the full data set wins: the name comes first."""
    rows: dict[int, tuple[str, Mapping[str, Any]]] = {}
    for part in MBPP_SPLITS if split == "all" and "/" in source and not source.startswith((".", "/", "~")) else (split,):
        for location, row in load_rows(source, part):
            number = row.get("task_id")
            if not isinstance(number, int) or not isinstance(row.get("test_list"), list):
                raise DataError(f"{location} is no problem of MBPP: it needs task_id, test_list, code, and text or prompt.")
            rows.setdefault(number, (location, row))
    return rows


def _mbpp_prompt(location: str, row: Mapping[str, Any]) -> str:
    (text,) = _texts(location, row, "text" if "text" in row else "prompt")
    tests = "\n".join(row["test_list"][:PROMPT_TESTS])
    return (
        f"You are an expert Python programmer, and here is your task: {text} Your code should pass these tests:\n\n"
        f"{tests}\n[BEGIN]\n"
    )


def _texts(location: str, row: Mapping[str, Any], *names: str) -> tuple[str, ...]:
    """Text columns of a row. Raises DataError if a column is missing or holds no text."""
    if wrong := [name for name in names if not isinstance(row.get(name), str)]:
        raise DataError(f"{location} has no text in column {wrong[0]!r}; it has: {', '.join(row)}.")
    return tuple(row[name] for name in names)


def _defined(code: str) -> tuple[str, ...]:
    """Names of the functions and classes of a solution."""
    return tuple(node.name for node in ast.parse(code).body if isinstance(node, ast.FunctionDef | ast.ClassDef))
