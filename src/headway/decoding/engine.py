"""The engine: sequences that come and go, and a forward of the trunk per step over all sequences and drafts.

Draft, verify, accept, repeat (Stern et al. 2018, arXiv 1811.03115; Leviathan et al. 2022, arXiv 2211.17192), with chains or trees
of drafts. Greedy output is the trunk's own, sampled output has the trunk's distribution.
"""

import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from headway.decoding.batch import DecodingBatch, SequenceState
from headway.decoding.compiled import compiled, compiled_draft_sizes, worthwhile
from headway.decoding.draft_length import DraftLengthController, choose_num_draft_tokens, representative_rows
from headway.decoding.draftable import DraftableModel
from headway.decoding.drafters.base import Drafter, DrafterFactory
from headway.decoding.exactness import exactness_issue
from headway.decoding.generation_config import is_whole
from headway.decoding.requests import Handle, OnTokens, Request
from headway.decoding.scheduler import Scheduler, step_slots
from headway.decoding.sequence_factory import SequenceFactory
from headway.decoding.stats import DecodeStats, SequenceCounts, StepClock
from headway.decoding.stopping import FinishReason
from headway.decoding.verify import accept, append_bonus_token, compact_accepted_path, token_logprobs
from headway.decoding.verify_inputs import (
    VerifyInputs,
    accepted_positions,
    append_prompt_mask_tokens,
    build_verify_inputs,
    chain_inputs,
)
from headway.errors import ConfigError, UnsupportedModelError
from headway.ops.draft_tree import AcceptedPath
from headway.trunk import ForwardContext, HiddenStates
from headway.trunk.attention import use_decode_attention


