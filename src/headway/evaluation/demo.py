"""`headway demo`: does looking ahead help this model on this task, and how much faster does it get? Answered in minutes.

The embedded model learns generated word problems that it has never seen, three ways: towards the next token only, and towards
several with one and with two heads. Each seed gives all arms the same data in the same order; differences are paired by seed.
"""

import dataclasses
import json
import random
import time
from pathlib import Path
from statistics import mean
from typing import Any

import torch
from rich import box
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from headway import model_path
from headway.data import word_problems
from headway.evaluation.configs import DemoConfig
from headway.evaluation.exact_match import exact_match
from headway.evaluation.paired import paired_interval
from headway.evaluation.report import write_report
from headway.evaluation.scoring import figures, held_out_on, load
from headway.evaluation.speed import speed
from headway.files import write_json, write_text
from headway.training import finetune
from headway.training.configs import FinetuneConfig

ARMS = {"next-token": 0, "1 head": 1, "2 heads": 2}
BASELINE = "next-token"


def run(config: DemoConfig) -> dict[str, Any]:
    """Train and score every arm and seed, decode, and write `results.json` and `report.html` in `config.out`.

    Runs that an earlier call with the same settings finished are kept.
    Raises: as `finetune`; HeadwayError where `config.out` cannot be written.
    """
    console = Console()
    started = time.perf_counter()
    model = model_path(config.model)
    test = word_problems("test", config.test_examples, config.level, seed=1)
    console.print(f"Word problems of level {config.level}, such as:\n  [dim]{test[0]['prompt']}{test[0]['completion']}[/dim]")
    before = _score(model, test, count=2)
    runs: list[dict[str, Any]] = []
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.completed}/{task.total} runs"))
    with Progress(*columns, TimeElapsedColumn(), TimeRemainingColumn(), console=console, transient=True) as progress:
        task = progress.add_task("fine-tuning", total=len(ARMS) * config.seeds)
        for index in range(config.seeds):
            for arm, heads in ARMS.items():
                progress.update(task, description=f"{arm}, seed {config.seed + index}")
                runs.append(_arm(config, model, test, arm, heads, config.seed + index))
                progress.advance(task)
    speeds = _speeds(config, test)
    results = {
        "task": f"word problems, level {config.level}",
        "settings": {k: str(v) if isinstance(v, Path) else v for k, v in dataclasses.asdict(config).items()},
        "threads": torch.get_num_threads(),
        "before": before,
        "runs": runs,
        "comparison": compare(runs),
        "speed": speeds,
        "seconds": time.perf_counter() - started,
    }
    write_json(config.out / "results.json", results)
    write_report(results, config.out / "report.html")
    console.print(_table(results))
    for line in _words(results):
        console.print(line)
    console.print(f"Plots and details: {config.out / 'report.html'}   Figures: {config.out / 'results.json'}")
    return results


def _arm(config: DemoConfig, model: str, test: list, arm: str, heads: int, seed: int) -> dict[str, Any]:
    """One run: fine-tune, score. A finished one is read back."""
    folder = config.out / "runs" / f"{arm.replace(' ', '-')}-{seed}"
    settings = json.loads(json.dumps({**dataclasses.asdict(config), "out": "", "seeds": 0, "seed": seed, "model": model}))
    done = folder / "result.json"
    if done.is_file() and (known := json.loads(done.read_text(encoding="utf-8")))["settings"] == settings:
        return known["result"]
    data = config.out / "data" / f"train-{seed}.jsonl"
    examples = word_problems("train", config.examples, config.level, seed=seed)
    random.Random(seed).shuffle(examples)
    write_text(data, "".join(json.dumps(example) + "\n" for example in examples))
    started = time.perf_counter()
    finetune(
        FinetuneConfig(
            model=model,
            data=str(data),
            out=folder / "model",
            count=heads or 2,  # the baseline keeps two heads, untouched, to see whether they still draft
            objective="multi-token" if heads else "next-token",
            total_weight=config.total_weight,
            max_steps=config.steps,
            batch_size=config.batch_size,
            length=config.length,
            learning_rate=config.learning_rate,
            heads_learning_rate=config.learning_rate,
            weight_schedule="constant",
            seed=seed,
            save_steps=config.steps,
            log_steps=5,
            resume=False,
            quiet=True,
        )
    )
    result = {
        "arm": arm,
        "heads": heads,
        "seed": seed,
        "seconds": time.perf_counter() - started,
        "curve": _curve(folder / "model"),
        **_score(str(folder / "model"), test),
    }
    write_json(done, {"settings": settings, "result": result})
    return result


