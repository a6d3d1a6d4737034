"""Objectives of training. An objective collates a batch, counts its labels and computes its loss.

`OBJECTIVES` names the objectives of `headway finetune`. Names and tables are read without torch; classes load when first used.
"""

from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING, Any

from headway.objectives.weights import HEAD_WEIGHTS, SCHEDULES

if TYPE_CHECKING:
    from headway.objectives.base import Batch, Loss, Objective, TokenObjective
    from headway.objectives.multi_token import MultiToken
    from headway.objectives.next_token import NextToken
    from headway.objectives.registers import Registers
    from headway.objectives.self_distillation import SelfDistillation
    from headway.objectives.with_heads import WithHeads

__all__ = [
    "HEAD_WEIGHTS",
    "OBJECTIVES",
    "SCHEDULES",
    "TRUNK_OBJECTIVES",
    "Batch",
    "Loss",
    "MultiToken",
    "NextToken",
    "Objective",
    "Registers",
    "SelfDistillation",
    "TokenObjective",
    "WithHeads",
]

_MODULES = {
    **dict.fromkeys(("Batch", "Loss", "Objective", "TokenObjective"), "base"),
    "MultiToken": "multi_token",
    "NextToken": "next_token",
    "Registers": "registers",
    "SelfDistillation": "self_distillation",
    "WithHeads": "with_heads",
}


def _build_from(module: str) -> Callable[..., "Objective"]:
    def build(*arguments: Any) -> "Objective":
        objective: Objective = import_module(f"{__name__}.{module}").build(*arguments)
        return objective

    return build


# name -> builder; arguments of a builder: settings (`headway.objectives.settings`), model, adapters of the trunk or None
OBJECTIVES: dict[str, Callable[..., "Objective"]] = {
    "multi-token": _build_from("multi_token"),
    "next-token": _build_from("next_token"),
    "distillation": _build_from("self_distillation"),
    "registers": _build_from("registers"),
}
TRUNK_OBJECTIVES = ("next-token", "registers")  # need no heads, and a trunk that learns


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
