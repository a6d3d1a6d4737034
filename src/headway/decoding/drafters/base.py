"""Who proposes tokens: what a drafter is, and what those that draft chains or with heads have in common."""

from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from headway.decoding.batch import DecodingBatch
from headway.decoding.draftable import DraftableModel
from headway.decoding.kv_cache import RaggedKVCache
from headway.errors import ConfigError
from headway.heads import HeadStack
from headway.trunk import HiddenStates, TrunkView

MAX_PENDING = 32  # rounds without drafts whose states may wait to be stored
# sizes of trees beyond those that a chain could have: with the token that they follow, as many as matrix kernels like
TREE_DRAFT_SIZES = (7, 11, 15, 23, 31, 47, 63)


@dataclass(frozen=True)
class Draft:
    """What was written into the batch's tokens after the settled ones: a chain, or a tree where there are parents.

    distributions: what draft k of a chain was drawn from, (rows, vocab) each; empty if none was drawn.
    lengths: how many drafts after each other each row has, None if all that were asked for.
    parents: (rows, drafts), the node that each draft follows; 0 is the last settled token. Siblings differ.
    drawn_from: of a tree, which of the distributions the children of each node, 0 first, were drawn from.
    """

    distributions: list[Tensor]
    lengths: list[int] | None = None
    parents: Tensor | None = None
    proposal_index: Sequence[int] = ()


class Drafter(Protocol):
    """Proposes continuations of the settled tokens of every row."""

    depth: int  # most drafts after each other
    draft_sizes: tuple[int, ...]  # how many drafts may be asked for, ascending from 0
    hidden_state_layers: tuple[int, ...]  # layers of the trunk whose input `observe` reads
    config_key: Hashable  # what tells it from others of its class where what one was like says nothing about the other

    def max_draft_tokens(self, max_accepted: int) -> int:
        """The largest budget that makes sense where at most `max_accepted` drafts can stay; at least 1."""

    def catch_up_tokens(self, batch: DecodingBatch, count: int) -> int:
        """How many tokens it would have to read first to write `count` drafts, beyond those of a usual round."""

    def num_mask_tokens(self, count: int, max_accepted: int) -> int:
        """How many mask tokens of the model's heads ride behind each token of a round with drafts, of at most `count` after each
        other, of which at most `max_accepted` can stay."""

    def observe(self, hidden_states: HiddenStates, positions: Tensor, first: int = 0) -> None:
        """What the trunk computed for rows from `first` on; (rows, seq) positions, -1 where it will not stay."""

    def draft(self, batch: DecodingBatch, count: int) -> Draft:
        """Write up to `count` drafts a row, for some budget `count`."""

    def copy_row(self, source: int, target: int) -> None:
        """Copy the state of row `source` to row `target`; both rows may continue."""

    def reset_row(self, row: int) -> None:
        """A new sequence starts in this place."""

    def extra_bytes(self, rows: int, capacity: int) -> int:
        """Bytes that `resize` takes beyond those taken by now."""

    def resize(self, rows: int, capacity: int) -> None:
        """There is room now for so many rows and tokens a row: more or fewer, never fewer than are in use."""


@dataclass(frozen=True)
class DrafterFactory:
    """Builder of a drafter: the result of `ngram_drafter()`, and the value of `generate(..., drafter=)`.

    A class and not a plain function, so that a forgotten call, `drafter=ngram_drafter`, is found at once.

    Args:
        build: maps the model and the trunk's cache to a drafter.
        needs_heads: the drafter reads the model's heads.
    """

    build: Callable[[DraftableModel, RaggedKVCache], Drafter]
    needs_heads: bool = False


def build_drafter(factory: DrafterFactory, model: DraftableModel, cache: RaggedKVCache) -> Drafter:
    """The factory's drafter for this model and cache.

    Raises: ConfigError if `factory` is not a `DrafterFactory`, for example a function that was not called.
    """
    if isinstance(factory, DrafterFactory):
        return factory.build(model, cache)
    if callable(factory) and (name := getattr(factory, "__name__", "")):
        raise ConfigError(
            f"drafter={name} is not called yet: give {name}(...). A function of your own that builds a drafter from (model, cache) "
            f"is given as DrafterFactory({name})."
        )
    got = repr(factory) if isinstance(factory, str) else f"a {type(factory).__name__}"
    raise ConfigError(f"drafter must be a factory such as ngram_drafter() or assistant_drafter(model), got {got}.")


class ChainDrafter:
    """Proposes one draft after the other, up to `depth`: each number up to 4, then 7, 11 and so on."""

    def __init__(self, depth: int) -> None:
        self.depth = depth
        self.hidden_state_layers: tuple[int, ...] = ()
        self.config_key: Hashable = ()
        self.draft_sizes: tuple[int, ...] = (*range(min(depth, 4) + 1), *range(7, depth, 4), *((depth,) if depth > 4 else ()))

    def max_draft_tokens(self, max_accepted: int) -> int:
        return min(max_accepted, self.depth)

    def catch_up_tokens(self, batch: DecodingBatch, count: int) -> int:
        return sum(n for n in self.unread(batch, count) if n > self.depth + 1) if count else 0

    def num_mask_tokens(self, count: int, max_accepted: int) -> int:
        return 0

    def extra_bytes(self, rows: int, capacity: int) -> int:
        return 0

    def unread(self, batch: DecodingBatch, count: int) -> Iterable[int]:
        """How many settled tokens of each row it has not read."""
        return ()


