"""Where the rows of an engine stand: in its tokens, in the cache and with the drafter, which move and grow together."""

from collections import deque
from collections.abc import Sequence

import torch

from headway.decoding.batch import Batch, SequenceState
from headway.decoding.draftable import DraftableModel
from headway.decoding.drafters.base import DrafterFactory, build_drafter
from headway.decoding.kv_cache import ROOM, RaggedKVCache, check_memory, round_up_to_block, slot_bytes
from headway.errors import ConfigError


class Scheduler:
    """Rows of the batch come first; those whose prompts are being read stand after them, the first to be through first.

    Args:
        max_tokens: slots of the cache that all rows together may take.
        chunk: prompt tokens that are read at once.
        whole: forwards look at whole multiples of `ROOM` slots.
    """

    def __init__(
        self, model: DraftableModel, drafter: DrafterFactory | None, max_tokens: int | None, chunk: int, whole: bool = False
    ) -> None:
        layers = slot_bytes(model.view)
        attends = drafter is not None and model.heads is not None and model.heads.attends
        self.cache = RaggedKVCache(0, 0, sum(layers) + (model.count * layers[-1] if attends else 0))
        self.drafter = build_drafter(drafter, model, self.cache) if drafter is not None else None
        self.room = (
            0 if self.drafter is None else slots(most := self.drafter.draft_sizes[-1], self.drafter.num_mask_tokens(most, most + 1))
        )
        self.max_tokens, self.chunk, self._multiple = max_tokens, chunk, ROOM if whole else 1
        self.batch = Batch(torch.zeros(0, 0, dtype=torch.long, device=model.device))
        self.entering: list[SequenceState] = []
        self.rows = self.capacity = 0  # of which tokens, cache and drafter all have at least as many

    @property
    def taken(self) -> int:
        return len(self.batch.rows) + len(self.entering)

    @property
    def longest(self) -> int:
        return max((row.limit for rows in (self.batch.rows, self.entering) for row in rows), default=0)

    def allows(self, rows: int, longest: int) -> bool:
        """Whether so many rows, the longest of them of so many tokens, stay within `max_tokens`, drafts included."""
        return self.max_tokens is None or rows * -(-(longest + self.room) // self._multiple) * self._multiple <= self.max_tokens

    # rows come and go

    def admit(self, waiting: deque[SequenceState], max_rows: int) -> None:
        """Let those that wait enter, in their order, while there are places; one that does not even fit alone ends."""
        newcomers: list[SequenceState] = []
        longest = self.longest
        while waiting and self.taken + len(newcomers) < max_rows:
            longest = max(longest, waiting[0].limit)
            if not self.allows(self.taken + len(newcomers) + 1, longest):
                break
            newcomers.append(waiting.popleft())
        while newcomers:
            try:
                self.reserve(self.taken + len(newcomers), max(self.longest, *(row.limit for row in newcomers)))
                break
            except Exception as error:  # ours, or an allocator's own
                largest = max(newcomers, key=lambda row: row.limit)
                together = isinstance(error, ConfigError) and self.taken + len(newcomers) > 1
                if together and self._fits_alone(largest):
                    waiting.appendleft(newcomers.pop())
                else:
                    largest.error, largest.finished = error, True
                    newcomers.remove(largest)
        if newcomers:
            self._enter(newcomers)

    def _enter(self, newcomers: Sequence[SequenceState]) -> None:
        first = len(self.batch.rows)
        order = sorted([*self.entering, *newcomers], key=lambda row: -(-(row.prompt - row.prefilled) // self.chunk))
        target = {row: place for place, row in enumerate(order, first)}
        for place, row in reversed(list(enumerate(self.entering, first))):
            self._move(place, target[row])
        self.entering = order
        failed = []
        for row in newcomers:
            try:
                self.batch.tokens[target[row], : row.prompt] = torch.tensor(row.tokens, device=self.batch.device)
                if self.drafter is not None:
                    self.drafter.reset_row(target[row])
            except Exception as error:  # whatever its tokens are
                row.error = error
                failed.append(row)
        self.leave(failed)

    def join(self, count: int) -> None:
        """The first of those that enter are rows of the batch from now on."""
        self.batch.rows += self.entering[:count]
        self.entering = self.entering[count:]

    def leave(self, rows: Sequence[SequenceState]) -> None:
        """Take rows out; the last one of the batch moves into each gap there, and those that enter stand after it again."""
        if not rows:
            return
        first = len(self.batch.rows)
        for row in rows:
            row.finished = True
            if row in self.batch.rows:
                gap, last = self.batch.rows.index(row), len(self.batch.rows) - 1
                self._move(last, gap)
                self.batch.rows[gap] = self.batch.rows[last]
                self.batch.rows.pop()
        target = len(self.batch.rows)
        for place, row in enumerate(self.entering, first):
            if not row.finished:
                self._move(place, target)
                target += 1
        self.entering = [row for row in self.entering if not row.finished]

    def _move(self, source: int, target: int) -> None:
        if source == target:
            return
        self.cache.move_row(source, target)
        self.batch.tokens[target] = self.batch.tokens[source]
        if self.drafter is not None:
            self.drafter.move_row(source, target)

    # how much there is room for

    def reserve(self, rows: int, longest: int) -> None:
        """Make room for so many rows, of at most so many tokens. Raises ConfigError where there is none."""
        if rows <= self.rows and longest <= self.capacity:
            return
        rows, capacity = self._sizes(rows, longest)
        old = self.batch.tokens
        tokens = old.new_zeros(rows, capacity + self.room + 1)
        kept, columns = min(rows, old.shape[0]), min(tokens.shape[1], old.shape[1])
        tokens[:kept, :columns] = old[:kept, :columns]
        self.rows, self.capacity = min(rows, self.rows), min(capacity, self.capacity)  # should one of them fail
        if self.drafter is not None:
            self.drafter.resize(rows, capacity)
        self.cache.resize(rows, capacity)
        self.batch.tokens = tokens
        self.rows, self.capacity = rows, capacity

    def _sizes(self, rows: int, longest: int) -> tuple[int, int]:
        """Rows and slots of each to have then: never fewer than before, so that there are few changes, unless these would not fit.

        Raises: ConfigError where nothing fits.
        """
        least = round_up_to_block(longest)
        if self.max_tokens is not None:
            least = min(least, self.max_tokens // rows // self._multiple * self._multiple)
            if least < longest:
                raise ConfigError(f"{rows} rows of {longest} tokens are more than max_tokens={self.max_tokens}. Allow more.")
        most, capacity = max(rows, self.rows), max(least, self.capacity)
        if self.max_tokens is not None and most * capacity > self.max_tokens:
            most, capacity = min(most, self.max_tokens // least), least
        if (most, capacity) != (rows, least):
            try:
                self._check(most, capacity)
                return most, capacity
            except ConfigError:
                pass
        self._check(rows, least)
        return rows, least

    def _fits_alone(self, row: SequenceState) -> bool:
        try:
            self._check(1, row.limit)
        except ConfigError:
            return False
        return True

    def _check(self, rows: int, capacity: int) -> None:
        """Raises ConfigError where memory does not suffice for so much."""
        needed = self.cache.extra_bytes(rows, capacity) + rows * (capacity + self.room + 1) * self.batch.tokens.element_size()
        if self.drafter is not None:
            needed += self.drafter.extra_bytes(rows, capacity)
        check_memory(needed, self.batch.device)


def slots(drafts: int, masks: int) -> int:
    """Slots that a round takes after those of the settled tokens, where so many masks ride behind each token."""
    return drafts + masks * (1 + drafts)
