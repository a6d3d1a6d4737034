"""What decoding cost and what drafting saved."""

import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import zip_longest


@dataclass(frozen=True)
class DecodeStats:
    """Figures of one call.

    One forward of the trunk over a batch counts once for each row that is still being decoded, the prefill included:
    plain decoding has exactly 1 token a forward. Tokens after an end-of-sequence token, and padding, do not count.
    """

    tokens: int  # new tokens, all rows together
    forwards: int  # forwards of the trunk, counted by row
    batches: int  # forwards of the trunk, a whole batch counted once
    reached: tuple[int, ...]  # by draft position: drafts whose predecessors had all been kept
    accepted: tuple[int, ...]  # by draft position: how many of those were kept
    drafted: int  # drafts that the trunk looked at, whether their predecessors were kept or not
    # by step; work queued on an accelerator shows up in the step that waits for it, mostly "accept"
    seconds: dict[str, float]

    @classmethod
    def together(cls, parts: "Sequence[DecodeStats]") -> "DecodeStats":
        """Several calls as one."""
        seconds: defaultdict[str, float] = defaultdict(float)
        for part in parts:
            for step, value in part.seconds.items():
                seconds[step] += value
        return cls(
            tokens=sum(part.tokens for part in parts),
            forwards=sum(part.forwards for part in parts),
            batches=sum(part.batches for part in parts),
            reached=tuple(map(sum, zip_longest(*(part.reached for part in parts), fillvalue=0))),
            accepted=tuple(map(sum, zip_longest(*(part.accepted for part in parts), fillvalue=0))),
            drafted=sum(part.drafted for part in parts),
            seconds=dict(seconds),
        )

    @property
    def acceptance(self) -> tuple[float, ...]:
        """By draft position: the share kept of the drafts whose predecessors were all kept; 0 where there were none."""
        return tuple(kept / seen if seen else 0.0 for kept, seen in zip(self.accepted, self.reached, strict=True))

    @property
    def tokens_per_forward(self) -> float:
        """New tokens for each forward of a row, the trunk's own token included."""
        return self.tokens / self.forwards if self.forwards else 0.0

    @property
    def tokens_per_second(self) -> float:
        total = sum(self.seconds.values())
        return self.tokens / total if total else 0.0


class StatsCollector:
    """Collects what `DecodeStats` shows."""

    def __init__(self, count: int) -> None:
        self.tokens = self.forwards = self.batches = self.drafted = 0
        self.reached = [0] * count
        self.accepted_at = [0] * count
        self.seconds: defaultdict[str, float] = defaultdict(float)

    @contextmanager
    def timed(self, step: str) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[step] += time.perf_counter() - start

    def forward(self, rows: int) -> None:
        self.batches += 1
        self.forwards += rows

    @property
    def depth(self) -> int:
        return len(self.reached)

    def accepted(self, drafted: int, depth: int, kept: int) -> None:
        """One row: `drafted` drafts were offered, up to `depth` after each other, and `kept` of them stayed."""
        self.drafted += drafted
        for k in range(kept):
            self.accepted_at[k] += 1
        for k in range(min(kept + 1, depth)):
            self.reached[k] += 1

    def stats(self) -> DecodeStats:
        return DecodeStats(
            self.tokens,
            self.forwards,
            self.batches,
            tuple(self.reached),
            tuple(self.accepted_at),
            self.drafted,
            dict(self.seconds),
        )
