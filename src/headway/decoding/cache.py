"""A cache in which each row stands at its own length: row r keeps its token at position p in slot p.

Rejected drafts need no clean-up: the next forward overwrites their slots, and until then no query stands far enough to
see them, because a query at position i sees the slots 0..i only.
"""

from typing import Any

import torch
from torch import Tensor
from transformers import Cache


class RaggedCache(Cache):
    """Fixed buffers by layer index, allocated when a layer first writes; heads use indices after the trunk's.

    Args:
        capacity: slots of a row; slot `capacity` itself takes what padding writes, and nobody reads it.
    """

    def __init__(self, capacity: int) -> None:
        super().__init__(layers=[])
        self.capacity = capacity
        self._buffers: dict[int, tuple[Tensor, Tensor]] = {}  # each (batch, slots, heads, width)
        self._slots: Tensor | None = None
        self._visible = 0

    def begin(self, positions: Tensor, visible: int) -> None:
        """Before each forward: where its tokens go, and how many slots it may look at.

        Args:
            positions: (batch, seq); negative ones are padding.
            visible: slots that attention gets to see: those below it.
        """
        if visible > self.capacity:
            raise ValueError(f"The cache has {self.capacity} slots, fewer than the {visible} asked for.")
        self._slots = torch.where(positions < 0, self.capacity, positions)
        self._visible = visible

    def update(self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Write (batch, heads, seq, width) into the slots of this forward; return the visible ones."""
        if self._slots is None:
            raise RuntimeError("begin() says where tokens go, and has to come before a forward.")
        if layer_idx not in self._buffers:
            self._buffers[layer_idx] = (self._allocate(key_states), self._allocate(value_states))
        keys, values = self._buffers[layer_idx]
        row = torch.arange(keys.shape[0], device=keys.device)[:, None]
        keys[row, self._slots] = key_states.transpose(1, 2)
        values[row, self._slots] = value_states.transpose(1, 2)
        return keys[:, : self._visible].transpose(1, 2), values[:, : self._visible].transpose(1, 2)

    def _allocate(self, states: Tensor) -> Tensor:
        batch, heads, _, width = states.shape
        return states.new_zeros(batch, self.capacity + 1, heads, width)

    def select(self, rows: Tensor) -> None:
        """Keep these rows only."""
        self._buffers = {index: (keys[rows], values[rows]) for index, (keys, values) in self._buffers.items()}
        self._slots = None

    def get_seq_length(self, layer_idx: int = 0) -> int:
        return self._visible

    def get_mask_sizes(self, query_length: int, layer_idx: int) -> tuple[int, int]:
        return self._visible, 0

    def get_max_length(self, layer_idx: int | None = None) -> int:
        return self.capacity

    @property
    def is_compileable(self) -> bool:
        return False

    def __len__(self) -> int:
        return len(self._buffers)
