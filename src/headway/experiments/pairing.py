"""Differences between an arm and the baseline, paired by seed."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from headway.evaluation.statistics.paired import Interval, paired_interval, pairs_needed
from headway.experiments.metrics import Metric, RunResult


@dataclass(frozen=True)
class Difference:
    """Mean difference of an arm to the baseline in a metric."""

    metric: Metric
    arm: str
    baseline: str
    seeds: tuple[int, ...]
    interval: Interval
    verdict: str  # as of `Interval.verdict`
    seeds_needed: int | None  # to show a difference of this size; None if out of reach
    group: str = ""

    def __str__(self) -> str:
        middle, low, high = (self.metric.show_difference(x) for x in (self.interval.mean, self.interval.low, self.interval.high))
        return f"{middle} [{low}, {high}]"


def by_seed(runs: Iterable[RunResult], arm: str, key: str) -> dict[int, float]:
    """Values of a metric in the runs of an arm."""
    return {run.seed: run.metrics[key] for run in runs if run.arm == arm and key in run.metrics}


def paired_difference(
    metric: Metric, arm: str, baseline: str, values: Mapping[int, float], baseline_values: Mapping[int, float], group: str = ""
) -> Difference | None:
    """Difference over the seeds that both arms finished, or None for fewer than two seeds.

    Args:
        values: of the arm, by seed.
        baseline_values: of the baseline, by seed.
        group: name of the compared runs, for example a model size.
    """
    seeds = tuple(sorted(set(values) & set(baseline_values)))
    if len(seeds) < 2:
        return None
    pairs = [values[seed] for seed in seeds], [baseline_values[seed] for seed in seeds]
    interval = paired_interval(*pairs)
    verdict = interval.verdict(metric.higher_is_better)
    return Difference(metric, arm, baseline, seeds, interval, verdict, pairs_needed(*pairs), group)
