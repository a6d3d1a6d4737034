"""Tasks of `headway eval`. To add a task: a module in this folder with `score(config) -> Scored`, and a row of TASKS.

Importing this package is fast (no torch), since `--help` and `--list-tasks` read the table. A task that fits lm-eval's YAML format
needs no code at all: see `--include-path`.
"""

import difflib
from dataclasses import dataclass

from headway.errors import ConfigError


@dataclass(frozen=True)
class EvalTask:
    """A row of the table. `module` is a module of this package."""

    module: str
    about: str
    data: str  # default source of the examples
    runs_code: bool = False


TASKS: dict[str, EvalTask] = {
    "gsm8k": EvalTask("exact_match", "exact match of the final answer, extracted as in lm-eval", "gsm8k"),
    "word-problems": EvalTask("exact_match", "exact match on generated problems", "word-problems"),
    "held-out": EvalTask(
        "held_out", "losses, and agreement of the heads with the trunk, on text outside the training data", "stdlib"
    ),
    "humaneval": EvalTask("code", "pass@k of completed functions (needs --allow-code)", "openai/openai_humaneval", runs_code=True),
    "mbpp": EvalTask(
        "code",
        "pass@k of functions written after three examples (needs --allow-code)",
        "google-research-datasets/mbpp",
        runs_code=True,
    ),
}
# lm-eval runs generated code without isolation, so its tasks of these names are not used
CODE = tuple(name for name, task in TASKS.items() if task.runs_code)
LM_EVAL, SUITE = "lm-eval:", "suite:"
# capability -> names of lm-eval tasks
SUITES: dict[str, tuple[str, ...]] = {
    "common-sense": ("hellaswag", "winogrande", "piqa", "openbookqa", "commonsense_qa"),
    "code": CODE,
    "exams": ("mmlu", "mmlu_pro", "arc_easy", "arc_challenge", "agieval_en"),
    "format": ("ifeval",),
    "knowledge": ("triviaqa", "nq_open", "truthfulqa_mc2", "sciq"),
    "reading": ("squadv2", "squad_completion", "boolq", "drop", "race", "lambada_openai"),
    "math": ("gsm8k", "hendrycks_math", "asdiv", "mathqa"),
    "reasoning": ("bbh_cot_fewshot", "logiqa", "anli", "cb", "wsc273"),
}


def task_list() -> str:
    """Table of all tasks and suites as text, a name a line."""
    lines = [*((name, task.about) for name, task in TASKS.items()), (f"{LM_EVAL}NAME,NAME", "tasks of lm-eval, by name")]
    lines += [(SUITE + name, "lm-eval: " * (tasks != CODE) + ", ".join(tasks)) for name, tasks in SUITES.items()]
    width = max(len(name) for name, _ in lines)
    return "\n".join(f"{name:<{width}}  {about}" for name, about in lines)


def check_task(name: str) -> None:
    """Raise ConfigError, with the nearest known name, if no task or suite has this name."""
    if name in TASKS or (name.startswith(LM_EVAL) and name.removeprefix(LM_EVAL).strip(",")):
        return
    names = [*TASKS, *(SUITE + suite for suite in SUITES)]
    if name not in names:
        near = difflib.get_close_matches(name, names, 1)
        raise ConfigError(
            f"There is no task {name!r}." + (f" Did you mean {near[0]!r}?" if near else "") + " See headway eval --list-tasks; "
            f"a task of lm-eval is named {LM_EVAL}NAME."
        )


def split_task(name: str) -> tuple[list[str], list[str]]:
    """Names of Headway's tasks and names of lm-eval's tasks that a task, a suite or a list stands for."""
    if name in TASKS:
        return [name], []
    is_suite = name.startswith(SUITE)
    names = SUITES[name.removeprefix(SUITE)] if is_suite else tuple(name.removeprefix(LM_EVAL).split(","))
    own = [name for name in names if is_suite and name in CODE]
    return own, [name.strip() for name in names if name.strip() and name not in own]
