"""What the runs say: paired differences with intervals, a table, and one sentence about whether the claim held here."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean
from typing import Any

from rich import box
from rich.markup import escape
from rich.table import Table

from headway.evaluation.statistics.paired import paired_interval

Runs = Sequence[dict[str, Any]]


@dataclass(frozen=True)
class Measure:
    """One figure of a run: its key, its name for the reader, and which way is better."""

    key: str
    name: str
    higher_is_better: bool = True
    percent: bool = True

    def shown(self, value: float, signed: bool = False) -> str:
        sign = "+" if signed else ""
        return f"{100 * value:{sign}.1f}" if self.percent else f"{value:{sign}.4f}"


@dataclass(frozen=True)
class Expectation:
    """The paper's claim as a direction: `arm` against `baseline` in a measure."""

    arm: str
    baseline: str
    measure: str
    better: bool = True
    group: str | None = None  # none: in every group


def compare(runs: Runs, measures: Sequence[Measure], pairs: Sequence[tuple[str, str]]) -> list[dict[str, Any]]:
    """Each (arm, baseline) within each group, over the seeds that finished in both; one seed alone is left out."""
    found = []
    for group in _groups(runs):
        for measure in measures:
            for arm, baseline in pairs:
                ours, theirs = (_by_seed(runs, group, one, measure.key) for one in (arm, baseline))
                found += _paired(group, measure, arm, baseline, ours, theirs)
    return found


def between(smallest: str, largest: str) -> str:
    """The name of a comparison of differences."""
    return f"{largest} less {smallest}"


def compare_differences(
    runs: Runs, measures: Sequence[Measure], pairs: Sequence[tuple[str, str]], smallest: str, largest: str
) -> list[dict[str, Any]]:
    """Whether an arm gains on its baseline from the smallest size to the largest: the difference of the differences, by seed."""
    found = []
    for measure in measures:
        for arm, baseline in pairs:
            large, small = (
                _differences(_by_seed(runs, size, arm, measure.key), _by_seed(runs, size, baseline, measure.key))
                for size in (largest, smallest)
            )
            found += _paired(between(smallest, largest), measure, arm, baseline, large, small)
    return found


def _differences(ours: dict[int, float], theirs: dict[int, float]) -> dict[int, float]:
    return {seed: ours[seed] - theirs[seed] for seed in set(ours) & set(theirs)}


def _paired(
    group: str, measure: Measure, arm: str, baseline: str, ours: dict[int, float], theirs: dict[int, float]
) -> list[dict[str, Any]]:
    seeds = sorted(set(ours) & set(theirs))
    if len(seeds) < 2:
        return []
    interval = paired_interval([ours[seed] for seed in seeds], [theirs[seed] for seed in seeds])
    told = {"group": group, "measure": measure.key, "arm": arm, "baseline": baseline, "pairs": len(seeds)}
    return [told | dataclasses.asdict(interval) | {"verdict": interval.verdict(measure.higher_is_better)}]


def verdict(comparisons: Sequence[dict[str, Any]], expected: Sequence[Expectation]) -> tuple[str, str]:
    """Whether the expected differences were found, and the counts in words.

    "reproduced" where all intervals lie on the expected side of zero, "not reproduced" where some lie on the other side and none on
    the expected one, "reproduced in part" where some lie on the expected side, "no answer" where nothing could be compared, else
    "not shown".
    """
    agreed = opposed = unclear = 0
    for expectation in expected:
        for one in comparisons:
            same = (one["arm"], one["baseline"], one["measure"]) == (expectation.arm, expectation.baseline, expectation.measure)
            if same and expectation.group in (None, one["group"]):
                agreed += one["verdict"] == ("better" if expectation.better else "worse")
                opposed += one["verdict"] == ("worse" if expectation.better else "better")
                unclear += one["verdict"] == "no difference shown"
    if not agreed + opposed + unclear:
        return "no answer", "no two seeds finished in both arms of a comparison"
    counts = f"{agreed} of {agreed + opposed + unclear} comparisons agree, {opposed} oppose, {unclear} show no difference"
    if agreed and not opposed and not unclear:
        return "reproduced", counts
    if agreed:
        return "reproduced in part", counts
    return ("not reproduced" if opposed else "not shown"), counts


def table(runs: Runs, comparisons: Sequence[dict[str, Any]], measures: Sequence[Measure], title: str) -> Table:
    """A row for each arm of each measure and group: the mean over seeds, and each difference with its interval."""
    drawn = Table(title=title, box=box.SIMPLE_HEAD, padding=(0, 1))
    for name in ("arm", "mean", "less", "difference", "95 % interval"):
        drawn.add_column(name, justify="left" if name in ("arm", "less") else "right", no_wrap=True)
    for group in dict.fromkeys([*_groups(runs), *(one["group"] for one in comparisons)]):
        for measure in measures:
            rows = []
            for arm in dict.fromkeys(run["arm"] for run in runs):
                values = list(_by_seed(runs, group, arm, measure.key).values())
                told = [one for one in comparisons if (one["group"], one["measure"], one["arm"]) == (group, measure.key, arm)]
                if values or told:
                    shown = measure.shown(mean(values)) if values else ""
                    rows += [(arm, shown, *cells) for cells in [_difference(one, measure) for one in told] or [("", "", "")]]
            if rows:
                drawn.add_row(f"[bold]{escape(group)}: {escape(measure.name)}[/bold]")
                for row in rows:
                    drawn.add_row(*row)
                drawn.add_section()
    return drawn


def _difference(one: dict[str, Any], measure: Measure) -> tuple[str, str, str]:
    """Baseline, difference and interval; green where it is better, red where worse."""
    middle, low, high = (measure.shown(one[key], signed=True) for key in ("mean", "low", "high"))
    colour = {"better": "green", "worse": "red"}.get(one["verdict"], "dim")
    return one["baseline"], f"[{colour}]{middle}[/{colour}]", escape(f"[{low}, {high}]")


def _groups(runs: Runs) -> list[str]:
    return list(dict.fromkeys(run["group"] for run in runs))


def _by_seed(runs: Runs, group: str, arm: str, key: str) -> dict[int, float]:
    return {
        run["seed"]: run["measures"][key]
        for run in runs
        if run["group"] == group and run["arm"] == arm and key in run.get("measures", {})
    }
