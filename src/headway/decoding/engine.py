"""The engine: rows that come and go, and one forward of the trunk a step over all of them and their drafts.

Self-speculative decoding of chains: draft, verify, accept, again (Stern et al. 2018, arXiv 1811.03115; Leviathan et al. 2022,
arXiv 2211.17192). Greedy output is the trunk's own, sampled output has the trunk's distribution.
"""

from collections import deque
from collections.abc import Callable

import torch
from torch import Tensor

from headway.decoding.cache import RaggedCache
from headway.decoding.drafting import Draft, Drafter
from headway.decoding.rows import Batch, Row
from headway.decoding.stats import Tally
from headway.errors import ConfigError
from headway.model import HeadwayModel
from headway.ops.acceptance import Accepted, accept_greedy, accept_sampled
from headway.trunk import Tapped

ROUND = 64  # room is made for so many tokens at a time

MakeDrafter = Callable[[HeadwayModel, RaggedCache], Drafter]


class Engine:
    """Decodes rows together; each may be added or cancelled at any time, and what it says does not depend on its company.

    Args:
        model: whose trunk can be decoded this way (`why_not_exact` gives None).
        drafter: makes the drafter; None decodes without drafts.
        max_rows: rows decoded at once; others wait.
        max_tokens: slots of the cache that all rows together may take; default: no limit.
        prefill_chunk: prompt tokens of a row that one forward reads at most.
    """

    def __init__(
        self,
        model: HeadwayModel,
        drafter: MakeDrafter | None = None,
        max_rows: int = 16,
        max_tokens: int | None = None,
        prefill_chunk: int = 512,
    ) -> None:
        self.model, self.view = model, model.view
        self.max_rows, self.max_tokens, self.prefill_chunk = max_rows, max_tokens, prefill_chunk
        self.cache = RaggedCache(0, 0)
        self.drafter = drafter(model, self.cache) if drafter is not None else None
        self.depth = self.drafter.depth if self.drafter is not None else 0
        self.tally = Tally(self.depth)
        self.waiting: deque[Row] = deque()
        # all rows share the buffers: those of the batch come first, those whose prompts are being read stand after them
        self.batch = Batch(torch.zeros(0, 0, dtype=torch.long, device=model.device))
        self.entering: list[Row] = []
        self._first: dict[Row, Tensor] = {}  # the state of an entering row that its first token comes from

    def add(self, row: Row) -> None:
        """Let a row wait for its turn. Raises ConfigError if it could never fit."""
        if self.max_tokens is not None and row.limit > self.max_tokens:
            raise ConfigError(f"A row of {row.limit} tokens is more than the {self.max_tokens} that this engine holds.")
        self.waiting.append(row)

    @property
    def idle(self) -> bool:
        return not (self.waiting or self.entering or self.batch.rows)

    def run(self) -> None:
        """Until nothing is left to do."""
        while not self.idle:
            self.step()

    @torch.inference_mode()
    def step(self) -> None:
        """Read a chunk of the prompts that entered, then one round of draft, verify and accept for the rows that run."""
        self._leave([row for row in self.batch.rows if row.cancelled])
        if not self.entering:
            self._admit()
        if self.entering:
            with self.tally.timed("prefill"):
                self._prefill()
        if self.batch.rows:
            self._round()

    # rows come and go

    def _admit(self) -> None:
        running = len(self.batch.rows)
        longest = max((row.limit for row in self.batch.rows), default=0)
        while self.waiting and running + len(self.entering) < self.max_rows:
            row = self.waiting[0]
            rows = running + len(self.entering) + 1
            longest = max(longest, row.limit)
            if rows > 1 and self.max_tokens is not None and rows * longest > self.max_tokens:
                break
            self.waiting.popleft()
            if row.cancelled:
                row.finished = True
            else:
                self.entering.append(row)
        self._reserve(running + len(self.entering), longest)
        for place, row in enumerate(self.entering, running):
            self.batch.tokens[place, : row.prompt] = torch.tensor(row.tokens, device=self.batch.device)
            if self.drafter is not None:
                self.drafter.reset_row(place)

    def _reserve(self, rows: int, longest: int) -> None:
        if rows <= self.cache.rows and longest <= self.cache.capacity:
            return
        rows, capacity = max(rows, self.cache.rows), max(-(-longest // ROUND) * ROUND, self.cache.capacity)
        old = self.batch.tokens
        self.batch.tokens = old.new_zeros(rows, capacity + self.depth + 1)
        self.batch.tokens[: old.shape[0], : old.shape[1]] = old
        self.cache.resize(rows, capacity)
        if self.drafter is not None:
            self.drafter.resize(rows, capacity)

    def _leave(self, rows: list[Row]) -> None:
        """Take rows out of the batch; the last one moves into each gap, and the last entering one into its place."""
        for row in rows:
            row.finished = True
            gap, last = self.batch.rows.index(row), len(self.batch.rows) - 1
            self._move(last, gap)
            self.batch.rows[gap] = self.batch.rows[last]
            self.batch.rows.pop()
            if self.entering:
                self._move(last + len(self.entering), last)
                self.entering.insert(0, self.entering.pop())

    def _move(self, source: int, target: int) -> None:
        if source == target:
            return
        self.cache.move_row(source, target)
        self.batch.tokens[target] = self.batch.tokens[source]
        if self.drafter is not None:
            self.drafter.move_row(source, target)

    # reading prompts

    def _prefill(self) -> None:
        """A chunk of each entering prompt; once all are through, they get their first tokens and join the batch."""
        first = len(self.batch.rows)
        device = self.batch.device
        done = torch.tensor([row.prefilled for row in self.entering], device=device)[:, None]
        ends = torch.tensor([row.prompt for row in self.entering], device=device)[:, None]
        width = min(self.prefill_chunk, max(row.prompt - row.prefilled for row in self.entering))
        positions = done + torch.arange(width, device=device)
        positions = torch.where(positions < ends, positions, -1)
        visible = max(min(row.prefilled + width, row.prompt) for row in self.entering)
        tapped = self._forward(positions, visible, first)
        for r, row in enumerate(self.entering):
            if row.prefilled < row.prompt <= row.prefilled + width:
                self._first[row] = tapped.last[r, row.prompt - row.prefilled - 1]
            row.prefilled = min(row.prefilled + width, row.prompt)
        if self.drafter is not None:
            self.drafter.observe(tapped, positions, first)
        if all(row.prefilled == row.prompt for row in self.entering):
            states = torch.stack([self._first.pop(row) for row in self.entering])
            entering = Batch(self.batch.tokens[first:], self.entering)
            accepted = self._accept(entering, self.view.unembedding.logits(states[:, None]), None, [0] * len(self.entering))
            self.batch.rows += self.entering
            self.entering = []
            self._settle(entering, accepted, [0] * len(entering.rows))

    # one round

    def _round(self) -> None:
        batch = self.batch
        usable = [max(0, min(self.depth, row.usable)) for row in batch.rows]
        draft = None
        if max(usable):
            with self.tally.timed("draft"):
                assert self.drafter is not None
                draft = self.drafter.draft(batch, max(usable))
                if draft.lengths is not None:
                    usable = [min(*pair) for pair in zip(usable, draft.lengths, strict=True)]
        with self.tally.timed("verify"):
            steps = torch.arange(max(usable) + 1, device=batch.device)
            lengths = batch.lengths
            positions = torch.tensor(lengths, device=batch.device)[:, None] - 1 + steps
            if min(usable) < max(usable):
                positions = torch.where(steps <= torch.tensor(usable, device=batch.device)[:, None], positions, -1)
            visible = max(length + n for length, n in zip(lengths, usable, strict=True))
            tapped = self._forward(positions, visible)
            logits = self.view.unembedding.logits(tapped.last)
        with self.tally.timed("accept"):
            accepted = self._accept(batch, logits, draft, usable)
            if self.drafter is not None:
                kept = torch.where(steps <= accepted.kept[:, None], positions, -1)
                self.drafter.observe(tapped, kept)
            self._settle(Batch(batch.tokens, list(batch.rows)), accepted, usable)

    def _forward(self, positions: Tensor, visible: int, first: int = 0) -> Tapped:
        """The trunk over rows from `first` on, at (rows, seq) positions, -1 for padding."""
        inside = positions.clamp(min=0)
        input_ids = self.batch.tokens[first : first + positions.shape[0]].gather(1, inside)
        masks = self.view.causal_masks(positions, visible)
        self.cache.begin(positions, visible, first)
        return self.view.run(input_ids, inside, masks, self.cache)

    def _accept(self, batch: Batch, logits: Tensor, draft: Draft | None, usable: list[int]) -> Accepted:
        """How many drafts of each row stay, and the token after them."""
        rows, depth = len(batch.rows), logits.shape[1] - 1
        processed = batch.processed(logits)
        columns = torch.tensor(batch.lengths, device=batch.device)[:, None] + torch.arange(depth, device=batch.device)
        drafts = batch.tokens[:rows].gather(1, columns)
        available = torch.tensor(usable, device=batch.device)
        found = Accepted(torch.zeros_like(available), torch.zeros_like(available))
        groups = batch.groups()
        for scores, members in groups:
            alone = len(groups) == 1
            target, tokens, limit = (x if alone else x[members] for x in (processed, drafts, available))
            if scores.sampled:
                proposal = _proposal(draft, tokens, target.shape[2], None if alone else members)
                part = accept_sampled(scores.probabilities(target), proposal, tokens, scores.generator, limit)
            else:
                part = accept_greedy(target, tokens, limit)
            if alone:
                return part
            found.kept[members], found.following[members] = part.kept, part.following
        return found

    def _settle(self, batch: Batch, accepted: Accepted, usable: list[int]) -> None:
        """Append what was accepted; rows that are finished leave."""
        rows = batch.rows
        lengths = torch.tensor(batch.lengths, device=batch.device)[:, None]
        batch.tokens[: len(rows)].scatter_(1, lengths + accepted.kept[:, None], accepted.following[:, None])
        columns = lengths + torch.arange(max(usable) + 1, device=batch.device)
        found = torch.cat([batch.tokens[: len(rows)].gather(1, columns), accepted.kept[:, None]], dim=1).tolist()
        self.tally.forward(len(rows))
        finished = []
        for row, drafts, (*tokens, kept) in zip(rows, usable, found, strict=True):
            count, stopped = row.stops.cut(row.tokens, tokens[: kept + 1])
            row.take(tokens[:count])
            self.tally.accepted(drafts, kept)
            self.tally.tokens += count
            if stopped or len(row.tokens) >= row.limit or row.error is not None:
                finished.append(row)
        self._leave(finished)


def _proposal(draft: Draft | None, tokens: Tensor, vocabulary: int, members: list[int] | None) -> Tensor:
    """What the drafted `tokens` (rows, depth) were drawn from, (rows, depth, vocab); certain where they were not drawn."""
    depth = tokens.shape[1]
    if draft is None or not draft.distributions:
        return torch.nn.functional.one_hot(tokens, vocabulary).float()
    distributions = torch.stack(draft.distributions, dim=1)[:, :depth]
    return distributions if members is None else distributions[members]
