"""pass@k of generated programs: drawn through the engine, run in the sandbox, every sample kept.

A run that is killed goes on where it was: finished problems stand in a file beside the results.
"""

import json
import os
import time
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, fields
from typing import Any

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from headway.decoding.requests import Request, before_stops, complete, drafter_of
from headway.errors import ConfigError
from headway.evaluation.benchmarks.speed import speed
from headway.evaluation.configs import REFERENCE, EvalConfig
from headway.evaluation.run import figures, load
from headway.evaluation.sandbox import Limits, run_program, strongest_isolation
from headway.evaluation.statistics.pass_at_k import mean_pass_at_k
from headway.evaluation.tasks.code_problems import CODE_TASKS, Problem, load_problems
from headway.files import write_json

SAVE_EVERY = 10.0  # seconds
# settings that change what is drawn or how it is judged
DECIDING = (
    *("model", "task", "data", "split", "shots", "max_new_tokens", "samples", "temperature", "top_p"),
    *("seed", "code_seconds", "code_memory"),
)


@dataclass(frozen=True)
class Sample:
    """A completion as it was judged. `reason` may quote the program: text not to be trusted."""

    completion: str
    passed: bool
    reason: str
    seconds: float  # of the program


def score(config: EvalConfig) -> dict[str, Any]:
    """Raises ConfigError unless code may run and can be contained, DataError for problems that cannot be used."""
    if not config.allow_code:
        raise ConfigError(
            f"{config.task} runs what the model wrote. Headway does that in a sandbox, and only if you say so: give --allow-code "
            "(docs/sandbox.md says what the sandbox protects against, and what not)."
        )
    isolation = strongest_isolation()
    task = CODE_TASKS[config.task]
    problems = load_problems(task, config.data, config.split, config.limit, config.shots)
    results: dict[str, Any] = {"model": config.model, "task": config.task, "data": config.data or task.source}
    results |= {"problems": len(problems), "samples": config.samples, "sandbox": isolation}
    decoding: dict[str, Any] = {}
    with Judge(config, problems) as judge:
        results["resumed"] = len(judge.kept)
        todo = [problem for problem in problems if problem.name not in judge.kept]
        if config.model == REFERENCE:
            for problem in todo:
                for number in range(config.samples):
                    judge.submit(problem, number, problem.reference)
        elif todo:
            decoding = _generate(config, problems, todo, judge)
    kept = [judge.kept[problem.name] for problem in problems]
    results |= mean_pass_at_k([(len(each), sum(sample.passed for sample in each)) for each in kept], config.pass_at)
    results |= decoding
    results["answers"] = [
        {"name": problem.name, "prompt": problem.prompt, "samples": [asdict(sample) for sample in each]}
        for problem, each in zip(problems, kept, strict=True)
    ]
    return results


def _generate(config: EvalConfig, problems: list[Problem], todo: list[Problem], judge: "Judge") -> dict[str, Any]:
    """Draw all samples of `todo`; each goes to the judge as it ends. What decoding took."""
    task = CODE_TASKS[config.task]
    model, tokenizer = load(config.model, config.dtype)
    settings: dict[str, Any] = {"max_new_tokens": config.max_new_tokens or task.max_new_tokens, "do_sample": False}
    if config.temperature:
        settings |= {"do_sample": True, "temperature": config.temperature, "top_p": config.top_p, "top_k": 0}
    # a sample's seed depends on its place in the data alone: what is resumed or cut short is drawn as it would have been
    places = {problem.name: place for place, problem in enumerate(problems)}
    wanted = [(problem, sample) for problem in todo for sample in range(config.samples)]
    encoded = {problem.name: tokenizer(problem.prompt, verbose=False)["input_ids"] for problem in todo}
    requests = [
        Request(encoded[problem.name], task.stops, settings, ((config.seed << 20) + places[problem.name] << 20) + sample)
        for problem, sample in wanted
    ]

    def done(number: int, tokens: list[int]) -> None:
        text = tokenizer.decode(tokens, skip_special_tokens=True)
        judge.submit(*wanted[number], before_stops(text, task.stops))

    began = time.monotonic()
    drafter = drafter_of(model, config.drafter, not config.speculative)
    stats = complete(model, tokenizer, requests, done, config.batch_size, drafter)
    found = {
        "tokens": stats.tokens,
        "tokens_per_forward": stats.tokens_per_forward,
        "acceptance": list(stats.acceptance),
        "seconds": time.monotonic() - began,
    }
    if config.speed and model.count and config.speculative:
        timed = [encoded[problem.name] for problem in todo[: config.speed_prompts]]
        found["speed"] = figures(speed(model, timed, min(64, settings["max_new_tokens"])))
    return found


