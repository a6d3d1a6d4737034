"""Headway teaches a pretrained language model to predict several tokens at once, and decodes faster with these predictions."""

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headway.errors import HeadwayError

if TYPE_CHECKING:
    from headway.model import HeadwayModel

__version__ = "0.1.0"
__all__ = ["HeadwayError", "HeadwayModel", "embedded_path", "model_path"]


def embedded_path() -> Path:
    """Folder of the embedded model: a small model with heads inside the package."""
    return Path(__file__).parent / "embedded"


def model_path(name: str | Path) -> str:
    """Folder or hub id of a model, with the name `embedded` replaced by the folder of the embedded model."""
    return str(embedded_path() if str(name) == "embedded" else name)


def __getattr__(name: str) -> Any:
    # torch and transformers take seconds to import, so the import waits for the first use
    if name == "HeadwayModel":
        return import_module("headway.model.headway_model").HeadwayModel
    raise AttributeError(f"module 'headway' has no attribute {name!r}")
