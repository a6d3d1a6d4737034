"""The page of a comparison: what differed and by how much, the way there, and what it bought in speed."""

import html
import textwrap
from collections.abc import Callable
from pathlib import Path
from statistics import mean
from typing import Any

import numpy
from matplotlib.figure import Figure

from headway.files import replacing_folder
from headway.reports.html import html_table, write_page
from headway.reports.plots import COLOURS, figure_to_svg, labelled_axes

Results = dict[str, Any]


def write_report(results: Results, path: Path, sentences: list[str], rows: dict[str, tuple[list[str], list[list[str]]]]) -> None:
    """Write the page, and each plot as a PNG in `plots` beside it.

    Args:
        sentences: what the figures say. rows: by task, the headings and cells of its table.
    Raises: HeadwayError where they cannot be written.
    """
    settings = results["settings"]
    done, took = len(results["runs"]), results["seconds"]
    body = [f'<p class="lead">{done} runs of {settings["seeds"]} seeds, paired by seed · {took / 60:.0f} min</p>']
    with replacing_folder(path.parent / "plots") as folder:
        for task in settings["tasks"]:
            body.append(f"<h2>{html.escape(task)}</h2>{html_table(*rows[task])}")
            plots = []
            for name, draw, caption in PLOTS:
                if (figure := draw(results, task)) is None:
                    continue
                figure.savefig(folder / f"{_plain(task)}-{name}.png", dpi=150)
                plots.append(f"<figure>{figure_to_svg(figure)}<figcaption>{html.escape(caption)}</figcaption></figure>")
            body.append(f'<section class="plots">{"".join(plots)}</section>')
    body.append("<h2>In words</h2>" + "".join(f"<p>{html.escape(sentence)}</p>" for sentence in sentences))
    for name, reason in results["failures"].items():
        body.append(f"<p><b>{html.escape(name)}</b> failed: {html.escape(reason)}</p>")
    samples = {run["arm"]: run["sample"] for run in results["runs"] if "sample" in run}
    if samples:
        arm, sample = list(samples.items())[-1]
        body.append(f"<h2>An answer, by {html.escape(arm)}</h2><pre>{html.escape(sample)}</pre>")
    lines = [[key, str(value)] for key, value in settings.items()]
    body.append("<h2>Settings</h2>" + html_table(["setting", "value"], lines))
    write_page(path, results["title"], "\n".join(body))


def _forest(results: Results, task: str) -> Figure | None:
    found = results["comparison"][task]
    if not found:
        return None
    share = all("score" in one for one in found.values())
    measure, scale = ("score", 100.0) if share else ("loss", 1.0)
    figure, axes = labelled_axes("difference in problems solved (points)" if share else "difference in held-out loss (nats)", "")
    for place, (arm, one) in enumerate(found.items()):
        f = one[measure]
        low, middle, high = (scale * f[key] for key in ("low", "mean", "high"))
        axes.errorbar(
            middle, place, xerr=[[middle - low], [high - middle]], fmt="o", ms=8, capsize=5, color=_colour(results, arm), lw=2
        )
    axes.axvline(0, color="#555", lw=1, ls="--")
    axes.set_yticks(range(len(found)), list(found))
    axes.set_ylim(len(found) - 0.5, -0.5)
    axes.grid(axis="y", visible=False)
    return figure


def _learning(results: Results, task: str) -> Figure | None:
    figure, axes = labelled_axes("optimiser step", "held-out next-token loss (nats)")
    for arm in results["settings"]["arms"]:
        points = [run["points"] for run in _runs(results, task, arm)]
        if not points:
            continue
        steps = [point[0] for point in points[0]]
        values = [[run[k][2] for run in points] for k in range(len(steps))]
        colour = _colour(results, arm)
        axes.plot(steps, [mean(v) for v in values], "o-", ms=4, color=colour, label=arm)
        axes.fill_between(steps, [min(v) for v in values], [max(v) for v in values], color=colour, alpha=0.12, lw=0)
    axes.legend(frameon=False, fontsize=8)
    return figure


def _scores(results: Results, task: str) -> Figure | None:
    arms = [arm for arm in results["settings"]["arms"] if (r := _runs(results, task, arm)) and "score" in r[0]]
    if not arms:
        return None
    figure, axes = labelled_axes("", "problems solved (%)")
    for place, arm in enumerate(arms):
        values = [100 * run["score"] for run in _runs(results, task, arm)]
        axes.bar(place, mean(values), 0.55, color=_colour(results, arm), alpha=0.35)
        spread = numpy.linspace(-0.12, 0.12, len(values)) if len(values) > 1 else [0.0]
        axes.plot([place + s for s in spread], values, "o", color=_colour(results, arm), ms=6)
    axes.set_xticks(range(len(arms)), [textwrap.fill(arm, 13) for arm in arms], fontsize=8)
    return figure


def _plane(results: Results, task: str) -> Figure | None:
    speeds = results["speed"].get(task, {})
    if not speeds:
        return None
    share = "score" in results["runs"][0]
    figure, axes = labelled_axes("decoding speed (times plain)", "problems solved (%)" if share else "held-out loss (nats)")
    for arm in results["settings"]["arms"]:
        if not (runs := _runs(results, task, arm)):
            continue
        ratio = speeds[arm]["ratio"] if arm in speeds else 1.0
        value = mean(100 * run["score"] if share else run["loss"] for run in runs)
        axes.plot(ratio, value, "o", ms=10, color=_colour(results, arm), label=arm)
    axes.axvline(1, color="#555", lw=1, ls="--")
    axes.legend(frameon=False, fontsize=8)
    return figure


def _acceptance(results: Results, task: str) -> Figure | None:
    figure, axes = labelled_axes("draft position", "accepted (%)")
    deepest = 0
    for arm in results["settings"]["arms"]:
        rates = [run["acceptance"] for run in _runs(results, task, arm) if run.get("acceptance")]
        if not rates:
            continue
        depth = min(map(len, rates))
        deepest = max(deepest, depth)
        values = [100 * mean(rate[k] for rate in rates) for k in range(depth)]
        axes.plot(range(1, depth + 1), values, "o-", color=_colour(results, arm), label=arm)
    if not deepest:
        return None
    axes.set_xticks(range(1, deepest + 1))
    axes.set_ylim(0, 102)
    axes.legend(frameon=False, fontsize=8)
    return figure


PLOTS: tuple[tuple[str, Callable[[Results, str], Figure | None], str], ...] = (
    ("differences", _forest, "Difference to the baseline, paired by seed, with 95 % intervals; left of the line means less."),
    ("scores", _scores, "Held-out problems solved; a dot is one seed, the bar their mean."),
    ("learning", _learning, "Held-out next-token loss on the way, mean over seeds; the band is the lowest and the highest seed."),
    ("acceptance", _acceptance, "Share of drafts accepted at each position, given that all before it were."),
    ("plane", _plane, "Quality against decoding speed; arms without heads stand at 1."),
)


def _runs(results: Results, task: str, arm: str) -> list[dict[str, Any]]:
    return [run for run in results["runs"] if (run["task"], run["arm"]) == (task, arm)]


def _colour(results: Results, arm: str) -> str:
    """Baselines in grey, the others in turn."""
    settings = results["settings"]
    if arm in settings["baseline"]:
        return COLOURS[0]
    others = [name for name in settings["arms"] if name not in settings["baseline"]]
    return COLOURS[1 + others.index(arm) % (len(COLOURS) - 1)]


def _plain(name: str) -> str:
    return "".join(c if c.isalnum() or c == "-" else "-" for c in name)
