"""`HeadwayModel`: a trunk with prediction heads; loading and saving."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from headway.model.headway_model import HeadwayModel, MTPOutput, has_heads, positions_of
    from headway.model.loading import (
        best_device,
        check_tokenizer_fits,
        load_model,
        load_model_and_tokenizer,
        load_tokenizer,
        load_trunk,
        named_dtype,
    )

__all__ = [
    "HeadwayModel",
    "MTPOutput",
    "best_device",
    "check_tokenizer_fits",
    "has_heads",
    "load_model",
    "load_model_and_tokenizer",
    "load_tokenizer",
    "load_trunk",
    "named_dtype",
    "positions_of",
]
_IN_HEADWAY_MODEL = ("HeadwayModel", "MTPOutput", "has_heads", "positions_of")


def __getattr__(name: str) -> Any:
    # torch and transformers take seconds to import; the names of MTP tensors need neither
    if name in __all__:
        return getattr(import_module(f"{__name__}.{'headway_model' if name in _IN_HEADWAY_MODEL else 'loading'}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
