"""pass@k of generated programs: sampled through the engine, run in the sandbox, with every sample in the result.

A killed run continues with the unfinished problems: the samples of finished problems are saved beside the output file.
"""

import json
import os
import time
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, fields, replace
from typing import Any, NamedTuple

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from headway.decoding import DecodeStats, Request, SamplingParams, complete
from headway.decoding.drafters import drafter_by_name
from headway.errors import ConfigError
from headway.evaluation.configs import REFERENCE, EvalConfig
from headway.evaluation.loading import load_evaluated
from headway.evaluation.results import INLINE, DecodingSummary, Scored, TaskResult, as_json
from headway.evaluation.sandbox import Isolation, Limits, Verdict, run_program, strongest_isolation
from headway.evaluation.statistics.pass_at_k import mean_pass_at_k
from headway.evaluation.tasks import TASKS
from headway.evaluation.tasks.code_problems import CODE_TASKS, Problem, load_problems
from headway.files import write_json
from headway.model import HeadwayModel

SAVE_EVERY = 10.0  # seconds
# settings that change the samples or their verdicts
DECISIVE = (
    *("model", "task", "data", "split", "shots", "max_new_tokens", "samples", "temperature", "top_p"),
    *("seed", "code_seconds", "code_memory", "generation_config"),
)


@dataclass(frozen=True)
class CodeSample:
    """A completion and the verdict. The program itself may have written `reason`: untrusted text."""

    completion: str
    passed: bool
    reason: str
    seconds: float  # run time of the program


@dataclass(frozen=True)
class CodeAnswer:
    """All samples of a problem."""

    name: str
    prompt: str
    samples: list[CodeSample]


@dataclass(frozen=True, kw_only=True)
class CodeResult(TaskResult):
    data: str
    problems: int
    samples: int  # of each problem
    sandbox: Isolation
    resumed: int  # problems finished by an earlier, killed run
    pass_at_k: dict[str, float] = field(metadata=INLINE)  # pass@k and pass@k_stderr for each k
    decoding: DecodingSummary | None = field(metadata=INLINE)
    answers: list[CodeAnswer]


def score(config: EvalConfig) -> Scored:
    """pass@k of the problems.

    Raises:
        ConfigError: generated code is not allowed, or nothing on this machine isolates a program.
        DataError: a problem cannot be used.
    """
    if not config.allow_code:
        raise ConfigError(
            f"{config.task} runs what the model wrote. Headway does that in a sandbox, and only if you say so: give --allow-code "
            "(docs/sandbox.md says what the sandbox protects against, and what not)."
        )
    isolation = strongest_isolation()
    source = config.data or TASKS[config.task].data
    problems = load_problems(CODE_TASKS[config.task], source, config.split, config.limit, config.shots)
    model, prompts, decoding = None, [], None
    with CodeScorer(config, problems) as scorer:
        resumed = len(scorer.finished)
        todo = [problem for problem in problems if problem.name not in scorer.finished]
        if config.model == REFERENCE:
            for problem in todo:
                for number in range(config.samples):
                    scorer.submit(problem, number, problem.reference)
        elif todo:
            model, tokenizer = load_evaluated(config, config.dtype)
            prompts = [tokenizer(problem.prompt, verbose=False)["input_ids"] for problem in todo]
            decoding = _generate(config, model, tokenizer, problems, todo, prompts, scorer)
    samples = [scorer.finished[problem.name] for problem in problems]
    counts = [(len(of_problem), sum(sample.passed for sample in of_problem)) for of_problem in samples]
    result = CodeResult(
        model=config.model,
        task=config.task,
        data=source,
        problems=len(problems),
        samples=config.samples,
        sandbox=isolation,
        resumed=resumed,
        pass_at_k=mean_pass_at_k(counts, config.pass_at),
        decoding=decoding,
        answers=[CodeAnswer(problem.name, problem.prompt, of) for problem, of in zip(problems, samples, strict=True)],
    )
    return Scored(result, model, prompts)


