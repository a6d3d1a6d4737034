"""Summary of a comparison of families: tables, sentences, and notes."""

from collections.abc import Sequence
from statistics import mean, median

from headway.evaluation.benchmarks.drafting import DraftingResult
from headway.experiments.families.results import COST, HELD_OUT, VARIANTS, FamiliesComparison, FamilyResult, short_count
from headway.experiments.families.specs import ALONE
from headway.experiments.metrics import Metric, values_of

Table = tuple[list[str], list[list[str]]]  # headings and cells
NONE = "-"
MIN_STEPS = 20  # of fewer steps, an acceptance rate means little
MIN_PROCESSOR_SHARE = 0.8
LEARNS_FROM = {"multi-token": "labels", "distillation": "the trunk's distribution"}


def cost_table(results: FamiliesComparison, wide: bool = True) -> Table:
    """Size, time and memory of the families."""
    metrics = _columns(COST, wide)
    headings = ["family", *(metric.label for metric in metrics), *(["of trunk", "learning rate", "learns from"] if wide else [])]
    rows = []
    for label, runs in results.by_family().items():
        if not runs:
            rows.append(_failed_row(label, headings))
            continue
        row = [label, *(metric.show_mean(values_of(runs, metric.key)) for metric in metrics)]
        if wide:
            figures, trained = runs[0].metrics, runs[0].trained or {}
            row += [f"{figures['parameters'] / figures['trunk_parameters']:.0%}", f"{trained['learning_rate']:g}"]
            row.append(LEARNS_FROM.get(trained["objective"], trained["objective"]))
        rows.append(row)
    return headings, rows


def held_out_table(results: FamiliesComparison, wide: bool = True) -> Table:
    """Held-out loss of trunk and heads in nats, and top-1 agreement and accuracy of the heads."""
    metrics = _columns(HELD_OUT, wide)
    headings = ["family", "trunk", "change", *(metric.label for metric in metrics)]
    rows = [["before", f"{results.trunk.metrics['trunk_loss']:.4f}", *[""] * (len(headings) - 2)]]
    if results.alone:
        rows.append([*_trunk_cells(results, ALONE, results.alone), *[""] * (len(headings) - 3)])
    for label, runs in results.by_family().items():
        if not runs:
            rows.append(_failed_row(label, headings))
            continue
        cells = [metric.show_mean(values_of(runs, metric.key)) for metric in metrics]
        rows.append([*_trunk_cells(results, label, runs), *cells])
    return headings, rows


def decoding_table(results: FamiliesComparison, temperature: str, wide: bool = True) -> Table:
    """Acceptance, tokens per forward, and speed over autoregressive decoding."""
    headings = ["family", "acceptance %", "chain", "tree", "speed-up", "same"]
    if wide:
        headings[2:-1] = ["tokens/forward, chain", "tokens/forward, tree", *(f"speed-up, {variant}" for variant in VARIANTS)]
    rows = []
    for label, runs in results.by_family().items():
        if not runs:
            rows.append(_failed_row(label, headings))
            continue
        rates = acceptance(runs, temperature)
        shown = [f"{100 * rate:.0f}" if steps >= MIN_STEPS else f"({100 * rate:.0f})" for rate, steps in rates]
        row = [label, " ".join(shown) or NONE]
        for variant in ("chain", "tree"):
            tokens = tokens_per_forward(runs, temperature, variant)
            row.append(NONE if tokens is None else f"{tokens:.2f}")
        for variant in VARIANTS if wide else VARIANTS[:1]:
            speeds = ratios(runs, temperature, variant)
            row.append(f"{median(speeds):.2f}x ({min(speeds):.2f}-{max(speeds):.2f})" if speeds else NONE)
        row.append("yes" if all(result.identical for run in runs for result in run.variants(temperature).values()) else "NO")
        rows.append(row)
    return headings, rows


