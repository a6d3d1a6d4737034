"""The trunk: layers, norm, unembedding, masks, attention and quantisation of any `PreTrainedModel`."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from headway.trunk.adapter import ForwardContext, HiddenStates, Masks, StopAfterKVWrite, TrunkView, eval_mode, num_embeddings

__all__ = ["ForwardContext", "HiddenStates", "Masks", "StopAfterKVWrite", "TrunkView", "eval_mode", "num_embeddings"]


def __getattr__(name: str) -> Any:
    # torch and transformers take seconds to import; the names of quantisation schemes need neither
    if name in __all__:
        return getattr(import_module(f"{__name__}.adapter"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
