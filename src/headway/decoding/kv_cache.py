"""A cache in which each row stands at its own length: row r keeps the token at slot s, whatever the other rows do.

Rejected drafts need no clean-up: the next forward overwrites their slots, and until then no query is allowed to see them.
"""

from typing import Any
from weakref import WeakKeyDictionary

import psutil
import torch
from torch import Tensor
from transformers import Cache, PreTrainedModel

from headway.errors import ConfigError
from headway.trunk import StopAfterKVWrite, TrunkView
from headway.trunk.attention import decoding

ROOM = 64  # slots are made, and by compiled forwards looked at, so many at a time

Buffers = dict[int, tuple[Tensor, Tensor]]  # keys and values by layer, each (rows, heads, slots, width)

_slot_bytes: WeakKeyDictionary[PreTrainedModel, dict[torch.dtype, list[int]]] = WeakKeyDictionary()


def round_up_to_block(tokens: int) -> int:
    """The next multiple of `ROOM`."""
    return -(-tokens // ROOM) * ROOM


class RaggedKVCache(Cache):
    """Fixed buffers by layer index, allocated when a layer first writes; heads use indices after the trunk's.

    Args:
        rows, capacity: how many rows there is room for, and slots of each; slot `capacity` itself takes what padding
            writes, and nobody reads it.
        slot_bytes: what a slot takes in all layers that will write; only to tell early that they do not fit.
    """

    def __init__(self, rows: int, capacity: int, slot_bytes: int = 0) -> None:
        super().__init__(layers=[])
        self.rows, self.capacity = rows, capacity
        self.slot_bytes = slot_bytes
        self.buffers: Buffers = {}
        # rows and slots of this forward: broadcastable to (batch, seq), or where slots of all rows start
        self._at: tuple[Tensor, Tensor] | int | None = None
        self._flat: tuple[int, Tensor] | None = None  # of layers of so many heads, see `_places`
        self._span = (0, 0)
        self._visible = 0
        self._only_storing = False

    @classmethod
    def over(cls, buffers: Buffers, slots: Tensor, visible: int) -> "RaggedKVCache":
        """One that began a forward with these slots over all rows, in buffers that are there: in compiled forwards, which read
        from tensors what they may vary with."""
        cache = cls(slots.shape[0], visible)
        cache.buffers = buffers
        cache.begin(slots, visible)
        return cache

    def begin(self, slots: Tensor, visible: int, first: int = 0, start: int | None = None) -> None:
        """Before each forward: where its tokens go, and how many slots it may look at.

        Args:
            slots: (batch, seq); negative ones are padding, which goes into the last slot.
            visible: slots that attention gets to see: those below it.
            first: the batch is the rows from this one on.
            start: where the slots of all rows are this one and those after it, which is written faster.
        Raises: ValueError where there are fewer slots or rows.
        """
        batch = slots.shape[0]
        if visible > self.capacity or first + batch > self.rows:
            raise ValueError(
                f"The cache has {self.rows} rows of {self.capacity} slots, fewer than the {first + batch} of {visible} asked for."
            )
        if start is None:
            rows = torch.arange(first, first + batch, device=slots.device)[:, None]
            self._at = (rows, slots.clamp(min=-1))
        else:
            self._at = start
        self._span = (first, first + batch)
        self._visible = visible
        self._flat = None
        self._only_storing = False

    def begin_storing(self, rows: Tensor, slots: Tensor) -> None:
        """Before layers that only store keys and raise KeysStored: where their one row of tokens goes; both (1, seq)."""
        self._at, self._flat = (rows, slots), None
        self._span, self._visible = (0, 1), slots.shape[1]
        self._only_storing = True

    def update(self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Write (batch, heads, seq, width) into the slots of this forward; return the visible ones of its rows."""
        if self._at is None:
            raise RuntimeError("begin() says where tokens go, and has to come before a forward.")
        if layer_idx not in self.buffers:
            self.buffers[layer_idx] = (self._allocate(key_states), self._allocate(value_states))
        keys, values = self.buffers[layer_idx]
        first, last = self._span if self._span[0] else (0, key_states.shape[0])  # as a size, which compilers know
        if isinstance(self._at, int):
            keys[first:last, :, self._at : self._at + key_states.shape[2]] = key_states
            values[first:last, :, self._at : self._at + key_states.shape[2]] = value_states
        else:
            for buffer, states in ((keys, key_states), (values, value_states)):
                width = buffer.shape[3]  # may differ between the two
                buffer.view(-1, width).index_copy_(0, self._places(buffer), states.reshape(-1, width))
        if self._only_storing:
            raise StopAfterKVWrite
        return keys[first:last, :, : self._visible], values[first:last, :, : self._visible]

    def _places(self, buffer: Tensor) -> Tensor:
        """Where in a buffer's vectors those of this forward go, one after the other; worked out once for layers alike."""
        heads, slots = buffer.shape[1:3]
        if self._flat is None or self._flat[0] != heads:
            assert isinstance(self._at, tuple)
            rows, at = self._at
            first = rows[:, None] * heads + torch.arange(heads, device=at.device)[:, None]
            self._flat = heads, (first * slots + at[:, None] % slots).flatten()
        return self._flat[1]

    def _allocate(self, states: Tensor) -> Tensor:
        _, heads, _, width = states.shape
        return states.new_zeros(self.rows, heads, self.capacity + 1, width)

    def compact(self, sources: Tensor, targets: Tensor) -> None:
        """Move entries within the first rows, in every layer; both (batch, n) slots, negative ones are ignored."""
        rows = torch.arange(sources.shape[0], device=sources.device)[:, None]
        ignored = (sources < 0) | (targets < 0)
        read = torch.where(ignored, self.capacity, sources)
        written = torch.where(ignored, self.capacity, targets)
        for keys, values in self.buffers.values():
            keys[rows, :, written] = keys[rows, :, read]
            values[rows, :, written] = values[rows, :, read]

    def move_row(self, source: int, target: int) -> None:
        """Let row `target` hold what row `source` holds."""
        for keys, values in self.buffers.values():
            keys[target] = keys[source]
            values[target] = values[source]

    def extra_bytes(self, rows: int, capacity: int) -> int:
        """Bytes that `resize` takes beyond those taken by now; layers are replaced one after the other."""
        taken = [keys.nbytes + values.nbytes for keys, values in self.buffers.values()]
        return rows * (capacity + 1) * self.slot_bytes - sum(taken) + max(taken, default=0)

    def resize(self, rows: int, capacity: int) -> None:
        """Make room for so much; what is there and has room stays, also where memory runs out on the way."""
        self.rows, self.capacity = min(self.rows, rows), min(self.capacity, capacity)  # what layers of either size have
        for index, buffers in self.buffers.items():
            keys, values = (self._grown(old, rows, capacity) for old in buffers)
            self.buffers[index] = (keys, values)
        self.rows, self.capacity = rows, capacity
        self._at = None

    def _grown(self, old: Tensor, rows: int, capacity: int) -> Tensor:
        new = old.new_zeros(rows, old.shape[1], capacity + 1, old.shape[3])
        new[: self.rows, :, : self.capacity] = old[: self.rows, :, : self.capacity]
        return new

    def get_seq_length(self, layer_idx: int = 0) -> int:
        return self._visible

    def get_query_offset(self, layer_idx: int = 0) -> int:
        return self._at if isinstance(self._at, int) else self._visible

    def get_mask_sizes(self, query_length: int, layer_idx: int) -> tuple[int, int]:
        return self._visible, 0

    def get_max_length(self, layer_idx: int | None = None) -> int:
        return self.capacity

    @property
    def is_compileable(self) -> bool:
        return False

    def __len__(self) -> int:
        return len(self.buffers)


@torch.no_grad()
def slot_bytes(view: TrunkView) -> list[int]:
    """What the keys and values of a token take in each layer. A token is read to find out, once a trunk and dtype."""
    found = _slot_bytes.setdefault(view.model, {})
    if view.model.dtype not in found:
        cache, first = RaggedKVCache(1, 1), torch.zeros(1, 1, dtype=torch.long, device=view.model.device)
        cache.begin(first, 1)
        with decoding(view.config):
            view.run(first, first, view.causal_masks(first, 1), cache)
        # a slot of its own, and that of padding
        found[view.model.dtype] = [(keys.nbytes + values.nbytes) // 2 for keys, values in cache.buffers.values()]
    return found[view.model.dtype]


def check_memory(needed: int, device: torch.device) -> None:
    """Before the system kills the process, or the last layers find nothing left; `needed` in bytes, beyond what is taken.

    Raises: ConfigError where less is free.
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
