"""`headway eval`: scores of a model on a task or suite."""

import warnings
from collections.abc import Mapping
from dataclasses import replace
from importlib import import_module
from typing import Any

from headway.evaluation.benchmarks.speed import measure_speed, timed_prompts
from headway.evaluation.configs import EvalConfig
from headway.evaluation.results import Scored, TaskResult, as_json
from headway.evaluation.tasks import TASKS, split_task
from headway.files import write_json


def evaluate(config: EvalConfig) -> dict[str, TaskResult]:
    """Results by task. With an output file, the scores are written before the speed is timed.

    Raises:
        CheckpointError: the model or the tokenizer cannot be loaded.
        DataError: the examples cannot be used, or none is left to score.
        ConfigError: a setting does not suit the task.
    """
    own, lm_eval = split_task(config.task)
    results: dict[str, TaskResult] = {}
    for name, module, settings in (
        *((name, TASKS[name].module, replace(config, task=name)) for name in own),
        *([("lm-eval", "lm_eval", config)] if lm_eval else []),
    ):
        scored: Scored = import_module(f"headway.evaluation.tasks.{module}").score(settings)
        results[name] = scored.result
        _save(config, results)
        results[name] = _with_speed(scored, settings)
    _save(config, results)
    for name in own:
        if (file := replace(config, task=name).partial_file) is not None:
            file.unlink(missing_ok=True)
    return results


def results_json(results: Mapping[str, TaskResult]) -> dict[str, Any]:
    """JSON form of the results: the keys of the only task, or a key a task."""
    values = as_json(dict(results))
    return dict(next(iter(values.values())) if len(values) == 1 else values)


def _with_speed(scored: Scored, config: EvalConfig) -> TaskResult:
    """The result, with the speed of the heads if timing succeeds."""
    prompts = timed_prompts(scored.prompts, config)
    if not (prompts and config.speculative and scored.model is not None and scored.model.count):
        return scored.result
    try:
        speed = measure_speed(scored.model, prompts, config.timed_tokens)
    except Exception as error:  # the scores took long and must not be lost, whatever goes wrong here
        warnings.warn(f"The speed was not measured: {type(error).__name__}: {error}", UserWarning, stacklevel=3)
        return scored.result
    return replace(scored.result, speed=speed)


def _save(config: EvalConfig, results: Mapping[str, TaskResult]) -> None:
    if config.output_file is not None:
        write_json(config.output_file, results_json(results))
