"""Scaled dot-product attention where transformers' own is slow or not exact enough: while decoding, and for quantised activations.

**Decoding.** A few queries look at a long cache. transformers' sdpa copies every key once for each query head that shares it, in
each layer. Queries that share a key-value head can as well stand in line as if they were one head's (multi-query attention,
Shazeer 2019, arXiv 1911.02150, section 3): nothing is copied but their masks.

**Quantised activations.** Quantised products are sums of integers, exact in any order; what is left to depend on how many tokens
go through together is the attention, whose float32 sums differ in their last bits. A last bit is enough to round an activation to
the next integer, which moves the logits by a percent. In float64 the sums agree in all bits that float32 keeps.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

SDPA_FLOAT64 = "sdpa_float64"
BOOLEAN_MASKS = ("sdpa", SDPA_FLOAT64)  # implementations that take masks of true and false, and None for plain causal
# what stands in for an implementation while decoding; takes masks that are added, and None (see `gqa_packed_sdpa`)
GQA_PACKED = {"sdpa": "sdpa_in_line", SDPA_FLOAT64: "sdpa_in_line_float64"}


def gqa_packed_sdpa(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Without copies of the keys; query (batch, heads, queries, width), keys and values (batch, fewer heads, keys, width).

    Args:
        attention_mask: (batch, 1, queries, keys), added to the scores. None: a single query sees all keys, several are the
            whole text and see what stands before them.
    Returns: (batch, queries, heads, width).
    """
    if kwargs.get("position_bias") is not None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, scaling=scaling, **kwargs)
    batch, heads, queries, width = query.shape
    groups = heads // key.shape[1]
    whole = attention_mask is None and queries > 1
    if whole or groups == 1:
        found = scaled_dot_product_attention(
            query, key, value, attention_mask, is_causal=whole, scale=scaling, enable_gqa=groups > 1
        )
    else:
        if attention_mask is not None and queries > 1:
            attention_mask = attention_mask.repeat(1, 1, groups, 1)
        line = query.reshape(batch, key.shape[1], groups * queries, width)
        found = scaled_dot_product_attention(line, key, value, attention_mask, scale=scaling)
        found = found.view(batch, heads, queries, found.shape[3])
    return found.transpose(1, 2), None


def _in_float64(attend: Callable[..., tuple[Tensor, None]]) -> Callable[..., tuple[Tensor, None]]:
    """`attend`, computed in float64 and returned in the dtype of its query."""

    def attend_float64(
        module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **kwargs: Any
    ) -> tuple[Tensor, None]:
        if attention_mask is not None and attention_mask.is_floating_point():
            attention_mask = attention_mask.double()
        found, _ = attend(module, query.double(), key.double(), value.double(), attention_mask, **kwargs)
        return found.to(query.dtype), None

    return attend_float64


def masks_in_line(*args: Any, dtype: torch.dtype = torch.float32, **kwargs: Any) -> Tensor | None:
    """For `gqa_packed_sdpa`, where others run the model by transformers' ways while it decodes: a listener, another thread."""
    seen = sdpa_mask(*args, **kwargs)
    return None if seen is None else torch.zeros_like(seen, dtype=dtype).masked_fill_(~seen, torch.finfo(dtype).min)


@contextmanager
def decoding(config: Any) -> Iterator[None]:
    """Within, the model of this (text) config attends as `gqa_packed_sdpa`, if it did with sdpa."""
    before = config._attn_implementation
    if before not in GQA_PACKED:
        yield
        return
    config._attn_implementation = GQA_PACKED[before]
    try:
        yield
    finally:
        config._attn_implementation = before


attend_in_line_float64 = _in_float64(gqa_packed_sdpa)

AttentionInterface.register(SDPA_FLOAT64, _in_float64(sdpa_attention_forward))
AttentionMaskInterface.register(SDPA_FLOAT64, sdpa_mask)
AttentionInterface.register(GQA_PACKED["sdpa"], gqa_packed_sdpa)
AttentionInterface.register(GQA_PACKED[SDPA_FLOAT64], attend_in_line_float64)
for name in GQA_PACKED.values():
    AttentionMaskInterface.register(name, masks_in_line)
