"""The engine: rows that come and go, and one forward of the trunk a round over all of them and their drafts.

Draft, verify, accept, again (Stern et al. 2018, arXiv 1811.03115; Leviathan et al. 2022, arXiv 2211.17192), with chains or trees
of drafts. Greedy output is the trunk's own, sampled output has the trunk's distribution.
"""

import math
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from transformers import GenerationConfig

from headway.decoding.batch import Batch, SequenceState
from headway.decoding.compiled import compiled, compiled_draft_sizes, worthwhile
from headway.decoding.draft_length import DraftLengthController
from headway.decoding.draftable import DraftableModel
from headway.decoding.drafters.base import DrafterFactory
from headway.decoding.exactness import exactness_issue, length_issue
from headway.decoding.generation_config import new_token_limit, prompt_tokens, resolve, seed_number
from headway.decoding.sampler import Sampler
from headway.decoding.scheduler import Scheduler, slots
from headway.decoding.stats import StatsCollector
from headway.decoding.stopping import StoppingCriteria
from headway.decoding.verify import accept
from headway.decoding.verify_inputs import VerifyInputs, accepted_positions, build_verify_inputs, chain, prompt_mask_tokens
from headway.errors import ConfigError, UnsupportedModelError
from headway.ops.draft_tree import AcceptedPath
from headway.trunk import ForwardContext, HiddenStates
from headway.trunk.attention import decoding

LUCK = 0.5  # of 16 rows of 32 tokens, full batches were a fifth faster over plain decoding than batches that nobody joins
CHOICES = 64  # settings of rows that are kept for rows to come


