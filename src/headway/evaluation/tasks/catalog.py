"""What `headway eval --task` can name. Importing this is fast: it is read for `--help` and `--list-tasks`."""

import difflib

from headway.errors import ConfigError

# task -> (module in this package whose `score` runs it, what it is)
TASKS: dict[str, tuple[str, str]] = {
    "gsm8k": ("examples", "exact match of the final answer, extracted as lm-eval does"),
    "word-problems": ("examples", "the same on generated problems"),
    "held-out": ("examples", "losses and agreement of the heads on text that was not trained on"),
    "humaneval": ("code", "pass@k of functions that the model completes (needs --allow-code)"),
    "mbpp": ("code", "pass@k of functions that the model writes after three examples (needs --allow-code)"),
}
CODE = ("humaneval", "mbpp")  # lm-eval has these too, but runs what the model wrote without walls: Headway's own are taken
HARNESS, SUITE = "lm-eval:", "suite:"
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


def known() -> str:
    """All there is to name, a line each."""
    lines = [*((name, about) for name, (_, about) in TASKS.items()), (f"{HARNESS}NAME,NAME", "tasks of lm-eval, by its names")]
    lines += [(SUITE + name, "lm-eval: " * (tasks != CODE) + ", ".join(tasks)) for name, tasks in SUITES.items()]
    width = max(len(name) for name, _ in lines)
    return "\n".join(f"{name:<{width}}  {about}" for name, about in lines)


def check(task: str) -> None:
    """Raises ConfigError for a task that is not known, with the nearest."""
    if task in TASKS or (task.startswith(HARNESS) and task.removeprefix(HARNESS).strip(",")):
        return
    names = [*TASKS, *(SUITE + name for name in SUITES)]
    if task not in names:
        near = difflib.get_close_matches(task, names, 1)
        raise ConfigError(
            f"There is no task {task!r}." + (f" Did you mean {near[0]!r}?" if near else "") + " See headway eval --list-tasks; "
            f"a task of lm-eval is named {HARNESS}NAME."
        )


def parts(task: str) -> tuple[list[str], list[str]]:
    """Headway's own tasks and lm-eval's that `task` stands for."""
    if task in TASKS:
        return [task], []
    names = SUITES[task.removeprefix(SUITE)] if task.startswith(SUITE) else tuple(task.removeprefix(HARNESS).split(","))
    own = [name for name in names if task.startswith(SUITE) and name in CODE]
    return own, [name.strip() for name in names if name.strip() and name not in own]
