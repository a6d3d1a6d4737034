"""The report: one HTML file without anything from outside, plots as inline SVG, text escaped."""

import html
import io
from pathlib import Path
from statistics import mean
from typing import Any

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot
from matplotlib.figure import Figure

from headway.files import write_text

COLOURS = {"next-token": "#7a8595", "1 head": "#2f7ed8", "2 heads": "#e4572e"}
STYLE = """
:root { color-scheme: light; } body { font: 16px/1.55 system-ui, sans-serif; color: #1c2430;
background: #f6f7f9; margin: 0; } main { max-width: 62rem; margin: 0 auto; padding: 2rem 1.25rem 4rem; }
h1 { font-size: 1.8rem; margin: 0 0 .3rem; }
h2 { font-size: 1.15rem; margin: 2.2rem 0 .6rem; } p.lead { color: #4d5866; margin: 0 0 1.5rem; }
section.plots { display: grid; grid-template-columns: repeat(auto-fit, minmax(26rem, 1fr)); gap: 1rem; }
figure { background: #fff; border: 1px solid #dde2e8; border-radius: 10px; margin: 0; padding: .8rem; }
figure svg { width: 100%; height: auto; } figcaption { color: #4d5866; font-size: .86rem; }
table { border-collapse: collapse; width: 100%; background: #fff;
  border: 1px solid #dde2e8; border-radius: 10px; overflow: hidden; }
th, td { padding: .5rem .7rem; text-align: right; border-bottom: 1px solid #eceff3; }
th:first-child, td:first-child { text-align: left; }
th { background: #eef1f5; font-weight: 600; font-size: .88rem; } tr:last-child td { border-bottom: 0; }
pre { background: #fff; border: 1px solid #dde2e8; border-radius: 10px; padding: .8rem; white-space: pre-wrap; }
"""


def write_report(results: dict[str, Any], path: Path) -> None:
    """Write the demo's results as a page. Raises HeadwayError where it cannot be written."""
    arms = list(results["speed"])
    plots = [
        (
            _losses(results, arms),
            "Next-token loss while training, mean over seeds; the band is the lowest and the highest seed.",
        ),
        (_scores(results, arms), "Held-out problems solved; a dot is one seed, the bar their mean."),
        (_acceptance(results, arms), "Share of drafts accepted at each position, given that all before it were."),
        (_speed(results, arms), "Decoding speed against the same model without drafting, and tokens a forward."),
    ]
    figures = "".join(f"<figure>{svg}<figcaption>{html.escape(text)}</figcaption></figure>" for svg, text in plots)
    settings = ", ".join(f"{key} {value}" for key, value in results["settings"].items())
    sample = next(run for run in results["runs"] if run["arm"] == arms[-1])["sample"]
    page = f"""<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Headway demo</title>
<meta name="viewport" content="width=device-width"><style>{STYLE}</style></head><body><main>
<h1>Does looking ahead help?</h1>
<p class="lead">{html.escape(results["task"])} · {len(results["runs"])} runs ·
{results["seconds"]:.0f} s on {results["threads"]} threads</p>
{_table(results, arms)}
<h2>How it went</h2><section class="plots">{figures}</section>
<h2>An answer, by the last arm</h2><pre>{html.escape(sample)}</pre>
<h2>Settings</h2><p>{html.escape(settings)}</p>
<p>Differences are paired by seed; intervals are Student's t at 95 %. Speed is the median of interleaved repeats.</p>
</main></body></html>"""
    write_text(path, page)


