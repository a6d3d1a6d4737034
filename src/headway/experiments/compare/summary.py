"""What a comparison says: differences paired by seed, as figures, as the cells of a table, and in sentences."""

import dataclasses
from statistics import mean, median
from typing import Any

from headway.evaluation.statistics.paired import UNCLEAR, paired_interval, pairs_needed
from headway.experiments.compare.configs import CompareConfig
from headway.experiments.compare.runs import UNTRAINED, baseline_of

MEASURES = {"score": True, "loss": False}  # whether more is better
LOSS, SCORE = 2, 3  # places in a point of a run


def compare(config: CompareConfig, runs: list[dict[str, Any]]) -> dict[str, dict[str, dict[str, Any]]]:
    """By task and arm: differences to the arm's baseline, over the seeds that both finished; at least two are needed."""
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for task in config.tasks:
        by_arm = {arm: {r["seed"]: r for r in runs if (r["task"], r["arm"]) == (task, arm)} for arm in config.arms}
        found[task] = {}
        for arm, mine in by_arm.items():
            if (name := baseline_of(config, arm)) is None:
                continue
            theirs = by_arm[name]
            seeds = sorted(set(mine) & set(theirs))
            if len(seeds) < 2:
                continue
            found[task][arm] = {"baseline": name, "seeds": seeds}
            for measure, higher in MEASURES.items():
                if measure not in mine[seeds[0]]:
                    continue
                pair = [mine[s][measure] for s in seeds], [theirs[s][measure] for s in seeds]
                interval = paired_interval(*pair)
                found[task][arm][measure] = {
                    **dataclasses.asdict(interval),
                    "verdict": interval.verdict(higher),
                    "seeds_needed": pairs_needed(*pair),
                }
            found[task][arm]["steps_to_baseline"] = {
                "loss": _steps_to(mine, theirs, seeds, LOSS),
                "score": _steps_to(mine, theirs, seeds, SCORE),
            }
    return found


def _steps_to(mine: dict[int, dict], theirs: dict[int, dict], seeds: list[int], place: int) -> dict[str, Any] | None:
    """After how many steps an arm is where its baseline ends, measured at its points: the median of seeds that get there."""
    higher = place == SCORE
    reached = []
    for seed in seeds:
        goal = theirs[seed]["points"][-1][place]
        if goal is None:
            return None
        values = [(point[0], point[place]) for point in mine[seed]["points"]]
        reached += [step for step, value in values if (value >= goal if higher else value <= goal)][:1]
    return {"seeds": len(reached), "of": len(seeds), "median": median(reached) if reached else None}


def rows_of(results: dict[str, Any], task: str, wide: bool = True) -> tuple[list[str], list[list[str]]]:
    """Headings and cells of the table of a task, means over seeds; not `wide`: what fits into 80 columns."""
    settings = results["settings"]
    exact = settings["tasks"][task]["metric"] == "exact-match"
    measure, both = ("score" if exact else "loss"), exact and wide
    headings = ["arm", "solved" if exact else "loss", "vs baseline", "verdict"]
    headings += ["held-out loss", "loss vs baseline"] if both else []
    headings += ["seconds", "tok/pass", "speed-up"] if wide else ["tok/pass", "speed-up"]
    rows = []
    untrained = [run for run in results["untrained"] if run["task"] == task]
    for run in untrained:
        cells = [run["arm"] if len(untrained) > 1 else UNTRAINED, _amount(run[measure], exact)]
        cells += ["", "", _amount(run["loss"], False)] if both else []
        rows.append(_row(headings, cells))
    for arm in settings["arms"]:
        runs = [run for run in results["runs"] if (run["task"], run["arm"]) == (task, arm)]
        if not runs:
            rows.append(_row(headings, [arm, "", "", "failed"]))
            continue
        cells = [arm, _amount(mean(run[measure] for run in runs), exact)]
        loss = [_amount(mean(run["loss"] for run in runs), False)]
        found = results["comparison"][task].get(arm)
        if found is None:
            cells += ["", "baseline" if arm in settings["baseline"] else "too few runs"]
            loss.append("")
        else:
            verdict = found[measure]["verdict"]
            cells += [_difference(found[measure], exact), "unclear" if verdict == UNCLEAR else verdict]
            loss.append(_difference(found["loss"], False))
        cells += loss if both else []
        cells += [f"{mean(run['seconds'] + run['warm_up_seconds'] for run in runs):.0f}"] if wide else []
        timed = results["speed"].get(task, {}).get(arm)
        if exact:
            cells.append(f"{mean(run['tokens_per_forward'] for run in runs):.2f}")
        else:
            cells.append(f"{timed['chain']:.2f}" if timed else "")
        cells.append(f"{timed['ratio']:.2f}x" if timed else "")
        rows.append(cells)
    return headings, rows


def _arrival(found: dict[str, Any], measure: str) -> str:
    """When seeds of an arm are where the baseline ends."""
    reached = found["steps_to_baseline"][measure]
    what = "score" if measure == "score" else "held-out loss"
    if reached["median"] is None:
        return f" No seed reached the baseline's last {what}."
    seeds = f"{reached['seeds']} of {reached['of']} seeds"
    return f" {seeds} reached the baseline's last {what}, in the median by step {reached['median']:g}."


def _row(headings: list[str], cells: list[str]) -> list[str]:
    return cells + [""] * (len(headings) - len(cells))


def _amount(value: float, share: bool) -> str:
    return f"{value:.1%}" if share else f"{value:.4f}"


def _difference(found: dict[str, Any], share: bool) -> str:
    if share:
        return f"{100 * found['mean']:+.1f} [{100 * found['low']:+.1f}, {100 * found['high']:+.1f}]"
    return f"{found['mean']:+.4f} [{found['low']:+.4f}, {found['high']:+.4f}]"


def words(results: dict[str, Any]) -> list[str]:
    """What the figures say, in sentences that no figure contradicts."""
    lines = []
    settings = results["settings"]
    for task, arms in results["comparison"].items():
        for arm, found in arms.items():
            measure = "score" if "score" in found else "loss"
            f, share = found[measure], measure == "score"
            what = (
                f"{task}: {arm} against {found['baseline']}: {f['verdict']} in {'answers that match' if share else 'held-out loss'}"
            )
            line = f"{what}, {_difference(f, share)}{' points' if share else ''}"
            if f["verdict"] == UNCLEAR:
                needed = f["seeds_needed"]
                line += (
                    f"; about {needed} seeds would show a difference as large" if needed else "; no number of seeds in reach would"
                )
            lines.append(line + "." + _arrival(found, measure))
    timed = [one for arms in results["speed"].values() for one in arms.values()]
    if timed:
        changed = "no token" if all(one["identical"] for one in timed) else "THE OUTPUT"
        lines.append(f"Drafting changed {changed} of any answer. Speed-up is over plain decoding of the same model, batch 1.")
    for task, arms in results["speed"].items():
        spreads = ", ".join(f"{arm} {one['ratio_min']:.2f}-{one['ratio_max']:.2f}x" for arm, one in arms.items())
        if spreads:
            lines.append(f"{task}: spread of the speed-up over repeats: {spreads}.")
    lines.append("Intervals are at 95 %, each by itself: of twenty comparisons without a difference, one shows one by chance.")
    if settings["match"] == "steps" and any("warm_up" in arm for arm in settings["arms"].values()):
        lines.append("Warm-ups of heads come on top of the steps.")
    if results["failures"]:
        lines.append(f"{len(results['failures'])} run(s) failed and are left out; the same command tries them again.")
    return lines
