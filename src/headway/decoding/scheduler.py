"""Scheduler: waiting and running sequences, batch slots, and the memory of tokens, cache and drafter."""

from collections import deque
from collections.abc import Sequence

import torch

from headway.decoding.batch import DecodingBatch, SequenceState
from headway.decoding.draftable import DraftableModel
from headway.decoding.drafters.base import DrafterFactory, build_drafter
from headway.decoding.kv_cache import KV_BLOCK, RaggedKVCache, check_memory, round_up_to_block, slot_bytes
from headway.errors import ConfigError


class Scheduler:
    """Rows of the batch come first, then the sequences being prefilled, in order of remaining chunks.

    Args:
        max_tokens: maximum number of cache slots of all rows together.
        chunk: prompt tokens of one prefill forward.
        whole_blocks: cache lengths are multiples of `KV_BLOCK`, as compiled forwards need.
    """

    def __init__(
        self, model: DraftableModel, drafter: DrafterFactory | None, max_tokens: int | None, chunk: int, whole_blocks: bool = False
    ) -> None:
        layers = slot_bytes(model.view)
        attends = drafter is not None and model.heads is not None and model.heads.attends
        self.cache = RaggedKVCache(0, 0, sum(layers) + (model.count * layers[-1] if attends else 0))
        self.drafter = build_drafter(drafter, model, self.cache) if drafter is not None else None
        self.reserved_draft_slots = 0
        if self.drafter is not None:
            most = self.drafter.draft_sizes[-1]
            self.reserved_draft_slots = step_slots(most, self.drafter.num_mask_tokens(most, most + 1))
        self.max_tokens, self.chunk, self._multiple = max_tokens, chunk, KV_BLOCK if whole_blocks else 1
        self.batch = DecodingBatch(torch.zeros(0, 0, dtype=torch.long, device=model.device))
        self.prefilling: list[SequenceState] = []
        self.rows = self.capacity = 0  # tokens, cache and drafter have at least as many

    @property
    def num_sequences(self) -> int:
        """Number of batch slots in use, reserved slots of forks included."""
        return len(self.batch.rows) + sum(1 + len(row.forks) for row in self.prefilling)

    @property
    def max_length(self) -> int:
        """The largest maximum length of the admitted sequences."""
        return max((row.limit for rows in (self.batch.rows, self.prefilling) for row in rows), default=0)

    def allows(self, rows: int, length: int) -> bool:
        """True if `rows` rows of at most `length` tokens stay within `max_tokens`, drafts included."""
        slots = -(-(length + self.reserved_draft_slots) // self._multiple) * self._multiple
        return self.max_tokens is None or rows * slots <= self.max_tokens

    # sequences

    def admit(self, waiting: deque[SequenceState], max_batch_size: int) -> list[SequenceState]:
        """Move waiting sequences, in order, into free batch slots; return the failed sequences, too large for memory."""
        admitted: list[SequenceState] = []
        failed: list[SequenceState] = []
        length = self.max_length
        for row in waiting:
            if self.num_sequences + len(admitted) == max_batch_size:
                break
            length = max(length, row.limit)
            if not self.allows(self.num_sequences + len(admitted) + 1, length):
                break
            admitted.append(row)
        while admitted:
            try:
                self.reserve(self.num_sequences + len(admitted), max(self.max_length, *(row.limit for row in admitted)))
                break
            except Exception as error:  # ours, or an allocator's own
                largest = max(admitted, key=lambda row: row.limit)
                several = isinstance(error, ConfigError) and self.num_sequences + len(admitted) > 1
                if several and self._fits_alone(largest):
                    admitted.pop()
                else:
                    largest.fail(error)
                    largest.finished = True
                    failed.append(largest)
                    admitted.remove(largest)
        if admitted:
            failed += self._start_prefill(admitted)
        for row in (*admitted, *failed):
            if row in waiting:
                waiting.remove(row)
        return failed

    def _start_prefill(self, admitted: Sequence[SequenceState]) -> list[SequenceState]:
        """Give sequences rows after the batch; samples of one request wait as forks of the first. Return the failed sequences."""
        newcomers: list[SequenceState] = []
        for row in admitted:
            row.forks = []
            if newcomers and row.group is not None and row.group is newcomers[-1].group:
                newcomers[-1].forks.append(row)
            else:
                newcomers.append(row)
        first = len(self.batch.rows)
        order = sorted([*self.prefilling, *newcomers], key=lambda row: -(-(row.prompt_length - row.prefilled) // self.chunk))
        target = {row: index for index, row in enumerate(order, first)}
        for index, row in reversed(list(enumerate(self.prefilling, first))):
            self._copy_row(index, target[row])
        self.prefilling = order
        failed = []
        for row in newcomers:
            try:
                self.batch.tokens[target[row], : row.prompt_length] = torch.tensor(row.tokens, device=self.batch.device)
                if self.drafter is not None:
                    self.drafter.reset_row(target[row])
            except Exception as error:  # whatever the tokens are
                for sample in (row, *row.forks):
                    sample.fail(error)
                    failed.append(sample)
        self.remove(failed)
        return failed

    def add_to_batch(self, count: int) -> list[int]:
        """Add the first `count` prefilled sequences and their forks; a fork gets a copy of the cache row.

        Returns: per added sequence, the index (below `count`) of the prefilled sequence with the same prompt.
        """
        first, leaders = len(self.batch.rows), self.prefilling[:count]
        sources = [index for index, leader in enumerate(leaders) for _ in leader.forks]
        forks = [fork for leader in leaders for fork in leader.forks]
        if forks:
            for row in reversed(range(first + count, first + len(self.prefilling))):
                self._copy_row(row, row + len(forks))
            for row, source in enumerate(sources, first + count):
                self._copy_row(first + source, row)
            for leader in leaders:
                leader.forks = []
        for fork in forks:
            fork.prefilled = fork.prompt_length
        self.batch.rows += [*leaders, *forks]
        self.prefilling = self.prefilling[count:]
        return [*range(count), *sources]

    def remove(self, rows: Sequence[SequenceState]) -> None:
        """Remove sequences. The last row of the batch fills a gap, and the sequences being prefilled move up."""
        if not rows:
            return
        first = len(self.batch.rows)
        for row in rows:
            row.finished = True
            if row in self.batch.rows:
                gap, last = self.batch.rows.index(row), len(self.batch.rows) - 1
                self._copy_row(last, gap)
                self.batch.rows[gap] = self.batch.rows[last]
                self.batch.rows.pop()
        target = len(self.batch.rows)
        prefilling = []
        for index, row in enumerate(self.prefilling, first):
            row.forks = [fork for fork in row.forks if not fork.finished]
            if row.finished and row.forks:  # the next sample continues the prefill
                heir = row.forks[0]
                heir.forks, heir.prefilled, row.forks = row.forks[1:], row.prefilled, []
                row = heir
            if not row.finished:
                self._copy_row(index, target)
                prefilling.append(row)
                target += 1
        self.prefilling = prefilling

    def recover(self) -> None:
        """Restore a consistent state after an interrupt at any point of a step.

        Ended sequences are removed, prompts are prefilled again, and the drafter starts anew. The next forward overwrites
        everything after the committed tokens of a sequence.
        """
        self.remove([row for row in self.batch.rows if row.finish_reason is not None])
        for index, row in enumerate(self.prefilling, len(self.batch.rows)):
            row.prefilled = 0
            self.batch.tokens[index, : row.prompt_length] = torch.tensor(row.tokens, device=self.batch.device)
        if self.drafter is not None:
            for index in range(len(self.batch.rows) + len(self.prefilling)):
                self.drafter.reset_row(index)

    def _copy_row(self, source: int, target: int) -> None:
        if source == target:
            return
        self.cache.copy_row(source, target)
        self.batch.tokens[target] = self.batch.tokens[source]
        if self.drafter is not None:
            self.drafter.copy_row(source, target)

    # memory

    def has_slots(self, slots: int) -> bool:
        """True if the cache has, or can get, `slots` slots after the longest row; trees and mask tokens need more than a chain."""
        needed = max(self.batch.lengths) + slots
        if needed <= self.capacity:
            return True
        try:
            self.reserve(self.num_sequences, max(needed, self.max_length))
        except (ConfigError, torch.OutOfMemoryError):
            return False
        return True

    def reserve(self, rows: int, length: int) -> None:
        """Allocate memory for rows of at most `length` tokens.

        Raises:
            ConfigError: if memory or `max_tokens` does not suffice.
        """
        if rows <= self.rows and length <= self.capacity:
            return
        rows, capacity = self._sizes(rows, length)
        old = self.batch.tokens
        tokens = old.new_zeros(rows, capacity + self.reserved_draft_slots + 1)
        kept, columns = min(rows, old.shape[0]), min(tokens.shape[1], old.shape[1])
        tokens[:kept, :columns] = old[:kept, :columns]
        self.rows, self.capacity = min(rows, self.rows), min(capacity, self.capacity)  # in case an allocation fails
        if self.drafter is not None:
            self.drafter.resize(rows, capacity)
        self.cache.resize(rows, capacity)
        self.batch.tokens = tokens
        self.rows, self.capacity = rows, capacity

    def _sizes(self, rows: int, length: int) -> tuple[int, int]:
        """Rows and slots to allocate: never fewer than before, to keep reallocations rare, unless only fewer fit.

        Raises:
            ConfigError: if nothing fits.
        """
        least = round_up_to_block(length)
        if self.max_tokens is not None:
            least = min(least, self.max_tokens // rows // self._multiple * self._multiple)
            if least < length:
                raise ConfigError(f"{rows} rows of {length} tokens are more than max_tokens={self.max_tokens}. Allow more.")
        most, capacity = max(rows, self.rows), max(least, self.capacity)
        if self.max_tokens is not None and most * capacity > self.max_tokens:
            most, capacity = min(most, self.max_tokens // least), least
        if (most, capacity) != (rows, least):
            try:
                self._check_memory(most, capacity)
                return most, capacity
            except ConfigError:
                pass
        self._check_memory(rows, least)
        return rows, least

    def _fits_alone(self, row: SequenceState) -> bool:
        try:
            self._check_memory(1, row.limit)
        except ConfigError:
            return False
        return True

    def _check_memory(self, rows: int, capacity: int) -> None:
        needed = self.cache.extra_bytes(rows, capacity)
        needed += rows * (capacity + self.reserved_draft_slots + 1) * self.batch.tokens.element_size()
        if self.drafter is not None:
            needed += self.drafter.extra_bytes(rows, capacity)
        check_memory(needed, self.batch.device)


def step_slots(num_draft_tokens: int, num_mask_tokens: int) -> int:
    """Cache slots after the committed tokens in a step with `num_mask_tokens` mask tokens after each token."""
    return num_draft_tokens + num_mask_tokens * (1 + num_draft_tokens)
