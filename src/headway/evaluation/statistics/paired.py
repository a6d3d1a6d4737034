"""Confidence intervals of paired differences, and the number of pairs needed to show a difference.

Student's t for few pairs, the studentised bootstrap (Efron and Tibshirani 1993, section 12.5) for more. The percentile bootstrap of
many papers is not offered: with 3 to 5 pairs, 95 % intervals cover the truth in only 77 to 85 % of cases.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy
from scipy import stats

UNCLEAR = "no difference shown"
MIN_BOOTSTRAP_PAIRS = 8  # with fewer pairs, too few resamples differ for meaningful tails
RESAMPLES = 10_000
MAX_PAIRS = 1000  # more runs are out of reach in practice


@dataclass(frozen=True)
class Interval:
    """Mean paired difference with confidence interval."""

    mean: float
    low: float
    high: float
    level: float = 0.95

    def verdict(self, higher_is_better: bool = True) -> str:
        """The words "better", "worse" or "no difference shown".

        Equal differences show nothing either: scores that coarse have no spread to compare the difference with.
        """
        if self.low <= 0 <= self.high or self.low == self.high:
            return UNCLEAR
        return "better" if (self.low > 0) == higher_is_better else "worse"


def paired_interval(treatment: Sequence[float], control: Sequence[float], level: float = 0.95) -> Interval:
    """Interval of mean(treatment - control), paired by position.

    Raises:
        ValueError: the lengths differ, or there are fewer than two pairs.
    """
    difference = _differences(treatment, control)
    count, mean = len(difference), float(difference.mean())
    error = float(stats.sem(difference))
    if count < MIN_BOOTSTRAP_PAIRS or error == 0:
        half = float(stats.t.ppf((1 + level) / 2, count - 1) * error)
        return Interval(mean, mean - half, mean + half, level)
    resampled = difference[numpy.random.default_rng(0).integers(0, count, (RESAMPLES, count))]
    errors = stats.sem(resampled, axis=1)
    usable = errors > 1e-9 * error
    ratios = (resampled.mean(axis=1)[usable] - mean) / errors[usable]
    low, high = numpy.quantile(ratios, [(1 - level) / 2, (1 + level) / 2])
    return Interval(mean, mean - float(high) * error, mean - float(low) * error, level)


def pairs_needed(treatment: Sequence[float], control: Sequence[float], power: float = 0.8, level: float = 0.95) -> int | None:
    """Number of pairs for a paired t-test that shows a difference of this size and noise with probability `power`.

    The number is as uncertain as the observed difference.

    Returns: None if more than `MAX_PAIRS` pairs are needed.
    Raises:
        ValueError: as `paired_interval`.
    """
    difference = _differences(treatment, control)
    spread = float(difference.std(ddof=1))
    if spread == 0:
        return 2 if difference.mean() else None
    effect = abs(float(difference.mean())) / spread
    counts = numpy.arange(2, MAX_PAIRS + 1)
    limits = stats.t.ppf((1 + level) / 2, counts - 1)
    shift = effect * numpy.sqrt(counts)
    powers = stats.nct.sf(limits, counts - 1, shift) + stats.nct.cdf(-limits, counts - 1, shift)
    enough = numpy.nonzero(powers >= power)[0]
    return int(counts[enough[0]]) if len(enough) else None


def _differences(treatment: Sequence[float], control: Sequence[float]) -> numpy.ndarray:
    if len(treatment) != len(control) or len(treatment) < 2:
        raise ValueError(f"pairs are needed, at least two: got {len(treatment)} and {len(control)} values")
    return numpy.subtract(treatment, control)