class Engine:
    """Decodes requests together. A request can be submitted or cancelled at any time; tokens are batch-invariant.

    Args:
        model: model with a trunk that can be decoded exactly (`exactness_issue` returns None), in eval mode.
        drafter: factory of the drafter; None decodes autoregressively.
        tokenizer: needed for stop strings and for the text of completions.
        max_batch_size: maximum number of sequences decoded at once (vLLM's `max_num_seqs`); further sequences wait.
        max_tokens: maximum number of cache slots of all sequences together (a KV-cache budget); default: no limit.
        prefill_chunk: maximum number of prompt tokens of a sequence per forward.
        adaptive: verify as many drafts as pay, none if none pay; otherwise as many as the drafter can propose.
        seed: source of the seeds of requests without a seed.
        compile: run decode steps through torch.compile. A few shapes take 5-20 s each to compile, once per process. Worthwhile
            for small models and many requests.
        controller: factory of the controller of the draft length; by default the engine has a new controller.
    Raises:
        UnsupportedModelError: for a trunk that cannot be decoded exactly in ragged batches.
        ConfigError: for a number below 1, and for a model in training mode.
    """

    def __init__(
        self,
        model: DraftableModel,
        drafter: DrafterFactory | None = None,
        *,
        tokenizer: Any = None,
        max_batch_size: int = 16,
        max_tokens: int | None = None,
        prefill_chunk: int = 512,
        adaptive: bool = True,
        seed: int = 0,
        compile: bool = False,
        controller: Callable[[Drafter], DraftLengthController] | None = None,
    ) -> None:
        if reason := exactness_issue(model.trunk):
            raise UnsupportedModelError(f"{type(model.trunk).__name__} cannot be decoded exactly in ragged batches: {reason}.")
        if model.training or model.trunk.training:
            raise ConfigError("The model is in training mode and would decode with dropout; call model.eval() first.")
        for name, value in (("max_batch_size", max_batch_size), ("max_tokens", max_tokens), ("prefill_chunk", prefill_chunk)):
            if not is_whole(value, 1) and (name, value) != ("max_tokens", None):
                raise ConfigError(f"{name} of an engine must be a whole number of at least 1, got {value!r}.")
        self.model, self.view, self.unembedding = model, model.view, model.view.unembedding
        self.tokenizer, self.max_batch_size, self.prefill_chunk = tokenizer, max_batch_size, prefill_chunk
        self.scheduler = Scheduler(model, drafter, max_tokens, prefill_chunk, whole_blocks=compile)
        self.cache, self.drafter, self.batch = self.scheduler.cache, self.scheduler.drafter, self.scheduler.batch
        self.compiled = compiled(model) if compile else None
        self.controller = None
        if adaptive and self.drafter is not None:
            self.controller = controller(self.drafter) if controller is not None else new_controller(self.drafter, compile)
        self.hidden_state_layers = self.drafter.hidden_state_layers if self.drafter is not None else ()
        self.depth = self.drafter.depth if self.drafter is not None else 0
        self.waiting: deque[SequenceState] = deque()
        self.clock = StepClock()
        self.num_steps = 0
        self._finished_counts = SequenceCounts(self.depth)
        self._factory = SequenceFactory(model, tokenizer, seed)
        self._cancelled: deque[SequenceState] = deque()  # since the last step
        self._deliveries: deque[tuple[SequenceState, int]] = deque()  # committed tokens that listeners have not received
        self._finished: list[SequenceState] = []  # in this step
        self._hidden_states: Mapping[int, Tensor] | None = None
        self._in_step = self._interrupted = False

    def submit(self, request: Request, on_tokens: OnTokens | None = None) -> Handle:
        """Queue a request for `step` or `run`.

        Args:
            request: prompt, settings and number of samples.
            on_tokens: called with the sample index and the new tokens after every step; an exception ends that sample alone.
        Raises:
            ConfigError: for a prompt that is empty, unknown to the model or too long, and for settings that `generate` refuses.
        """
        samples = self._factory.sequences(request, on_tokens)
        for sample in samples:
            self.add(sample)
        return Handle(request, samples, self.tokenizer)

    def add(self, row: SequenceState) -> None:
        """Queue a sequence.

        Raises:
            ConfigError: for a sequence that can never fit.
        """
        if not self.scheduler.allows(1, row.limit):
            raise ConfigError(
                f"A row of {row.limit} tokens, with room for {self.scheduler.reserved_draft_slots} drafts, is more than the "
                f"{self.scheduler.max_tokens} tokens that this engine holds (max_tokens). Ask for fewer new tokens, or make an "
                "engine that holds more."
            )
        if self.idle:  # the model may have changed since
            self.unembedding = self.view.unembedding
            if self.compiled is not None:
                self.compiled.forget()
        row.counts = SequenceCounts(self.depth)
        self.waiting.append(row)
        row.on_cancel = self._cancelled.append
        if row.cancelled:
            row.on_cancel(row)

    @property
    def prefilling(self) -> list[SequenceState]:
        """Sequences with a prompt that is being processed."""
        return self.scheduler.prefilling

    @property
    def idle(self) -> bool:
        return not (self.waiting or self.prefilling or self.batch.rows or self._deliveries)

    def stats(self) -> DecodeStats:
        """Statistics of all sequences since the engine was made."""
        counts = SequenceCounts(self.depth)
        counts.add(self._finished_counts)
        for row in self.batch.rows:
            counts.add(row.counts)
        return counts.stats(self.num_steps, self.clock.seconds)

    def run(self) -> None:
        """Decode until all requests are finished."""
        with self._decoding_mode():  # once: it takes a while
            while not self.idle:
                self._step()

    def step(self) -> list[SequenceState]:
        """Prefill a chunk of the admitted prompts, then draft, verify and accept for the batch.

        An error of a whole forward, for example a lack of memory, ends the sequences of the forward and is raised.

        Returns: the sequences that finished.
        """
        with self._decoding_mode():
            return self._step()

    def run_until_finished(self) -> list[SequenceState]:
        """Decode until at least one sequence finishes; return the finished sequences, none if the engine is idle."""
        with self._decoding_mode():
            while not self.idle:
                if finished := self._step():
                    return finished
        return []

    @contextmanager
    def _decoding_mode(self) -> Iterator[None]:
        if self._in_step:
            raise ConfigError("The engine is in the middle of a step: a listener can submit requests, but not run the engine.")
        # compilers would take hooks for a part of the model
        capture = self.view.capture_hidden_states(self.hidden_state_layers) if self.compiled is None else nullcontext()
        with torch.inference_mode(), use_decode_attention(self.view.config), capture as self._hidden_states:
            yield

    def _step(self) -> list[SequenceState]:
        self._in_step, self._finished = True, []
        in_forward: list[SequenceState] = []
        try:
            if self._interrupted:
                self._recover()
            if self._deliveries:
                self._deliver()
            if self._cancelled:
                self._remove_cancelled()
            if self.waiting:
                self._admit()
            if self.prefilling:
                in_forward = [sample for row in self.prefilling for sample in (row, *row.forks)]
                self._prefill()
            if in_forward := self.batch.rows:
                self._decode_step()
        except Exception as error:
            self._interrupted = True
            failed = [row for row in in_forward if not row.finished]
            for row in failed:
                row.fail(error)
            self._remove(failed)
            self._interrupted = False
            raise
        except BaseException:
            self._interrupted = True
            raise
        finally:
            self._in_step = False
            self._close_accounts()
        return self._finished

    def _recover(self) -> None:
        active = {*self.batch.rows, *(sample for row in self.prefilling for sample in (row, *row.forks))}
        self.waiting = deque(row for row in self.waiting if row not in active and not row.finished)
        self.scheduler.recover()
        self._interrupted = False

    def _remove_cancelled(self) -> None:
        cancelled = [self._cancelled.popleft() for _ in range(len(self._cancelled))]
        cancelled = [row for row in cancelled if not row.finished]
        for row in cancelled:
            row.finish_reason = row.finish_reason or FinishReason.CANCELLED
            with suppress(ValueError):
                self.waiting.remove(row)
        self._remove(cancelled)

    def _admit(self) -> None:
        prefilling = set(self.prefilling)
        self._finished += self.scheduler.admit(self.waiting, self.max_batch_size)
        for row in self.prefilling:
            if row not in prefilling:
                for sample in (row, *row.forks):
                    self.clock.start(sample, "prefill")

    def _remove(self, rows: list[SequenceState]) -> None:
        self.scheduler.remove(rows)
        self._finished += rows

    def _close_accounts(self) -> None:
        for row in self._finished:
            self.clock.stop(row)
            self._finished_counts.add(row.counts)

    def _prefill(self) -> None:
        """Process a chunk of every prompt; sequences with a complete prompt get their first token and join the batch."""
        rows = self.prefilling
        with self.clock.timed("prefill", sum(1 + len(row.forks) for row in rows)):
            joining = self._prefill_chunk(rows)
        for row in joining:
            self.clock.stop(row)
            self.clock.start(row, "draft", "verify", "accept")
        self._deliver()

    def _prefill_chunk(self, rows: list[SequenceState]) -> list[SequenceState]:
        first, device = len(self.batch.rows), self.batch.device
        starts = [row.prefilled for row in rows]
        done = torch.tensor(starts, device=device)[:, None]
        ends = torch.tensor([row.prompt_length for row in rows], device=device)[:, None]
        width = min(self.prefill_chunk, max(row.prompt_length - row.prefilled for row in rows))
        positions = done + torch.arange(width, device=device)
        positions = torch.where(positions < ends, positions, -1)
        kv_length = max(min(row.prefilled + width, row.prompt_length) for row in rows)
        complete = sum(row.prompt_length <= row.prefilled + width for row in rows)  # the scheduler puts these first
        # padding is written after its row, and is overwritten
        start = starts[0] if min(starts) == max(starts) and starts[0] + width == kv_length else None
        inputs = VerifyInputs(positions, positions, kv_length, [0] * len(rows), contiguous_start=start)
        if self.drafter is not None and complete:
            count = self.drafter.num_mask_tokens(self.drafter.depth, max(row.max_accepted for row in rows))
            if count:
                inputs = replace(inputs, mask_token_inputs=append_prompt_mask_tokens(self.view, rows, inputs, count))
        hidden_states = self._forward(inputs, first)
        if self.drafter is not None:
            self.drafter.observe(hidden_states, positions, first)
        for row in rows:
            row.prefilled = min(row.prefilled + width, row.prompt_length)
        if not complete:
            return []
        last = torch.stack([hidden_states.last[r, rows[r].prompt_length - starts[r] - 1] for r in range(complete)])
        logits = self.unembedding.logits(last[:, None])
        sources = self.scheduler.add_to_batch(complete)
        if len(sources) > complete:
            logits = logits[sources]
        joining = DecodingBatch(self.batch.tokens[first:], self.batch.rows[first:])
        inputs = chain_inputs(joining, [0] * len(sources))
        path = accept(joining, logits, None, inputs)
        logprobs = self._logprobs(joining, logits, path, inputs)
        self._commit(joining.rows, append_bonus_token(joining, path, inputs), inputs, logprobs)
        return joining.rows

    def _decode_step(self) -> None:
        batch, clock, size = self.batch, self.clock, len(self.batch.rows)
        began = time.perf_counter()
        num_draft_tokens, draft = choose_num_draft_tokens(self.controller, self.drafter, batch, bool(self.waiting)), None
        catch_up_tokens = num_mask_tokens = 0
        if num_draft_tokens:
            assert self.drafter is not None
            catch_up_tokens = self.drafter.catch_up_tokens(batch, num_draft_tokens)
            with clock.timed("draft", size):
                draft = self.drafter.draft(batch, num_draft_tokens)
            num_mask_tokens = self.drafter.num_mask_tokens(num_draft_tokens, max(row.max_accepted for row in batch.rows))
            drafts = num_draft_tokens if draft.parents is None else draft.parents.shape[1]
            if (draft.parents is not None or num_mask_tokens) and not self.scheduler.has_slots(step_slots(drafts, num_mask_tokens)):
                num_draft_tokens, draft, num_mask_tokens = 0, None, 0
        with clock.timed("verify", size):
            inputs = build_verify_inputs(self.view, batch, draft, num_draft_tokens, num_mask_tokens)
            hidden_states = self._forward(inputs)
            logits = self.unembedding.logits(hidden_states.last)
        with clock.timed("accept", size):
            path = accept(batch, logits, draft, inputs)
            if self.drafter is not None:
                self.drafter.observe(hidden_states, accepted_positions(path, inputs) if inputs.drafts else inputs.positions)
            logprobs = self._logprobs(batch, logits, path, inputs)
            if inputs.tree is not None:
                compact_accepted_path(batch, self.cache, path)
            tokens = append_bonus_token(batch, path, inputs)
        compiling = self.compiled is not None and self.compiled.fresh  # the time of this step is no guide to other steps
        if self.controller is not None and not compiling:
            took = time.perf_counter() - began
            accepted = [tokens[r][1] for r in representative_rows(batch, inputs, bool(self.waiting))] if inputs.drafts else []
            self.controller.record_step(size, inputs.drafts, accepted, took, catch_up_tokens)
        if self.compiled is not None:
            self.compiled.fresh = False
        with clock.timed("accept", size):
            self._commit(list(batch.rows), tokens, inputs, logprobs)
        self._deliver()

    def _forward(self, inputs: VerifyInputs, first: int | None = None) -> HiddenStates:
        """The trunk over all rows of a decode step, or, in a prefill, over the rows from `first` on."""
        rows, slots = inputs.slots.shape[0], inputs.slots.clamp(min=0)
        positions = slots if inputs.positions is inputs.slots else inputs.positions.clamp(min=0)
        input_ids = self.batch.tokens[first or 0 : (first or 0) + rows].gather(1, slots)
        if (masked := inputs.mask_token_inputs) is not None:
            assert self.model.heads is not None
            self.cache.set_write_slots(masked.slots, masked.kv_length, first or 0)
            context = ForwardContext(self.view, masked.positions.clamp(min=0), masked.masks, self.cache)
            return self.model.heads.run_with_mask_tokens(input_ids, context, masked.count, 1 if masked.last else None)
        if first is None and self.compiled is not None and worthwhile(inputs.slots, self.cache):
            return self.compiled.trunk(self.cache, input_ids, inputs.positions, inputs.slots, inputs.kv_length, inputs.masks)
        masks = inputs.masks
        if inputs.tree is None:
            masks = self.view.causal_masks(inputs.positions, inputs.kv_length, inputs.contiguous_start)
        self.cache.set_write_slots(inputs.slots, inputs.kv_length, first or 0, inputs.contiguous_start)
        return self.view.run(input_ids, positions, masks, self.cache, self.hidden_state_layers, self._hidden_states)

    def _logprobs(self, batch: DecodingBatch, logits: Tensor, path: AcceptedPath, inputs: VerifyInputs) -> list[list[float]] | None:
        if all(row.logprobs is None for row in batch.rows):
            return None
        return token_logprobs(batch, logits, path, inputs)

    def _commit(
        self,
        rows: list[SequenceState],
        tokens: list[tuple[list[int], list[int]]],
        inputs: VerifyInputs,
        logprobs: list[list[float]] | None,
    ) -> None:
        """Append the accepted tokens of all rows, remove ended sequences, and queue the tokens for the listeners."""
        self.num_steps += 1
        listening = any(row.on_tokens is not None for row in rows)
        for r, (row, max_accepted, (new, nodes)) in enumerate(zip(rows, inputs.max_accepted, tokens, strict=True)):
            count, counts = row.commit(new), row.counts
            counts.tokens += count
            counts.num_sequence_forwards += 1
            if inputs.drafts:
                drafts = max_accepted if inputs.tree is None else inputs.drafts
                counts.record_drafts(drafts, min(max_accepted, self.depth), len(nodes))
            if row.logprobs is not None and logprobs is not None:
                row.logprobs += logprobs[r][:count]
            if listening and count:
                self._deliveries.append((row, count))
        self._remove([row for row in rows if row.finish_reason is not None])

    def _deliver(self) -> None:
        """Pass committed tokens to the listeners. An exception of a listener ends the listener's sequence alone."""
        while self._deliveries:
            row, count = self._deliveries.popleft()
            try:
                row.deliver(count)
            except Exception as error:  # of a caller's function: any exception
                row.fail(error)
                if not row.finished:
                    self._remove([row])


def new_controller(drafter: Drafter, compile: bool = False) -> DraftLengthController:
    """A controller that chooses among the draft sizes of a drafter, or among the sizes that fill a compiled forward."""
    return DraftLengthController(compiled_draft_sizes(drafter.draft_sizes) if compile else drafter.draft_sizes)
