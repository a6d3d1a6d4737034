"""The page of a comparison of families: what each takes, knows and saves, with what others have published in grey beside it."""

import html
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from headway.experiments.families import summary
from headway.experiments.families.summary import Results, counted, labels_of, of_family, ratios, tokens
from headway.files import replacing_folder
from headway.reports.html import html_table, write_page
from headway.reports.plots import COLOURS, figure_to_svg, labelled_axes

MARKS = {"adaptive": "D", "chain": "o", "tree": "s"}
NAMES = {"adaptive": "as many as pay", "chain": "chain", "tree": "tree"}
SIZE = (5.6, 4.6)
X, Y = "tokens a forward, the trunk's own included", "speed (times plain decoding)"
GREY, DARK = "#9aa4b1", "#6b7686"
DASHES = ("--", ":", "-.", (0, (1, 3)))
LINES = ("-", (0, (5, 1.5)), (0, (1, 1)))  # as colours come round again


def write_report(results: Results, path: Path) -> None:
    """Write the page, and each plot as a PNG in `plots` beside it. Raises HeadwayError where they cannot be written."""
    settings = results["settings"]
    lead = [f"{counted(len(results['families']), 'family', 'families')} on {settings['model']}"]
    lead += ["the trunk learnt too" if settings["joint"] else "frozen trunk", counted(settings["seeds"], "seed")]
    lead.append(f"{results['seconds'] / 60:.0f} min")
    body = [f'<p class="lead">{html.escape(" · ".join(lead))}</p>']
    body += [f"<p>{html.escape(sentence)}</p>" for sentence in summary.words(results)]
    with replacing_folder(path.parent / "plots") as folder:
        for temperature in results["temperatures"]:
            body.append(f"<h2>{_heading(temperature)}</h2>{html_table(*summary.decoding(results, temperature))}")
            plots = []
            for name, draw, caption in PLOTS:
                figure = draw(results, temperature)
                figure.savefig(folder / f"{name}-{temperature}.png", dpi=150)
                plots.append(f"<figure>{figure_to_svg(figure)}<figcaption>{html.escape(caption)}</figcaption></figure>")
            body.append(f'<section class="plots">{"".join(plots)}</section>')
    body.append(f"<h2>What it takes</h2>{html_table(*summary.cost(results))}")
    body.append(f"<h2>Held-out text</h2>{html_table(*summary.held_out(results))}")
    for name, reason in results["failures"].items():
        body.append(f"<p><b>{html.escape(name)}</b> failed: {html.escape(reason)}</p>")
    body.append("<h2>How to read this</h2>" + "".join(f"<p>{html.escape(note)}</p>" for note in summary.notes(results)))
    body.append(f"<h2>Published, on other models, data and hardware</h2>{html_table(*summary.published(results))}")
    rows = [[key, str(value)] for key, value in settings.items()]
    body.append(f"<h2>Settings</h2>{html_table(['setting', 'value'], rows)}")
    write_page(path, results["title"], "\n".join(body))


def _acceptance(results: Results, temperature: str) -> Figure:
    figure, axes = labelled_axes("position of the draft", "kept, of the rounds that reach it (%)", SIZE)
    deepest = 1
    for place, one in enumerate(each for each in results["published"] if each["acceptance"]):
        rates = [100 * rate for rate in one["acceptance"]]
        deepest = max(deepest, len(rates))
        label = f"published: {one['name']} ({one['conditions'].split(',')[0]})"
        axes.plot(range(1, len(rates) + 1), rates, ls=DASHES[place % len(DASHES)], marker=".", color=GREY, lw=1.2, label=label)
    for label, runs in _finished(results):
        rates = [100 * rate for rate, rounds in summary.acceptance(runs, temperature) if rounds >= summary.FEW]
        deepest = max(deepest, len(rates))
        axes.plot(range(1, len(rates) + 1), rates, marker="o", ms=5, label=_shown(label), **_look(results, label))
    axes.set_xticks(range(1, deepest + 1))
    axes.set_ylim(0, 102)
    _legend(figure, axes.get_legend_handles_labels()[0])
    return figure


def _speed(results: Results, temperature: str) -> Figure:
    figure, axes = labelled_axes(X, Y, SIZE)
    handles = []
    for label, runs in _finished(results):
        look, points = _look(results, label), []
        for way, mark in MARKS.items():
            if (x := tokens(runs, temperature, way)) is None:
                continue
            times = ratios(runs, temperature, way)
            y = median(times)
            points.append((x, y))
            reach = [[y - min(times)], [max(times) - y]]
            axes.errorbar(x, y, yerr=reach, fmt=mark, ms=6, color=look["color"], elinewidth=0.8, capsize=2)
        points.sort()
        axes.plot([x for x, _ in points], [y for _, y in points], lw=0.8, alpha=0.6, **look)
        handles.append(Line2D([], [], label=_shown(label), **look))
    axes.axhline(1, color="#555", lw=1, ls="--")
    handles += [Line2D([], [], color="#444", marker=mark, ls="none", label=NAMES[way]) for way, mark in MARKS.items()]
    _legend(figure, handles)
    return figure


