"""What a comparison of families says: cells of its tables, and sentences that no figure contradicts."""

from collections.abc import Iterable
from statistics import mean, median
from typing import Any

from headway.experiments.families.runs import ALONE

Results = dict[str, Any]
Table = tuple[list[str], list[list[str]]]  # headings and cells
WAYS = ("adaptive", "chain", "tree")
NONE = "-"
FEW = 20  # rounds; of fewer, a share says little
BUSY = 0.8  # of the time of steps that a processor worked at them


def labels_of(results: Results) -> list[str]:
    """Who took part, failed or not, in the order of the settings."""
    return list(results["families"])


def of_family(results: Results, label: str) -> list[dict[str, Any]]:
    return [run for run in results["runs"] if run["label"] == label]


def cost(results: Results, wide: bool = True) -> Table:
    """What each family adds and takes."""
    headings = ["family", "parameters", "unembeddings", "steps", "seconds", "ms/step", "MiB"]
    headings += ["of trunk", "learning rate", "learns from"] if wide else []
    rows = []
    for label, runs in _each(results):
        if not runs:
            rows.append(_failed(label, headings))
            continue
        first = runs[0]
        cells = [label, _count(first["parameters"]), _count(first["unembedding_parameters"])]
        cells += [f"{mean(run['steps'] for run in runs):.0f}", f"{mean(run['seconds'] for run in runs):.1f}"]
        cells += [f"{1000 * mean(run['step_seconds'] for run in runs):.0f}", f"{mean(run['memory_mib'] for run in runs):.0f}"]
        if wide:
            trained = first["trained"]
            labels = {"multi-token": "labels", "distillation": "the trunk's distribution"}
            cells += [f"{first['parameters'] / first['trunk_parameters']:.0%}", f"{trained['learning_rate']:g}"]
            cells += [labels.get(trained["objective"], trained["objective"])]
        rows.append(cells)
    return headings, rows


def held_out(results: Results, wide: bool = True) -> Table:
    """Losses in nats on text that nobody learnt from; how often a head's first choice is the trunk's."""
    headings = ["family", "trunk", "change", "heads", "as the trunk %"] + (["as the text %"] if wide else [])
    rows = [[*("before", f"{results['trunk']['trunk_loss']:.4f}"), *[""] * (len(headings) - 2)]]
    if results["alone"]:
        rows.append([*_trunk(results, ALONE, results["alone"]), *[""] * (len(headings) - 3)])
    for label, runs in _each(results):
        if not runs:
            rows.append(_failed(label, headings))
            continue
        cells = [*_trunk(results, label, runs), " ".join(f"{x:.2f}" for x in _means(runs, "head_losses"))]
        cells += [_percent(_means(runs, "agreement"))] + ([_percent(_means(runs, "accuracy"))] if wide else [])
        rows.append(cells)
    return headings, rows


def decoding(results: Results, temperature: str, wide: bool = True) -> Table:
    """Acceptance, tokens a forward and speed; not `wide`: what fits into 80 columns."""
    headings = ["family", "kept %", "chain", "tree", "speed", "same"]
    if wide:
        headings[2:-1] = ["tok/pass, chain", "tok/pass, tree", "speed, as pays", "speed, chain", "speed, tree"]
    rows = []
    for label, runs in _each(results):
        if not runs:
            rows.append(_failed(label, headings))
            continue
        found = [run["decoding"][temperature] for run in runs]
        kept = (f"{100 * share:.0f}" if count >= FEW else f"({100 * share:.0f})" for share, count in acceptance(runs, temperature))
        cells = [label, " ".join(kept) or NONE]
        cells += [_tokens(found, "chain"), _tokens(found, "tree")]
        cells += [_speed(found, way) for way in (WAYS if wide else WAYS[:1])]
        cells.append("yes" if all(one["identical"] for ways in found for one in ways.values()) else "NO")
        rows.append(cells)
    return headings, rows


