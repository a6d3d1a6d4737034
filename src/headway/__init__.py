"""Headway teaches a pretrained language model to look several tokens ahead, and decodes faster with that foresight."""

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headway.errors import HeadwayError

if TYPE_CHECKING:
    from headway.model import HeadwayModel

__version__ = "0.1.0"
__all__ = ["HeadwayError", "HeadwayModel", "embedded_path", "model_path"]


def embedded_path() -> Path:
    """The folder of the small model, with heads, that ships inside the package."""
    return Path(__file__).parent / "embedded"


def model_path(name: str | Path) -> str:
    """Where a model is loaded from: `embedded` means the one that ships inside, all else is a folder or a hub id."""
    return str(embedded_path() if str(name) == "embedded" else name)


def __getattr__(name: str) -> Any:
    # torch and transformers take seconds to import: only those who use the model pay for them
    if name == "HeadwayModel":
        return import_module("headway.model.headway_model").HeadwayModel
    raise AttributeError(f"module 'headway' has no attribute {name!r}")