def _generate(
    config: EvalConfig,
    model: HeadwayModel,
    tokenizer: Any,
    problems: list[Problem],
    todo: list[Problem],
    prompts: list[list[int]],
    scorer: "CodeScorer",
) -> DecodingSummary | None:
    """Sample all programs of `todo`. A finished program goes to the scorer at once."""
    task = CODE_TASKS[config.task]
    sampling = SamplingParams(max_new_tokens=config.max_new_tokens or task.max_new_tokens, do_sample=False, stop_strings=task.stops)
    if config.temperature:
        sampling = replace(sampling, do_sample=True, temperature=config.temperature, top_p=config.top_p, top_k=0)
    # the seed of a sample depends only on its index in the data: resumed and shortened runs sample the same programs
    indices = {problem.name: index for index, problem in enumerate(problems)}
    requests = [
        Request(prompt, replace(sampling, seed=(config.seed << 20) + indices[problem.name] << 20), config.samples)
        for problem, prompt in zip(todo, prompts, strict=True)
    ]
    began = time.monotonic()
    drafter = drafter_by_name(config.drafter, model, config.speculative)
    stats = []
    for completion in complete(model, tokenizer, requests, drafter=drafter, max_batch_size=config.batch_size):
        scorer.submit(todo[completion.request_index], completion.sample_index, completion.text)
        stats.append(completion.stats)
    return DecodingSummary.of(DecodeStats.merge(stats), time.monotonic() - began)


class _Run(NamedTuple):
    """A program in the pool."""

    problem: Problem
    number: int
    completion: str
    verdict: Future[Verdict]


class CodeScorer:
    """Pool that runs arriving programs, collects the samples of finished problems, and saves the samples beside the output file."""

    def __init__(self, config: EvalConfig, problems: list[Problem]) -> None:
        self.config, self.total = config, len(problems) * config.samples
        self.limits = Limits(seconds=config.code_seconds, wall_seconds=4 * config.code_seconds, memory=config.code_memory)
        self.file = config.partial_file
        self.settings = {name: getattr(config, name) for name in DECISIVE}
        self.finished = self._read({problem.name for problem in problems})
        self.unfinished: dict[str, dict[int, CodeSample]] = {}
        self.running: list[_Run] = []
        self.saved = time.monotonic()

    def __enter__(self) -> "CodeScorer":
        self.pool = ThreadPoolExecutor(os.cpu_count() or 1)
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        self.progress = Progress(*columns, transient=True)
        self.progress.start()
        completed = len(self.finished) * self.config.samples
        self.bar = self.progress.add_task("programs scored", total=self.total, completed=completed)
        return self

    def submit(self, problem: Problem, number: int, completion: str) -> None:
        """Queue sample `number` of a problem."""
        program, overridable = problem.prefix + completion, list(problem.overridable_builtins)
        verdict = self.pool.submit(run_program, program, problem.tests, overridable, self.limits)
        self.running.append(_Run(problem, number, completion, verdict))
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
        still_running = []
        for run in self.running:
            if not (wait or run.verdict.done()):
                still_running.append(run)
                continue
            verdict = run.verdict.result()
            samples = self.unfinished.setdefault(run.problem.name, {})
            samples[run.number] = CodeSample(run.completion, verdict.passed, verdict.reason, verdict.seconds)
            if len(samples) == self.config.samples:
                ordered = sorted(self.unfinished.pop(run.problem.name).items())
                self.finished[run.problem.name] = [sample for _, sample in ordered]
            self.progress.advance(self.bar)
            if time.monotonic() - self.saved > SAVE_EVERY:
                self._save()
        self.running = still_running

    def _save(self) -> None:
        self.saved = time.monotonic()
        if self.file is not None and self.finished:
            write_json(self.file, {"settings": self.settings, "samples": as_json(self.finished)})

    def _read(self, names: set[str]) -> dict[str, list[CodeSample]]:
        """Samples of the problems that an earlier run with the same settings finished."""
        if self.file is None or not self.file.is_file():
            return {}
        content = json.loads(self.file.read_text(encoding="utf-8"))
        if content["settings"] != json.loads(json.dumps(self.settings)):
            different = [name for name in DECISIVE if content["settings"].get(name) != self.settings[name]]
            raise ConfigError(
                f"{self.file} is an unfinished run with other settings ({', '.join(different)}). Repeat those to go on with it, "
                "remove the file, or choose another --output-file."
            )
        keys = {item.name for item in fields(CodeSample)}
        return {
            name: [CodeSample(**{key: sample[key] for key in keys}) for sample in samples]
            for name, samples in content["samples"].items()
            if name in names
        }