def published(results: Results) -> Table:
    """What others report."""
    rows = []
    for one in results["published"]:
        ratio = f"{one['ratio']:.2f}x" if one["ratio"] else NONE
        kept = _percent(one["acceptance"]) or NONE
        rows.append([one["name"], kept, f"{one['tokens_per_forward']:.2f}", ratio, one["conditions"], one["source"]])
    return ["published", "kept %", "tok/pass", "speed", "conditions", "source"], rows


def acceptance(runs: list[dict[str, Any]], temperature: str) -> list[tuple[float, int]]:
    """By position of a chain: the share kept, and of how many rounds, all seeds together."""
    chains = [run["decoding"][temperature]["chain"] for run in runs]
    reached = [sum(counts) for counts in zip(*(chain["reached"] for chain in chains), strict=True)]
    each = ([rate * count for rate, count in zip(chain["acceptance"], chain["reached"], strict=True)] for chain in chains)
    return [(sum(kept) / count if count else 0.0, count) for *kept, count in zip(*each, reached, strict=True)]


def ratios(runs: Iterable[dict[str, Any]], temperature: str, way: str) -> list[float]:
    """Of all repeats and seeds; none where the family does not draft that way."""
    return [ratio for run in runs for ratio in run["decoding"][temperature].get(way, {"ratios": []})["ratios"]]


def tokens(runs: list[dict[str, Any]], temperature: str, way: str) -> float | None:
    """A forward, mean over seeds; None where the family does not draft that way."""
    found = [ways[way]["tokens_per_forward"] for run in runs if way in (ways := run["decoding"][temperature])]
    return mean(found) if found else None


def words(results: Results) -> list[str]:
    """What the figures say, and how they are meant."""
    settings, lines = results["settings"], []
    here = {label: runs for label, runs in _each(results) if runs}
    for temperature in results["temperatures"]:
        how = "Greedy" if temperature == "0" else f"At temperature {temperature}"
        parts = []
        for way in ("chain", "tree"):
            best = {label: value for label, runs in here.items() if (value := tokens(runs, temperature, way)) is not None}
            if best:
                most = f"{max(best.values()):.2f}"
                first = ", ".join(label for label, value in best.items() if f"{value:.2f}" == most)
                parts.append(f"most tokens a forward with a {way}: {first}, {most}")
        fastest = {label: ratios(runs, temperature, "adaptive") for label, runs in here.items()}
        label = max(fastest, key=lambda one: median(fastest[one]))
        spread = f"{min(fastest[label]):.2f} to {max(fastest[label]):.2f}"
        parts.append(f"fastest with as many drafts as pay: {label}, {median(fastest[label]):.2f}x plain ({spread})")
        level = [one for one, found in fastest.items() if one != label and max(found) >= min(fastest[label])]
        if level:
            everyone = len(level) > 1 and len(level) == len(fastest) - 1
            parts.append(f"its spread and that of {'all others' if everyone else ', '.join(level)} overlap")
        lines.append(f"{how}: {'; '.join(parts)}.")
    others = [
        f"{label} ({way}, temperature {temperature})"
        for label, runs in here.items()
        for temperature in results["temperatures"]
        for way in WAYS
        if not all(run["decoding"][temperature].get(way, {"identical": True})["identical"] for run in runs)
    ]
    if others:
        lines.append(f"THE OUTPUT WAS NOT that of plain decoding: {', '.join(others)}.")
    else:
        lines.append("The output was that of plain decoding, token for token, in every way of every family.")
    changed = [label for label, runs in here.items() if any(run["trunk_loss"] != results["trunk"]["trunk_loss"] for run in runs)]
    if not settings["joint"] and not changed:
        lines.append("The trunk was frozen: its held-out loss is exactly what it was with every family.")
    elif not settings["joint"]:
        lines.append(f"The trunk was frozen, and yet its held-out loss differs with {', '.join(changed)}.")
    if results["alone"]:
        change = _trunk(results, ALONE, results["alone"])[2]
        lines.append(f"The trunk learnt too. Without heads, on the same rows, its held-out loss changed by {change}.")
    if results["trunk"]["device"] == "cpu":
        shares = {
            label: sum(r["processor_seconds"] for r in runs) / sum(r["seconds"] for r in runs) for label, runs in here.items()
        }
        if slowed := [f"{label} {share:.0%}" for label, share in shares.items() if share < BUSY]:
            lines.append(
                f"Others kept the machine busy: training had a processor for only a part of its seconds ({', '.join(slowed)})."
            )
    if results["failures"]:
        lines.append(f"{counted(len(results['failures']), 'run')} failed; the same command tries them again.")
    return lines


