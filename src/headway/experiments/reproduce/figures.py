"""Plot of a reproduced experiment: learning curves and scores, beside the paper's figures and claim."""

import textwrap
from pathlib import Path
from statistics import mean

from matplotlib import pyplot
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from headway.experiments.metrics import values_of
from headway.experiments.reproduce.experiments import PaperExperiment, PaperTable
from headway.experiments.reproduce.results import Reproduction, ReproductionResult
from headway.files import replacing_folder
from headway.reports.plots import COLOURS


def draw(results: Reproduction, experiment: PaperExperiment, folder: Path) -> None:
    """Write plot.png and plot.svg: learning curves, final scores with a dot per seed, and the paper's claim in words.

    Raises: HeadwayError if a file cannot be written.
    """
    runs = list(results.runs.values())
    groups = list(dict.fromkeys(run.group for run in runs))
    curves = any(run.curve for run in runs)
    width = len(groups) * (2 if curves else 1) + (experiment.table is not None) + 1
    with pyplot.rc_context({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False, "svg.hashsalt": "headway"}):
        figure, axes = pyplot.subplots(1, width, figsize=(3.6 * width, 3.4), layout="constrained", squeeze=False)
        spare = iter(axes[0])
        for group in groups:
            inside = [run for run in runs if run.group == group]
            if curves:
                _curves(next(spare), inside, experiment, group)
            _scores(next(spare), inside, experiment, group)
        if experiment.table is not None:
            _table(next(spare), experiment.table)
        _claim(next(spare), results)
        with replacing_folder(folder) as temporary:
            figure.savefig(temporary / "plot.png", dpi=110)
            figure.savefig(temporary / "plot.svg", metadata={"Date": None})
        pyplot.close(figure)


def _curves(axes: Axes, runs: list[ReproductionResult], experiment: PaperExperiment, group: str) -> None:
    """Plot a thin line per seed, and the mean over seeds, by optimiser step."""
    for colour, arm in zip(COLOURS, dict.fromkeys(run.arm for run in runs), strict=False):
        lines = []
        for run in (run for run in runs if run.arm == arm):
            steps = [point.step for point in run.curve]
            lines.append([point.metrics[experiment.plotted] for point in run.curve])
            axes.plot(steps, lines[-1], ".-", color=colour, alpha=0.3, linewidth=1)
        if len({len(line) for line in lines}) == 1:
            axes.plot(steps, [mean(values) for values in zip(*lines, strict=True)], ".-", color=colour, label=arm, linewidth=2)
    axes.set_xlabel("optimiser steps")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_title(f"{group}: {experiment.plotted}")
    axes.legend(frameon=False)


def _scores(axes: Axes, runs: list[ReproductionResult], experiment: PaperExperiment, group: str) -> None:
    """Plot the final metrics: a bar per arm, a dot per seed."""
    arms = list(dict.fromkeys(run.arm for run in runs))
    metrics = [metric for metric in experiment.metrics if values_of(runs, metric.key)]
    for index, (arm, colour) in enumerate(zip(arms, COLOURS, strict=False)):
        for group_index, metric in enumerate(metrics):
            values = values_of([run for run in runs if run.arm == arm], metric.key)
            x = group_index + (index - (len(arms) - 1) / 2) * 0.8 / len(arms)
            axes.bar(x, mean(values), 0.8 / len(arms), color=colour, alpha=0.55, label=arm if not group_index else None)
            axes.plot([x] * len(values), values, ".", color="#1c2430", markersize=4)
    axes.set_xticks(range(len(metrics)), [metric.key for metric in metrics], rotation=30, ha="right")
    axes.set_title(f"{group}: end of training, a dot per seed")
    axes.legend(frameon=False)


def _table(axes: Axes, table: PaperTable) -> None:
    """Plot the figures of the paper."""
    for colour, (arm, values) in zip(COLOURS, table.values.items(), strict=False):
        axes.plot(range(len(values)), values, "o--", color=colour, label=arm)
    axes.set_xticks(range(len(table.columns)), table.columns)
    axes.set_title(f"The paper, {table.title}")
    axes.legend(frameon=False)


def _claim(axes: Axes, results: Reproduction) -> None:
    axes.axis("off")
    claim, sentence = (textwrap.fill(text, 46) for text in (results.claim, results.sentence))
    axes.text(0, 1, f"The paper:\n{claim}\n\n{sentence}", va="top", fontsize=9, parse_math=False)
