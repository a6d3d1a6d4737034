"""Cost of decoding and savings of speculation."""

import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import zip_longest
from typing import Protocol


@dataclass(frozen=True)
class DecodeStats:
    """Counts and times of a call, of an engine or of one sequence.

    A forward of the trunk over a batch counts once per unfinished sequence in the batch, the prefill included: autoregressive
    decoding has exactly 1 token per forward. Padding and tokens after an end-of-sequence token do not count.

    Args:
        tokens: new tokens of all sequences.
        num_sequence_forwards: forwards of the trunk, counted once per sequence.
        num_steps: forwards of the trunk, counted once per batch.
        num_drafts_per_pos: per draft position, number of drafts with all predecessors accepted.
        num_accepted_tokens_per_pos: per draft position, number of accepted drafts.
        num_draft_tokens: drafts verified by the trunk.
        seconds: time by phase. Work queued on an accelerator counts in the phase that waits for the result, mostly "accept". The
            time of a step is shared equally among the sequences of the step.
    """

    tokens: int
    num_sequence_forwards: int
    num_steps: int
    num_drafts_per_pos: tuple[int, ...]
    num_accepted_tokens_per_pos: tuple[int, ...]
    num_draft_tokens: int
    seconds: Mapping[str, float]

    @classmethod
    def merge(cls, parts: "Sequence[DecodeStats]") -> "DecodeStats":
        """Sum of the statistics of several calls or sequences."""
        seconds: defaultdict[str, float] = defaultdict(float)
        for part in parts:
            for phase, value in part.seconds.items():
                seconds[phase] += value
        return cls(
            tokens=sum(part.tokens for part in parts),
            num_sequence_forwards=sum(part.num_sequence_forwards for part in parts),
            num_steps=sum(part.num_steps for part in parts),
            num_drafts_per_pos=_sum_per_pos(part.num_drafts_per_pos for part in parts),
            num_accepted_tokens_per_pos=_sum_per_pos(part.num_accepted_tokens_per_pos for part in parts),
            num_draft_tokens=sum(part.num_draft_tokens for part in parts),
            seconds=dict(seconds),
        )

    @property
    def acceptance(self) -> tuple[float, ...]:
        """Acceptance rate per draft position, given that all earlier drafts were accepted; 0 at positions without drafts."""
        counts = zip(self.num_accepted_tokens_per_pos, self.num_drafts_per_pos, strict=True)
        return tuple(accepted / drafts if drafts else 0.0 for accepted, drafts in counts)

    @property
    def tokens_per_forward(self) -> float:
        """New tokens per forward of a sequence (mean acceptance length, the bonus token included)."""
        return self.tokens / self.num_sequence_forwards if self.num_sequence_forwards else 0.0

    @property
    def tokens_per_second(self) -> float:
        total = sum(self.seconds.values())
        return self.tokens / total if total else 0.0


def _sum_per_pos(parts: Iterator[tuple[int, ...]]) -> tuple[int, ...]:
    return tuple(map(sum, zip_longest(*parts, fillvalue=0)))


class SequenceCounts:
    """Counts of a sequence; an engine sums the counts of all sequences.

    Args:
        depth: maximum length of a chain of drafts.
    """

    def __init__(self, depth: int = 0) -> None:
        self.tokens = self.num_sequence_forwards = self.num_draft_tokens = 0
        self.num_drafts_per_pos = [0] * depth
        self.num_accepted_tokens_per_pos = [0] * depth

    def record_drafts(self, num_draft_tokens: int, depth: int, num_accepted: int) -> None:
        """Count one verification.

        Args:
            num_draft_tokens: drafts verified.
            depth: longest chain among the drafts.
            num_accepted: accepted drafts.
        """
        self.num_draft_tokens += num_draft_tokens
        for k in range(num_accepted):
            self.num_accepted_tokens_per_pos[k] += 1
        for k in range(min(num_accepted + 1, depth)):
            self.num_drafts_per_pos[k] += 1

    def add(self, other: "SequenceCounts") -> None:
        """Add the counts of a sequence."""
        self.tokens += other.tokens
        self.num_sequence_forwards += other.num_sequence_forwards
        self.num_draft_tokens += other.num_draft_tokens
        for k in range(len(self.num_drafts_per_pos)):
            self.num_drafts_per_pos[k] += other.num_drafts_per_pos[k]
            self.num_accepted_tokens_per_pos[k] += other.num_accepted_tokens_per_pos[k]

    def stats(self, num_steps: int, seconds: Mapping[str, float]) -> DecodeStats:
        return DecodeStats(
            self.tokens,
            self.num_sequence_forwards,
            num_steps,
            tuple(self.num_drafts_per_pos),
            tuple(self.num_accepted_tokens_per_pos),
            self.num_draft_tokens,
            dict(seconds),
        )


class StepClock:
    """Time by phase: the total, and the share of a sequence if every step divides the time among the sequences."""

    def __init__(self) -> None:
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self.shares: defaultdict[str, float] = defaultdict(float)

    @contextmanager
    def timed(self, phase: str, sequences: int = 1) -> Iterator[None]:
        """Add the time spent within to `phase`, in a step of `sequences` sequences."""
        start = time.perf_counter()
        try:
            yield
        finally:
            took = time.perf_counter() - start
            self.seconds[phase] += took
            self.shares[phase] += took / sequences

    def start(self, row: "HasSeconds", *phases: str) -> None:
        """From now on the sequence takes part in the phases."""
        row.since = {phase: self.shares[phase] for phase in phases}

    def stop(self, row: "HasSeconds") -> None:
        """Add the sequence's share of all phases in progress to `row.seconds`."""
        for phase, start in row.since.items():
            if self.shares[phase] > start:
                row.seconds[phase] = row.seconds.get(phase, 0.0) + self.shares[phase] - start
        row.since = {}


class HasSeconds(Protocol):
    """A sequence that takes part in timed phases."""

    seconds: dict[str, float]
    since: dict[str, float]