def _score(folder: str, test: list, count: int | None = None) -> dict[str, Any]:
    model, tokenizer = load(folder)
    if count is not None and model.count > count:
        model.attach(folder, count)
    found = exact_match(model, tokenizer, test, max_new_tokens=48, batch_size=50, quiet=True)
    measured = held_out_on(model, tokenizer, test, 256, 16)
    return {
        "exact_match": found.strict,
        "loss": measured.losses[0],
        "head_losses": measured.losses[1:],
        "agreement": measured.agreement,
        "tokens_per_forward": found.tokens_per_forward,
        "acceptance": list(found.acceptance),
        "sample": found.answers[0].text,
    }


def _curve(folder: Path) -> list[list[float]]:
    """[step, training loss] from the log of the run."""
    log = json.loads((folder / "history.json").read_text(encoding="utf-8"))
    return [[entry["step"], entry["loss_1"]] for entry in log if "loss_1" in entry]


def _speeds(config: DemoConfig, test: list) -> dict[str, Any]:
    """Decoding with and without the heads, for the first seed of each arm."""
    found: dict[str, Any] = {}
    for arm in ARMS:
        model, tokenizer = load(str(config.out / "runs" / f"{arm.replace(' ', '-')}-{config.seed}" / "model"))
        prompts = [tokenizer(example["prompt"])["input_ids"] for example in test[:16]]
        found[arm] = figures(speed(model, prompts, max_new_tokens=48))
    return found


def compare(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Each multi-token arm against next-token, paired by seed, with 95 % intervals."""
    by_arm = {arm: sorted((r for r in runs if r["arm"] == arm), key=lambda r: r["seed"]) for arm in ARMS}
    found: dict[str, Any] = {}
    for arm in ARMS:
        if arm == BASELINE:
            continue
        found[arm] = {}
        for measure, higher in (("exact_match", True), ("loss", False)):
            interval = paired_interval([r[measure] for r in by_arm[arm]], [r[measure] for r in by_arm[BASELINE]])
            found[arm][measure] = {**dataclasses.asdict(interval), "verdict": interval.verdict(higher)}
    return found


def _table(results: dict[str, Any]) -> Table:
    settings = results["settings"]
    title = f"{results['task']}: {settings['seeds']} seeds, {settings['test_examples']} held-out problems"
    table = Table(title=title, box=box.SIMPLE_HEAD, padding=(0, 1))
    for name in ("arm", "solved", "vs next-token", "verdict", "tok/pass", "speed-up"):
        table.add_column(name, justify="left" if name in ("arm", "verdict") else "right", no_wrap=True)
    before = results["before"]
    table.add_row("untrained", f"{before['exact_match']:.1%}", "", "", f"{before['tokens_per_forward']:.2f}", "")
    for arm in ARMS:
        runs = [run for run in results["runs"] if run["arm"] == arm]
        timed = results["speed"][arm]
        row = [arm, f"{mean(run['exact_match'] for run in runs):.1%}"]
        if arm == BASELINE:
            row += ["", "baseline"]
        else:
            d = results["comparison"][arm]["exact_match"]
            unclear = d["low"] <= 0 <= d["high"]
            row.append(f"{100 * d['mean']:+.1f} [{100 * d['low']:+.1f}, {100 * d['high']:+.1f}]")
            row.append("unclear" if unclear else d["verdict"])
        row += [f"{mean(run['tokens_per_forward'] for run in runs):.2f}", f"{timed['ratio']:.2f}x"]
        table.add_row(*row)
    return table


def _words(results: dict[str, Any]) -> list[str]:
    lines = []
    for arm, found in results["comparison"].items():
        solved, loss = found["exact_match"], found["loss"]
        lines.append(
            f"Multi-token with {arm}: {solved['verdict']} in problems solved; held-out loss {loss['mean']:+.4f} "
            f"[{loss['low']:+.4f}, {loss['high']:+.4f}], {loss['verdict']}."
        )
    same = all(timed["identical"] for timed in results["speed"].values())
    lines.append(f"Intervals are at 95 %. Drafting changed {'no token' if same else 'THE OUTPUT'} of any answer.")
    spreads = ", ".join(f"{arm} {timed['ratio_min']:.2f}-{timed['ratio_max']:.2f}x" for arm, timed in results["speed"].items())
    threads = results["threads"]
    lines.append(f"Speed-up is over plain decoding of the same model, batch 1, {threads} thread(s); spread: {spreads}.")
    return lines
