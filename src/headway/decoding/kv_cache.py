"""A KV cache with ragged rows: row r holds the token at position p in slot p, whatever the lengths of all rows.

Rejected drafts need no clean-up: the next forward overwrites their slots, and no query attends to the slots before.
"""

from typing import Any
from weakref import WeakKeyDictionary

import psutil
import torch
from torch import Tensor
from transformers import Cache, PreTrainedModel

from headway.errors import ConfigError
from headway.trunk import StopAfterKVWrite, TrunkView
from headway.trunk.attention import use_decode_attention

KV_BLOCK = 64  # slots are allocated, and read by compiled forwards, in multiples of this

Buffers = dict[int, tuple[Tensor, Tensor]]  # keys and values by layer, each (rows, heads, slots, width)

_slot_bytes: WeakKeyDictionary[PreTrainedModel, dict[torch.dtype, list[int]]] = WeakKeyDictionary()


def round_up_to_block(tokens: int) -> int:
    """The next multiple of `KV_BLOCK`."""
    return -(-tokens // KV_BLOCK) * KV_BLOCK


class RaggedKVCache(Cache):
    """Fixed buffers by layer index, allocated when a layer first writes; heads use indices after the trunk's.

    Args:
        rows: number of rows.
        capacity: number of slots per row. Slot `capacity` itself takes the writes of padding, and is never read.
        slot_bytes: bytes of a slot in all layers; used to predict a lack of memory.
    """

    def __init__(self, rows: int, capacity: int, slot_bytes: int = 0) -> None:
        super().__init__(layers=[])
        self.rows, self.capacity = rows, capacity
        self.slot_bytes = slot_bytes
        self.buffers: Buffers = {}
        # rows and slots of this forward, broadcastable to (batch, seq), or the first of contiguous slots that all rows write
        self._write_slots: tuple[Tensor, Tensor] | int | None = None
        self._flat: tuple[int, Tensor] | None = None  # of layers with so many heads, see `_flat_slots`
        self._span = (0, 0)
        self._kv_length = 0
        self._write_only = False

    @classmethod
    def from_buffers(cls, buffers: Buffers, slots: Tensor, kv_length: int) -> "RaggedKVCache":
        """A cache over existing buffers, with the write slots of a forward over all rows set.

        Compiled forwards read the slots from tensors: a change of slots needs no new compilation.
        """
        cache = cls(slots.shape[0], kv_length)
        cache.buffers = buffers
        cache.set_write_slots(slots, kv_length)
        return cache

    def set_write_slots(self, slots: Tensor, kv_length: int, first: int = 0, contiguous_start: int | None = None) -> None:
        """Set the slots that the next forward writes, and the number of slots that attention reads. Call before every forward.

        Args:
            slots: (batch, seq); negative slots are padding, written to the last slot.
            kv_length: attention reads the slots below this.
            first: the batch is the rows from this row on.
            contiguous_start: first slot, if all rows write the same contiguous slots; a faster write.
        Raises:
            ValueError: if the cache has fewer slots or rows.
        """
        batch = slots.shape[0]
        if kv_length > self.capacity or first + batch > self.rows:
            raise ValueError(
                f"The cache has {self.rows} rows of {self.capacity} slots, fewer than the {first + batch} of {kv_length} asked for."
            )
        if contiguous_start is None:
            rows = torch.arange(first, first + batch, device=slots.device)[:, None]
            self._write_slots = (rows, slots.clamp(min=-1))
        else:
            self._write_slots = contiguous_start
        self._span = (first, first + batch)
        self._kv_length = kv_length
        self._flat = None
        self._write_only = False

    def set_write_slots_only(self, rows: Tensor, slots: Tensor) -> None:
        """Set rows and slots, both (1, seq), that the next layers write; the layers raise StopAfterKVWrite and read nothing."""
        self._write_slots, self._flat = (rows, slots), None
        self._span, self._kv_length = (0, 1), slots.shape[1]
        self._write_only = True

    def update(self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Write keys and values (batch, heads, seq, width); return keys and values of all slots that attention reads."""
        if self._write_slots is None:
            raise RuntimeError("set_write_slots() must be called before a forward.")
        if layer_idx not in self.buffers:
            self.buffers[layer_idx] = (self._allocate(key_states), self._allocate(value_states))
        keys, values = self.buffers[layer_idx]
        first, last = self._span if self._span[0] else (0, key_states.shape[0])  # as a size, which compilers know
        if isinstance(self._write_slots, int):
            keys[first:last, :, self._write_slots : self._write_slots + key_states.shape[2]] = key_states
            values[first:last, :, self._write_slots : self._write_slots + key_states.shape[2]] = value_states
        else:
            for buffer, states in ((keys, key_states), (values, value_states)):
                width = buffer.shape[3]  # may differ between the two
                buffer.view(-1, width).index_copy_(0, self._flat_slots(buffer), states.reshape(-1, width))
        if self._write_only:
            raise StopAfterKVWrite
        return keys[first:last, :, : self._kv_length], values[first:last, :, : self._kv_length]

    def _flat_slots(self, buffer: Tensor) -> Tensor:
        """Indices of this forward's vectors among all vectors of a buffer; shared by layers with as many heads."""
        heads, slots = buffer.shape[1:3]
        if self._flat is None or self._flat[0] != heads:
            assert isinstance(self._write_slots, tuple)
            rows, at = self._write_slots
            first = rows[:, None] * heads + torch.arange(heads, device=at.device)[:, None]
            self._flat = heads, (first * slots + at[:, None] % slots).flatten()
        return self._flat[1]

    def _allocate(self, states: Tensor) -> Tensor:
        _, heads, _, width = states.shape
        return states.new_zeros(self.rows, heads, self.capacity + 1, width)

    def compact(self, sources: Tensor, targets: Tensor) -> None:
        """Move entries within the first rows, in every layer; slots (batch, n), negative slots are ignored."""
        rows = torch.arange(sources.shape[0], device=sources.device)[:, None]
        ignored = (sources < 0) | (targets < 0)
        read = torch.where(ignored, self.capacity, sources)
        written = torch.where(ignored, self.capacity, targets)
        for keys, values in self.buffers.values():
            keys[rows, :, written] = keys[rows, :, read]
            values[rows, :, written] = values[rows, :, read]

    def copy_row(self, source: int, target: int) -> None:
        """Copy all entries of row `source` to row `target`."""
        for keys, values in self.buffers.values():
            keys[target] = keys[source]
            values[target] = values[source]

    def extra_bytes(self, rows: int, capacity: int) -> int:
        """Bytes that `resize` allocates beyond the current buffers; layers are replaced in turn."""
        taken = [keys.nbytes + values.nbytes for keys, values in self.buffers.values()]
        return rows * (capacity + 1) * self.slot_bytes - sum(taken) + max(taken, default=0)

    def resize(self, rows: int, capacity: int) -> None:
        """Change the numbers of rows and slots. Entries that fit are kept, even if memory runs out before the last layer."""
        self.rows, self.capacity = min(self.rows, rows), min(self.capacity, capacity)  # common to old and new layers
        for index, buffers in self.buffers.items():
            keys, values = (self._grown(old, rows, capacity) for old in buffers)
            self.buffers[index] = (keys, values)
        self.rows, self.capacity = rows, capacity
        self._write_slots = None

    def _grown(self, old: Tensor, rows: int, capacity: int) -> Tensor:
        new = old.new_zeros(rows, old.shape[1], capacity + 1, old.shape[3])
        new[: self.rows, :, : self.capacity] = old[: self.rows, :, : self.capacity]
        return new

    def get_seq_length(self, layer_idx: int = 0) -> int:
        return self._kv_length

    def get_query_offset(self, layer_idx: int = 0) -> int:
        return self._write_slots if isinstance(self._write_slots, int) else self._kv_length

    def get_mask_sizes(self, query_length: int, layer_idx: int) -> tuple[int, int]:
        return self._kv_length, 0

    def get_max_length(self, layer_idx: int | None = None) -> int:
        return self.capacity

    @property
    def is_compileable(self) -> bool:
        return False

    def __len__(self) -> int:
        return len(self.buffers)


@torch.no_grad()
def slot_bytes(view: TrunkView) -> list[int]:
    """Bytes of keys and values of a token, by layer; measured with a forward of one token, once per trunk and dtype."""
    found = _slot_bytes.setdefault(view.model, {})
    if view.model.dtype not in found:
        cache, first = RaggedKVCache(1, 1), torch.zeros(1, 1, dtype=torch.long, device=view.model.device)
        cache.set_write_slots(first, 1)
        with use_decode_attention(view.config):
            view.run(first, first, view.causal_masks(first, 1), cache)
        # the slot, and the slot of padding
        found[view.model.dtype] = [(keys.nbytes + values.nbytes) // 2 for keys, values in cache.buffers.values()]
    return found[view.model.dtype]


def check_memory(needed: int, device: torch.device) -> None:
    """Compare free memory with an allocation, before the system kills the process.

    Args:
        needed: bytes beyond the current buffers.
    Raises:
        ConfigError: if less is free.
    """
    if device.type == "cuda":
        free = torch.cuda.mem_get_info(device)[0] + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    elif device.type == "cpu":
        free = psutil.virtual_memory().available
    else:
        return
    if needed > free:
        raise ConfigError(
            f"The cache would need {needed / 2**30:.1f} GiB more, but {free / 2**30:.1f} GiB of memory are free. Decode fewer "
            "rows together, or shorter ones."
        )
