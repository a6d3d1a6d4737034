"""HTML report of a comparison: tables, plots, sentences and settings."""

import html
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import mean

import numpy
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from headway.experiments.compare.results import Comparison
from headway.experiments.compare.summary import summary_sentences, table
from headway.experiments.metrics import Metric
from headway.experiments.output import settings_json
from headway.files import replacing_folder
from headway.reports.html import html_table, write_page
from headway.reports.plots import COLOURS, figure_to_svg, labelled_axes


def write_report(results: Comparison, path: Path) -> None:
    """Write the page, and the plots as PNG files in `plots` beside the page. Raises HeadwayError if a file cannot be written."""
    config = results.config
    body = [
        f'<p class="lead">{len(results.runs)} runs of {config.seeds} seeds, paired by seed · {results.seconds / 60:.0f} min</p>'
    ]
    with replacing_folder(path.parent / "plots") as folder:
        for task in config.tasks:
            body.append(f"<h2>{html.escape(task)}</h2>{html_table(*table(results, task))}")
            plots = []
            for name, figure, caption in _figures(results, task):
                figure.savefig(folder / f"{_file_name(task)}-{name}.png", dpi=150)
                plots.append(f"<figure>{figure_to_svg(figure)}<figcaption>{html.escape(caption)}</figcaption></figure>")
            body.append(f'<section class="plots">{"".join(plots)}</section>')
    body.append("<h2>Findings</h2>" + "".join(f"<p>{html.escape(sentence)}</p>" for sentence in summary_sentences(results)))
    for name, reason in results.failures.items():
        body.append(f"<p><b>{html.escape(name)}</b> failed: {html.escape(reason)}</p>")
    samples = [(run.arm, run.sample) for run in results.runs if run.sample is not None]
    if samples:
        arm, sample = samples[-1]
        body.append(f"<h2>Example answer of {html.escape(arm)}</h2><pre>{html.escape(sample)}</pre>")
    lines = [[key, str(value)] for key, value in settings_json(config).items()]
    body.append("<h2>Settings</h2>" + html_table(["setting", "value"], lines))
    write_page(path, results.title, "\n".join(body))


def _figures(results: Comparison, task: str) -> Iterator[tuple[str, Figure, str]]:
    """Name, figure and caption of the plots that the results allow."""
    first = results.metrics(task)[0]
    plots: list[tuple[str, Callable[[], Figure | None], str]] = [
        ("differences", lambda: _forest_plot(results, task, first), FOREST),
        *(
            (f"{m.key}-by-seed", lambda m=m: _seeds_plot(results, task, m), SEEDS.format(m.label.capitalize()))
            for m in results.metrics(task)
            if m.paired
        ),
        ("learning", lambda: _learning_plot(results, task), LEARNING),
        ("acceptance", lambda: _acceptance_plot(results, task), ACCEPTANCE),
        ("pareto", lambda: _pareto_plot(results, task, first), PARETO),
    ]
    for name, draw, caption in plots:
        if (figure := draw()) is not None:
            yield name, figure, caption


FOREST = "Difference to the baseline, paired by seed, with 95 % intervals. The dashed line is the baseline."
SEEDS = "{} at the end of training. A dot is a seed; the bar or line is the mean."
LEARNING = "Held-out next-token loss during training: mean over seeds. The band spans the lowest and the highest seed."
ACCEPTANCE = "Acceptance rate by draft position, of the steps that reach the position."
PARETO = "Quality against decoding speed. Arms without heads stand at 1."


def _forest_plot(results: Comparison, task: str, metric: Metric) -> Figure | None:
    arms = results.comparison[task]
    if not arms:
        return None
    unit = "points" if metric.is_share else metric.unit
    figure, axes = labelled_axes(f"difference in {metric.words} ({unit})", "")
    for row, (arm, comparison) in enumerate(arms.items()):
        interval = comparison.differences[metric.key].interval
        low, middle, high = map(metric.scaled, (interval.low, interval.mean, interval.high))
        spread = [[middle - low], [high - middle]]
        axes.errorbar(middle, row, xerr=spread, fmt="o", ms=8, capsize=5, color=_colour(results, arm), lw=2)
    axes.axvline(0, color="#555", lw=1, ls="--")
    axes.set_yticks(range(len(arms)), list(arms))
    axes.set_ylim(len(arms) - 0.5, -0.5)
    axes.grid(axis="y", visible=False)
    return figure


