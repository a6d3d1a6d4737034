"""Whether a difference between paired runs is more than chance: a t interval, as small numbers of seeds need."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy
from scipy import stats


@dataclass(frozen=True)
class Interval:
    """Mean paired difference with its confidence interval."""

    mean: float
    low: float
    high: float
    level: float = 0.95

    def verdict(self, higher_is_better: bool = True) -> str:
        """ "better", "worse" or "no difference shown"."""
        if self.low <= 0 <= self.high:
            return "no difference shown"
        return "better" if (self.low > 0) == higher_is_better else "worse"


def paired_interval(ours: Sequence[float], theirs: Sequence[float], level: float = 0.95) -> Interval:
    """Interval of mean(ours - theirs), pair by pair, from Student's t.

    Raises: ValueError if the lengths differ or there are fewer than two pairs.
    """
    if len(ours) != len(theirs) or len(ours) < 2:
        raise ValueError(f"pairs are needed, at least two: got {len(ours)} and {len(theirs)} values")
    difference = numpy.subtract(ours, theirs)
    mean = float(difference.mean())
    half = float(stats.t.ppf((1 + level) / 2, len(difference) - 1) * stats.sem(difference))
    return Interval(mean, mean - half, mean + half, level)
