"""Scaled dot-product attention in double precision, for trunks whose activations are quantised.

Quantised products are sums of integers, exact in any order; what is left to depend on how many tokens go through together is
the attention, whose float32 sums differ in their last bits. A last bit is enough to round an activation to the next integer,
which moves the logits by a percent. In float64 the sums agree in all bits that float32 keeps.
"""

from typing import Any

from torch import Tensor, nn
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

SDPA_FLOAT64 = "sdpa_float64"
BOOLEAN_MASKS = ("sdpa", SDPA_FLOAT64)  # implementations that take masks of true and false, and None for plain causal


def attend(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **kwargs: Any
) -> tuple[Tensor, None]:
    """transformers' sdpa on (batch, heads, seq, width), computed in float64 and returned in the dtype of `query`."""
    found, _ = sdpa_attention_forward(module, query.double(), key.double(), value.double(), attention_mask, **kwargs)
    return found.to(query.dtype), None


AttentionInterface.register(SDPA_FLOAT64, attend)
AttentionMaskInterface.register(SDPA_FLOAT64, sdpa_mask)