def _beside(results: Results, temperature: str) -> Figure:
    figure, axes = labelled_axes(X, Y, SIZE)
    for label, runs in _finished(results):
        at = tokens(runs, temperature, "adaptive"), median(ratios(runs, temperature, "adaptive"))
        axes.plot(*at, MARKS["adaptive"], ms=5, color=_look(results, label)["color"], label=_shown(label))
    points = {one["name"]: (one["tokens_per_forward"], one["ratio"]) for one in results["published"] if one["ratio"]}
    for name, (x, y) in points.items():
        axes.plot(x, y, "o", ms=5, mfc="none", color=GREY)
        crowded = any(0 < x2 - x < 0.9 and -0.1 < y2 - y < 0.3 for x2, y2 in points.values())
        offset, side, edge = ((-4, -4), "right", "top") if crowded else ((4, 3), "left", "bottom")
        text = name.replace("Gloeckle et al., ", "MTP, ")
        axes.annotate(text, (x, y), offset, textcoords="offset points", fontsize=7, color=DARK, ha=side, va=edge)
    axes.axhline(1, color="#555", lw=1, ls="--")
    axes.margins(x=0.12)
    _legend(figure, axes.get_legend_handles_labels()[0])
    return figure


def _price(results: Results, temperature: str) -> Figure:
    figure, axes = labelled_axes("parameters added (of the trunk's, %)", X, SIZE)
    handles = []
    for label, runs in _finished(results):
        look = _look(results, label)
        share = 100 * runs[0]["parameters"] / runs[0]["trunk_parameters"]
        found = {way: value for way in ("chain", "tree") if (value := tokens(runs, temperature, way)) is not None}
        axes.plot([share] * len(found), list(found.values()), lw=0.8, alpha=0.6, **look)
        for way, value in found.items():
            axes.plot(share, value, MARKS[way], ms=6, color=look["color"])
        handles.append(Line2D([], [], label=_shown(label), **look))
    handles += [Line2D([], [], color="#444", marker=MARKS[way], ls="none", label=NAMES[way]) for way in ("chain", "tree")]
    axes.axhline(1, color="#555", lw=1, ls="--")
    axes.set_xlim(left=0)
    _legend(figure, handles)
    return figure


PLOTS: tuple[tuple[str, Callable[[Results, str], Figure], str], ...] = (
    (
        "acceptance",
        _acceptance,
        "Drafts of a chain that stayed, by position, given that all before stayed; not shown where too few "
        "rounds got there. Grey: published, of other and larger models on "
        "other data and hardware.",
    ),
    (
        "speed",
        _speed,
        "Speed against tokens a forward, of as many drafts as pay, and of chains and trees forced in every round; bars are the "
        "lowest and the highest repeat. What lies above 1 pays on this machine.",
    ),
    (
        "beside",
        _beside,
        "As many drafts as pay, beside what others have published of larger models on GPUs, where verifying several tokens costs "
        "about as much as one.",
    ),
    (
        "price",
        _price,
        "Tokens a forward, with a chain and with a tree forced in every round, against the parameters that heads add. Plain "
        "decoding has 1.",
    ),
)


def _finished(results: Results) -> list[tuple[str, list[dict[str, Any]]]]:
    return [(label, runs) for label in labels_of(results) if (runs := of_family(results, label))]


def _look(results: Results, label: str) -> dict[str, Any]:
    """Colour and line of an entry, the same in all plots."""
    place, colours = labels_of(results).index(label), COLOURS[1:]
    return {"color": colours[place % len(colours)], "ls": LINES[place // len(colours) % len(LINES)]}


def _shown(label: str) -> str:
    """As matplotlib shows it as it is: neither a formula nor one that a legend leaves out."""
    return label.replace("$", r"\$").lstrip("_")


def _heading(temperature: str) -> str:
    return "Decoding, greedy" if temperature == "0" else f"Decoding at temperature {temperature}"


def _legend(figure: Figure, handles: list[Any]) -> None:
    """Below the plot, so that it hides nothing."""
    figure.legend(handles=handles, loc="outside lower center", frameon=False, fontsize=7, ncols=2)
