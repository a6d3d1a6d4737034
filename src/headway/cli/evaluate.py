"""Printing of `headway eval`: a table of measures, and a file."""

from typing import Any

from headway.cli.console import note
from headway.evaluation.configs import EvalConfig
from headway.reports.tables import framed_table


def run(config: EvalConfig) -> None:
    """Score a model, print the measures, and write all results to `config.output_file`. Raises HeadwayError."""
    from headway.evaluation.run import evaluate, results_json  # torch and transformers take seconds to import

    results = results_json(evaluate(config))
    print(framed_table(["measure", "value"], rows(results), title=f"{config.model} on {config.task}"))
    if config.output_file is not None:
        note(f"The results are in {config.output_file}")


def rows(results: dict[str, Any], prefix: str = "") -> list[list[str]]:
    """Rows of a table for a nested result. Long lists (answers, transcripts) are left to the file."""
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
