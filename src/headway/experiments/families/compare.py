"""`headway heads compare`: train every head family on one trunk with equal data and budget, and compare drafts, speed and cost."""

import dataclasses
import shutil
import time
from collections.abc import Callable
from typing import Any

from rich.console import Console

import headway.config
from headway.errors import HeadwayError
from headway.experiments.families import summary
from headway.experiments.families.configs import HeadsCompareConfig
from headway.experiments.families.report import write_report
from headway.experiments.families.results import FamiliesComparison, FamilyResult
from headway.experiments.families.specs import ALONE, TRUNK, FamilySpec, entries, family_specs, timing_specs
from headway.experiments.families.training import MODEL
from headway.experiments.output import terminal_table, write_parquet
from headway.experiments.runner import RunResults, folder_name, require_results, run_all
from headway.files import write_json

MODULE = "headway.experiments.families.training"


def run(config: HeadsCompareConfig) -> FamiliesComparison:
    """Train and measure every family; write results.json, results.parquet, plots and report.html into `config.output_dir`.

    Results of an earlier call with the same settings are kept. A failed family is reported and left out.

    Raises:
        ConfigError: settings are contradictory.
        HeadwayError: the trunk cannot be measured, or every family failed.
    """
    console, started = Console(), time.perf_counter()
    labels = [entry.label for entry in entries(config)]
    specs = family_specs(config)  # raises early
    config.output_dir.mkdir(parents=True, exist_ok=True)
    headway.config.save(config, config.output_dir / "heads-compare.yaml")
    failures: dict[str, str] = {}
    if config.max_seconds is not None:
        steps, failures = _steps_in(config.max_seconds, config, console)
        timed = [label for label in labels if label in steps]
        require_results(timed, failures)
        specs = family_specs(dataclasses.replace(config, families=_entries_of(config, timed)), steps)
    families, seeds = summary.counted(len(labels), "family", "families"), summary.counted(config.seeds, "seed")
    console.print(f"{families}, {seeds}, {config.jobs} in parallel.")
    by_name = {spec.name: spec for spec in specs}

    def delete_surplus(name: str) -> None:
        folder = config.output_dir / "runs" / name / MODEL
        for checkpoint in folder.glob("checkpoint-*"):
            shutil.rmtree(checkpoint)
        if by_name[name].seed != config.seed:
            shutil.rmtree(folder, ignore_errors=True)

    finished = _run_all(config, by_name, "runs", console, "families", delete_surplus)
    trunk = finished.results.pop(folder_name(TRUNK, config.seed), None)
    if trunk is None:
        raise HeadwayError(f"The trunk cannot be measured: {finished.first_failure}")
    everything = [FamilyResult.from_json(values) for values in finished.results.values()]
    runs = [run for run in everything if run.arm != ALONE]
    require_results(runs, finished.failures)
    failures |= {f"{by_name[name].label}, seed {by_name[name].seed}": reason for name, reason in finished.failures.items()}
    results = FamiliesComparison(
        title="Head families compared",
        config=config,
        families=labels,
        temperatures=[f"{temperature:g}" for temperature in config.temperatures],
        trunk=FamilyResult.from_json(trunk),
        alone=[run for run in everything if run.arm == ALONE],
        runs=runs,
        failures=failures,
        seconds=time.perf_counter() - started,
    )
    write_json(config.output_dir / "results.json", results.to_json())
    write_parquet(results.table_rows(), config.output_dir / "results.parquet")
    write_report(results, config.output_dir / "report.html")
    _print(results, console)
    report, *files = (config.output_dir / name for name in ("report.html", "results.json", "results.parquet"))
    console.print(f"Report: {report}   Figures: {files[0]}, {files[1]}")
    return results


def _run_all(
    config: HeadsCompareConfig,
    specs: dict[str, FamilySpec],
    folder: str,
    console: Console,
    title: str,
    on_finished: Callable[[str], None] = lambda _: None,
) -> RunResults:
    values = {name: spec.to_json() for name, spec in specs.items()}
    return run_all(values, config.output_dir / folder, MODULE, config.jobs, config.threads, console, title, on_finished)


def _steps_in(seconds: float, config: HeadsCompareConfig, console: Console) -> tuple[dict[str, int], dict[str, str]]:
    """Number of training steps in `seconds`, by label; and the failure reason of labels that cannot be timed."""
    specs = {spec.name: spec for spec in timing_specs(config)}
    finished = _run_all(config, specs, "rates", console, "timing steps")
    for name in specs:
        shutil.rmtree(config.output_dir / "rates" / name / MODEL, ignore_errors=True)
    failures = {specs[name].label: reason for name, reason in finished.failures.items()}
    return {result["label"]: max(1, int(seconds / result["step_seconds"])) for result in finished.results.values()}, failures


def _entries_of(config: HeadsCompareConfig, labels: list[str]) -> list[str | dict[str, Any]]:
    """Entries of `families` with the given labels."""
    given = config.families or [entry.family for entry in entries(config)]
    return [family for family, entry in zip(given, entries(config), strict=True) if entry.label in labels]


def _print(results: FamiliesComparison, console: Console) -> None:
    tables = {
        "Cost": summary.cost_table(results, wide=False),
        "Held-out text": summary.held_out_table(results, wide=False),
    }
    for temperature in results.temperatures:
        how = "greedy" if temperature == "0" else f"temperature {temperature}"
        tables[f"Decoding, {how}"] = summary.decoding_table(results, temperature, wide=False)
    for title, (headings, rows) in tables.items():
        console.print(terminal_table(title, headings, rows))
    for name, reason in results.failures.items():
        console.print(f"{name} failed: {reason}", markup=False, highlight=False)
    for line in (*summary.summary_sentences(results), *summary.notes(results)):
        console.print(line, markup=False, highlight=False)
