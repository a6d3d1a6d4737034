"""Base of drafters that run the model's heads: a buffer of the trunk's hidden states, kept until a head drafts."""

from collections.abc import Iterable

import torch
from torch import Tensor

from headway.decoding.batch import DecodingBatch
from headway.decoding.drafters.base import ChainDrafter
from headway.decoding.kv_cache import RaggedKVCache
from headway.heads import HeadStack
from headway.trunk import HiddenStates, TrunkView

MAX_PENDING = 32  # steps without drafts until their hidden states are written to the buffer


class HeadsDrafter(ChainDrafter):
    """Buffer of hidden states by position, and per head the number of tokens that the head has processed.

    A head processes committed tokens only when asked to draft. A step without drafts costs a copy, shared by up to
    `MAX_PENDING` steps.
    """

    def __init__(self, heads: HeadStack, view: TrunkView, cache: RaggedKVCache) -> None:
        super().__init__(heads.count)
        self.heads, self.view, self.cache = heads, view, cache
        self.hidden_state_layers = heads.hidden_state_layers
        self.unembeddings = heads.unembeddings(view)
        self.states: Tensor | None = None  # (rows, capacity + 1, hidden) by position; the last column takes padding
        self._pending_states: list[tuple[Tensor, Tensor]] = []  # states and positions that are not in the buffer yet
        self.processed_lengths = [[0] * self.depth for _ in range(cache.rows)]  # committed tokens when each head last drafted

    def observe(self, hidden_states: HiddenStates, positions: Tensor, first: int = 0) -> None:
        states = self.heads.select_inputs(hidden_states)
        if positions.shape[1] > 1 or first:  # a prompt, or a step with drafts
            self._write_pending()
            self._write(states, positions, first)
            return
        if self._pending_states and self._pending_states[0][1].shape != positions.shape:
            self._write_pending()
        self._pending_states.append((states, positions))
        if len(self._pending_states) == MAX_PENDING:
            self._write_pending()

    def _write_pending(self) -> None:
        # together: a step without drafts should cost no more than the same step of a model without heads
        if self._pending_states:
            states, positions = (torch.cat(parts, dim=1) for parts in zip(*self._pending_states, strict=True))
            self._pending_states = []
            self._write(states, positions)

    def _write(self, states: Tensor, positions: Tensor, first: int = 0) -> None:
        if self.states is None:
            self.states = states.new_zeros(self.cache.rows, self.cache.capacity + 1, states.shape[2])
        rows = torch.arange(first, first + states.shape[0], device=states.device)[:, None]
        self.states[rows, torch.where(positions < 0, self.states.shape[1] - 1, positions)] = states

    def unprocessed(self, batch: DecodingBatch, num_draft_tokens: int) -> Iterable[int]:
        processed = (min(lengths[:num_draft_tokens]) for lengths in self.processed_lengths)
        return (length - done for length, done in zip(batch.lengths, processed, strict=False))

    def copy_row(self, source: int, target: int) -> None:
        self._write_pending()
        self.processed_lengths[target] = list(self.processed_lengths[source])
        if self.states is not None:
            self.states[target] = self.states[source]

    def reset_row(self, row: int) -> None:
        self._write_pending()
        self.processed_lengths[row] = [0] * self.depth

    def extra_bytes(self, rows: int, capacity: int) -> int:
        width = max(1, len(self.heads.hidden_state_layers)) * self.view.config.hidden_size
        return rows * (capacity + 1) * width * self.view.model.dtype.itemsize

    def resize(self, rows: int, capacity: int) -> None:
        self._write_pending()
        self.processed_lengths += [[0] * self.depth for _ in range(rows - len(self.processed_lengths))]
        if (old := self.states) is not None:
            self.states = old.new_zeros(rows, capacity + 1, old.shape[2])
            kept, slots = min(rows, old.shape[0]), min(capacity, old.shape[1] - 1)
            self.states[:kept, :slots] = old[:kept, :slots]

    def newest(self, batch: DecodingBatch) -> tuple[Tensor, Tensor]:
        """Position of the last token that the trunk has processed, (rows, 1), and the hidden state there, (rows, 1, width)."""
        self._write_pending()
        assert self.states is not None, "observe() comes first"
        positions = batch.ends - 2
        return positions, self.states[torch.arange(len(positions), device=batch.device)[:, None], positions]

    def window(self, batch: DecodingBatch, count: int, recompute: int = 0) -> tuple[Tensor, Tensor]:
        """Input of the first `count` heads: all tokens that are new to a head.

        The trunk has processed all committed tokens but the last. The heads count as caught up afterwards.

        Args:
            recompute: number of processed tokens per sequence to process again.
        Returns: positions, (rows, width), negative before the start of a sequence, and hidden states, (rows, width, hidden).
        """
        self._write_pending()
        assert self.states is not None, "observe() comes first"
        lengths = batch.lengths
        starts = [max(0, min(processed[:count]) - recompute) for processed in self.processed_lengths[: len(lengths)]]
        width = max(length - 1 - start for length, start in zip(lengths, starts, strict=True))
        newest = batch.ends - 2
        positions = newest + torch.arange(1 - width, 1, device=batch.device)
        index = positions.clamp(min=0)[..., None].expand(-1, -1, self.states.shape[2])
        for row, length in enumerate(lengths):
            self.processed_lengths[row][:count] = [length] * count
        return positions, self.states[: len(lengths)].gather(1, index)