class Judge:
    """Runs programs as they come, keeps the samples of finished problems, and writes them down beside `out`."""

    def __init__(self, config: EvalConfig, problems: list[Problem]) -> None:
        self.config, self.total = config, len(problems) * config.samples
        self.limits = Limits(seconds=config.code_seconds, wall_seconds=4 * config.code_seconds, memory=config.code_memory)
        self.file = config.unfinished
        self.settings = {name: getattr(config, name) for name in DECIDING}
        self.kept = self._read({problem.name for problem in problems})
        self.open: dict[str, dict[int, Sample]] = {}
        self.running: list[tuple[Problem, int, str, Future]] = []
        self.saved = time.monotonic()

    def __enter__(self) -> "Judge":
        self.pool = ThreadPoolExecutor(os.cpu_count() or 1)
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        self.progress = Progress(*columns, transient=True)
        self.progress.start()
        self.bar = self.progress.add_task("programs judged", total=self.total, completed=len(self.kept) * self.config.samples)
        return self

    def submit(self, problem: Problem, number: int, completion: str) -> None:
        """Sample `number` of a problem waits for its turn to be run."""
        future = self.pool.submit(
            run_program, problem.prefix + completion, problem.tests, list(problem.overridable_builtins), self.limits
        )
        self.running.append((problem, number, completion, future))
        self._collect(wait=False)

    def __exit__(self, *error: object) -> None:
        try:
            if error[0] is None:
                self._collect(wait=True)
        finally:
            self.pool.shutdown(cancel_futures=True)
            self.progress.stop()
            self._save()

    def _collect(self, wait: bool) -> None:
        left = []
        for problem, number, completion, future in self.running:
            if not (wait or future.done()):
                left.append((problem, number, completion, future))
                continue
            verdict = future.result()
            samples = self.open.setdefault(problem.name, {})
            samples[number] = Sample(completion, verdict.passed, verdict.reason, verdict.seconds)
            if len(samples) == self.config.samples:
                self.kept[problem.name] = [sample for _, sample in sorted(self.open.pop(problem.name).items())]
            self.progress.advance(self.bar)
            if time.monotonic() - self.saved > SAVE_EVERY:
                self._save()
        self.running = left

    def _save(self) -> None:
        self.saved = time.monotonic()
        if self.file is not None and self.kept:
            samples = {name: [asdict(sample) for sample in each] for name, each in self.kept.items()}
            write_json(self.file, {"settings": self.settings, "samples": samples})

    def _read(self, names: set[str]) -> dict[str, list[Sample]]:
        """What an earlier run with the same settings finished."""
        if self.file is None or not self.file.is_file():
            return {}
        found = json.loads(self.file.read_text(encoding="utf-8"))
        if found["settings"] != json.loads(json.dumps(self.settings)):
            different = [name for name in DECIDING if found["settings"].get(name) != self.settings[name]]
            raise ConfigError(
                f"{self.file} is an unfinished run with other settings ({', '.join(different)}). Repeat those to go on with it, "
                "remove the file, or choose another --output-file."
            )
        known = {item.name for item in fields(Sample)}
        return {
            name: [Sample(**{key: each[key] for key in known}) for each in samples]
            for name, samples in found["samples"].items()
            if name in names
        }
