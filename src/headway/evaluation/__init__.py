"""Scores, losses, speed, and the comparison that says whether looking ahead helped."""

from typing import Any

from headway.evaluation.configs import BenchConfig, DemoConfig, EvalConfig

__all__ = ["BenchConfig", "DemoConfig", "EvalConfig", "evaluate"]


def evaluate(config: EvalConfig) -> dict[str, Any]:
    """Score a model on a task; see `headway.evaluation.scoring`."""
    from headway.evaluation.scoring import score  # torch and transformers take seconds to import

    return score(config)