def published_table(results: FamiliesComparison) -> Table:
    """Published results."""
    rows = []
    for published in results.published:
        speed_up = f"{published.ratio:.2f}x" if published.ratio else NONE
        rates = " ".join(f"{100 * rate:.0f}" for rate in published.acceptance) or NONE
        tokens = f"{published.tokens_per_forward:.2f}"
        rows.append([published.name, rates, tokens, speed_up, published.conditions, published.source])
    return ["published", "acceptance %", "tokens/forward", "speed-up", "conditions", "source"], rows


def acceptance(runs: Sequence[FamilyResult], temperature: str) -> list[tuple[float, int]]:
    """Per-position acceptance rate of a chain over all seeds, and the number of steps that reach the position."""
    chains = [run.variants(temperature)["chain"] for run in runs]
    rates = []
    for position in range(min(len(chain.acceptance) for chain in chains)):
        steps = sum(chain.reached[position] for chain in chains)
        accepted = sum(chain.acceptance[position] * chain.reached[position] for chain in chains)
        rates.append((accepted / steps if steps else 0.0, steps))
    return rates


def ratios(runs: Sequence[FamilyResult], temperature: str, variant: str) -> list[float]:
    """Speed-up of all repeats and seeds; empty if the family lacks the variant."""
    return [ratio for results in _of_variant(runs, temperature, variant) for ratio in results.ratios]


def tokens_per_forward(runs: Sequence[FamilyResult], temperature: str, variant: str) -> float | None:
    """Mean over seeds; None if the family lacks the variant."""
    results = _of_variant(runs, temperature, variant)
    return mean(result.tokens_per_forward for result in results) if results else None


def summary_sentences(results: FamiliesComparison) -> list[str]:
    """Findings of the comparison, and warnings."""
    lines = [_best_families(results, temperature) for temperature in results.temperatures]
    lines += _exactness(results)
    if results.alone:
        change = _trunk_cells(results, ALONE, results.alone)[2]
        lines.append(f"The trunk was trained too. Without heads, on the same rows, its held-out loss changed by {change}.")
    if results.trunk.device == "cpu":
        shares = {
            label: sum(values_of(runs, "processor_seconds")) / sum(values_of(runs, "seconds"))
            for label, runs in results.finished().items()
        }
        if slowed := [f"{label} {share:.0%}" for label, share in shares.items() if share < MIN_PROCESSOR_SHARE]:
            lines.append(f"The machine was busy: training had a processor for a part of its seconds only ({', '.join(slowed)}).")
    if results.failures:
        lines.append(f"{counted(len(results.failures), 'run')} failed; the same command tries them again.")
    return lines


def _best_families(results: FamiliesComparison, temperature: str) -> str:
    """Families with the most tokens per forward, and the fastest family with all families of overlapping spread."""
    finished, parts = results.finished(), []
    for variant in ("chain", "tree"):
        tokens = {label: tokens_per_forward(runs, temperature, variant) for label, runs in finished.items()}
        best = {label: f"{value:.2f}" for label, value in tokens.items() if value is not None}
        if best:
            highest = max(best.values(), key=float)
            names = ", ".join(label for label, value in best.items() if value == highest)
            parts.append(f"most tokens per forward with a {variant}: {names}, {highest}")
    speeds = {label: ratios(runs, temperature, "adaptive") for label, runs in finished.items()}
    fastest = max(speeds, key=lambda label: median(speeds[label]))
    spread = f"{min(speeds[fastest]):.2f} to {max(speeds[fastest]):.2f}"
    parts.append(f"fastest with adaptive drafts: {fastest}, {median(speeds[fastest]):.2f}x autoregressive decoding ({spread})")
    level = [label for label, found in speeds.items() if label != fastest and max(found) >= min(speeds[fastest])]
    if level:
        everyone = len(level) > 1 and len(level) == len(speeds) - 1
        parts.append(f"its spread and that of {'all others' if everyone else ', '.join(level)} overlap")
    return f"{'Greedy' if temperature == '0' else f'At temperature {temperature}'}: {'; '.join(parts)}."


