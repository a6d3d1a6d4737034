"""HTML report of a comparison of families: tables and plots, with published results in grey."""

import html
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from headway.experiments.families import summary
from headway.experiments.families.results import FamiliesComparison
from headway.experiments.families.summary import counted, ratios, tokens_per_forward
from headway.experiments.output import settings_json
from headway.files import replacing_folder
from headway.reports.html import html_table, write_page
from headway.reports.plots import COLOURS, figure_to_svg, labelled_axes

MARKERS = {"adaptive": "D", "chain": "o", "tree": "s"}  # by variant
SIZE = (5.6, 4.6)
TOKENS, SPEED_UP = "tokens per forward, bonus token included", "speed-up over autoregressive decoding"
GREY, DARK_GREY = "#9aa4b1", "#6b7686"
PUBLISHED_LINES = ("--", ":", "-.", (0, (1, 3)))
LINES = ("-", (0, (5, 1.5)), (0, (1, 1)))  # for families beyond the number of colours


def write_report(results: FamiliesComparison, path: Path) -> None:
    """Write the page, and the plots as PNG files in `plots` beside the page. Raises HeadwayError if a file cannot be written."""
    config = results.config
    lead = [f"{counted(len(results.families), 'family', 'families')} on {config.model}"]
    lead += ["the trunk was trained too" if config.joint else "frozen trunk", counted(config.seeds, "seed")]
    lead.append(f"{results.seconds / 60:.0f} min")
    body = [f'<p class="lead">{html.escape(" · ".join(lead))}</p>']
    body += [f"<p>{html.escape(sentence)}</p>" for sentence in summary.summary_sentences(results)]
    with replacing_folder(path.parent / "plots") as folder:
        for temperature in results.temperatures:
            heading = "Decoding, greedy" if temperature == "0" else f"Decoding at temperature {temperature}"
            body.append(f"<h2>{heading}</h2>{html_table(*summary.decoding_table(results, temperature))}")
            plots = []
            for name, draw, caption in PLOTS:
                figure = draw(results, temperature)
                figure.savefig(folder / f"{name}-{temperature}.png", dpi=150)
                plots.append(f"<figure>{figure_to_svg(figure)}<figcaption>{html.escape(caption)}</figcaption></figure>")
            body.append(f'<section class="plots">{"".join(plots)}</section>')
    body.append(f"<h2>Cost</h2>{html_table(*summary.cost_table(results))}")
    body.append(f"<h2>Held-out text</h2>{html_table(*summary.held_out_table(results))}")
    for name, reason in results.failures.items():
        body.append(f"<p><b>{html.escape(name)}</b> failed: {html.escape(reason)}</p>")
    body.append("<h2>How to read the tables</h2>" + "".join(f"<p>{html.escape(note)}</p>" for note in summary.notes(results)))
    body.append(f"<h2>Published, on other models, data and hardware</h2>{html_table(*summary.published_table(results))}")
    rows = [[key, str(value)] for key, value in settings_json(config).items()]
    body.append(f"<h2>Settings</h2>{html_table(['setting', 'value'], rows)}")
    write_page(path, results.title, "\n".join(body))


def _acceptance_plot(results: FamiliesComparison, temperature: str) -> Figure:
    figure, axes = labelled_axes("draft position", "acceptance rate (%)", SIZE)
    deepest = 1
    for index, published in enumerate(result for result in results.published if result.acceptance):
        rates = [100 * rate for rate in published.acceptance]
        deepest = max(deepest, len(rates))
        label, line = f"published: {published.name} ({published.conditions.split(',')[0]})", PUBLISHED_LINES[index % 4]
        axes.plot(range(1, len(rates) + 1), rates, ls=line, marker=".", color=GREY, lw=1.2, label=label)
    for label, runs in results.finished().items():
        rates = [100 * rate for rate, steps in summary.acceptance(runs, temperature) if steps >= summary.MIN_STEPS]
        deepest = max(deepest, len(rates))
        axes.plot(range(1, len(rates) + 1), rates, marker="o", ms=5, label=_literal(label), **_style(results, label))
    axes.set_xticks(range(1, deepest + 1))
    axes.set_ylim(0, 102)
    _legend(figure, axes.get_legend_handles_labels()[0])
    return figure


