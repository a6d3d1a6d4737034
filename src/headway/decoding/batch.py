"""The sequences of one decode step: their tokens on the device, their lengths and their drafts."""

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from headway.decoding.sampler import Sampler
from headway.decoding.stats import DecodeStats, SequenceCounts
from headway.decoding.stopping import FinishReason, StoppingCriteria


@dataclass(eq=False)
class SequenceState:
    """A sequence being decoded.

    Args:
        tokens: prompt and committed tokens.
        prompt_length: number of prompt tokens.
        limit: maximum number of tokens, the prompt included.
        seed: seed of the sampling noise.
        on_tokens: listener that receives new tokens.
        stop_strings: strings that end the text.
        logprobs: log-probabilities of the new tokens; None if not requested.
        group: samples of one request have the same group, and share the prefill if admitted together.
        forks: samples that wait for the prefill of this sequence.
        prefilled: number of prompt tokens that the trunk has processed.
        finish_reason: set as soon as no token will be added.
        finished: removed from the engine.
        on_cancel: callback of the engine, called by `cancel`.
        seconds, since: time by phase, complete once finished, and the state of the engine's clock (see `StepClock`).
    """

    tokens: list[int]
    prompt_length: int
    limit: int
    sampler: Sampler
    stopping: StoppingCriteria
    seed: int = 0
    on_tokens: Callable[[list[int]], None] | None = None
    stop_strings: tuple[str, ...] = ()
    logprobs: list[float] | None = None
    group: object = None
    forks: list["SequenceState"] = field(default_factory=list)
    prefilled: int = 0
    finish_reason: FinishReason | None = None
    finished: bool = False
    cancelled: bool = False
    error: Exception | None = None
    on_cancel: Callable[["SequenceState"], None] | None = None
    counts: SequenceCounts = field(default_factory=SequenceCounts)
    seconds: dict[str, float] = field(default_factory=dict)
    since: dict[str, float] = field(default_factory=dict)

    def cancel(self) -> None:
        """Remove the sequence before the next step; committed tokens stay."""
        self.cancelled = True
        if self.on_cancel is not None:
            self.on_cancel(self)

    def fail(self, error: Exception) -> None:
        """End the sequence with an exception; the first exception is kept."""
        self.error = self.error or error
        self.finish_reason = FinishReason.ERROR

    @property
    def new_tokens(self) -> list[int]:
        return self.tokens[self.prompt_length :]

    @property
    def stats(self) -> DecodeStats:
        return self.counts.stats(self.counts.num_sequence_forwards, self.seconds)

    def commit(self, tokens: list[int]) -> int:
        """Append new tokens up to the end of the sequence; return their number. An exception ends this sequence alone."""
        if self.error is not None or self.cancelled:
            self.finish_reason = FinishReason.CANCELLED if self.error is None else FinishReason.ERROR
            return 0
        try:
            count, stopped = self.stopping.truncate_at_stop(self.tokens, self.prompt_length, tokens)
        except Exception as error:  # of a tokenizer: any exception
            self.fail(error)
            return 0
        # the reason first: an interrupt between the two assignments must not leave an ended sequence that seems to go on
        if stopped:
            self.finish_reason = FinishReason.STOP
        elif len(self.tokens) + count >= self.limit:
            self.finish_reason = FinishReason.LENGTH
        self.tokens += tokens[:count]
        return count

    def deliver(self, count: int) -> None:
        """Pass the last `count` tokens to the listener; drop the tokens of a sequence that was cancelled in the same step."""
        if self.cancelled:
            del self.tokens[len(self.tokens) - count :]
            if self.logprobs is not None:
                del self.logprobs[len(self.new_tokens) :]
            self.finish_reason = FinishReason.CANCELLED
        elif self.on_tokens is not None:
            self.on_tokens(self.tokens[len(self.tokens) - count :])

    @property
    def max_accepted(self) -> int:
        """Maximum number of drafts that a step can accept: the bonus token takes the last free position."""
        return self.limit - len(self.tokens) - 1


@dataclass(eq=False)
class DecodingBatch:
    """The sequences of one step, in the order of the cache rows.

    Args:
        tokens: (rows, columns) on the device; token p of a sequence is in column p, drafts follow the committed tokens.
    """

    tokens: Tensor
    rows: list[SequenceState] = field(default_factory=list)
    _ends: tuple[list[int], Tensor] | None = None

    @property
    def device(self) -> torch.device:
        return self.tokens.device

    @property
    def lengths(self) -> list[int]:
        return [len(row.tokens) for row in self.rows]

    @property
    def ends(self) -> Tensor:
        """The lengths on the device, (rows, 1); read only."""
        lengths = self.lengths
        if self._ends is None or self._ends[0] != lengths:
            self._ends = (lengths, torch.tensor(lengths, device=self.device)[:, None])
        return self._ends[1]

    def tokens_at(self, positions: Tensor) -> Tensor:
        """Tokens at (rows, n) positions; arbitrary tokens at negative positions."""
        return self.tokens[: len(self.rows)].gather(1, positions.clamp(0, self.tokens.shape[1] - 1))

    def draft_tokens(self, count: int) -> Tensor:
        """The `count` tokens after the committed tokens, (rows, count)."""
        columns = self.ends + torch.arange(count, device=self.device)
        return self.tokens[: len(self.rows)].gather(1, columns)

    def set_draft_tokens(self, drafts: Tensor, k: int = 0) -> None:
        """Write drafts (rows, n) after the committed tokens and the first `k` drafts."""
        columns = self.ends + torch.arange(k, k + drafts.shape[1], device=self.device)
        self.tokens[: len(self.rows)].scatter_(1, columns, drafts)
