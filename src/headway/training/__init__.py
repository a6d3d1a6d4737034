"""Training: one loop for all stages. `configs` is light; the verbs load torch and transformers when first asked for."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from headway.training.distilling import distill
    from headway.training.finetuning import finetune
    from headway.training.heads import train_heads
    from headway.training.pretraining import pretrain

_HOMES = {"pretrain": "pretraining", "distill": "distilling", "train_heads": "heads", "finetune": "finetuning"}

__all__ = ["distill", "finetune", "pretrain", "train_heads"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