def _table(results: dict[str, Any], arms: list[str]) -> str:
    lines = ["<table><tr><th>arm</th><th>solved</th><th>difference to next-token</th><th>verdict</th><th>held-out loss</th>"]
    lines.append("<th>tokens a forward</th><th>speed-up</th></tr>")
    for arm in arms:
        runs = [run for run in results["runs"] if run["arm"] == arm]
        found = results["comparison"].get(arm)
        difference, verdict = "", "baseline"
        if found:
            d = found["exact_match"]
            difference = f"{100 * d['mean']:+.1f} [{100 * d['low']:+.1f}, {100 * d['high']:+.1f}] points"
            verdict = d["verdict"]
        cells = [
            arm,
            f"{mean(r['exact_match'] for r in runs):.1%}",
            difference,
            verdict,
            f"{mean(r['loss'] for r in runs):.4f}",
        ]
        cells += [f"{mean(r['tokens_per_forward'] for r in runs):.2f}", f"{results['speed'][arm]['ratio']:.2f}x"]
        lines.append("<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in cells) + "</tr>")
    return "".join([*lines, "</table>"])


def _losses(results: dict[str, Any], arms: list[str]) -> str:
    figure, axes = _axes("optimiser step", "loss (nats a token)")
    for arm in arms:
        curves = [run["curve"] for run in results["runs"] if run["arm"] == arm and run["curve"]]
        if not curves:
            continue
        length = min(map(len, curves))
        steps = [point[0] for point in curves[0][:length]]
        values = [[curve[i][1] for curve in curves] for i in range(length)]
        axes.plot(steps, [mean(v) for v in values], color=COLOURS.get(arm), label=arm)
        axes.fill_between(steps, [min(v) for v in values], [max(v) for v in values], color=COLOURS.get(arm), alpha=0.15, lw=0)
    axes.set_yscale("log")
    axes.legend(frameon=False)
    return svg(figure)


def _scores(results: dict[str, Any], arms: list[str]) -> str:
    figure, axes = _axes("", "problems solved (%)")
    for place, arm in enumerate(arms):
        values = [100 * run["exact_match"] for run in results["runs"] if run["arm"] == arm]
        axes.bar(place, mean(values), 0.55, color=COLOURS.get(arm), alpha=0.35)
        axes.plot([place] * len(values), values, "o", color=COLOURS.get(arm), ms=7)
    before = 100 * results["before"]["exact_match"]
    axes.axhline(before, color="#999", lw=1, ls="--", label=f"before fine-tuning ({before:.1f} %)")
    axes.set_xticks(range(len(arms)), arms)
    axes.legend(frameon=False)
    return svg(figure)


def _acceptance(results: dict[str, Any], arms: list[str]) -> str:
    figure, axes = _axes("draft position", "accepted (%)")
    for arm in arms:
        rates = [run["acceptance"] for run in results["runs"] if run["arm"] == arm]
        depth = min(map(len, rates))
        axes.plot(
            range(1, depth + 1),
            [100 * mean(rate[k] for rate in rates) for k in range(depth)],
            "o-",
            color=COLOURS.get(arm),
            label=arm,
        )
    axes.set_xticks([1, 2])
    axes.set_ylim(0, 102)
    axes.legend(frameon=False)
    return svg(figure)


def _speed(results: dict[str, Any], arms: list[str]) -> str:
    figure, axes = _axes("", "times plain decoding")
    for place, arm in enumerate(arms):
        timed = results["speed"][arm]
        error = [[timed["ratio"] - timed["ratio_min"]], [timed["ratio_max"] - timed["ratio"]]]
        axes.bar(place, timed["ratio"], 0.55, yerr=error, color=COLOURS.get(arm), alpha=0.8, capsize=4)
        axes.text(place, 0.06, f"{timed['tokens_per_forward']:.2f} tok/pass", ha="center", color="white", fontsize=9)
    axes.axhline(1, color="#555", lw=1, ls="--")
    axes.set_xticks(range(len(arms)), arms)
    return svg(figure)


def _axes(x: str, y: str) -> tuple[Figure, Any]:
    figure, axes = pyplot.subplots(figsize=(5.6, 3.5), layout="constrained")
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="#e6e9ee")
    axes.set_axisbelow(True)
    return figure, axes


def svg(figure: Figure) -> str:
    """The figure as an SVG element; it is closed."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg")
    pyplot.close(figure)
    text = buffer.getvalue()
    return text[text.index("<svg") :]
