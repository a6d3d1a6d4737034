"""Drafters, a file per drafter, and the table of named drafters."""

from importlib import import_module
from typing import TYPE_CHECKING

from headway.config import nearest
from headway.errors import ConfigError

if TYPE_CHECKING:
    from headway.decoding.draftable import DraftableModel
    from headway.decoding.drafters.base import DrafterFactory

AUTOREGRESSIVE = "none"
# Name on every command line -> "module:function"; the function, called without arguments, returns the drafter's factory.
# None decodes autoregressively. Paths rather than functions, so that reading the names does not import torch.
DRAFTERS: dict[str, str | None] = {
    "heads": "headway.decoding.drafters.heads:heads_drafter",
    "ngram": "headway.decoding.drafters.ngram:ngram_drafter",
    AUTOREGRESSIVE: None,
}


def drafter_by_name(name: str, model: "DraftableModel", speculative: bool = True) -> "DrafterFactory | None":
    """Factory of a drafter with default settings; None decodes autoregressively.

    A model without heads decodes autoregressively if the drafter needs heads.

    Args:
        name: a name of `DRAFTERS`.
        speculative: False for None whatever the name.
    Raises: ConfigError for an unknown name.
    """
    if name not in DRAFTERS:
        raise ConfigError(f"There is no drafter {name!r}{nearest(name, DRAFTERS)}; there are: {', '.join(DRAFTERS)}.")
    path = DRAFTERS[name]
    if path is None or not speculative:
        return None
    module, function = path.split(":")
    factory: DrafterFactory = getattr(import_module(module), function)()
    return None if factory.needs_heads and model.heads is None else factory
