"""Scores by the place of what is looked for, with intervals, and whether the middle is worse than the ends."""

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure

from headway.evaluation.probes.report import SIZE, percent, share
from headway.evaluation.statistics.paired import paired_interval
from headway.reports.plots import labelled_axes

Right = Mapping[int, Sequence[bool]]  # position -> which tasks were solved, in one order for all positions


def evenly(count: int, places: int = 5) -> list[int]:
    """`places` positions of `count`, the first and the last among them, rounded down as the paper's key-value tasks have it."""
    return sorted({(count - 1) * place // (places - 1) for place in range(places)})


def by_position(right: Right) -> dict[str, Any]:
    """A share for each position, and ends - middle: the paired difference, task by task, with its t interval at 95 %.

    Ends are the first and the last position, the middle is what lies between; without a middle, or of a single task, there is
    no difference.
    """
    found: dict[str, Any] = {"positions": [{"position": place} | share(sum(r), len(r)) for place, r in sorted(right.items())]}
    places = sorted(right)
    tasks = list(zip(*(right[place] for place in places), strict=True))
    if len(places) > 2 and len(tasks) > 1:
        ends = [(task[0] + task[-1]) / 2 for task in tasks]
        middle = [sum(task[1:-1]) / (len(task) - 2) for task in tasks]
        interval = paired_interval(ends, middle)
        found["ends_over_middle"] = {"mean": interval.mean, "low": interval.low, "high": interval.high}
    return found


def rows(found: Mapping[str, Mapping[str, Any]]) -> list[list[str]]:
    """Lines of a table: what is searched, position, share, interval."""
    return [[name, str(p["position"]), *percent(p)] for name, each in found.items() for p in each["positions"]]


def remark(name: str, found: Mapping[str, Any]) -> str:
    if "ends_over_middle" not in found:
        return f"{name}: too few positions or tasks to compare the ends with the middle."
    d = found["ends_over_middle"]
    shown = f"{100 * d['mean']:+.1f} [{100 * d['low']:+.1f}, {100 * d['high']:+.1f}] points"
    verdict = "better at the ends" if d["low"] > 0 else "better in the middle" if d["high"] < 0 else "no difference shown"
    return f"{name}: ends over middle {shown}, paired by task: {verdict}."


def plot(found: Mapping[str, Mapping[str, Any]], x: str, lines: Mapping[str, float] | None = None) -> Figure:
    """A curve for each entry, its band the intervals; `lines` are levels to compare with."""
    figure, axes = labelled_axes(x, "correct (%)", SIZE)
    for name, each in found.items():
        points = each["positions"]
        places = [p["position"] for p in points]
        (curve,) = axes.plot(places, [100 * p["share"] for p in points], "o-", label=name)
        low, high = ([100 * p[end] for p in points] for end in ("low", "high"))
        axes.fill_between(places, low, high, color=curve.get_color(), alpha=0.15, lw=0)
    for (name, level), style in zip((lines or {}).items(), ("--", ":"), strict=False):
        axes.axhline(100 * level, color="#555", lw=1, ls=style, label=name)
    axes.set_ylim(-2, 102)
    axes.legend(frameon=False, fontsize=8)
    return figure
