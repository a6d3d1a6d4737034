"""SliCK: what a model knows of a fine-tuning set, in four categories (Gekhman et al. 2024, arXiv 2405.05904, section 3).

P(greedy) is the share of random few-shot prompts after which the greedy answer is right, P(sampled) the share of right ones
among answers drawn at a low temperature. HighlyKnown: P(greedy) = 1. MaybeKnown: 0 < P(greedy) < 1. WeaklyKnown: P(greedy) = 0
and P(sampled) > 0. Unknown: both are 0. The paper finds that examples of the last kind are learnt slowly and, once learnt, make
a model say more that is not so.
"""

import json
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, get_args

from headway.data import Example, load_examples, load_rows
from headway.errors import ConfigError, DataError
from headway.evaluation.probes.answering import Answerer, Answers, drawn
from headway.evaluation.probes.configs import Category, SlickConfig
from headway.evaluation.probes.matching import first_line, same
from headway.evaluation.probes.report import SIZE, percent, save_results, share
from headway.evaluation.tasks.exact_match import extract_strict, same_answer
from headway.files import write_text
from headway.reports.plots import labelled_axes
from headway.reports.tables import print_table

CATEGORIES: tuple[Category, ...] = get_args(Category)


@dataclass(frozen=True)
class Known:
    """How well an example is known. p_sampled is None where the greedy answers settle the category and none were drawn."""

    category: Category
    p_greedy: float
    p_sampled: float | None


def run(config: SlickConfig) -> dict[str, Any]:
    """Categorise, show, and write files if asked. Raises DataError, CheckpointError and ConfigError."""
    examples, groups = load(config)
    asked = drawn(range(len(examples)), config.limit, config.seed)
    stop = ["\n"] if config.match == "text" else ["\n\n"]
    answer = Answerer.from_config(config, stop=stop, temperature=config.temperature, top_k=config.top_k)
    found = probe(answer, examples, groups, asked, config)
    counts = Counter(known.category for known in found)
    results: dict[str, Any] = {
        "examples": len(found),
        "categories": {category: share(counts[category], len(found)) for category in CATEGORIES},
        "settings": asdict(config) | {"output_file": str(config.output_file)},
        "tokens_per_forward": answer.tokens_per_forward,
    }
    rows = [[category, str(each["right"]), *percent(each)] for category, each in results["categories"].items()]
    remarks = []
    if config.output_file is not None:
        lines = [examples[n] | asdict(known) for n, known in zip(asked, found, strict=True)]
        remarks.append(f"Categories: {_write(config.output_file.with_suffix('.categories.jsonl'), lines)}")
        if config.keep:
            kept = [examples[n] for n, known in zip(asked, found, strict=True) if known.category in config.keep]
            if not kept:
                raise DataError(f"no example is {' or '.join(config.keep)}: there is nothing to keep.")
            results["kept"] = len(kept)
            remarks.append(f"Kept {len(kept)} of {len(found)}: {_write(config.output_file.with_suffix('.kept.jsonl'), kept)}")
    print_table(f"What {config.model} knows of {config.data}", ["category", "examples", "share", "95 % interval"], rows, remarks)
    figure, axes = labelled_axes("", "examples (%)", SIZE)
    axes.bar(CATEGORIES, [100 * each["share"] for each in results["categories"].values()], color="#2f7ed8")
    save_results(config.output_file, results, figure)
    return results


def probe(
    answer: Answers, examples: Sequence[Example], groups: Sequence[str], asked: Sequence[int], config: SlickConfig
) -> list[Known]:
    """Categorise examples[n] for n in `asked`; solved examples before them come from all others of their group.

    Raises: DataError where a group has too few others.
    """
    members: dict[str, list[int]] = {}
    for number, group in enumerate(groups):
        members.setdefault(group, []).append(number)
    prompts = []  # (asked * exemplar_sets)
    for number in asked:
        pool = members[groups[number]]
        others = [n for n in pool if examples[n]["prompt"] != examples[number]["prompt"]]
        if len(others) < config.shots:
            raise DataError(
                f"{config.shots} solved examples are needed before each question, and {groups[number] or config.data!r} has "
                f"{len(others)} besides {examples[number]['prompt']!r}. Ask for fewer --shots, or give more data."
            )
        draw = random.Random(f"{config.seed} {number}")
        prompts += [few_shot(examples, draw.sample(others, config.shots), number) for _ in range(config.exemplar_sets)]
    targets = [examples[number]["completion"] for number in asked]
    sets = config.exemplar_sets
    greedy = [is_right(text, targets[place // sets], config.match) for place, text in enumerate(answer(prompts))]
    p_greedy = [sum(greedy[place * sets : (place + 1) * sets]) / sets for place in range(len(asked))]
    sampled = [place for place, p in enumerate(p_greedy) if config.sample_all or p == 0]
    repeated = [prompts[place * sets + n] for place in sampled for n in range(sets) for _ in range(config.samples)]
    each = sets * config.samples
    # as a seed: example, set and number of the sample, so that an example's answers do not depend on which others are asked
    seeds = [random.Random(f"{config.seed} {asked[place]} {n}").getrandbits(47) for place in sampled for n in range(each)]
    texts = answer(repeated, seeds) if repeated else []
    p_sampled: dict[int, float] = {}
    for row, place in enumerate(sampled):
        mine = texts[row * each : (row + 1) * each]
        p_sampled[place] = sum(is_right(text, targets[place], config.match) for text in mine) / each
    return [Known(category(p, p_sampled.get(n)), p, p_sampled.get(n)) for n, p in enumerate(p_greedy)]


def category(p_greedy: float, p_sampled: float | None) -> Category:
    """The paper's figure 2. p_sampled may be missing where p_greedy is above 0."""
    if p_greedy > 0:
        return "HighlyKnown" if p_greedy == 1 else "MaybeKnown"
    return "WeaklyKnown" if p_sampled else "Unknown"


def is_right(text: str, target: str, match: str) -> bool:
    """`text`: the first line, after SQuAD's clean-up; `number`: what follows ####, as `headway eval` compares it."""
    if match == "text":
        return same(first_line(text), target)
    return same_answer(extract_strict(text), extract_strict(target))


def few_shot(examples: Sequence[Example], shown: Sequence[int], asked: int) -> str:
    solved = "".join(f"{examples[n]['prompt']}{examples[n]['completion']}\n\n" for n in shown)
    return solved + str(examples[asked]["prompt"])


def load(config: SlickConfig) -> tuple[list[Example], list[str]]:
    """Examples with prompt and completion, and the group of each. Raises DataError for data without, ConfigError for groups."""
    examples = load_examples(config.data, config.split)
    if any("prompt" not in example for example in examples):
        raise DataError(f"{config.data} has no prompts and completions, so nothing says what a right answer is.")
    if config.group is None:
        return examples, [""] * len(examples)
    if not Path(config.data).is_file():
        raise ConfigError(f"--group names a column of a local file, and {config.data} is none.")
    rows = list(load_rows(config.data))
    for place, row in rows:
        if config.group not in row:
            raise DataError(f"{place} has no column {config.group!r}; it has: {', '.join(row)}.")
    return examples, [str(row[config.group]) for _, row in rows]


def _write(path: Path, rows: Sequence[dict[str, Any]]) -> Path:
    write_text(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    return path
