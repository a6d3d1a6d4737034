"""`headway eval`: score a model on a task."""

from dataclasses import replace
from typing import Any

from headway.cli.console import say
from headway.config import load
from headway.evaluation.configs import EvalConfig
from headway.evaluation.tasks.catalog import known, parts
from headway.files import write_json
from headway.reports.tables import framed_table

ABOUT = "Score a model: answers, programs, held-out losses, or any task of lm-eval. Drafting makes it faster, not different."


def run(arguments: list[str]) -> None:
    if "--list-tasks" in arguments:  # needs no model
        print(known())
        return
    config = load(EvalConfig, overrides=arguments, prog="headway eval", about=ABOUT)
    from headway.evaluation import evaluate  # after --help has had its chance: this takes seconds

    results = evaluate(config)
    print(framed_table(["measure", "value"], rows(results), title=f"{config.model} on {config.task}"))
    if config.output_file is not None:
        write_json(config.output_file, results)
        for task in parts(config.task)[0]:
            if (file := replace(config, task=task).unfinished) is not None:
                file.unlink(missing_ok=True)
        say(f"The results are in {config.output_file}")


def rows(results: dict[str, Any], prefix: str = "") -> list[list[str]]:
    """The figures of a nested result as lines; long lists (answers, transcripts) stay in the file."""
    lines = []
    for key, value in results.items():
        if isinstance(value, dict):
            lines += rows(value, f"{prefix}{key}.")
        elif isinstance(value, list):
            if len(value) <= 8 and all(isinstance(item, int | float) for item in value):
                lines.append([prefix + key, " ".join(_figure(item) for item in value)])
        else:
            lines.append([prefix + key, _figure(value)])
    return lines


def _figure(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
