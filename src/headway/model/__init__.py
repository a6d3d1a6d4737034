"""`HeadwayModel`: a trunk with prediction heads beside it; loading and saving."""

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
