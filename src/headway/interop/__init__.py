"""Heads in the formats of other software."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from headway.interop.formats import FORMATS, Format, export, import_
    from headway.interop.recognition import recognise
    from headway.interop.report import ConversionReport, TensorOutcome

__all__ = ["FORMATS", "ConversionReport", "Format", "TensorOutcome", "export", "import_", "recognise"]
HOMES = {"ConversionReport": "report", "TensorOutcome": "report", "recognise": "recognition"}


def __getattr__(name: str) -> Any:
    # torch and transformers take seconds to import: recognising a layout needs neither
    if name in __all__:
        return getattr(import_module(f"headway.interop.{HOMES.get(name, 'formats')}"), name)
    raise AttributeError(f"module 'headway.interop' has no attribute {name!r}")
