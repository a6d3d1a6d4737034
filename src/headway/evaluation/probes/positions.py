"""Scores by the position of the relevant part of a context, with intervals, and the difference of ends and middle."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from matplotlib.figure import Figure

from headway.evaluation.probes.report import SIZE, Proportion, proportion
from headway.evaluation.results import INLINE
from headway.evaluation.statistics.paired import UNCLEAR, Interval, paired_interval
from headway.reports.plots import labelled_axes


@dataclass(frozen=True)
class PositionScore:
    """Share of correct answers at a position, counted from 0."""

    position: int
    score: Proportion = field(metadata=INLINE)


@dataclass(frozen=True)
class PositionScores:
    """Scores of a kind of context.

    ends_over_middle: mean score of the first and the last position minus the mean score of the positions between,
        paired by task; None without positions between, or for a single task.
    """

    positions: list[PositionScore]
    ends_over_middle: Interval | None = None

    def remark(self, name: str) -> str:
        """A sentence on the difference of ends and middle."""
        if self.ends_over_middle is None:
            return f"{name}: too few positions or tasks to compare the ends with the middle."
        d = self.ends_over_middle
        interval = f"{100 * d.mean:+.1f} [{100 * d.low:+.1f}, {100 * d.high:+.1f}] points"
        verdict = "better at the ends" if d.low > 0 else "better in the middle" if d.high < 0 else UNCLEAR
        return f"{name}: ends over middle {interval}, paired by task: {verdict}."


def evenly(count: int, number: int = 5) -> list[int]:
    """`number` positions of `count`, first and last included, rounded down as in the paper's key-value tasks."""
    return sorted({(count - 1) * index // (number - 1) for index in range(number)})


def by_position(correct: Mapping[int, Sequence[bool]]) -> PositionScores:
    """Scores from the correctness of the tasks at all positions. The tasks have the same order at all positions."""
    positions = sorted(correct)
    scores = [PositionScore(position, proportion(sum(correct[position]), len(correct[position]))) for position in positions]
    tasks = list(zip(*(correct[position] for position in positions), strict=True))
    if len(positions) <= 2 or len(tasks) <= 1:
        return PositionScores(scores)
    ends = [(task[0] + task[-1]) / 2 for task in tasks]
    middle = [sum(task[1:-1]) / (len(task) - 2) for task in tasks]
    return PositionScores(scores, paired_interval(ends, middle))


def table_rows(contexts: Mapping[str, PositionScores]) -> list[list[str]]:
    """Table rows: context, position, share, interval."""
    return [[name, str(at.position), *at.score.cells] for name, scores in contexts.items() for at in scores.positions]


def plot(contexts: Mapping[str, PositionScores], x: str, levels: Mapping[str, float] | None = None) -> Figure:
    """A curve with interval by context, and horizontal lines at `levels`."""
    figure, axes = labelled_axes(x, "correct (%)", SIZE)
    for name, scores in contexts.items():
        positions = [at.position for at in scores.positions]
        (curve,) = axes.plot(positions, [100 * at.score.share for at in scores.positions], "o-", label=name)
        low, high = ([100 * getattr(at.score, end) for at in scores.positions] for end in ("low", "high"))
        axes.fill_between(positions, low, high, color=curve.get_color(), alpha=0.15, lw=0)
    for (name, level), style in zip((levels or {}).items(), ("--", ":"), strict=False):
        axes.axhline(100 * level, color="#555", lw=1, ls=style, label=name)
    axes.set_ylim(-2, 102)
    axes.legend(frameon=False, fontsize=8)
    return figure
