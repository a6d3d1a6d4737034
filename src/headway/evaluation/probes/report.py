"""Proportions with intervals, and the files of a probe: JSON and a plot."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib import pyplot
from matplotlib.figure import Figure
from scipy import stats

from headway.evaluation.results import as_json
from headway.files import write_json, write_text
from headway.reports.plots import figure_to_svg

SIZE = (6.4, 4)  # inches of a plot


@dataclass(frozen=True)
class Proportion:
    """A share with 95 % interval."""

    share: float
    low: float
    high: float
    right: int  # numerator
    of: int  # denominator

    @property
    def cells(self) -> list[str]:
        """Two table cells: share and interval."""
        return [f"{self.share:.1%}", f"{self.low:.1%} - {self.high:.1%}"]


def proportion(right: int, of: int) -> Proportion:
    """The share right / of with Wilson's interval. `of` must be at least 1."""
    interval = stats.binomtest(right, of).proportion_ci(method="wilson")
    return Proportion(right / of, float(interval.low), float(interval.high), right, of)


def save_results(config: Any, result: Any, figure: Figure | None = None, tokens_per_forward: float | None = None) -> None:
    """Write result and settings as JSON, and the plot as SVG, if there is an output file. Close the figure."""
    file: Path | None = config.output_file
    if file is None:
        if figure is not None:
            pyplot.close(figure)
        return
    cost = {} if tokens_per_forward is None else {"tokens_per_forward": tokens_per_forward}
    write_json(file, as_json(result) | cost | {"settings": as_json(config)})
    line = f"Results: {file}"
    if figure is not None:
        plot = file.with_suffix(".svg")
        write_text(plot, figure_to_svg(figure))
        line += f"   Plot: {plot}"
    print(line)
