"""Plots in the style of the pages, drawn without a display."""

import io
from typing import Any

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot
from matplotlib.figure import Figure

COLOURS = ("#7a8595", "#2f7ed8", "#e4572e", "#2a9d8f", "#8e5bd0", "#d99a00", "#c2477f", "#5b8c3a")


def labelled_axes(x: str, y: str, size: tuple[float, float] = (5.6, 3.5)) -> tuple[Figure, Any]:
    """A figure with a single plot, and the axes of the plot.

    Args:
        x: label of the horizontal axis.
        y: label of the vertical axis.
        size: width and height in inches.
    """
    figure, axes = pyplot.subplots(figsize=size, layout="constrained")
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="#e6e9ee")
    axes.set_axisbelow(True)
    return figure, axes


def figure_to_svg(figure: Figure) -> str:
    """The figure as an SVG element. The figure is closed."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg")
    pyplot.close(figure)
    text = buffer.getvalue()
    return text[text.index("<svg") :]
