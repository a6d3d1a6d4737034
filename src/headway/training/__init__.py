"""Training: one loop for all stages. Commands import torch and transformers when first used; `configs` imports neither."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from headway.training.stages.distill import distill
    from headway.training.stages.finetune import finetune
    from headway.training.stages.heads import train_heads
    from headway.training.stages.pretrain import pretrain

_HOMES = {"pretrain": "stages.pretrain", "distill": "stages.distill", "train_heads": "stages.heads", "finetune": "stages.finetune"}

__all__ = ["distill", "finetune", "pretrain", "train_heads"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
