"""A ragged static cache: row r keeps the token at position p in slot p, however many tokens each row has accepted.

Rejected drafts need no clean-up: their slots are written again by the next step, and until then no mask shows them.
"""

from typing import Any

import torch
from torch import Tensor
from transformers import Cache


class RaggedCache(Cache):
    """Fixed buffers a layer, made when the layer first writes; heads' layers are entries behind the trunk's own."""

    def __init__(self, batch: int, capacity: int) -> None:
        super().__init__(layers=[])
        self.batch = batch
        self.capacity = capacity  # the slot behind the last one takes what nobody may see
        self.buffers: dict[int, tuple[Tensor, Tensor]] = {}
        self.slots = torch.zeros(batch, 0, dtype=torch.long)
        self.length = 0

    def place(self, positions: Tensor, length: int) -> Tensor:
        """Say where the next forward writes, (batch, tokens), and how many slots it sees.

        Returns: positions of the keys it sees, (batch, length).
        """
        self.slots = torch.where((positions < 0) | (positions >= self.capacity), self.capacity, positions)
        self.length = length
        return torch.arange(length, device=positions.device).expand(positions.shape[0], length)

    def update(self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Write keys and values, (batch, heads, tokens, width), and return all that can be seen."""
        if layer_idx not in self.buffers:
            shapes = [(self.batch, s.shape[1], self.capacity + 1, s.shape[3]) for s in (key_states, value_states)]
            self.buffers[layer_idx] = (key_states.new_zeros(shapes[0]), value_states.new_zeros(shapes[1]))
        keys, values = self.buffers[layer_idx]
        rows = torch.arange(self.batch, device=key_states.device)[:, None]
        keys[rows, :, self.slots] = key_states.transpose(1, 2)
        values[rows, :, self.slots] = value_states.transpose(1, 2)
        return keys[:, :, : self.length], values[:, :, : self.length]

    def select(self, rows: Tensor) -> None:
        """Keep only these rows, (kept,)."""
        self.batch = len(rows)
        self.buffers = {index: (keys[rows], values[rows]) for index, (keys, values) in self.buffers.items()}

    def get_seq_length(self, layer_idx: int = 0) -> int:
        return self.length

    def get_max_cache_shape(self, layer_idx: int = 0) -> int:
        return self.capacity
