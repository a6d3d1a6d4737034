"""The page of a comparison of families: what each takes, knows and saves, with what others have published in grey beside it."""

import html
from collections.abc import Callable
from pathlib import Path
from statistics import median

from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from headway.evaluation.report import COLOURS, axes_of, html_table, svg, write_page
from headway.files import replacing_folder
from headway.lab.families.summary import (
    Results,
    acceptance,
    cost,
    decoding,
    held_out,
    labels_of,
    notes,
    of_family,
    published,
    ratios,
    tokens,
    words,
)

MARKS = {"adaptive": "D", "chain": "o", "tree": "s"}
NAMES = {"adaptive": "as many as pay", "chain": "chain", "tree": "tree"}
GREY = "#9aa4b1"
DASHES = ("--", ":", "-.", (0, (1, 3)))
LINES = ("-", (0, (5, 1.5)), (0, (1, 1)))  # as colours come round again


def write_report(results: Results, path: Path) -> None:
    """Write the page, and each plot as a PNG in `plots` beside it. Raises HeadwayError where they cannot be written."""
    took = results["seconds"]
    learnt = "the trunk learnt too" if results["settings"]["joint"] else "frozen trunk"
    body = [
        f'<p class="lead">{len(labels_of(results))} families on {html.escape(results["settings"]["model"])} · {learnt} · '
        f"{results['settings']['seeds']} seed(s) · {took / 60:.0f} min</p>"
    ]
    body += [f"<p>{html.escape(sentence)}</p>" for sentence in words(results)]
    with replacing_folder(path.parent / "plots") as folder:
        for temperature in results["temperatures"]:
            how = "greedy" if temperature == "0" else f"temperature {temperature}"
            body.append(f"<h2>Decoding, {how}</h2>{html_table(*decoding(results, temperature))}")
            plots = []
            for name, draw, caption in PLOTS:
                figure = draw(results, temperature)
                figure.savefig(folder / f"{name}-{temperature}.png", dpi=150)
                plots.append(f"<figure>{svg(figure)}<figcaption>{html.escape(caption)}</figcaption></figure>")
            body.append(f'<section class="plots">{"".join(plots)}</section>')
    body.append(f"<h2>What it takes</h2>{html_table(*cost(results))}")
    body.append(f"<h2>Held-out text</h2>{html_table(*held_out(results))}")
    for name, reason in results["failures"].items():
        body.append(f"<p><b>{html.escape(name)}</b> failed: {html.escape(reason)}</p>")
    body.append("<h2>How to read this</h2>" + "".join(f"<p>{html.escape(note)}</p>" for note in notes(results)))
    body.append(f"<h2>Published, on other models, data and hardware</h2>{html_table(*published(results))}")
    settings = [[key, str(value)] for key, value in results["settings"].items()]
    body.append(f"<h2>Settings</h2>{html_table(['setting', 'value'], settings)}")
    write_page(path, results["title"], "\n".join(body))


def _acceptance(results: Results, temperature: str) -> Figure:
    figure, axes = axes_of("position of the draft", "kept, of the rounds that reach it (%)", (5.6, 4.6))
    deepest = 1
    curves = [one for one in results["published"] if one["acceptance"]]
    for place, one in enumerate(curves):
        rates = [100 * rate for rate in one["acceptance"]]
        deepest = max(deepest, len(rates))
        label = f"published: {one['name']} ({one['conditions'].split(',')[0]})"
        axes.plot(range(1, len(rates) + 1), rates, ls=DASHES[place % len(DASHES)], marker=".", color=GREY, lw=1.2, label=label)
    for label in labels_of(results):
        if not (found := of_family(results, label)):
            continue
        rates = [100 * rate for rate in acceptance(found, temperature)]
        deepest = max(deepest, len(rates))
        colour, line = _look(results, label)
        axes.plot(range(1, len(rates) + 1), rates, marker="o", ms=5, color=colour, ls=line, label=_plain(label))
    axes.set_xticks(range(1, deepest + 1))
    axes.set_ylim(0, 102)
    _legend(figure, axes, axes.get_legend_handles_labels()[0])
    return figure


def _speed(results: Results, temperature: str) -> Figure:
    figure, axes = axes_of("tokens a forward, the trunk's own included", "speed (times plain decoding)", (5.6, 4.6))
    handles = []
    for label in labels_of(results):
        if not (found := of_family(results, label)):
            continue
        colour, line = _look(results, label)
        points = []
        for way, mark in MARKS.items():
            x, times = tokens(found, temperature, way), ratios(found, temperature, way)
            if x is None:
                continue
            y = median(times)
            points.append((x, y))
            reach = [[y - min(times)], [max(times) - y]]
            axes.errorbar(x, y, yerr=reach, fmt=mark, ms=6, color=colour, elinewidth=0.8, capsize=2)
        points.sort()
        axes.plot([x for x, _ in points], [y for _, y in points], color=colour, lw=0.8, ls=line, alpha=0.6)
        handles.append(Line2D([], [], color=colour, ls=line, label=_plain(label)))
    for one in results["published"]:
        if one["ratio"]:
            axes.plot(one["tokens_per_forward"], one["ratio"], marker="o", ms=5, mfc="none", color=GREY, ls="none")
            name = one["name"].replace("Gloeckle et al., ", "MTP, ")
            at = (one["tokens_per_forward"], one["ratio"])
            axes.annotate(name, at, (4, 4), textcoords="offset points", fontsize=6.5, color="#7a8595")
    axes.axhline(1, color="#555", lw=1, ls="--")
    axes.margins(x=0.1)
    handles += [Line2D([], [], color="#444", marker=mark, ls="none", label=NAMES[way]) for way, mark in MARKS.items()]
    handles.append(Line2D([], [], color=GREY, marker="o", mfc="none", ls="none", label="published, other model"))
    _legend(figure, axes, handles)
    return figure


PLOTS: tuple[tuple[str, Callable[[Results, str], Figure], str], ...] = (
    (
        "acceptance",
        _acceptance,
        "Drafts of a chain that stayed, by position, given that all before stayed. Grey: published, of other and larger models on "
        "other data and hardware.",
    ),
    (
        "speed",
        _speed,
        "Speed against tokens a forward; bars are the lowest and the highest repeat. What lies above 1 pays on this machine. Grey: "
        "published, of other models on GPUs, where verifying several tokens costs about as much as one.",
    ),
)


def _look(results: Results, label: str) -> tuple[str, object]:
    """Colour and line of a family."""
    place = labels_of(results).index(label)
    return COLOURS[1:][place % (len(COLOURS) - 1)], LINES[place // (len(COLOURS) - 1) % len(LINES)]


def _plain(label: str) -> str:
    """As matplotlib shows it as it is: neither a formula nor a label that is left out."""
    return label.replace("$", r"\$").lstrip("_")


def _legend(figure: Figure, axes: object, handles: list) -> None:
    """Below the plot, so that it hides nothing."""
    figure.legend(handles=handles, loc="outside lower center", frameon=False, fontsize=7, ncols=2)
