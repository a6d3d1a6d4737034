"""Metrics of experiments. A declaration names the key in JSON and Parquet, the column of tables, and the axis of plots."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from statistics import mean
from typing import Any

from headway.evaluation.results import INLINE


@dataclass(frozen=True)
class Metric:
    """A figure of every run of an experiment.

    Args:
        key: key in the metrics of a run, in JSON and in Parquet.
        label: column of tables and axis of plots.
        description: words in sentences; the label by default.
        higher_is_better: direction of an improvement.
        format: template, for example "{:.1%}", or a function of the value. Differences of shares are printed in percentage points.
        unit: unit on the axis of plots.
        paired: compared with the baseline by seed.
        wide_only: column of wide tables alone: 80 columns of a terminal have no room.
    """

    key: str
    label: str
    higher_is_better: bool = True
    description: str = ""
    format: str | Callable[[float], str] = "{:.4f}"
    unit: str = ""
    paired: bool = False
    wide_only: bool = False

    @property
    def words(self) -> str:
        return self.description or self.label

    @property
    def is_share(self) -> bool:
        return isinstance(self.format, str) and self.format.endswith("%}")

    @property
    def axis(self) -> str:
        """Label of an axis, with the unit."""
        unit = "%" if self.is_share else self.unit
        return f"{self.label} ({unit})" if unit else self.label

    def scaled(self, value: float) -> float:
        """Value in the unit of the axis."""
        return 100 * value if self.is_share else value

    def show(self, value: float) -> str:
        return self.format.format(value) if isinstance(self.format, str) else self.format(value)

    def show_difference(self, value: float) -> str:
        """Value with a sign, a share in percentage points."""
        template = self.format if isinstance(self.format, str) else "{:.4f}"
        return template.replace("{:", "{:+").format(value).removesuffix("%")

    def show_mean(self, values: Sequence[Any]) -> str:
        """Mean over runs; of lists, the mean by position."""
        if isinstance(values[0], list | tuple):
            return " ".join(self.show(mean(column)) for column in zip(*values, strict=True))
        return self.show(mean(values))


@dataclass(frozen=True, kw_only=True)
class RunResult:
    """Result of a run. In JSON, metrics and fields have the same level."""

    arm: str
    seed: int
    metrics: dict[str, Any] = field(metadata=INLINE)


def values_of(runs: Sequence[RunResult], key: str) -> list[Any]:
    """Values of a metric in all runs that have the metric."""
    return [run.metrics[key] for run in runs if key in run.metrics]
