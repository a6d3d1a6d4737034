"""The engine: rows that come and go, and one forward of the trunk a round over all of them and their drafts.

Draft, verify, accept, again (Stern et al. 2018, arXiv 1811.03115; Leviathan et al. 2022, arXiv 2211.17192), with chains or trees
of drafts. Greedy output is the trunk's own, sampled output has the trunk's distribution.
"""

import math
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from transformers import GenerationConfig

from headway.attention import decoding
from headway.decoding.acceptance import accept
from headway.decoding.arguments import new_token_limit, prompt_tokens, resolve, seed_number
from headway.decoding.cache import RaggedCache, with_room
from headway.decoding.compiled import budgets_for, compiled, worthwhile
from headway.decoding.drafting import MakeDrafter, made
from headway.decoding.layout import Layout, chain, kept_positions, lay_out, ridden_prompts
from headway.decoding.planning import Planner
from headway.decoding.probe import why_not_exact, why_not_this_long
from headway.decoding.rows import Batch, Row
from headway.decoding.scores import Scores
from headway.decoding.stats import Tally
from headway.decoding.stopping import Stops
from headway.errors import ConfigError, UnsupportedModelError
from headway.model import HeadwayModel
from headway.ops.trees import Path
from headway.trunk import ForwardContext, Tapped

LUCK = 0.5  # of 16 rows of 32 tokens, full batches were a fifth faster over plain decoding than batches that nobody joins
CHOICES = 64  # settings of rows that are kept for rows to come


