"""Heads as other software writes and reads them."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from headway.interop.accounting import Account, Fate
    from headway.interop.formats import FORMATS, Format, export, import_
    from headway.interop.native_mtp import speaking_of_layers
    from headway.interop.recognition import recognise

__all__ = ["FORMATS", "Account", "Fate", "Format", "export", "import_", "recognise", "speaking_of_layers"]
HOMES = {"Account": "accounting", "Fate": "accounting", "recognise": "recognition", "speaking_of_layers": "native_mtp"}


def __getattr__(name: str) -> Any:
    # torch and transformers take seconds to import: recognising a layout needs neither
    if name in __all__:
        return getattr(import_module(f"headway.interop.{HOMES.get(name, 'formats')}"), name)
    raise AttributeError(f"module 'headway.interop' has no attribute {name!r}")
