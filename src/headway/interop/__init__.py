"""Heads as other software writes and reads them."""

from headway.interop.accounting import Account, Fate
from headway.interop.formats import FORMATS, Format, export, import_, inspect
from headway.interop.native_mtp import speaking_of_layers

__all__ = ["FORMATS", "Account", "Fate", "Format", "export", "import_", "inspect", "speaking_of_layers"]