def _speed_plot(results: FamiliesComparison, temperature: str) -> Figure:
    figure, axes = labelled_axes(TOKENS, SPEED_UP, SIZE)
    handles = []
    for label, runs in results.finished().items():
        style, points = _style(results, label), []
        for variant, marker in MARKERS.items():
            if (x := tokens_per_forward(runs, temperature, variant)) is None:
                continue
            times = ratios(runs, temperature, variant)
            y = median(times)
            points.append((x, y))
            spread = [[y - min(times)], [max(times) - y]]
            axes.errorbar(x, y, yerr=spread, fmt=marker, ms=6, color=style["color"], elinewidth=0.8, capsize=2)
        points.sort()
        axes.plot([x for x, _ in points], [y for _, y in points], lw=0.8, alpha=0.6, **style)
        handles.append(Line2D([], [], label=_literal(label), **style))
    axes.axhline(1, color="#555", lw=1, ls="--")
    handles += [_marker_handle(variant) for variant in MARKERS]
    _legend(figure, handles)
    return figure


def _published_plot(results: FamiliesComparison, temperature: str) -> Figure:
    figure, axes = labelled_axes(TOKENS, SPEED_UP, SIZE)
    for label, runs in results.finished().items():
        point = tokens_per_forward(runs, temperature, "adaptive"), median(ratios(runs, temperature, "adaptive"))
        axes.plot(*point, MARKERS["adaptive"], ms=5, color=_style(results, label)["color"], label=_literal(label))
    points = {result.name: (result.tokens_per_forward, result.ratio) for result in results.published if result.ratio is not None}
    for name, (x, y) in points.items():
        axes.plot(x, y, "o", ms=5, mfc="none", color=GREY)
        crowded = any(0 < x2 - x < 0.9 and -0.1 < y2 - y < 0.3 for x2, y2 in points.values())
        offset, side, edge = ((-4, -4), "right", "top") if crowded else ((4, 3), "left", "bottom")
        text = name.replace("Gloeckle et al., ", "MTP, ")
        axes.annotate(text, (x, y), offset, textcoords="offset points", fontsize=7, color=DARK_GREY, ha=side, va=edge)
    axes.axhline(1, color="#555", lw=1, ls="--")
    axes.margins(x=0.12)
    _legend(figure, axes.get_legend_handles_labels()[0])
    return figure


def _cost_plot(results: FamiliesComparison, temperature: str) -> Figure:
    figure, axes = labelled_axes("parameters added (of the trunk's, %)", TOKENS, SIZE)
    handles, variants = [], ("chain", "tree")
    for label, runs in results.finished().items():
        style, metrics = _style(results, label), runs[0].metrics
        share = 100 * metrics["parameters"] / metrics["trunk_parameters"]
        tokens = {variant: value for variant in variants if (value := tokens_per_forward(runs, temperature, variant)) is not None}
        axes.plot([share] * len(tokens), list(tokens.values()), lw=0.8, alpha=0.6, **style)
        for variant, value in tokens.items():
            axes.plot(share, value, MARKERS[variant], ms=6, color=style["color"])
        handles.append(Line2D([], [], label=_literal(label), **style))
    handles += [_marker_handle(variant) for variant in variants]
    axes.axhline(1, color="#555", lw=1, ls="--")
    axes.set_xlim(0, 1.08 * axes.dataLim.x1)
    _legend(figure, handles)
    return figure


PLOTS: tuple[tuple[str, Callable[[FamiliesComparison, str], Figure], str], ...] = (
    (
        "acceptance",
        _acceptance_plot,
        "Acceptance rate of a chain by position, of the steps that reach the position. Positions with too few steps are left out. "
        "Grey: published results of larger models on other data and hardware.",
    ),
    (
        "speed",
        _speed_plot,
        "Speed-up against tokens per forward: adaptive, and with a chain or a tree in every step. Bars span the lowest and the "
        "highest repeat. Points above 1 are faster on this machine.",
    ),
    (
        "published",
        _published_plot,
        "Adaptive drafts, beside published results of larger models on GPUs, where verifying several tokens costs about as much as "
        "verifying one.",
    ),
    (
        "cost",
        _cost_plot,
        "Tokens per forward with a chain and with a tree in every step, against the parameters that the heads add. Autoregressive "
        "decoding has 1.",
    ),
)


def _style(results: FamiliesComparison, label: str) -> dict[str, Any]:
    """Colour and line of a family, the same in all plots."""
    index, colours = results.families.index(label), COLOURS[1:]
    return {"color": colours[index % len(colours)], "ls": LINES[index // len(colours) % len(LINES)]}


def _literal(label: str) -> str:
    """Label that matplotlib shows unchanged: no formula, no leading underscore."""
    return label.replace("$", r"\$").lstrip("_")


def _marker_handle(variant: str) -> Line2D:
    return Line2D([], [], color="#444", marker=MARKERS[variant], ls="none", label=variant)


def _legend(figure: Figure, handles: list[Any]) -> None:
    """Put the legend below the plot."""
    figure.legend(handles=handles, loc="outside lower center", frameon=False, fontsize=7, ncols=2)
