"""Summary of a reproduced experiment: paired differences, a table, and the answer to the paper's claim."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean

from rich import box
from rich.markup import escape
from rich.table import Table

from headway.evaluation.statistics.paired import UNCLEAR
from headway.experiments.metrics import Metric, values_of
from headway.experiments.pairing import Difference, by_seed, paired_difference
from headway.experiments.reproduce.results import ReproductionResult

Runs = Sequence[ReproductionResult]
COLOURS = {"better": "green", "worse": "red", UNCLEAR: "dim"}  # by verdict


@dataclass(frozen=True)
class Expectation:
    """Direction of a difference that the paper claims.

    Args:
        metric: key of the metric.
        better: the arm is better than the baseline; else worse.
        group: group of the runs; None for every group.
    """

    arm: str
    baseline: str
    metric: str
    better: bool = True
    group: str | None = None


def compare(runs: Runs, metrics: Sequence[Metric], pairs: Sequence[tuple[str, str]]) -> list[Difference]:
    """Differences of all pairs (arm, baseline) in all groups, over the seeds that both finished. A single seed is left out."""
    differences = []
    for group in _groups(runs):
        inside = _in_group(runs, group)
        for metric in metrics:
            for arm, baseline in pairs:
                values, baseline_values = (by_seed(inside, name, metric.key) for name in (arm, baseline))
                differences.append(paired_difference(metric, arm, baseline, values, baseline_values, group))
    return [difference for difference in differences if difference is not None]


def compare_sizes(
    runs: Runs, metrics: Sequence[Metric], pairs: Sequence[tuple[str, str]], smallest: str, largest: str
) -> list[Difference]:
    """Difference of an arm to the baseline at the largest size less the difference at the smallest size, paired by seed."""
    differences = []
    for metric in metrics:
        for arm, baseline in pairs:
            large, small = (
                _differences(*(by_seed(_in_group(runs, size), name, metric.key) for name in (arm, baseline)))
                for size in (largest, smallest)
            )
            differences.append(paired_difference(metric, arm, baseline, large, small, trend_group(smallest, largest)))
    return [difference for difference in differences if difference is not None]


def trend_group(smallest: str, largest: str) -> str:
    """Group name of the differences between two sizes."""
    return f"{largest} less {smallest}"


def verdict(comparisons: Sequence[Difference], expected: Sequence[Expectation]) -> tuple[str, str]:
    """Answer to the claim, and counts in words.

    Returns: an answer by the intervals of the expected differences:
        "reproduced": all intervals lie on the expected side of zero;
        "reproduced in part": some intervals lie on the expected side;
        "not reproduced": some lie on the opposite side, and none on the expected side;
        "not shown": all intervals contain zero;
        "no answer": there is no interval.
    """
    agreed = opposed = unclear = 0
    for expectation in expected:
        for difference in comparisons:
            key = (difference.arm, difference.baseline, difference.metric.key)
            if key == (expectation.arm, expectation.baseline, expectation.metric) and expectation.group in (None, difference.group):
                agreed += difference.verdict == ("better" if expectation.better else "worse")
                opposed += difference.verdict == ("worse" if expectation.better else "better")
                unclear += difference.verdict == UNCLEAR
    if not agreed + opposed + unclear:
        return "no answer", "no two seeds finished in both arms of a comparison"
    counts = f"{agreed} of {agreed + opposed + unclear} comparisons agree, {opposed} oppose, {unclear} show no difference"
    if agreed and not opposed and not unclear:
        return "reproduced", counts
    if agreed:
        return "reproduced in part", counts
    return ("not reproduced" if opposed else "not shown"), counts


def table(runs: Runs, comparisons: Sequence[Difference], metrics: Sequence[Metric], title: str) -> Table:
    """Table of means over seeds by group, metric and arm, and of differences to the baselines with intervals."""
    drawn = Table(title=title, box=box.SIMPLE_HEAD, padding=(0, 1))
    for name in ("arm", "mean", "baseline", "difference", "95 % interval"):
        drawn.add_column(name, justify="left" if name in ("arm", "baseline") else "right", no_wrap=True)
    for group in dict.fromkeys([*_groups(runs), *(one.group for one in comparisons)]):
        for metric in metrics:
            rows = []
            for arm in dict.fromkeys(run.arm for run in runs):
                values = values_of([run for run in _in_group(runs, group) if run.arm == arm], metric.key)
                differences = [one for one in comparisons if (one.group, one.metric, one.arm) == (group, metric, arm)]
                if values or differences:
                    shown = metric.show(mean(values)) if values else ""
                    rows += [(arm, shown, *cells) for cells in map(_difference_cells, differences)] or [(arm, shown, "", "", "")]
            if rows:
                drawn.add_row(f"[bold]{escape(group)}: {escape(metric.label)}[/bold]")
                for row in rows:
                    drawn.add_row(*row)
                drawn.add_section()
    return drawn


def _difference_cells(difference: Difference) -> tuple[str, str, str]:
    """Baseline, difference and interval: green if better, red if worse."""
    colour, (middle, _, interval) = COLOURS[difference.verdict], str(difference).partition(" ")
    return difference.baseline, f"[{colour}]{middle}[/{colour}]", escape(interval)


def _differences(values: dict[int, float], baseline_values: dict[int, float]) -> dict[int, float]:
    return {seed: values[seed] - baseline_values[seed] for seed in set(values) & set(baseline_values)}


def _groups(runs: Runs) -> list[str]:
    return list(dict.fromkeys(run.group for run in runs))


def _in_group(runs: Runs, group: str) -> list[ReproductionResult]:
    return [run for run in runs if run.group == group]
