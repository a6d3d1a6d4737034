"""Heads as other software writes and reads them."""

from headway.interop.accounting import Account, Fate
from headway.interop.formats import FORMATS, Format, export, import_
from headway.interop.native_mtp import speaking_of_layers

__all__ = ["FORMATS", "Account", "Fate", "Format", "export", "import_", "speaking_of_layers"]
