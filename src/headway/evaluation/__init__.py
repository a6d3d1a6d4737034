"""Scores, losses and speed of models, with confidence intervals."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from headway.evaluation.configs import BenchConfig, EvalConfig

if TYPE_CHECKING:
    from headway.evaluation.results import TaskResult
    from headway.evaluation.tasks.lm_eval_model import HeadwayLM

__all__ = ["BenchConfig", "EvalConfig", "HeadwayLM", "evaluate"]


def evaluate(config: EvalConfig) -> "dict[str, TaskResult]":
    """Results of a model on a task or suite, by task. See `headway.evaluation.run`."""
    from headway.evaluation import run  # torch and transformers take seconds to import

    return run.evaluate(config)


def __getattr__(name: str) -> Any:
    if name == "HeadwayLM":
        return import_module("headway.evaluation.tasks.lm_eval_model").HeadwayLM
    raise AttributeError(f"module 'headway.evaluation' has no attribute {name!r}")