class HeadsDrafter(ChainDrafter):
    """Keeps the states that heads read, and how far each head has read them.

    States of settled tokens are kept by position, and a head is run over them only when it is asked to draft: rounds without
    drafts cost nothing but a copy, which many of them share.
    """

    def __init__(self, heads: HeadStack, view: TrunkView, cache: RaggedKVCache) -> None:
        super().__init__(heads.count)
        self.heads, self.view, self.cache = heads, view, cache
        self.hidden_state_layers = heads.hidden_state_layers
        self.unembeddings = heads.unembeddings(view)
        self.states: Tensor | None = None  # (rows, capacity + 1, hidden) by position
        self._pending_states: list[tuple[Tensor, Tensor]] = []  # states and positions that are not among them yet
        self.read = [[0] * self.depth for _ in range(cache.rows)]  # settled tokens when a head last drafted

    def observe(self, hidden_states: HiddenStates, positions: Tensor, first: int = 0) -> None:
        states = self.heads.select_inputs(hidden_states)
        if positions.shape[1] > 1 or first:  # prompts, or drafts
            self._store()
            self._write(states, positions, first)
            return
        if self._pending_states and self._pending_states[0][1].shape != positions.shape:
            self._store()
        self._pending_states.append((states, positions))
        if len(self._pending_states) == MAX_PENDING:
            self._store()

    def _store(self) -> None:
        """Write down what rounds without drafts computed; together, since each of them should cost no more than without heads."""
        if self._pending_states:
            states, positions = (torch.cat(parts, dim=1) for parts in zip(*self._pending_states, strict=True))
            self._pending_states = []
            self._write(states, positions)

    def _write(self, states: Tensor, positions: Tensor, first: int = 0) -> None:
        if self.states is None:
            self.states = states.new_zeros(self.cache.rows, self.cache.capacity + 1, states.shape[2])
        rows = torch.arange(first, first + states.shape[0], device=states.device)[:, None]
        self.states[rows, torch.where(positions < 0, self.states.shape[1] - 1, positions)] = states

    def unread(self, batch: DecodingBatch, count: int) -> Iterable[int]:
        return (length - min(read[:count]) for length, read in zip(batch.lengths, self.read, strict=False))

    def copy_row(self, source: int, target: int) -> None:
        self._store()
        self.read[target] = list(self.read[source])
        if self.states is not None:
            self.states[target] = self.states[source]

    def reset_row(self, row: int) -> None:
        self._store()
        self.read[row] = [0] * self.depth

    def extra_bytes(self, rows: int, capacity: int) -> int:
        width = max(1, len(self.heads.hidden_state_layers)) * self.view.config.hidden_size
        return rows * (capacity + 1) * width * self.view.model.dtype.itemsize

    def resize(self, rows: int, capacity: int) -> None:
        self._store()
        self.read += [[0] * self.depth for _ in range(rows - len(self.read))]
        if (old := self.states) is not None:
            self.states = old.new_zeros(rows, capacity + 1, old.shape[2])
            kept, slots = min(rows, old.shape[0]), min(capacity, old.shape[1] - 1)
            self.states[:kept, :slots] = old[:kept, :slots]

    def newest(self, batch: DecodingBatch) -> tuple[Tensor, Tensor]:
        """Position of the last token that the trunk has read, (rows, 1), and its state, (rows, 1, width)."""
        self._store()
        assert self.states is not None, "observe() comes first"
        positions = batch.ends - 2
        return positions, self.states[torch.arange(len(positions), device=batch.device)[:, None], positions]

    def window(self, batch: DecodingBatch, count: int, again: int = 0) -> tuple[Tensor, Tensor]:
        """What the first `count` heads have to read: the positions (rows, width), negative before the start, and the states there.

        The trunk has read all settled tokens but the last. `again` of those that heads have read are read once more.
        """
        self._store()
        assert self.states is not None, "observe() comes first"
        lengths = batch.lengths
        starts = [max(0, min(read[:count]) - again) for read in self.read[: len(lengths)]]
        width = max(length - 1 - start for length, start in zip(lengths, starts, strict=True))
        newest = batch.ends - 2
        positions = newest + torch.arange(1 - width, 1, device=batch.device)
        at = positions.clamp(min=0)[..., None].expand(-1, -1, self.states.shape[2])
        for row, length in enumerate(lengths):
            self.read[row][:count] = [length] * count
        return positions, self.states[: len(lengths)].gather(1, at)