def _exactness(results: FamiliesComparison) -> list[str]:
    """Sentences on output that differs from autoregressive decoding, and on the loss of a frozen trunk."""
    finished = results.finished()
    wrong = [
        f"{label} ({variant}, temperature {temperature})"
        for label, runs in finished.items()
        for temperature in results.temperatures
        for variant in VARIANTS
        if not all(found.identical for found in _of_variant(runs, temperature, variant))
    ]
    lines = ["The output was that of autoregressive decoding, token for token, with every variant of every family."]
    if wrong:
        lines = [f"THE OUTPUT WAS NOT that of autoregressive decoding: {', '.join(wrong)}."]
    before = results.trunk.metrics["trunk_loss"]
    changed = [label for label, runs in finished.items() if any(loss != before for loss in values_of(runs, "trunk_loss"))]
    if not results.config.joint and not changed:
        lines.append("The trunk was frozen: its held-out loss is exactly the same with every family.")
    elif not results.config.joint:
        lines.append(f"The trunk was frozen, and yet its held-out loss differs with {', '.join(changed)}.")
    return lines


def notes(results: FamiliesComparison) -> list[str]:
    """Definitions of the figures in the tables."""
    config, trunk = results.config, results.trunk
    budget = f"{config.max_seconds:g} seconds" if config.max_seconds else f"{config.max_steps} steps"
    budget += f" of {config.batch_size} rows of {config.max_length} tokens"
    return [
        f"Trunk: {config.model}, {short_count(trunk.metrics['trunk_parameters'])} parameters, {trunk.dtype}, {trunk.device}, "
        f"{counted(config.threads, 'thread')}. Training: {budget}, the same rows in the same order for all families. Figures are "
        f"means of {counted(config.seeds, 'seed')}.",
        "Tokens per forward count the bonus token of each step, and the prefill counts as a forward: autoregressive decoding has "
        "1. acceptance %: by position of a chain, of the steps that reach the position; in parentheses where fewer than "
        f"{MIN_STEPS} steps reach the position.",
        f"Trees have {config.tree_nodes} drafts at most. Speed-up is over autoregressive decoding of the same prompts with the "
        "same trunk, one prompt at a time, variants interleaved: median, lowest and highest of "
        f"{counted(config.repeats, 'repeat')}. Adaptive: the number of drafts is the fastest by the engine's own measurement, and "
        "may be zero. Chain and tree are forced in every step, so both can lose. Families were not interleaved with each other.",
        f"{trunk.prompts} prompts of up to {config.prompt_tokens} tokens, {config.max_new_tokens} new tokens, and "
        f"{trunk.metrics['held_out_tokens']} tokens of held-out text, from {config.validation}.",
        "Seconds are those of the training steps alone. MiB: peak memory of training above the loaded trunk. On a CPU, memory is "
        "sampled every 5 ms, which is coarse for small models.",
    ]


def counted(number: int, noun: str, plural: str = "") -> str:
    """ "1 seed", "2 seeds"."""
    return f"{number} {noun if number == 1 else plural or noun + 's'}"


def _columns(metrics: Sequence[Metric], wide: bool) -> list[Metric]:
    return [metric for metric in metrics if wide or not metric.wide_only]


def _of_variant(runs: Sequence[FamilyResult], temperature: str, variant: str) -> list[DraftingResult]:
    return [run.variants(temperature)[variant] for run in runs if variant in run.variants(temperature)]


def _trunk_cells(results: FamiliesComparison, label: str, runs: Sequence[FamilyResult]) -> list[str]:
    """Label, held-out loss of the trunk after training, and the change."""
    losses = values_of(runs, "trunk_loss")
    changes = [loss - results.trunk.metrics["trunk_loss"] for loss in losses]
    return [label, f"{mean(losses):.4f}", f"{mean(changes):+.4f}" if any(changes) else "0"]


def _failed_row(label: str, headings: list[str]) -> list[str]:
    return [label, "failed", *[""] * (len(headings) - 2)]
