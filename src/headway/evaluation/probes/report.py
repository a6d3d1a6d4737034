"""Proportions with intervals, and the files of a probe: JSON and a plot beside it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from matplotlib import pyplot
from matplotlib.figure import Figure
from rich.console import Console
from rich.text import Text
from scipy import stats

from headway.files import write_json, write_text
from headway.reports.plots import figure_to_svg

SIZE = (6.4, 4)  # inches of a plot


def share(right: int, of: int) -> dict[str, Any]:
    """A proportion with Wilson's 95 % interval. `of` must be at least 1."""
    interval = stats.binomtest(right, of).proportion_ci(method="wilson")
    return {"share": right / of, "low": float(interval.low), "high": float(interval.high), "right": right, "of": of}


def percent(proportion: Mapping[str, Any]) -> list[str]:
    """Two table cells: the proportion and its interval."""
    return [f"{proportion['share']:.1%}", f"{proportion['low']:.1%} - {proportion['high']:.1%}"]


def save_results(out: Path | None, results: dict[str, Any], figure: Figure | None = None) -> None:
    """Write the results as JSON and the plot as SVG beside the JSON file. The figure is closed."""
    if out is None:
        pyplot.close(figure) if figure is not None else None
        return
    write_json(out, results)
    line = f"Figures: {out}"
    if figure is not None:
        plot = out.with_suffix(".svg")
        write_text(plot, figure_to_svg(figure))
        line += f"   Plot: {plot}"
    Console(soft_wrap=True).print(Text(line))
