"""Copy rate: share of answers copied from their sources, by the length of a copied span."""

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from statistics import mean, median
from typing import Any

from matplotlib.figure import Figure
from scipy import stats

from headway.data import load_rows
from headway.errors import DataError
from headway.evaluation.probes.configs import CopyingConfig
from headway.evaluation.probes.fragments import copied, coverage, density, longest_matches, words
from headway.evaluation.probes.report import SIZE, save_results
from headway.reports.plots import labelled_axes
from headway.reports.tables import print_table

Split = Callable[[str], Sequence[Hashable]]


@dataclass(frozen=True)
class Summary:
    """Mean over answers with 95 % interval, and median."""

    mean: float
    low: float
    high: float
    median: float


@dataclass(frozen=True)
class CopyingResult:
    """Copy rates over answers of equal weight.

    answers: number of answers with a word.
    empty: number of answers without.
    copied: share of words in copied spans, by minimum length of a span.
    coverage, density: as in Grusky et al. 2018, section 4.
    longest: length of the longest copied span.
    unit: unit of the lengths, words or tokens.
    """

    answers: int
    empty: int
    copied: dict[int, Summary]
    coverage: Summary
    density: Summary
    longest: Summary
    unit: str


def run(config: CopyingConfig) -> CopyingResult:
    """Run the probe, print a table, and write JSON and a plot.

    Raises:
        DataError: a row has no answer or no sources, or all answers are empty.
        CheckpointError: the tokenizer cannot be loaded.
    """
    split, unit = (words, "words") if config.tokenizer is None else (_token_split(config.tokenizer), "tokens")
    rows = islice(load_rows(config.data), config.limit)
    pairs = [(_answer(location, row, config), _sources(location, row, config)) for location, row in rows]
    result = probe(pairs, config.lengths, split, unit)
    lines = [_line(f"copied in spans of {length} {unit} or more", rate, ".1%") for length, rate in result.copied.items()]
    lines += [_line("coverage", result.coverage, ".1%"), _line("density", result.density, ".2f")]
    lines.append(_line("longest", result.longest, ".2f"))
    title = f"Copies of their sources in {result.answers} answers of {config.data.name}"
    remarks = [f"{result.empty} empty answers are left aside."] if result.empty else []
    print_table(title, ["measure", "mean", "95 % interval", "median"], lines, remarks)
    save_results(config, result, _plot(result))
    return result


def probe(
    pairs: Sequence[tuple[str, Sequence[str]]], lengths: Sequence[int], split: Split = words, unit: str = "words"
) -> CopyingResult:
    """Copy rates of answers.

    Args:
        pairs: (answer, sources).
        lengths: minimum lengths of a copied span.
        split: maps a text to words or tokens.
        unit: name of the unit, words or tokens.
    Raises:
        DataError: all answers are empty.
    """
    matches = []
    for text, sources in pairs:
        if parts := split(text):
            matches.append(longest_matches(parts, [split(source) for source in sources]))
    if not matches:
        raise DataError("there is no answer with a word in it.")
    return CopyingResult(
        answers=len(matches),
        empty=len(pairs) - len(matches),
        copied={length: _summary([copied(of_answer, length) for of_answer in matches]) for length in lengths},
        coverage=_summary([coverage(of_answer) for of_answer in matches]),
        density=_summary([density(of_answer) for of_answer in matches]),
        longest=_summary([float(max(of_answer)) for of_answer in matches]),
        unit=unit,
    )


def _summary(values: Sequence[float]) -> Summary:
    """Mean with Student's t interval; for a single answer the interval is a point."""
    middle = mean(values)
    half = float(stats.t.ppf(0.975, len(values) - 1) * stats.sem(values)) if len(values) > 1 else 0.0
    return Summary(middle, middle - half, middle + half, median(values))


def _answer(location: str, row: Mapping[str, Any], config: CopyingConfig) -> str:
    if not isinstance(row.get(config.answer), str):
        raise DataError(f"{location} has no text in column {config.answer!r}; it has: {', '.join(row)}. Name it with --answer.")
    return str(row[config.answer])


def _sources(location: str, row: Mapping[str, Any], config: CopyingConfig) -> list[str]:
    column = row.get(config.sources)
    texts: list[Any] = []
    for source in column if isinstance(column, list) else [column]:
        parts = source.get("text", source.get("content")) if isinstance(source, dict) else source
        texts.append("\n".join(map(str, parts)) if isinstance(parts, list) else parts)  # passages as lists of sentences
    if not all(isinstance(text, str) for text in texts):
        raise DataError(
            f"{location}: column {config.sources!r} must be text, a list of texts, or objects with text or content; it has the "
            f"columns {', '.join(row)}. Name another one with --sources."
        )
    return texts


def _token_split(folder: str) -> Split:
    from headway.model import load_tokenizer  # torch takes seconds to import

    tokenizer = load_tokenizer(folder)
    return lambda text: tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]


def _line(name: str, summary: Summary, form: str) -> list[str]:
    return [name, f"{summary.mean:{form}}", f"{summary.low:{form}} - {summary.high:{form}}", f"{summary.median:{form}}"]


def _plot(result: CopyingResult) -> Figure:
    figure, axes = labelled_axes(f"{result.unit} in a copied span, at least", "of answers, copied (%)", SIZE)
    lengths, rates = list(result.copied), result.copied.values()
    axes.plot(lengths, [100 * rate.mean for rate in rates], "o-")
    axes.fill_between(lengths, [100 * rate.low for rate in rates], [100 * rate.high for rate in rates], alpha=0.15, lw=0)
    axes.set_xscale("log", base=2)
    axes.set_xticks(lengths, map(str, lengths))
    axes.set_ylim(-2, 102)
    return figure
