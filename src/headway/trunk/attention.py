"""Scaled dot-product attention for decoding, and for quantised activations.

**Decoding.** A few queries attend to a long cache. transformers' sdpa copies every key for all query heads of a group, in every
layer. The queries of a group can instead be packed into the sequence dimension of a single head (multi-query attention, Shazeer
2019, arXiv 1911.02150, section 3). Only masks are copied then.

**Quantised activations.** Quantised products are sums of integers and exact in any order. Attention in float32 is not: the last
bits of the sums depend on the batch. A changed last bit can round an activation to the next integer and move the logits by a
percent. Sums in float64 agree in all bits of a float32, and the output is batch-invariant.
"""

import functools
import threading
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
BOOLEAN_MASKS = ("sdpa", SDPA_FLOAT64)  # implementations with boolean masks, and causal attention for None
# replacement of an implementation while decoding; takes additive masks, and None (see `gqa_packed_sdpa`)
GQA_PACKED = {"sdpa": "gqa_packed_sdpa", SDPA_FLOAT64: "gqa_packed_sdpa_float64"}


def gqa_packed_sdpa(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Grouped-query attention without copies of the keys.

    Args:
        query: (batch, heads, queries, width).
        key, value: (batch, key-value heads, keys, width).
        attention_mask: (batch, 1 or heads, queries, keys), added to the scores. None means no mask: a single query attends to all
            keys; several queries are a whole sequence with causal attention.
    Returns: (batch, queries, heads, width), contiguous as from transformers' own sdpa.
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
        if attention_mask is not None and attention_mask.shape[1] > 1:  # a mask per head
            attention_mask = attention_mask.reshape(batch, key.shape[1], groups * queries, key.shape[2])
        elif attention_mask is not None and queries > 1:
            attention_mask = attention_mask.repeat(1, 1, groups, 1)
        packed = query.reshape(batch, key.shape[1], groups * queries, width)
        found = scaled_dot_product_attention(packed, key, value, attention_mask, scale=scaling)
        found = found.view(batch, heads, queries, found.shape[3])
    return found.transpose(1, 2).contiguous(), None


def _in_float64(attend: Callable[..., tuple[Tensor, None]]) -> Callable[..., tuple[Tensor, None]]:
    """`attend` in float64, with the result in the dtype of the query."""

    def attend_float64(
        module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **kwargs: Any
    ) -> tuple[Tensor, None]:
        if attention_mask is not None and attention_mask.is_floating_point():
            attention_mask = attention_mask.double()
        found, _ = attend(module, query.double(), key.double(), value.double(), attention_mask, **kwargs)
        return found.to(query.dtype), None

    return attend_float64


def additive_masks(*args: Any, dtype: torch.dtype = torch.float32, **kwargs: Any) -> Tensor | None:
    """Masks for `gqa_packed_sdpa`, if a listener runs the decoding model through transformers."""
    visible = sdpa_mask(*args, **kwargs)
    return None if visible is None else torch.zeros_like(visible, dtype=dtype).masked_fill_(~visible, torch.finfo(dtype).min)


class _Decoding(threading.local):
    """Number of nested `use_decode_attention` of this thread."""

    depth = 0


_decoding = _Decoding()
_switched: dict[int, list[Any]] = {}  # by id of a config: number of users, and the implementation to restore
_switch_lock = threading.Lock()


def _in_decoding_threads(attend: Callable[..., Any], otherwise: Callable[..., Any]) -> Callable[..., Any]:
    """`attend` in threads within `use_decode_attention`, `otherwise` in threads that use the same model at the same time."""

    @functools.wraps(attend)
    def dispatch(*args: Any, **kwargs: Any) -> Any:
        if torch.compiler.is_compiling() or _decoding.depth:  # Headway compiles only forwards of decoding
            return attend(*args, **kwargs)
        return otherwise(*args, **kwargs)

    return dispatch


@contextmanager
def use_decode_attention(config: Any) -> Iterator[None]:
    """Within, the model of this (text) config attends by `gqa_packed_sdpa` in place of sdpa.

    The implementation is a field of the config, shared by all threads. Another thread's forward of the model finds the changed
    field, and still computes transformers' own attention. The last of several users of a config restores the field.
    """
    with _switch_lock:
        if (entry := _switched.get(id(config))) is not None:
            entry[0] += 1
        elif config._attn_implementation in GQA_PACKED:
            _switched[id(config)] = entry = [1, config._attn_implementation]
            config._attn_implementation = GQA_PACKED[config._attn_implementation]
    _decoding.depth += 1
    try:
        yield
    finally:
        _decoding.depth -= 1
        if entry is not None:
            with _switch_lock:
                entry[0] -= 1
                if not entry[0]:
                    del _switched[id(config)]
                    config._attn_implementation = entry[1]


gqa_packed_sdpa_float64 = _in_float64(gqa_packed_sdpa)
sdpa_float64 = _in_float64(sdpa_attention_forward)

AttentionInterface.register(SDPA_FLOAT64, sdpa_float64)
AttentionMaskInterface.register(SDPA_FLOAT64, sdpa_mask)
AttentionInterface.register(GQA_PACKED["sdpa"], _in_decoding_threads(gqa_packed_sdpa, sdpa_attention_forward))
AttentionInterface.register(GQA_PACKED[SDPA_FLOAT64], _in_decoding_threads(gqa_packed_sdpa_float64, sdpa_float64))
for name in GQA_PACKED.values():
    AttentionMaskInterface.register(name, _in_decoding_threads(additive_masks, sdpa_mask))
