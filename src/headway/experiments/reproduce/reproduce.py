"""`headway reproduce EXPERIMENT`: repeat a published small-scale experiment and say whether the paper's claim held."""

import shutil
import time

from rich.console import Console

from headway.experiments.reproduce import experiments
from headway.experiments.reproduce.configs import ReproduceConfig
from headway.experiments.reproduce.figures import draw
from headway.experiments.reproduce.results import Reproduction, ReproductionResult
from headway.experiments.reproduce.summary import compare, compare_sizes, table, verdict
from headway.experiments.runner import require_results, run_all
from headway.files import write_json

MODULE = "headway.experiments.reproduce.training"


def reproduce(config: ReproduceConfig) -> Reproduction:
    """Train and score all arms, sizes and seeds; write results.json and plots into a folder in `config.output_dir`.

    Results of an earlier call with the same settings are kept, an interrupted run continues from its last checkpoint, and a failed
    run is reported and left out.

    Raises:
        ConfigError: settings are contradictory.
        HeadwayError: every run failed, or a file cannot be written.
    """
    config = config.resolved()
    experiment = experiments.of(config)
    console, started = Console(), time.perf_counter()
    console.print(f"[bold]{experiment.title}[/bold]\nThe paper: {experiment.claim}", highlight=False)
    folder = config.output_dir / config.EXPERIMENT

    def delete_checkpoints(name: str) -> None:
        for checkpoint in (folder / "runs" / name).glob("checkpoint-*"):
            shutil.rmtree(checkpoint)

    specs = {spec.name: spec.to_json(config) for spec in experiment.specs}
    finished = run_all(specs, folder / "runs", MODULE, 1, config.threads, console, config.EXPERIMENT, delete_checkpoints)
    require_results(list(finished.results), finished.failures)
    by_name = {name: ReproductionResult.from_json(values) for name, values in finished.results.items()}
    runs = list(by_name.values())
    comparisons = compare(runs, experiment.metrics, experiment.pairs)
    if experiment.trend is not None:
        comparisons += compare_sizes(runs, experiment.metrics, experiment.pairs, *experiment.trend)
    answer, counts = verdict(comparisons, experiment.expected)
    results = Reproduction(
        title=experiment.title,
        claim=experiment.claim,
        config=config,
        specs=experiment.specs,
        runs=by_name,
        failures=finished.failures,
        comparisons=comparisons,
        answer=answer,
        sentence=f"Here, with {config.seeds} seeds: {answer} ({counts}).",
        seconds=time.perf_counter() - started,
    )
    write_json(folder / "results.json", results.to_json())
    draw(results, experiment, folder)
    console.print(table(runs, comparisons, experiment.metrics[:3], experiment.title))
    console.print(results.sentence, highlight=False)
    console.print(f"Figures: {folder / 'results.json'}   Plot: {folder / 'plot.png'}", highlight=False)
    return results
