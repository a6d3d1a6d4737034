"""`headway compare`: train arms on tasks with several seeds, with equal data and budget, and report differences paired by seed.

Training towards several tokens helps some models and hurts others (Gloeckle et al. 2024, arXiv 2404.19737, table S6; MuToR,
arXiv 2505.10518).
"""

import shutil
import time
from collections.abc import Callable
from pathlib import Path

import torch
from rich.console import Console

import headway.config
from headway.data import load_examples
from headway.errors import HeadwayError
from headway.evaluation.benchmarks.speed import SpeedResult, measure_speed
from headway.evaluation.loading import keep_special_tokens
from headway.evaluation.prompts import prompt_tokens
from headway.experiments.compare.configs import CompareConfig
from headway.experiments.compare.report import write_report
from headway.experiments.compare.results import ArmResult, Comparison
from headway.experiments.compare.specs import ArmSpec, StepRates, arm_specs, baseline_of, model_of, timing_specs
from headway.experiments.compare.summary import compare, summary_sentences, table
from headway.experiments.compare.training import HEADS, MODEL
from headway.experiments.output import terminal_table, write_parquet
from headway.experiments.runner import RunResults, default_jobs, require_results, run_all
from headway.files import write_json
from headway.model import load_model_and_tokenizer

MODULE = "headway.experiments.compare.training"
MAX_PROMPT_TOKENS, MAX_NEW_TOKENS = 256, 48  # of a timed answer


def run(config: CompareConfig, title: str = "Does looking ahead help?") -> Comparison:
    """Train, score and time all arms; write results.json, results.parquet, plots and report.html into `config.output_dir`.

    Results of an earlier call with the same settings are kept. A failed run is reported and left out.

    Raises:
        ConfigError, DataError, CheckpointError: no run can start.
        HeadwayError: every run failed.
    """
    console, started = Console(), time.perf_counter()
    for arm in config.arms:
        baseline_of(config, arm)  # raises early
    jobs = config.jobs or default_jobs([model_of(config, arm) for arm in config.arms], config.threads)
    config.output_dir.mkdir(parents=True, exist_ok=True)
    headway.config.save(config, config.output_dir / "compare.yaml")
    rates = _measure_rates(config, jobs, console) if config.match == "seconds" else None
    specs = {spec.name: spec for spec in arm_specs(config, rates)}
    console.print(f"{len(specs)} runs, {jobs} in parallel, {config.threads} thread(s) each.")

    def delete_surplus(name: str) -> None:
        folder = config.output_dir / "runs" / name
        for checkpoint in (*folder.glob(f"{MODEL}/checkpoint-*"), *folder.glob(f"{HEADS}/checkpoint-*")):
            shutil.rmtree(checkpoint)
        if config.keep == "first-seed" and specs[name].seed != config.seed:
            _delete_models(folder)

    finished = _run_all(config, specs, "runs", jobs, console, "fine-tuning", delete_surplus)
    trained = {name: ArmResult.from_json(values) for name, values in finished.results.items() if specs[name].finetune is not None}
    require_results(list(trained), finished.failures)
    untrained = [ArmResult.from_json(values) for name, values in finished.results.items() if specs[name].finetune is None]
    runs = list(trained.values())
    timed = [spec for name, spec in specs.items() if name in trained and spec.seed == config.seed] if config.speed else []
    speed = _measure_speed(config, timed)
    seconds = time.perf_counter() - started
    results = Comparison(title, config, untrained, runs, finished.failures, compare(config, runs), speed, seconds)
    _write(results, config.output_dir, console)
    return results


def _write(results: Comparison, folder: Path, console: Console) -> None:
    write_json(folder / "results.json", results.to_json())
    write_parquet([run.to_json() for run in results.runs], folder / "results.parquet")
    write_report(results, folder / "report.html")
    config = results.config
    for task in config.tasks:
        title = f"{task}: {config.seeds} seeds, {config.budget:g} {config.match} each"
        console.print(terminal_table(title, *table(results, task, wide=False), ["verdict"]))
    for line in summary_sentences(results):
        console.print(line, markup=False, highlight=False)
    console.print(f"Report: {folder / 'report.html'}   Figures: {folder / 'results.json'}, {folder / 'results.parquet'}")


def _run_all(
    config: CompareConfig,
    specs: dict[str, ArmSpec],
    folder: str,
    jobs: int,
    console: Console,
    title: str,
    on_finished: Callable[[str], None] = lambda _: None,
) -> RunResults:
    values = {name: spec.to_json() for name, spec in specs.items()}
    return run_all(values, config.output_dir / folder, MODULE, jobs, config.threads, console, title, on_finished)


def _measure_rates(config: CompareConfig, jobs: int, console: Console) -> dict[str, StepRates]:
    """Seconds of a step by "task/arm", with as many parallel runs as later. Raises HeadwayError if an arm fails."""
    specs = {spec.name: spec for spec in timing_specs(config)}
    finished = _run_all(config, specs, "rates", jobs, console, "timing steps")
    if finished.failures:
        raise HeadwayError(f"A step cannot be timed: {finished.first_failure}")
    for name in specs:
        _delete_models(config.output_dir / "rates" / name)
    return {f"{spec.task}/{spec.arm}": StepRates(**finished.results[name]) for name, spec in specs.items()}


def _measure_speed(config: CompareConfig, specs: list[ArmSpec]) -> dict[str, dict[str, SpeedResult]]:
    """Decoding speed by task and arm, measured in sequence. Arms without heads are left out."""
    torch.set_num_threads(config.threads)
    speeds: dict[str, dict[str, SpeedResult]] = {task: {} for task in config.tasks}
    for spec in specs:
        model, tokenizer = load_model_and_tokenizer(str(config.output_dir / "runs" / spec.name / MODEL))
        if not model.count:
            continue
        if spec.scored.generation_config == "none":
            keep_special_tokens(model.trunk)
        examples = load_examples(spec.scored.test or spec.scored.data, "test", config.speed_prompts)
        tokens = (prompt_tokens(example, tokenizer, MAX_PROMPT_TOKENS)[:MAX_PROMPT_TOKENS] for example in examples)
        prompts = [ids for ids in tokens if ids]
        speeds[spec.task][spec.arm] = measure_speed(model, prompts, min(MAX_NEW_TOKENS, spec.scored.max_new_tokens))
    return speeds


def _delete_models(folder: Path) -> None:
    for name in (MODEL, HEADS):
        shutil.rmtree(folder / name, ignore_errors=True)
