"""What the probes show: tables on the terminal, JSON, and a plot beside it."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib import pyplot
from matplotlib.figure import Figure
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text
from scipy import stats

from headway.files import write_json, write_text
from headway.reports.html import svg

SIZE = (6.4, 4)  # inches of a plot


def share(right: int, of: int) -> dict[str, Any]:
    """A share with Wilson's interval at 95 %; `of` at least 1."""
    interval = stats.binomtest(right, of).proportion_ci(method="wilson")
    return {"share": right / of, "low": float(interval.low), "high": float(interval.high), "right": right, "of": of}


def percent(found: Mapping[str, Any]) -> list[str]:
    """A share and its interval as two cells."""
    return [f"{found['share']:.1%}", f"{found['low']:.1%} - {found['high']:.1%}"]


def show(title: str, headings: Sequence[str], rows: Sequence[Sequence[str]], remarks: Sequence[str] = ()) -> None:
    """A table and remarks below it; what stands in them is text, never markup."""
    console = Console(soft_wrap=True)
    widest = [max(map(len, column)) for column in zip(headings, *rows, strict=True)]
    console.width = max(console.width, sum(widest) + 2 * len(widest))  # a pipe has no width to cut at
    table = Table(title=Text(title), title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    for number, heading in enumerate(headings):
        table.add_column(heading, justify="right" if number else "left", no_wrap=True)
    for row in rows:
        table.add_row(*map(Text, row))
    console.print(table)
    for remark in remarks:
        console.print(Text(remark))


def keep(out: Path | None, results: dict[str, Any], figure: Figure | None = None) -> None:
    """Write the results, and the plot beside them; the figure is closed."""
    if out is None:
        pyplot.close(figure) if figure is not None else None
        return
    write_json(out, results)
    line = f"Figures: {out}"
    if figure is not None:
        plot = out.with_suffix(".svg")
        write_text(plot, svg(figure))
        line += f"   Plot: {plot}"
    Console(soft_wrap=True).print(Text(line))