class Engine:
    """Decodes rows together; each may join or be cancelled at any time, and what it says does not depend on its company.

    Args:
        model: whose trunk can be decoded this way (`why_not_exact` gives None).
        drafter: makes the drafter; None decodes without drafts.
        max_rows: rows decoded at once; others wait.
        max_tokens: slots of the cache that all rows together may take; default: no limit.
        prefill_chunk: prompt tokens of a row that one forward reads at most.
        adaptive: verify as many drafts as pay, none if none do; otherwise always as many as the drafter can propose.
        seed: where the seeds of rows come from that bring none.
        compile: compile what rounds run, which takes seconds for each of a few sizes, once a process, and pays where models
            are small and texts many.
    Raises: UnsupportedModelError for a trunk that cannot be decoded exactly this way.
    """

    def __init__(
        self,
        model: HeadwayModel,
        drafter: MakeDrafter | None = None,
        max_rows: int = 16,
        max_tokens: int | None = None,
        prefill_chunk: int = 512,
        adaptive: bool = True,
        seed: int = 0,
        compile: bool = False,
    ) -> None:
        if reason := why_not_exact(model.trunk):
            raise UnsupportedModelError(f"{type(model.trunk).__name__} cannot be decoded exactly in ragged batches: {reason}.")
        self.model, self.view = model, model.view
        self.max_rows, self.max_tokens, self.prefill_chunk = max_rows, max_tokens, prefill_chunk
        self.cache = RaggedCache(0, 0, len(self.view.layers) + model.count)
        self.drafter = made(drafter, model, self.cache) if drafter is not None else None
        self.room = 0 if self.drafter is None else _slots(most := self.drafter.budgets[-1], self.drafter.masks(most, most + 1))
        self.compiled = compiled(model) if compile else None
        self.planner = None
        if adaptive and self.drafter is not None:
            self.planner = Planner(budgets_for(self.drafter.budgets) if compile else self.drafter.budgets)
        self.tally = Tally(self.drafter.depth if self.drafter is not None else 0)
        self.seed = seed_number(seed)
        self._generator = torch.Generator(model.device).manual_seed(self.seed)
        self._choices: dict[tuple[str, str, int], tuple[Scores, Stops]] = {}
        self.waiting: deque[Row] = deque()
        # all rows share the buffers: those of the batch come first, those whose prompts are being read stand after them
        self.batch = Batch(torch.zeros(0, 0, dtype=torch.long, device=model.device))
        self.entering: list[Row] = []
        self._first: dict[Row, Tensor] = {}  # the state of an entering row that its first token comes from

    def submit(
        self,
        prompt: Sequence[int] | Tensor,
        *,
        generation_config: GenerationConfig | None = None,
        stream: Callable[[list[int]], None] | None = None,
        tokenizer: Any = None,
        seed: int | None = None,
        acceptance: str = "coupled",
        **kwargs: Any,
    ) -> Row:
        """Let a prompt wait for its turn; `step` or `run` does the work. The row it gives shows how far it has come.

        Args:
            prompt: its tokens, as numbers or a tensor (length,).
            stream: gets new tokens as they are settled; if it fails, only this row ends.
            tokenizer: needed for `stop_strings`. seed: of what is drawn for this row.
            generation_config, acceptance, kwargs: as those of `generate`.
        Raises: ConfigError for a prompt that is empty, unknown to the model, too long for it or for the engine, and as `generate`.
        """
        trunk = self.model.trunk
        config = resolve(trunk, generation_config, kwargs, one_row=True)
        prompt = prompt_tokens(trunk, prompt)
        limit = len(prompt) + new_token_limit(trunk, config, len(prompt))
        if reason := why_not_this_long(trunk, limit):
            raise ConfigError(f"A row of {limit} tokens cannot be decoded exactly: {reason}. Ask for fewer new tokens.")
        config.min_new_tokens = config.min_new_tokens or max(0, (config.min_length or 0) - len(prompt)) or None
        config.min_length = config.max_length = config.max_new_tokens = None
        key = (config.to_json_string(), str(acceptance), id(tokenizer))
        if key not in self._choices:
            scores = Scores(config, self.model.device, self._generator, acceptance, self.view.unembedding.size)
            if len(self._choices) == CHOICES:
                del self._choices[next(iter(self._choices))]  # the oldest
            self._choices[key] = (scores, Stops(config, tokenizer))
        if seed is None:
            self.seed += 1
            seed = self.seed
        row = Row(prompt, len(prompt), limit, *self._choices[key], seed_number(seed), stream)
        self.add(row)
        return row

    def add(self, row: Row) -> None:
        """Let a row wait for its turn. Raises ConfigError if it could never fit."""
        if self.max_tokens is not None and row.limit + self.room > self.max_tokens:
            raise ConfigError(
                f"A row of {row.limit} tokens, with room for {self.room} drafts, is more than the {self.max_tokens} tokens that "
                "this engine holds (max_tokens)."
            )
        self.waiting.append(row)

    @property
    def idle(self) -> bool:
        return not (self.waiting or self.entering or self.batch.rows)

    def run(self) -> None:
        """Until nothing is left to do."""
        with decoding(self.view.config):  # once: it takes a while
            while not self.idle:
                self.step()

    @torch.inference_mode()
    def step(self) -> None:
        """Read a chunk of the prompts that entered, then one round of draft, verify and accept for the rows that run."""
        self._leave([row for row in self.batch.rows if row.cancelled])
        if not self.entering:
            self._admit()
        with decoding(self.view.config):
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
            if rows > 1 and self.max_tokens is not None and rows * (longest + self.room) > self.max_tokens:
                break
            self.waiting.popleft()
            if row.cancelled:
                row.finished = True
            else:
                self.entering.append(row)
        try:
            self._reserve(running + len(self.entering), longest)
        except ConfigError as error:  # what is running runs on
            for row in self.entering:
                row.error, row.finished = error, True
            self.entering = []
        for place, row in enumerate(self.entering, running):
            self.batch.tokens[place, : row.prompt] = torch.tensor(row.tokens, device=self.batch.device)
            if self.drafter is not None:
                self.drafter.reset_row(place)

    def _reserve(self, rows: int, longest: int) -> None:
        if rows <= self.cache.rows and longest <= self.cache.capacity:
            return
        rows = max(rows, self.cache.rows)
        capacity = max(with_room(longest), self.cache.capacity)
        if self.drafter is not None:
            self.drafter.resize(rows, capacity)
        self.cache.resize(rows, capacity)
        old = self.batch.tokens
        self.batch.tokens = old.new_zeros(rows, capacity + self.room + 1)
        self.batch.tokens[: old.shape[0], : old.shape[1]] = old

    def _has_room(self, slots: int) -> bool:
        """Whether drafts of a tree and masks find slots: beside each other, they take more than a row has tokens to go."""
        try:
            self._reserve(len(self.batch.rows), max(self.batch.lengths) + slots)
        except ConfigError:
            return False
        return True

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
        starts = [row.prefilled for row in self.entering]
        done = torch.tensor(starts, device=device)[:, None]
        ends = torch.tensor([row.prompt for row in self.entering], device=device)[:, None]
        width = min(self.prefill_chunk, max(row.prompt - row.prefilled for row in self.entering))
        positions = done + torch.arange(width, device=device)
        positions = torch.where(positions < ends, positions, -1)
        visible = max(min(row.prefilled + width, row.prompt) for row in self.entering)
        # what padding writes stands after its row, and is overwritten
        start = starts[0] if min(starts) == max(starts) and starts[0] + width == visible else None
        layout = Layout(positions, positions, visible, [0] * len(self.entering), start=start)
        if self.drafter is not None and any(row.prefilled < row.prompt <= row.prefilled + width for row in self.entering):
            masks = self.drafter.masks(self.drafter.depth, max(row.usable for row in self.entering))
            layout = replace(layout, ridden=ridden_prompts(self.view, self.entering, layout, masks) if masks else None)
        tapped = self._forward(layout, first)
        for r, row in enumerate(self.entering):
            if row.prefilled < row.prompt <= row.prefilled + width:
                self._first[row] = tapped.last[r, row.prompt - row.prefilled - 1]
            row.prefilled = min(row.prefilled + width, row.prompt)
        if self.drafter is not None:
            self.drafter.observe(tapped, positions, first)
        if all(row.prefilled == row.prompt for row in self.entering):
            states = torch.stack([self._first.pop(row) for row in self.entering])
            entering = Batch(self.batch.tokens[first:], self.entering)
            layout = chain(entering, layout.usable)
            path = accept(entering, self.view.unembedding.logits(states[:, None]), None, layout)
            self.batch.rows += self.entering
            self.entering = []
            self._settle(entering, _write_down(entering, path, layout), layout)

    # one round

    def _round(self) -> None:
        batch = self.batch
        began = time.perf_counter()
        budget, draft = self._budget(), None
        behind = masks = 0
        if budget:
            assert self.drafter is not None
            behind = self.drafter.behind(batch, budget)
            with self.tally.timed("draft"):
                draft = self.drafter.draft(batch, budget)
            masks = self.drafter.masks(budget, max(row.usable for row in batch.rows))
            drafts = budget if draft.parents is None else draft.parents.shape[1]
            if (draft.parents is not None or masks) and not self._has_room(_slots(drafts, masks)):
                budget, draft, masks = 0, None, 0
        with self.tally.timed("verify"):
            layout = lay_out(self.view, batch, draft, budget, masks)
            tapped = self._forward(layout)
            logits = self.view.unembedding.logits(tapped.last)
        with self.tally.timed("accept"):
            path = accept(batch, logits, draft, layout)
            if self.drafter is not None:
                self.drafter.observe(tapped, kept_positions(path, layout) if layout.drafts else layout.positions)
            if layout.tree is not None:
                self._compact(batch, path)
            found = _write_down(batch, path, layout)
        fresh = self.compiled is not None and self.compiled.fresh  # its time says nothing about other rounds
        if self.planner is not None and not fresh:
            took = time.perf_counter() - began
            free = self._free(layout, found) if layout.drafts else []
            self.planner.learn(len(batch.rows), layout.drafts, free, took, behind)
        if self.compiled is not None:
            self.compiled.fresh = False
        with self.tally.timed("accept"):
            self._settle(Batch(batch.tokens, list(batch.rows)), found, layout)

    def _budget(self) -> int:
        """How many drafts this round verifies."""
        rows, drafter = self.batch.rows, self.drafter
        usable = max(row.usable for row in rows)
        if drafter is None or usable < 1:
            return 0
        most = drafter.most(usable)
        if self.planner is None:
            return most
        left = sum(1 + row.usable for row in rows) / len(rows)
        # rows that start together end apart by luck, and the unluckiest ends the batch: the largest of so many sums of so many
        new = max(row.limit - row.prompt for row in rows)
        apart = 0.0 if self.waiting else LUCK * math.sqrt(math.log2(len(rows)) / new)
        return self.planner.choose(len(rows), most, left, lambda budget: drafter.behind(self.batch, budget), apart)

    def _free(self, layout: Layout, found: list[tuple[list[int], list[int]]]) -> list[list[int]]:
        """What stayed in the rows that could use all drafts."""
        deepest = layout.drafts if layout.tree is None else 1
        rows = self.batch.rows
        # where no row waits for a place, the time is that of the quarter with the most to go
        late = 0 if self.waiting else sorted(row.usable for row in rows)[-(len(rows) + 3) // 4]
        return [nodes for row, (_, nodes) in zip(rows, found, strict=True) if row.usable >= max(deepest, late)]

    def _forward(self, layout: Layout, first: int | None = None) -> Tapped:
        """The trunk over all rows of a round, or to read prompts over those from `first` on."""
        rows, inside = layout.slots.shape[0], layout.slots.clamp(min=0)
        input_ids = self.batch.tokens[first or 0 : (first or 0) + rows].gather(1, inside)
        if (ridden := layout.ridden) is not None:
            assert self.model.heads is not None
            self.cache.begin(ridden.slots, ridden.visible, first or 0)
            context = ForwardContext(self.view, ridden.positions.clamp(min=0), ridden.masks, self.cache)
            return self.model.heads.run_with_masks(input_ids, context, ridden.count, 1 if ridden.last else None)
        if first is None and self.compiled is not None and worthwhile(layout.slots, self.cache):
            return self.compiled.trunk(self.cache, input_ids, layout.positions, layout.slots, layout.visible, layout.masks)
        masks = layout.masks if layout.tree is not None else self.view.causal_masks(layout.positions, layout.visible, layout.start)
        self.cache.begin(layout.slots, layout.visible, first or 0, layout.start)
        return self.model.run(input_ids, layout.positions.clamp(min=0), masks, self.cache)

    def _compact(self, batch: Batch, path: Path) -> None:
        """Move the tokens and cache entries of the path to where a chain would have put them."""
        newest = torch.tensor(batch.lengths, device=batch.device)[:, None] - 1
        nodes = path.nodes[:, : int(path.kept.max())]
        targets = newest + torch.arange(1, nodes.shape[1] + 1, device=batch.device)
        sources = torch.where(nodes > 0, newest + nodes, targets)
        moving = sources != targets
        if bool(moving.any()):
            tokens = batch.tokens[: len(batch.rows)]
            tokens.scatter_(1, targets, tokens.gather(1, sources))
            self.cache.compact(torch.where(moving, sources, -1), torch.where(moving, targets, -1))

    def _settle(self, batch: Batch, found: list[tuple[list[int], list[int]]], layout: Layout) -> None:
        """Append what was accepted; rows that are finished leave."""
        self.tally.forward(len(batch.rows))
        finished = []
        for row, usable, (tokens, nodes) in zip(batch.rows, layout.usable, found, strict=True):
            count, stopped = row.stops.cut(row.tokens, tokens)
            row.take(tokens[:count])
            self.tally.accepted(usable if layout.tree is None else layout.drafts, min(usable, self.tally.depth), len(nodes))
            self.tally.tokens += count
            if stopped or len(row.tokens) >= row.limit or row.error is not None:
                finished.append(row)
        self._leave(finished)


def _slots(drafts: int, masks: int) -> int:
    """Slots that a round takes after those of the settled tokens, where so many masks ride behind each token."""
    return drafts + masks * (1 + drafts)


def _write_down(batch: Batch, path: Path, layout: Layout) -> list[tuple[list[int], list[int]]]:
    """Put the following token after the path; what each row gains: the tokens, and which drafts they were, from 1."""
    columns = torch.tensor(batch.lengths, device=batch.device)[:, None] + path.kept[:, None]
    batch.tokens[: len(batch.rows)].scatter_(1, columns, path.following[:, None])
    if not layout.drafts:
        return [([token], []) for token in path.following.tolist()]
    block = torch.cat([path.kept[:, None], path.nodes, batch.drafted(layout.drafts + 1)], dim=1).tolist()  # one transfer
    first = 1 + layout.drafts
    return [(row[first : first + row[0] + 1], row[1 : 1 + row[0]]) for row in block]
