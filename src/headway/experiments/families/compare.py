"""`headway heads compare`: which head family drafts best on this trunk for the same data and budget, and what each costs."""

import dataclasses
import json
import shutil
import time
from typing import Any

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

import headway.config
from headway.errors import HeadwayError
from headway.experiments.compare.compare import write_parquet
from headway.experiments.compare.runs import folder_of
from headway.experiments.compare.worker import MODEL
from headway.experiments.families import summary
from headway.experiments.families.configs import HeadsCompareConfig
from headway.experiments.families.published import plain
from headway.experiments.families.report import write_report
from headway.experiments.families.runs import ALONE, TRUNK, entries, rates_of, specs_of
from headway.experiments.runner import execute
from headway.files import write_json

WORKER = "headway.experiments.families.worker"


def run(config: HeadsCompareConfig) -> dict[str, Any]:
    """Train and measure every family; write results.json, results.parquet, plots and report.html into `config.output_dir`.

    What an earlier call with the same settings finished is kept. A family that fails is shown as such and sinks no other.
    Raises: ConfigError for settings that cannot be; HeadwayError where the trunk cannot be measured, or every family failed.
    """
    console, started = Console(), time.perf_counter()
    families = entries(config)
    specs = specs_of(config)  # raises early
    config.output_dir.mkdir(parents=True, exist_ok=True)
    headway.config.save(config, config.output_dir / "heads-compare.yaml")
    failures: dict[str, str] = {}
    if config.max_seconds is not None:
        steps, failures = _steps(config, config.max_seconds, console)
        kept = [entry for entry in families if entry.label in steps]
        if not kept:
            raise HeadwayError(f"Every family failed; the first: {next(iter(failures.values()))}")
        specs = specs_of(dataclasses.replace(config, families=_given(config, [entry.label for entry in kept])), steps)
    console.print(
        f"{summary.counted(len(families), 'family', 'families')}, {summary.counted(config.seeds, 'seed')}, {config.jobs} at a time."
    )

    def tidy(name: str) -> None:
        for checkpoint in (config.output_dir / "runs" / name).glob(f"{MODEL}/checkpoint-*"):
            shutil.rmtree(checkpoint)
        if specs[name]["seed"] != config.seed:
            shutil.rmtree(config.output_dir / "runs" / name / MODEL, ignore_errors=True)

    done = execute(specs, config.output_dir / "runs", config.jobs, config.threads, console, "families", tidy, WORKER)
    trunk = done.results.pop(folder_of(TRUNK, config.seed), None)
    if trunk is None:
        raise HeadwayError(f"The trunk cannot be measured: {next(iter(done.failures.values()))}")
    runs = [run for run in done.results.values() if run["label"] != ALONE]
    if not runs:
        raise HeadwayError(f"Every family failed; the first: {next(iter(done.failures.values()))}")
    failures |= {f"{specs[name]['label']}, seed {specs[name]['seed']}": reason for name, reason in done.failures.items()}
    results: dict[str, Any] = {
        "title": "Head families compared",
        "settings": json.loads(json.dumps(dataclasses.asdict(config), default=str)),
        "families": [entry.label for entry in families],
        "temperatures": [f"{temperature:g}" for temperature in config.temperatures],
        "trunk": trunk,
        "alone": [run for run in done.results.values() if run["label"] == ALONE],
        "runs": runs,
        "failures": failures,
        "published": plain(),
        "seconds": time.perf_counter() - started,
    }
    write_json(config.output_dir / "results.json", results)
    write_parquet(flat(results), config.output_dir / "results.parquet")
    write_report(results, config.output_dir / "report.html")
    _show(results, console)
    report, *figures = (config.output_dir / name for name in ("report.html", "results.json", "results.parquet"))
    console.print(f"Report: {report}   Figures: {figures[0]}, {figures[1]}")
    return results


def flat(results: dict[str, Any]) -> list[dict[str, Any]]:
    """A row a run and temperature; figures of decoding named by their way."""
    rows = []
    for run in results["runs"]:
        shared = {name: value for name, value in run.items() if name not in ("decoding", "trained")}
        shared |= {"trunk_loss_before": results["trunk"]["trunk_loss"], **run["trained"]}
        for temperature, ways in run["decoding"].items():
            named = {f"{way}_{name}": value for way, found in ways.items() for name, value in found.items()}
            rows.append({**shared, "temperature": float(temperature), **named})
    return rows


def _steps(config: HeadsCompareConfig, seconds: float, console: Console) -> tuple[dict[str, int], dict[str, str]]:
    """By label, the steps that each family takes in so many seconds; and why others could not be timed."""
    specs = rates_of(config)
    done = execute(specs, config.output_dir / "rates", config.jobs, config.threads, console, "timing steps", module=WORKER)
    for name in specs:
        shutil.rmtree(config.output_dir / "rates" / name / MODEL, ignore_errors=True)
    failures = {specs[name]["label"]: reason for name, reason in done.failures.items()}
    return {one["label"]: max(1, int(seconds / one["rate"])) for one in done.results.values()}, failures


def _given(config: HeadsCompareConfig, labels: list[str]) -> list[str | dict[str, Any]]:
    """The families of these labels as the settings give them."""
    given = config.families or [entry.family for entry in entries(config)]
    return [one for one, entry in zip(given, entries(config), strict=True) if entry.label in labels]


def _show(results: dict[str, Any], console: Console) -> None:
    tables = {"What it takes": summary.cost(results, wide=False), "Held-out text": summary.held_out(results, wide=False)}
    for temperature in results["temperatures"]:
        how = "greedy" if temperature == "0" else f"temperature {temperature}"
        tables[f"Decoding, {how}"] = summary.decoding(results, temperature, wide=False)
    for title, (headings, rows) in tables.items():
        drawn = Table(title=title, box=box.SIMPLE_HEAD, padding=(0, 1), pad_edge=False, title_justify="left")
        for name in headings:
            drawn.add_column(name, justify="left" if name == "family" else "right", no_wrap=name != "family")
        for row in rows:
            drawn.add_row(*map(escape, row))
        console.print(drawn)
    for name, reason in results["failures"].items():
        console.print(f"{name} failed: {reason}", markup=False, highlight=False)
    for line in (*summary.words(results), *summary.notes(results)):
        console.print(line, markup=False, highlight=False)
