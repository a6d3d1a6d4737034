"""What decoding cost and what drafting was worth."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from time import perf_counter

from torch import Tensor


@dataclass
class DecodeStats:
    """Counts over all rows of one call.

    A forward counts once for each row that takes part, the prefill included, and the bonus token after an accepted draft counts
    as a token: plain decoding has exactly 1 token a forward.
    """

    tokens: int = 0
    forwards: int = 0
    reached: list[int] = field(default_factory=list)  # drafts at this position that could be accepted: all before were
    accepted: list[int] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)  # by phase

    @property
    def tokens_per_forward(self) -> float:
        return self.tokens / self.forwards if self.forwards else 0.0

    @property
    def acceptance(self) -> tuple[float, ...]:
        """Share of accepted drafts at each position, given that all before it were accepted."""
        return tuple(a / r if r else 0.0 for a, r in zip(self.accepted, self.reached, strict=True))

    @property
    def tokens_per_second(self) -> float:
        total = sum(self.seconds.values())
        return self.tokens / total if total else 0.0

    def count_drafts(self, kept: Tensor, depth: int) -> None:
        """Add one verification of `depth` drafts a row, of which `kept` (batch,) were accepted."""
        missing = depth - len(self.reached)
        self.reached += [0] * missing
        self.accepted += [0] * missing
        for position in range(depth):
            self.reached[position] += int((kept >= position).sum())
            self.accepted[position] += int((kept > position).sum())

    @contextmanager
    def timed(self, phase: str) -> Iterator[None]:
        start = perf_counter()
        yield
        self.seconds[phase] = self.seconds.get(phase, 0.0) + perf_counter() - start
