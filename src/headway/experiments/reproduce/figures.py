"""The plot of an experiment: our curves and scores, with what the paper says beside them."""

import textwrap
from pathlib import Path
from statistics import mean
from typing import Any

from matplotlib import pyplot
from matplotlib.axes import Axes

from headway.experiments.reproduce.experiments import Experiment, Published
from headway.files import replacing_folder
from headway.reports.plots import COLOURS


def draw(results: dict[str, Any], experiment: Experiment, folder: Path) -> None:
    """Write plot.png and plot.svg: learning curves, final scores with each seed as a dot, and the paper's claim in words.

    Raises: HeadwayError where they cannot be written.
    """
    runs = [run for run in results["runs"] if "measures" in run]
    groups = list(dict.fromkeys(run["group"] for run in runs))
    curves = any(run.get("curve") for run in runs)
    width = len(groups) * (2 if curves else 1) + (experiment.published is not None) + 1
    with pyplot.rc_context({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False, "svg.hashsalt": "headway"}):
        figure, axes = pyplot.subplots(1, width, figsize=(3.6 * width, 3.4), layout="constrained", squeeze=False)
        spare = iter(axes[0])
        for group in groups:
            inside = [run for run in runs if run["group"] == group]
            if curves:
                _curves(next(spare), inside, experiment, group)
            _scores(next(spare), inside, experiment, group)
        if experiment.published is not None:
            _published(next(spare), experiment.published)
        _claim(next(spare), results)
        with replacing_folder(folder) as temporary:
            figure.savefig(temporary / "plot.png", dpi=110)
            figure.savefig(temporary / "plot.svg", metadata={"Date": None})
        pyplot.close(figure)


def _curves(axes: Axes, runs: list[dict[str, Any]], experiment: Experiment, group: str) -> None:
    """One line a seed, thin, and their mean, over optimiser steps."""
    for colour, arm in zip(COLOURS, dict.fromkeys(run["arm"] for run in runs), strict=False):
        lines = []
        for run in (run for run in runs if run["arm"] == arm):
            steps = [point["step"] for point in run["curve"]]
            lines.append([point["measures"][experiment.plotted] for point in run["curve"]])
            axes.plot(steps, lines[-1], color=colour, alpha=0.3, linewidth=1)
        if len({len(line) for line in lines}) == 1:
            axes.plot(steps, [mean(values) for values in zip(*lines, strict=True)], color=colour, label=arm, linewidth=2)
    axes.set_xlabel("optimiser steps")
    axes.set_title(f"{group}: {experiment.plotted}")
    axes.legend(frameon=False)


def _scores(axes: Axes, runs: list[dict[str, Any]], experiment: Experiment, group: str) -> None:
    """The measures side by side, an arm a bar, a seed a dot."""
    arms = list(dict.fromkeys(run["arm"] for run in runs))
    measures = [measure for measure in experiment.measures if any(measure.key in run["measures"] for run in runs)]
    for index, (arm, colour) in enumerate(zip(arms, COLOURS, strict=False)):
        for place, measure in enumerate(measures):
            values = [run["measures"][measure.key] for run in runs if run["arm"] == arm and measure.key in run["measures"]]
            x = place + (index - (len(arms) - 1) / 2) * 0.8 / len(arms)
            axes.bar(x, mean(values), 0.8 / len(arms), color=colour, alpha=0.55, label=arm if not place else None)
            axes.plot([x] * len(values), values, ".", color="#1c2430", markersize=4)
    axes.set_xticks(range(len(measures)), [measure.key for measure in measures], rotation=30, ha="right")
    axes.set_title(f"{group}: at the end, a dot a seed")
    axes.legend(frameon=False)


def _published(axes: Axes, published: Published) -> None:
    """What the paper prints, as it prints it."""
    for colour, (arm, values) in zip(COLOURS, published.values.items(), strict=False):
        axes.plot(range(len(values)), values, "o--", color=colour, label=arm)
    axes.set_xticks(range(len(published.places)), published.places)
    axes.set_title(f"The paper, {published.title}")
    axes.legend(frameon=False)


def _claim(axes: Axes, results: dict[str, Any]) -> None:
    axes.axis("off")
    claim, sentence = (textwrap.fill(results[key], 46) for key in ("claim", "sentence"))
    axes.text(0, 1, f"The paper:\n{claim}\n\n{sentence}", va="top", fontsize=9, parse_math=False)