def _seeds_plot(results: Comparison, task: str, metric: Metric) -> Figure:
    figure, axes = labelled_axes("", metric.axis)
    values = {arm: list(map(metric.scaled, results.values(task, arm, metric))) for arm in results.config.arms}
    values = {arm: scores for arm, scores in values.items() if scores}
    for x, (arm, scores) in enumerate(values.items()):
        colour = _colour(results, arm)
        offsets = numpy.linspace(-0.12, 0.12, len(scores)) if len(scores) > 1 else [0.0]
        if metric.is_share:
            axes.bar(x, mean(scores), 0.55, color=colour, alpha=0.35)
        else:  # a bar from zero would hide the differences
            axes.plot([x - 0.27, x + 0.27], [mean(scores)] * 2, color=colour, lw=2)
        axes.plot([x + offset for offset in offsets], scores, "o", color=colour, ms=6)
    if metric.is_share:
        axes.set_ylim(bottom=0)
    axes.set_xticks(range(len(values)), [textwrap.fill(arm, 13) for arm in values], fontsize=8)
    return figure


def _learning_plot(results: Comparison, task: str) -> Figure:
    figure, axes = labelled_axes("optimiser step", "held-out next-token loss (nats)")
    for arm in results.config.arms:
        curves = [run.points for run in results.runs_of(task, arm) if run.points]
        if not curves:
            continue
        steps = [point.step for point in curves[0]]
        values = [[curve[index].metrics["loss"] for curve in curves] for index in range(len(steps))]
        colour = _colour(results, arm)
        axes.plot(steps, [mean(v) for v in values], "o-", ms=4, color=colour, label=arm)
        axes.fill_between(steps, [min(v) for v in values], [max(v) for v in values], color=colour, alpha=0.12, lw=0)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend(frameon=False, fontsize=8)
    return figure


def _pareto_plot(results: Comparison, task: str, metric: Metric) -> Figure | None:
    speeds = results.speed.get(task, {})
    if not speeds:
        return None
    figure, axes = labelled_axes("speed-up over autoregressive decoding", metric.axis)
    for arm in results.config.arms:
        if values := results.values(task, arm, metric):
            ratio = speeds[arm].ratio if arm in speeds else 1.0
            axes.plot(ratio, metric.scaled(mean(values)), "o", ms=10, color=_colour(results, arm), label=arm)
    axes.axvline(1, color="#555", lw=1, ls="--")
    axes.legend(frameon=False, fontsize=8)
    return figure


def _acceptance_plot(results: Comparison, task: str) -> Figure | None:
    figure, axes = labelled_axes("draft position", "acceptance rate (%)")
    deepest = 0
    for arm in results.config.arms:
        rates = [run.acceptance for run in results.runs_of(task, arm) if run.acceptance]
        if not rates:
            continue
        depth = min(map(len, rates))
        deepest = max(deepest, depth)
        values = [100 * mean(rate[position] for rate in rates) for position in range(depth)]
        axes.plot(range(1, depth + 1), values, "o-", color=_colour(results, arm), label=arm)
    if not deepest:
        return None
    axes.set_xticks(range(1, deepest + 1))
    axes.set_ylim(0, 102)
    axes.legend(frameon=False, fontsize=8)
    return figure


def _colour(results: Comparison, arm: str) -> str:
    """Grey for baselines, a different colour for every arm beside the baselines."""
    config = results.config
    if arm in config.baseline:
        return COLOURS[0]
    others = [name for name in config.arms if name not in config.baseline]
    return COLOURS[1 + others.index(arm) % (len(COLOURS) - 1)]


def _file_name(task: str) -> str:
    return "".join(c if c.isalnum() or c == "-" else "-" for c in task)
