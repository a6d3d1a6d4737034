"""`headway compare`: arms x seeds x tasks, the same data and budget for all, differences paired by seed.

Fine-tuning towards several tokens helps some models and hurts others (Gloeckle et al. 2024, table S6; MuToR, arXiv 2505.10518):
this settles it for one model and task, or says how many more seeds would.
"""

import dataclasses
import json
import shutil
import time
from pathlib import Path
from typing import Any

import torch
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

import headway.config
from headway.data import load_examples
from headway.errors import HeadwayError
from headway.evaluation.benchmarks.speed import measure_speed
from headway.evaluation.prompts import prompt_tokens
from headway.evaluation.results import as_json
from headway.experiments.compare.configs import CompareConfig
from headway.experiments.compare.report import write_report
from headway.experiments.compare.runs import Run, baseline_of, model_of, runs_of
from headway.experiments.compare.summary import compare, rows_of, words
from headway.experiments.compare.worker import MODEL
from headway.experiments.runner import Done, execute, jobs_for
from headway.files import replacing_folder, write_json
from headway.model import load_model_and_tokenizer


def run(config: CompareConfig, title: str = "Does looking ahead help?") -> dict[str, Any]:
    """Train, score and time everything; write results.json, results.parquet, plots and report.html into `config.output_dir`.

    What an earlier call with the same settings finished is kept. A run that fails is reported, and its seed left out.
    Raises: ConfigError, DataError, CheckpointError for what cannot be run at all; HeadwayError where every run failed.
    """
    console = Console()
    started = time.perf_counter()
    for arm in config.arms:
        baseline_of(config, arm)  # raises early
    jobs = config.jobs or jobs_for([model_of(config, arm) for arm in config.arms], config.threads)
    config.output_dir.mkdir(parents=True, exist_ok=True)
    headway.config.save(config, config.output_dir / "compare.yaml")
    runs = runs_of(config, _rates(config, jobs, console) if config.match == "seconds" else None)
    by_name = {run.name: run for run in runs}
    console.print(f"{len(runs)} runs, {jobs} at a time, {config.threads} thread(s) each.")

    def tidy(name: str) -> None:
        folder = config.output_dir / "runs" / name
        for checkpoint in (*folder.glob(f"{MODEL}/checkpoint-*"), *folder.glob("heads/checkpoint-*")):
            shutil.rmtree(checkpoint)
        if config.keep == "first-seed" and by_name[name].seed != config.seed:
            shutil.rmtree(folder / MODEL, ignore_errors=True)
            shutil.rmtree(folder / "heads", ignore_errors=True)

    specs = {name: run.plain() for name, run in by_name.items()}
    done = execute(specs, config.output_dir / "runs", jobs, config.threads, console, "fine-tuning", tidy)
    trained = [result for name, result in done.results.items() if by_name[name].finetune is not None]
    if not trained:
        raise HeadwayError(f"Every run failed; the first: {next(iter(done.failures.values()))}")
    results = {
        "title": title,
        "settings": json.loads(json.dumps(dataclasses.asdict(config), default=str)),
        "untrained": [result for name, result in done.results.items() if by_name[name].finetune is None],
        "runs": trained,
        "failures": done.failures,
        "comparison": compare(config, trained),
        "speed": _speeds(config, runs, done) if config.speed else {},
        "seconds": time.perf_counter() - started,
    }
    write_json(config.output_dir / "results.json", results)
    write_parquet(trained, config.output_dir / "results.parquet")
    sentences = words(results)
    write_report(results, config.output_dir / "report.html", sentences, {task: rows_of(results, task) for task in config.tasks})
    for task in config.tasks:
        console.print(_table(results, task, *rows_of(results, task, wide=False)))
    for line in sentences:
        console.print(line, markup=False, highlight=False)
    report, *figures = (config.output_dir / name for name in ("report.html", "results.json", "results.parquet"))
    console.print(f"Report: {report}   Figures: {figures[0]}, {figures[1]}")
    return results


def _rates(config: CompareConfig, jobs: int, console: Console) -> dict[str, dict[str, float]]:
    """Seconds of a step of each task and arm, measured with as many runs at a time as later.

    Raises: HeadwayError where an arm fails.
    """
    free = dataclasses.replace(config, match="steps", budget=1)
    first = [run for run in runs_of(free) if run.finetune is not None and run.seed == config.seed]
    specs = {run.name: {**run.plain(), "rate": True} for run in first}
    done = execute(specs, config.output_dir / "rates", jobs, config.threads, console, "timing steps")
    if done.failures:
        raise HeadwayError(f"A step cannot be timed: {next(iter(done.failures.values()))}")
    for run in first:
        shutil.rmtree(config.output_dir / "rates" / run.name / MODEL, ignore_errors=True)
        shutil.rmtree(config.output_dir / "rates" / run.name / "heads", ignore_errors=True)
    return {f"{run.task}/{run.arm}": done.results[run.name] for run in first}


def _speeds(config: CompareConfig, runs: list[Run], done: Done) -> dict[str, dict[str, Any]]:
    """Decoding with and without the heads, one arm after the other when nothing else runs; by task and arm."""
    torch.set_num_threads(config.threads)
    found: dict[str, dict[str, Any]] = {task: {} for task in config.tasks}
    for run in runs:
        if run.finetune is None or run.seed != config.seed or run.name not in done.results:
            continue
        model, tokenizer = load_model_and_tokenizer(str(config.output_dir / "runs" / run.name / MODEL))
        if not model.count:
            continue
        examples = load_examples(run.scored.test or run.scored.data, "test", config.speed_prompts)
        prompts = [ids for example in examples if (ids := prompt_tokens(example, tokenizer, 256)[:256])]
        found[run.task][run.arm] = as_json(measure_speed(model, prompts, min(48, run.scored.max_new_tokens)))
    return found


def write_parquet(rows: list[dict[str, Any]], path: Path) -> None:
    """A row each, with all names that any has; lists stay lists."""
    import pyarrow  # installed with datasets
    from pyarrow import parquet

    names = list(dict.fromkeys(name for row in rows for name in row))
    with replacing_folder(path.parent) as folder:
        parquet.write_table(pyarrow.Table.from_pylist([{n: row.get(n) for n in names} for row in rows]), folder / path.name)


def _table(results: dict[str, Any], task: str, headings: list[str], rows: list[list[str]]) -> Table:
    settings = results["settings"]
    title = f"{task}: {settings['seeds']} seeds, {settings['budget']:g} {settings['match']} each"
    drawn = Table(title=escape(title), box=box.SIMPLE_HEAD, padding=(0, 1))
    for name in headings:
        drawn.add_column(name, justify="left" if name in ("arm", "verdict") else "right", no_wrap=name != "arm")
    for row in rows:
        drawn.add_row(*map(escape, row))
    return drawn