class Engine:
    """Decodes rows together; each may join or be cancelled at any time, and what it says does not depend on its company.

    Args:
        model: whose trunk can be decoded this way (`exactness_issue` gives None).
        drafter: makes the drafter; None decodes without drafts.
        max_rows: rows decoded at once; others wait.
        max_tokens: slots of the cache that all rows together may take; default: no limit.
        prefill_chunk: prompt tokens of a row that one forward reads at most.
        adaptive: verify as many drafts as pay, none if none do; otherwise always as many as the drafter can propose.
        seed: where the seeds of rows come from that bring none.
        compile: compile what rounds run, which takes seconds for each of a few sizes, once a process, and pays where models
            are small and texts many.
    Raises: UnsupportedModelError for a trunk that cannot be decoded exactly this way; ConfigError for a number below 1 and for
        a model in training mode.
    """

    def __init__(
        self,
        model: DraftableModel,
        drafter: DrafterFactory | None = None,
        max_rows: int = 16,
        max_tokens: int | None = None,
        prefill_chunk: int = 512,
        adaptive: bool = True,
        seed: int = 0,
        compile: bool = False,
    ) -> None:
        if reason := exactness_issue(model.trunk):
            raise UnsupportedModelError(f"{type(model.trunk).__name__} cannot be decoded exactly in ragged batches: {reason}.")
        if model.training or model.trunk.training:
            raise ConfigError("The model is in training mode and would decode with dropout; call model.eval() first.")
        for name, value in (("max_rows", max_rows), ("max_tokens", max_tokens), ("prefill_chunk", prefill_chunk)):
            if (not isinstance(value, int) or value < 1) and (name, value) != ("max_tokens", None):
                raise ConfigError(f"{name} of an engine must be a whole number of at least 1, got {value!r}.")
        self.model, self.view, self.unembedding = model, model.view, model.view.unembedding
        self.max_rows, self.prefill_chunk = max_rows, prefill_chunk
        self.places = Scheduler(model, drafter, max_tokens, prefill_chunk, whole=compile)
        self.cache, self.drafter, self.batch = self.places.cache, self.places.drafter, self.places.batch
        self.compiled = compiled(model) if compile else None
        self.controller = None
        if adaptive and self.drafter is not None:
            self.controller = DraftLengthController(
                compiled_draft_sizes(self.drafter.draft_sizes) if compile else self.drafter.draft_sizes
            )
        self.stats_collector = StatsCollector(self.drafter.depth if self.drafter is not None else 0)
        self.seed = seed_number(seed)
        self._generator = torch.Generator(model.device).manual_seed(self.seed)
        self._choices: dict[tuple[str, str, int], tuple[Sampler, StoppingCriteria]] = {}
        self.waiting: deque[SequenceState] = deque()
        self._cancelled: deque[SequenceState] = deque()  # since the last step
        self._stepping = False
        self.hidden_state_layers = self.drafter.hidden_state_layers if self.drafter is not None else ()
        self._tapped: Mapping[int, Tensor] | None = None

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
    ) -> SequenceState:
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
        if reason := length_issue(trunk, limit):
            raise ConfigError(f"A row of {limit} tokens cannot be decoded exactly: {reason}. Ask for fewer new tokens.")
        config.min_new_tokens = config.min_new_tokens or max(0, (config.min_length or 0) - len(prompt)) or None
        config.min_length = config.max_length = config.max_new_tokens = None
        key = (config.to_json_string(), str(acceptance), id(tokenizer))
        if key not in self._choices:
            scores = Sampler(config, self.model.device, self._generator, acceptance, self.unembedding.size)
            if len(self._choices) == CHOICES:
                del self._choices[next(iter(self._choices))]  # the oldest
            self._choices[key] = (scores, StoppingCriteria(config, tokenizer))
        if seed is None:
            self.seed += 1
            seed = self.seed
        row = SequenceState(prompt, len(prompt), limit, *self._choices[key], seed_number(seed), stream)
        self.add(row)
        return row

    def add(self, row: SequenceState) -> None:
        """Let a row wait for its turn. Raises ConfigError if it could never fit."""
        if not self.places.allows(1, row.limit):
            raise ConfigError(
                f"A row of {row.limit} tokens, with room for {self.places.room} drafts, is more than the {self.places.max_tokens} "
                "tokens that this engine holds (max_tokens). Ask for fewer new tokens, or make an engine that holds more."
            )
        if self.idle:  # the model may have changed since
            self.unembedding = self.view.unembedding
            if self.compiled is not None:
                self.compiled.forget()
        self.waiting.append(row)
        row.on_cancel = self._cancelled.append
        if row.cancelled:
            row.on_cancel(row)

    @property
    def entering(self) -> list[SequenceState]:
        """Those whose prompts are being read."""
        return self.places.entering

    @property
    def idle(self) -> bool:
        return not (self.waiting or self.entering or self.batch.rows)

    def run(self) -> None:
        """Until nothing is left to do."""
        with self._at_work():  # once: it takes a while
            while not self.idle:
                self._step()

    def step(self) -> None:
        """Read a chunk of the prompts that entered, then one round of draft, verify and accept for the rows that run.

        What goes wrong for all rows of a forward, for want of memory for instance, ends these rows and is raised.
        """
        with self._at_work():
            self._step()

    @contextmanager
    def _at_work(self) -> Iterator[None]:
        # compilers would take what taps for a part of the model
        capture_hidden_states = (
            self.view.capture_hidden_states(self.hidden_state_layers) if self.compiled is None else nullcontext()
        )
        with torch.inference_mode(), decoding(self.view.config), capture_hidden_states as self._tapped:
            yield

    def _step(self) -> None:
        if self._stepping:
            raise ConfigError("The engine is in the middle of a step: whoever gets its tokens can submit rows, but not run them.")
        self._stepping = True
        looked_at: list[SequenceState] = []
        try:
            if self._cancelled:
                self._drop_cancelled()
            if self.waiting:
                self.places.admit(self.waiting, self.max_rows)
            if looked_at := self.entering:
                with self.stats_collector.timed("prefill"):
                    self._prefill()
            if looked_at := self.batch.rows:
                self._round()
        except Exception as error:
            failed = [row for row in looked_at if not row.finished]
            for row in failed:
                row.error = row.error or error
            self.places.leave(failed)
            raise
        finally:
            self._stepping = False

    def _drop_cancelled(self) -> None:
        dropped = [self._cancelled.popleft() for _ in range(len(self._cancelled))]
        dropped = [row for row in dropped if not row.finished]
        for row in dropped:
            with suppress(ValueError):
                self.waiting.remove(row)
        self.places.leave(dropped)

    # reading prompts

    def _prefill(self) -> None:
        """A chunk of each entering prompt; rows that are through get their first tokens and join the batch."""
        first, rows = len(self.batch.rows), self.entering
        device = self.batch.device
        starts = [row.prefilled for row in rows]
        done = torch.tensor(starts, device=device)[:, None]
        ends = torch.tensor([row.prompt for row in rows], device=device)[:, None]
        width = min(self.prefill_chunk, max(row.prompt - row.prefilled for row in rows))
        positions = done + torch.arange(width, device=device)
        positions = torch.where(positions < ends, positions, -1)
        visible = max(min(row.prefilled + width, row.prompt) for row in rows)
        through = sum(row.prompt <= row.prefilled + width for row in rows)  # they stand first
        # what padding writes stands after its row, and is overwritten
        start = starts[0] if min(starts) == max(starts) and starts[0] + width == visible else None
        layout = VerifyInputs(positions, positions, visible, [0] * len(rows), start=start)
        if self.drafter is not None and through:
            masks = self.drafter.num_mask_tokens(self.drafter.depth, max(row.max_accepted for row in rows))
            layout = replace(layout, mask_token_inputs=prompt_mask_tokens(self.view, rows, layout, masks) if masks else None)
        hidden_states = self._forward(layout, first)
        if self.drafter is not None:
            self.drafter.observe(hidden_states, positions, first)
        for row in rows:
            row.prefilled = min(row.prefilled + width, row.prompt)
        if through:
            states = torch.stack([hidden_states.last[r, rows[r].prompt - starts[r] - 1] for r in range(through)])
            joining = Batch(self.batch.tokens[first:], rows[:through])
            layout = chain(joining, layout.max_accepted[:through])
            path = accept(joining, self.unembedding.logits(states[:, None]), None, layout)
            found = _write_down(joining, path, layout)
            self.places.join(through)
            self._settle(joining, found, layout)

    # one round

    def _round(self) -> None:
        batch = self.batch
        began = time.perf_counter()
        budget, draft = self._budget(), None
        catch_up_tokens = masks = 0
        if budget:
            assert self.drafter is not None
            catch_up_tokens = self.drafter.catch_up_tokens(batch, budget)
            with self.stats_collector.timed("draft"):
                draft = self.drafter.draft(batch, budget)
            masks = self.drafter.num_mask_tokens(budget, max(row.max_accepted for row in batch.rows))
            drafts = budget if draft.parents is None else draft.parents.shape[1]
            if (draft.parents is not None or masks) and not self._has_room(slots(drafts, masks)):
                budget, draft, masks = 0, None, 0
        with self.stats_collector.timed("verify"):
            layout = build_verify_inputs(self.view, batch, draft, budget, masks)
            hidden_states = self._forward(layout)
            logits = self.unembedding.logits(hidden_states.last)
        with self.stats_collector.timed("accept"):
            path = accept(batch, logits, draft, layout)
            if self.drafter is not None:
                self.drafter.observe(hidden_states, accepted_positions(path, layout) if layout.drafts else layout.positions)
            if layout.tree is not None:
                self._compact(batch, path)
            found = _write_down(batch, path, layout)
        fresh = self.compiled is not None and self.compiled.fresh  # its time says nothing about other rounds
        if self.controller is not None and not fresh:
            took = time.perf_counter() - began
            free = self._free(layout, found) if layout.drafts else []
            self.controller.learn(len(batch.rows), layout.drafts, free, took, catch_up_tokens)
        if self.compiled is not None:
            self.compiled.fresh = False
        with self.stats_collector.timed("accept"):
            self._settle(Batch(batch.tokens, list(batch.rows)), found, layout)

    def _has_room(self, slots: int) -> bool:
        """Whether drafts of a tree and masks find slots: beside each other, they take more than a row has tokens to go."""
        needed = max(self.batch.lengths) + slots
        if needed <= self.places.capacity:
            return True
        try:
            self.places.reserve(self.places.taken, max(needed, self.places.longest))
        except (ConfigError, torch.OutOfMemoryError):
            return False
        return True

    def _budget(self) -> int:
        """How many drafts this round verifies."""
        rows, drafter = self.batch.rows, self.drafter
        if drafter is None or (max_accepted := max(row.max_accepted for row in rows)) < 1:
            return 0
        most = drafter.max_draft_tokens(max_accepted)
        if self.controller is None:
            return most
        if self.controller.rests(len(rows)):
            return 0
        left = sum(1 + row.max_accepted for row in rows) / len(rows)
        # rows that start together end apart by luck, and the unluckiest ends the batch: the largest of so many sums of so many
        new = max(row.limit - row.prompt for row in rows)
        apart = 0.0 if self.waiting else LUCK * math.sqrt(math.log2(len(rows)) / new)
        return self.controller.choose(len(rows), most, left, lambda budget: drafter.catch_up_tokens(self.batch, budget), apart)

    def _free(self, layout: VerifyInputs, found: list[tuple[list[int], list[int]]]) -> list[list[int]]:
        """What stayed in the rows that could use all drafts."""
        deepest = layout.drafts if layout.tree is None else 1
        rows = self.batch.rows
        # where no row waits for a place, the time is that of the quarter with the most to go
        late = 0 if self.waiting else sorted(row.max_accepted for row in rows)[-(len(rows) + 3) // 4]
        return [nodes for row, (_, nodes) in zip(rows, found, strict=True) if row.max_accepted >= max(deepest, late)]

    def _forward(self, layout: VerifyInputs, first: int | None = None) -> HiddenStates:
        """The trunk over all rows of a round, or to read prompts over those from `first` on."""
        rows, inside = layout.slots.shape[0], layout.slots.clamp(min=0)
        positions = inside if layout.positions is layout.slots else layout.positions.clamp(min=0)
        input_ids = self.batch.tokens[first or 0 : (first or 0) + rows].gather(1, inside)
        if (mask_token_inputs := layout.mask_token_inputs) is not None:
            assert self.model.heads is not None
            self.cache.begin(mask_token_inputs.slots, mask_token_inputs.visible, first or 0)
            context = ForwardContext(self.view, mask_token_inputs.positions.clamp(min=0), mask_token_inputs.masks, self.cache)
            return self.model.heads.run_with_mask_tokens(
                input_ids, context, mask_token_inputs.count, 1 if mask_token_inputs.last else None
            )
        if first is None and self.compiled is not None and worthwhile(layout.slots, self.cache):
            return self.compiled.trunk(self.cache, input_ids, layout.positions, layout.slots, layout.visible, layout.masks)
        masks = layout.masks if layout.tree is not None else self.view.causal_masks(layout.positions, layout.visible, layout.start)
        self.cache.begin(layout.slots, layout.visible, first or 0, layout.start)
        return self.view.run(input_ids, positions, masks, self.cache, self.hidden_state_layers, self._tapped)

    def _compact(self, batch: Batch, path: AcceptedPath) -> None:
        """Move the tokens and cache entries of the path to where a chain would have put them."""
        newest = batch.ends - 1
        nodes = path.nodes[:, : int(path.num_accepted.max())]
        targets = newest + torch.arange(1, nodes.shape[1] + 1, device=batch.device)
        sources = torch.where(nodes > 0, newest + nodes, targets)
        moving = sources != targets
        if bool(moving.any()):
            tokens = batch.tokens[: len(batch.rows)]
            tokens.scatter_(1, targets, tokens.gather(1, sources))
            self.cache.compact(torch.where(moving, sources, -1), torch.where(moving, targets, -1))

    def _settle(self, batch: Batch, found: list[tuple[list[int], list[int]]], layout: VerifyInputs) -> None:
        """Append what was accepted; rows that are finished leave."""
        self.stats_collector.forward(len(batch.rows))
        for row, max_accepted, (tokens, nodes) in zip(batch.rows, layout.max_accepted, found, strict=True):
            self.stats_collector.tokens += row.take(tokens)
            if layout.drafts:
                offered = max_accepted if layout.tree is None else layout.drafts
                self.stats_collector.accepted(offered, min(max_accepted, self.stats_collector.depth), len(nodes))
        self.places.leave([row for row in batch.rows if row.ended])


def _write_down(batch: Batch, path: AcceptedPath, layout: VerifyInputs) -> list[tuple[list[int], list[int]]]:
    """Put the following token after the path; what each row gains: the tokens, and which drafts they were, from 1."""
    columns = batch.ends + path.num_accepted[:, None] if layout.drafts else batch.ends
    batch.tokens[: len(batch.rows)].scatter_(1, columns, path.bonus_token[:, None])
    if not layout.drafts:
        return [([token], []) for token in path.bonus_token.tolist()]
    block = torch.cat([path.num_accepted[:, None], path.nodes, batch.drafted(layout.drafts + 1)], dim=1).tolist()  # one transfer
    first = 1 + layout.drafts
    return [(row[first : first + row[0] + 1], row[1 : 1 + row[0]]) for row in block]
