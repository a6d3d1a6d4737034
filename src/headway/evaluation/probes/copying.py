"""Copy rate: how much of answers is copied from their sources, by the length of what counts as a copy."""

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import asdict
from itertools import islice
from statistics import mean, median
from typing import Any

from scipy import stats

from headway.data import load_rows
from headway.errors import DataError
from headway.evaluation.probes.configs import CopyingConfig
from headway.evaluation.probes.fragments import copied, coverage, density, longest_matches, words
from headway.evaluation.probes.report import SIZE, save_results
from headway.reports.plots import labelled_axes
from headway.reports.tables import print_table

Split = Callable[[str], Sequence[Hashable]]


def run(config: CopyingConfig) -> dict[str, Any]:
    """Measure, show, and write JSON and a plot if asked. Raises DataError, and CheckpointError for the tokenizer."""
    split, unit = (words, "words") if config.tokenizer is None else (_tokens(config.tokenizer), "tokens")
    rows = islice(load_rows(config.data), config.limit)
    pairs = [(_answer(place, row, config), _sources(place, row, config)) for place, row in rows]
    results = probe(pairs, config.lengths, split)
    results |= {"unit": unit, "settings": asdict(config) | {"data": str(config.data), "output_file": str(config.output_file)}}
    named = {f"copied in spans of {length} {unit} or more": f for length, f in results["copied"].items()}
    lines = [[name, f"{f['mean']:.1%}", f"{f['low']:.1%} - {f['high']:.1%}", f"{f['median']:.1%}"] for name, f in named.items()]
    for name in ("coverage", "density", "longest"):
        f, form = results[name], ".1%" if name == "coverage" else ".2f"
        lines.append([name, f"{f['mean']:{form}}", f"{f['low']:{form}} - {f['high']:{form}}", f"{f['median']:{form}}"])
    title = f"What {results['answers']} answers of {config.data.name} copy from their sources"
    remarks = [f"{results['empty']} empty answers are left aside."] if results["empty"] else []
    print_table(title, ["measure", "mean", "95 % interval", "median"], lines, remarks)
    figure, axes = labelled_axes(f"{unit} in a copied span, at least", "of answers, copied (%)", SIZE)
    shown = results["copied"].values()
    axes.plot(config.lengths, [100 * f["mean"] for f in shown], "o-")
    axes.fill_between(config.lengths, [100 * f["low"] for f in shown], [100 * f["high"] for f in shown], alpha=0.15, lw=0)
    axes.set_xscale("log", base=2)
    axes.set_xticks(config.lengths, map(str, config.lengths))
    axes.set_ylim(-2, 102)
    save_results(config.output_file, results, figure)
    return results


def probe(pairs: Sequence[tuple[str, Sequence[str]]], lengths: Sequence[int], split: Split = words) -> dict[str, Any]:
    """Means over answers (text, sources), each answer counting alike. Raises DataError where all answers are empty."""
    found = []
    for text, sources in pairs:
        if parts := split(text):
            found.append(longest_matches(parts, [split(source) for source in sources]))
    if not found:
        raise DataError("there is no answer with a word in it.")
    return {
        "answers": len(found),
        "empty": len(pairs) - len(found),
        "copied": {length: _summary([copied(matches, length) for matches in found]) for length in lengths},
        "coverage": _summary([coverage(matches) for matches in found]),
        "density": _summary([density(matches) for matches in found]),
        "longest": _summary([float(max(matches)) for matches in found]),
    }


def _summary(values: Sequence[float]) -> dict[str, float]:
    """Mean with Student's t interval at 95 % over answers, and median; of a single answer the interval is a point."""
    middle = mean(values)
    half = float(stats.t.ppf(0.975, len(values) - 1) * stats.sem(values)) if len(values) > 1 else 0.0
    return {"mean": middle, "low": middle - half, "high": middle + half, "median": median(values)}


def _answer(place: str, row: Mapping[str, Any], config: CopyingConfig) -> str:
    if not isinstance(row.get(config.answer), str):
        raise DataError(f"{place} has no text in column {config.answer!r}; it has: {', '.join(row)}. Name it with --answer.")
    return str(row[config.answer])


def _sources(place: str, row: Mapping[str, Any], config: CopyingConfig) -> list[str]:
    given = row.get(config.sources)
    texts: list[Any] = []
    for source in given if isinstance(given, list) else [given]:
        parts = source.get("text", source.get("content")) if isinstance(source, dict) else source
        texts.append("\n".join(map(str, parts)) if isinstance(parts, list) else parts)  # passages as lists of sentences
    if not all(isinstance(text, str) for text in texts):
        raise DataError(
            f"{place}: column {config.sources!r} must be text, a list of texts, or objects with text or content; it has the "
            f"columns {', '.join(row)}. Name another one with --sources."
        )
    return texts


def _tokens(folder: str) -> Split:
    from headway.model import load_tokenizer

    tokenizer: Any = load_tokenizer(folder)
    return lambda text: tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
