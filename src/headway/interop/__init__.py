"""Heads as other software writes and reads them."""

from headway.interop.accounting import Account, Fate
from headway.interop.formats import FORMATS, Format, export, import_

__all__ = ["FORMATS", "Account", "Fate", "Format", "export", "import_"]