def notes(results: Results) -> list[str]:
    """Footnotes of the tables."""
    settings, trunk = results["settings"], results["trunk"]
    budget = f"{settings['max_seconds']:g} seconds" if settings["max_seconds"] else f"{settings['max_steps']} steps"
    budget += f" of {settings['batch_size']} rows of {settings['max_length']} tokens"
    seeds, repeats = counted(settings["seeds"], "seed"), counted(settings["repeats"], "repeat")
    return [
        f"Trunk: {settings['model']}, {_count(trunk['trunk_parameters'])} parameters, {trunk['dtype']}, {trunk['device']}, "
        f"{counted(settings['threads'], 'thread')}. Training: {budget}, the same rows in the same order for all; {seeds}, of which "
        "figures are means.",
        "Tokens a forward (tok/pass) count the trunk's own token of each round, and the forward that reads the prompt: plain "
        "decoding has 1. kept %: by position, of the rounds that reach it, the share in which the draft of a chain stayed; in "
        f"brackets where fewer than {FEW} rounds reach it.",
        f"Trees have {settings['tree_nodes']} drafts at most. Speed is over plain decoding of the same prompts by the same trunk, "
        f"one prompt at a time, ways in turns: median, and the lowest and highest of {repeats}. As pays: as many drafts as pay by "
        "the engine's own measure, none if none do. Chain and tree: all drafts in every round, so they may lose. Families were not "
        "timed in turns with each other.",
        f"{trunk['prompts']} prompts of up to {settings['prompt_tokens']} tokens, {settings['max_new_tokens']} new ones, and "
        f"{trunk['held_out_tokens']} tokens of held-out text, from {settings['validation']}.",
        "Seconds are those of the training steps alone. MiB: the most that training takes above the loaded trunk; on a CPU as "
        "sampled every 5 ms, which is coarse for small models.",
    ]


def counted(number: int, one: str, many: str = "") -> str:
    """ "1 seed", "2 seeds"."""
    return f"{number} {one if number == 1 else many or one + 's'}"


def _each(results: Results) -> list[tuple[str, list[dict[str, Any]]]]:
    return [(label, of_family(results, label)) for label in labels_of(results)]


def _trunk(results: Results, label: str, runs: list[dict[str, Any]]) -> list[str]:
    """Who, the trunk's held-out loss after it, and the change."""
    changes = [run["trunk_loss"] - results["trunk"]["trunk_loss"] for run in runs]
    change = f"{mean(changes):+.4f}" if any(changes) else "0"
    return [label, f"{mean(run['trunk_loss'] for run in runs):.4f}", change]


def _failed(label: str, headings: list[str]) -> list[str]:
    return [label, "failed", *[""] * (len(headings) - 2)]


def _means(runs: list[dict[str, Any]], name: str) -> list[float]:
    return [mean(values) for values in zip(*(run[name] for run in runs), strict=True)]


def _percent(shares: Iterable[float]) -> str:
    return " ".join(f"{100 * share:.0f}" for share in shares)


def _tokens(found: list[dict[str, Any]], way: str) -> str:
    values = [ways[way]["tokens_per_forward"] for ways in found if way in ways]
    return f"{mean(values):.2f}" if values else NONE


def _speed(found: list[dict[str, Any]], way: str) -> str:
    values = [ratio for ways in found if way in ways for ratio in ways[way]["ratios"]]
    if not values:
        return NONE
    return f"{median(values):.2f}x ({min(values):.2f}-{max(values):.2f})"


def _count(number: int) -> str:
    for size, letter in ((10**9, "B"), (10**6, "M"), (10**3, "k")):
        if number >= size:
            return f"{number / size:.3g}{letter}"
    return str(number)
