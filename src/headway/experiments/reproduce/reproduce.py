"""`headway reproduce EXPERIMENT`: a published small-scale result, measured again on this machine, beside what the paper says."""

import time
from pathlib import Path
from typing import Any

import torch
import transformers
from rich.console import Console

from headway import __version__
from headway.errors import HeadwayError
from headway.experiments.reproduce import experiments
from headway.experiments.reproduce.configs import ReproduceConfig
from headway.experiments.reproduce.figures import draw
from headway.experiments.reproduce.runs import perform
from headway.experiments.reproduce.summary import compare, compare_differences, table, verdict
from headway.files import write_json


def reproduce(config: ReproduceConfig) -> dict[str, Any]:
    """Train and score every arm, size and seed; write `results.json` and plots into a folder in `config.output_dir`.

    Runs that an earlier call with the same settings finished are kept, one that was killed goes on from its last checkpoint,
    and one that fails is reported, tried again by the next call, and does not sink the rest.

    Raises: HeadwayError where nothing could be finished or written, ConfigError for settings that contradict each other.
    """
    config = config.resolved()
    experiment = experiments.of(config)
    console = Console()
    console.print(f"[bold]{experiment.title}[/bold]\nThe paper: {experiment.claim}", highlight=False)
    started = time.perf_counter()
    runs = perform(config, experiment.runs, experiment.learn, console)
    finished = [run for run in runs if "error" not in run]
    if not finished:
        raise HeadwayError(f"All {len(runs)} runs failed, the first of them so: {runs[0]['error']}")
    comparisons = compare(finished, experiment.measures, experiment.pairs)
    if experiment.trend is not None:
        comparisons += compare_differences(finished, experiment.measures, experiment.pairs, *experiment.trend)
    answer, counts = verdict(comparisons, experiment.expected)
    sentence = f"Here, with {config.seeds} seeds: {answer} ({counts})."
    results = {
        "experiment": config.EXPERIMENT,
        "title": experiment.title,
        "claim": experiment.claim,
        "settings": {name: str(value) if isinstance(value, Path) else value for name, value in vars(config).items()},
        "versions": {"headway": __version__, "torch": torch.__version__, "transformers": transformers.__version__},
        "runs": runs,
        "comparisons": comparisons,
        "answer": answer,
        "sentence": sentence,
        "seconds": time.perf_counter() - started,
        "training_seconds": sum(run["seconds"] for run in finished),
    }
    folder = config.output_dir / config.EXPERIMENT
    write_json(folder / "results.json", results)
    draw(results, experiment, folder)
    console.print(table(runs, comparisons, experiment.measures[:3], experiment.title))
    console.print(sentence, highlight=False)
    console.print(f"Figures: {folder / 'results.json'}   Plot: {folder / 'plot.png'}", highlight=False)
    return results
