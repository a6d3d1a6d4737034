"""transformers' own `generate(use_mtp=True)` with a model's sequential heads, to be timed beside Headway.

transformers reads such heads from the trunk's checkpoint, again in each call. Here it gets them from memory: only decoding is
timed.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from transformers.modeling_layers import MtpModel

from headway.errors import UnsupportedModelError
from headway.heads import SequentialHeads
from headway.model import HeadwayModel
from headway.model.native_mtp.layer_config import with_mtp_layer_config
from headway.temporarily import temporarily


def native_heads(model: HeadwayModel) -> Any:
    """The model's sequential heads as transformers' module.

    Raises: UnsupportedModelError where transformers has no place for them.
    """
    heads = model.heads
    if not isinstance(heads, SequentialHeads) or len(heads.layers) < heads.count:
        raise UnsupportedModelError("Only sequential heads with a layer each decode through transformers' use_mtp.")
    with _as_mtp_model(model):
        native = MtpModel(model.trunk, heads.count).eval()
    own = native.load_state_dict(heads.state_dict(), strict=False)
    if lacking := [name for name in own.missing_keys if name.startswith("layers.")] + own.unexpected_keys:
        raise UnsupportedModelError(f"transformers' MTP layers and these heads do not match: {', '.join(lacking[:3])}.")
    return native.to(model.device, model.trunk.dtype)


@contextmanager
def decoding_with(native: Any, model: HeadwayModel) -> Iterator[None]:
    """Within, the trunk's `generate(use_mtp=True)` drafts with these heads."""
    with _as_mtp_model(model), temporarily(MtpModel, from_pretrained=lambda *args, **kwargs: native):
        yield


def _as_mtp_model(model: HeadwayModel) -> AbstractContextManager[Any]:
    """The trunk's configuration, within, says how many heads there are."""
    return with_mtp_layer_config(model.view.config, model.count)
