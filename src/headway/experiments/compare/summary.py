"""Summary of a comparison: paired differences, tables, and sentences."""

from collections.abc import Sequence
from statistics import median

from headway.evaluation.statistics.paired import MAX_PAIRS, UNCLEAR
from headway.experiments.compare.configs import CompareConfig
from headway.experiments.compare.results import METRICS, ArmComparison, ArmResult, BaselineReached, Comparison
from headway.experiments.compare.specs import UNTRAINED, baseline_of
from headway.experiments.metrics import Metric
from headway.experiments.pairing import by_seed, paired_difference


def compare(config: CompareConfig, runs: Sequence[ArmResult]) -> dict[str, dict[str, ArmComparison]]:
    """Differences to the baseline by task and arm, over the seeds that both finished. Fewer than two seeds are left out."""
    comparison: dict[str, dict[str, ArmComparison]] = {}
    for task in config.tasks:
        comparison[task] = {}
        inside = [run for run in runs if run.task == task]
        for arm in config.arms:
            if (baseline := baseline_of(config, arm)) is None:
                continue
            differences = {}
            for metric in METRICS:
                values, baseline_values = (by_seed(inside, name, metric.key) for name in (arm, baseline))
                if metric.paired and (difference := paired_difference(metric, arm, baseline, values, baseline_values)) is not None:
                    differences[metric.key] = difference
            if not differences:
                continue
            seeds = next(iter(differences.values())).seeds
            reached = {metric.key: _steps_to_baseline(inside, arm, baseline, seeds, metric) for metric in METRICS if metric.paired}
            comparison[task][arm] = ArmComparison(baseline, seeds, differences, reached)
    return comparison


def _steps_to_baseline(
    runs: Sequence[ArmResult], arm: str, baseline: str, seeds: Sequence[int], metric: Metric
) -> BaselineReached | None:
    """Steps until an arm has the final value of the baseline, over the points of the runs. None if the points lack the metric."""
    points = {(run.arm, run.seed): run.points or [] for run in runs}
    reached = []
    for seed in seeds:
        last = points[baseline, seed][-1:]
        if not last or metric.key not in last[0].metrics:
            return None
        goal = last[0].metrics[metric.key]
        values = [(point.step, point.metrics[metric.key]) for point in points[arm, seed]]
        reached += [step for step, value in values if (value >= goal if metric.higher_is_better else value <= goal)][:1]
    return BaselineReached(len(reached), len(seeds), median(reached) if reached else None)


def table(results: Comparison, task: str, wide: bool = True) -> tuple[list[str], list[list[str]]]:
    """Headings and cells of the table of a task, means over seeds.

    Args:
        wide: all columns; else the columns that fit into 80 characters.
    """
    metrics = results.metrics(task)
    first = metrics[0]
    metrics = [metric for metric in metrics if wide or metric is first or not (metric.paired or metric.wide_only)]
    headings = ["arm"]
    for metric in metrics:
        headings.append(metric.label)
        if metric is first:
            headings += ["vs baseline", "verdict"]
        elif metric.paired:
            headings.append(f"{metric.label} vs baseline")
    rows = []
    untrained = [run for run in results.untrained if run.task == task]
    for run in untrained:
        row = [run.arm if len(untrained) > 1 else UNTRAINED]
        for metric in metrics:
            row.append(metric.show(run.metrics[metric.key]) if metric.paired else "")
            row += [""] * (2 if metric is first else int(metric.paired))
        rows.append(row)
    for arm in results.config.arms:
        if not results.runs_of(task, arm):
            rows.append([arm, "", "", "failed", *[""] * (len(headings) - 4)])
            continue
        comparison, row = results.comparison[task].get(arm), [arm]
        for metric in metrics:
            values = results.values(task, arm, metric)
            row.append(metric.show_mean(values) if values else "")
            difference = comparison.differences.get(metric.key) if comparison is not None else None
            if metric.paired:
                row.append(str(difference) if difference is not None else "")
            if metric is first and difference is not None:
                row.append("unclear" if difference.verdict == UNCLEAR else difference.verdict)
            elif metric is first:
                row.append("baseline" if arm in results.config.baseline else "too few runs")
        rows.append(row)
    return headings, rows


def summary_sentences(results: Comparison) -> list[str]:
    """Findings and remarks."""
    config, lines = results.config, []
    for task, arms in results.comparison.items():
        metric = results.metrics(task)[0]
        for arm, comparison in arms.items():
            difference = comparison.differences[metric.key]
            points = " points" if metric.is_share else ""
            line = f"{task}: {arm} against {comparison.baseline}: {difference.verdict} in {metric.words}, {difference}{points}"
            if difference.verdict == UNCLEAR and difference.seeds_needed:
                line += f"; about {difference.seeds_needed} seeds would show a difference of this size"
            elif difference.verdict == UNCLEAR:
                line += f"; more than {MAX_PAIRS} seeds would be needed"
            lines.append(f"{line}. {_baseline_reached(comparison, metric)}")
    timed = [speed for arms in results.speed.values() for speed in arms.values()]
    if timed:
        changed = "no token" if all(speed.identical for speed in timed) else "THE OUTPUT"
        lines.append(
            f"Drafting changed {changed} of any answer. Speed-up is over autoregressive decoding of the same model, batch 1."
        )
    for task, speeds in results.speed.items():
        spreads = ", ".join(f"{arm} {speed.ratio_min:.2f}-{speed.ratio_max:.2f}x" for arm, speed in speeds.items())
        if spreads:
            lines.append(f"{task}: spread of the speed-up over repeats: {spreads}.")
    lines.append("Each interval is at 95 % and stands alone: one of twenty comparisons shows a difference by chance.")
    if config.match == "steps" and any("warm_up" in arm for arm in config.arms.values()):
        lines.append("Warm-up steps of heads are added to the budget.")
    if results.failures:
        lines.append(f"{len(results.failures)} run(s) failed and are left out; the same command tries them again.")
    return lines


def _baseline_reached(comparison: ArmComparison, metric: Metric) -> str:
    reached = comparison.steps_to_baseline[metric.key]
    if reached is None or reached.median is None:
        return f"No seed reached the baseline's final {metric.words}."
    seeds = f"{reached.seeds} of {reached.of} seeds"
    return f"{seeds} reached the baseline's final {metric.words}, at step {reached.median:g} in the median."
