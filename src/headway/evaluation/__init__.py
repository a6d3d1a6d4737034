"""Scores, losses, speed, and the intervals that say what is more than chance."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from headway.evaluation.configs import BenchConfig, EvalConfig

if TYPE_CHECKING:
    from headway.evaluation.tasks.lm_eval_model import HeadwayLM

__all__ = ["BenchConfig", "EvalConfig", "HeadwayLM", "evaluate"]


def evaluate(config: EvalConfig) -> dict[str, Any]:
    """Score a model on a task; see `headway.evaluation.run`."""
    from headway.evaluation.run import score  # torch and transformers take seconds to import

    return score(config)


def __getattr__(name: str) -> Any:
    if name == "HeadwayLM":
        return import_module("headway.evaluation.tasks.lm_eval_model").HeadwayLM
    raise AttributeError(f"module 'headway.evaluation' has no attribute {name!r}")
