"""4-D attention masks from positions, segments and prefixes."""

from collections.abc import Sequence

import torch
from torch import Tensor

from headway.errors import UnsupportedModelError

Masks = Tensor | dict[str, Tensor] | None  # (batch, 1, queries, keys), or by layer type; None: the trunk's own causal attention
FULL, SLIDING = "full_attention", "sliding_attention"  # layer types that masks can describe


def visible_keys(
    query_positions: Tensor,
    key_positions: Tensor,
    query_segments: Tensor | None = None,
    key_segments: Tensor | None = None,
    allowed: Tensor | None = None,
    prefix: Tensor | None = None,
    window: int | None = None,
) -> tuple[Tensor, Tensor]:
    """Keys that a query attends to in full and in sliding attention, two bool tensors (batch, queries, keys).

    A query attends to keys of the query's segment at or before the query's position. A query without a visible key (padding)
    attends to the first key: softmax over no key is NaN.

    Args:
        query_positions: (batch, queries).
        key_positions: (batch, keys), -1 for a key that is hidden from all queries.
        query_segments: (batch, queries); default: a row is a segment.
        key_segments: (batch, keys).
        allowed: bool, (batch, queries, keys); false hides a key.
        prefix: bool, (batch, seq), for queries and keys of the same tokens: prefix tokens attend to the whole prefix.
        window: of sliding attention, in positions; None: no limit.
    """
    distance = query_positions[:, :, None] - key_positions[:, None, :]  # (batch, queries, keys)
    visible = distance >= 0
    if prefix is not None:
        visible |= prefix[:, :, None] & prefix[:, None, :]
    visible &= key_positions[:, None, :] >= 0
    if query_segments is not None and key_segments is not None:
        visible &= query_segments[:, :, None] == key_segments[:, None, :]
    if allowed is not None:
        visible &= allowed
    full = _first_key_if_none(visible)
    return full, full if window is None else _first_key_if_none(visible & (distance.abs() < window))


def causally_visible_keys(positions: Tensor, kv_length: int, window: int | None = None) -> tuple[Tensor, Tensor]:
    """`visible_keys` of keys at positions 0 to kv_length - 1, in fewer operations.

    Args:
        positions: of the queries, (batch, queries); negative for padding: padding attends to the first key.
        kv_length: number of keys.
        window: of sliding attention, in positions; None: no limit.
    """
    queries, keys = positions.clamp(min=0)[..., None], torch.arange(kv_length, device=positions.device)
    visible = keys <= queries
    return visible, visible if window is None else visible & (keys > queries - window)


def as_masks(
    visible: Tensor, near: Tensor, layer_types: Sequence[str] | None, additive: torch.dtype | None, model: str
) -> Tensor | dict[str, Tensor]:
    """Masks for a trunk: (batch, 1, queries, keys), or a dict of masks by layer type.

    Args:
        visible: keys of full attention, bool, (batch, queries, keys).
        near: keys of sliding attention, bool, (batch, queries, keys).
        layer_types: of the trunk; None: all layers have the mask of `near`.
        additive: dtype of masks that are added to the scores; None: boolean masks.
        model: name of the trunk, for the error.
    Raises: UnsupportedModelError for a layer type that masks cannot describe.
    """
    if not layer_types:
        return _as_mask(near, additive)
    by_type = {FULL: visible, SLIDING: near}
    if unknown := set(layer_types) - set(by_type):
        raise UnsupportedModelError(f"{model} has layers of type {', '.join(sorted(unknown))}, which cannot be masked.")
    return {kind: _as_mask(by_type[kind], additive) for kind in sorted(set(layer_types))}


def _as_mask(visible: Tensor, additive: torch.dtype | None) -> Tensor:
    visible = visible.unsqueeze(1)
    if additive is None:
        return visible
    return torch.where(visible, 0.0, torch.finfo(additive).min).to(additive)


def _first_key_if_none(visible: Tensor) -> Tensor:
    first = torch.arange(visible.shape[-1], device=visible.device) == 0
    return visible | (~visible.any(-1, keepdim=True) & first)
