"""transformers' own `generate(use_mtp=True)` with the sequential heads of a model, for timing beside Headway.

transformers reads the heads from the trunk's checkpoint in every call. Here the heads come from memory: only decoding is timed.
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
    """The sequential heads of the model as transformers' MTP module.

    Raises:
        UnsupportedModelError: transformers has no module for the heads.
    """
    heads = model.heads
    if not isinstance(heads, SequentialHeads) or len(heads.layers) < heads.count:
        raise UnsupportedModelError("Only sequential heads with a layer each decode through transformers' use_mtp.")
    with _mtp_config(model):
        native = MtpModel(model.trunk, heads.count).eval()
    keys = native.load_state_dict(heads.state_dict(), strict=False)
    if mismatched := [name for name in keys.missing_keys if name.startswith("layers.")] + keys.unexpected_keys:
        raise UnsupportedModelError(f"transformers' MTP layers and these heads do not match: {', '.join(mismatched[:3])}.")
    return native.to(model.device, model.trunk.dtype)


@contextmanager
def decoding_with(native: Any, model: HeadwayModel) -> Iterator[None]:
    """Make the trunk's `generate(use_mtp=True)` draft with the native heads inside the context."""
    with _mtp_config(model), temporarily(MtpModel, from_pretrained=lambda *args, **kwargs: native):
        yield


def _mtp_config(model: HeadwayModel) -> AbstractContextManager[Any]:
    """Declare the number of heads in the trunk's configuration inside the context."""
    return with_mtp_layer_config(model.view.config, model.count)
