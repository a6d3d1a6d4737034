"""SliCK: knowledge of a fine-tuning set in four categories (Gekhman et al. 2024, arXiv 2405.05904, section 3).

P(greedy) is the share of random few-shot prompts with a correct greedy answer. P(sampled) is the share of correct answers among
samples at a low temperature.

- HighlyKnown: P(greedy) = 1.
- MaybeKnown: 0 < P(greedy) < 1.
- WeaklyKnown: P(greedy) = 0 and P(sampled) > 0.
- Unknown: P(greedy) = P(sampled) = 0.

The paper finds that Unknown examples are learnt slowly and, once learnt, make a model hallucinate more.
"""

import json
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, get_args

from matplotlib.figure import Figure

from headway.data import PromptCompletion, load_examples, load_rows, row_of_example
from headway.errors import ConfigError, DataError
from headway.evaluation.probes.answering import Answerer, Answers, subsample
from headway.evaluation.probes.configs import Category, SlickConfig
from headway.evaluation.probes.matching import first_line, same
from headway.evaluation.probes.report import SIZE, Proportion, proportion, save_results
from headway.evaluation.prompts import prompts_with_completions
from headway.evaluation.tasks.exact_match import extract_strict, same_answer
from headway.files import write_text
from headway.reports.plots import labelled_axes
from headway.reports.tables import print_table

CATEGORIES: tuple[Category, ...] = get_args(Category)


@dataclass(frozen=True)
class Known:
    """Knowledge of an example. p_sampled is None if the greedy answers decide the category and nothing was sampled."""

    category: Category
    p_greedy: float
    p_sampled: float | None


@dataclass(frozen=True)
class SlickResult:
    """Share of examples by category."""

    examples: int
    categories: dict[Category, Proportion]
    kept: int | None = None  # examples written for training, with --keep


def run(config: SlickConfig) -> SlickResult:
    """Run the probe, print a table, and write JSON, a plot, the categories, and the examples to keep.

    Raises:
        DataError: an example has no prompt and completion, a group is too small, or no example is left to keep.
        CheckpointError: the model cannot be loaded.
        ConfigError: a group is asked for, and the data is no local file.
    """
    examples, groups = load(config)
    asked = subsample(range(len(examples)), config.limit, config.seed)
    stop = ["\n"] if config.match == "text" else ["\n\n"]
    answer = Answerer.from_config(config, stop=stop, temperature=config.temperature, top_k=config.top_k)
    known = probe(answer, examples, groups, asked, config)
    counts = Counter(each.category for each in known)
    categories = {category: proportion(counts[category], len(known)) for category in CATEGORIES}
    remarks, kept = [], None
    if config.output_file is not None:
        lines = [row_of_example(examples[n]) | asdict(of_example) for n, of_example in zip(asked, known, strict=True)]
        remarks.append(f"Categories: {_write(config.output_file.with_suffix('.categories.jsonl'), lines)}")
        if config.keep:
            kept = [
                row_of_example(examples[n])
                for n, of_example in zip(asked, known, strict=True)
                if of_example.category in config.keep
            ]
            if not kept:
                raise DataError(f"no example is {' or '.join(config.keep)}: there is nothing to keep.")
            remarks.append(f"Kept {len(kept)} of {len(known)}: {_write(config.output_file.with_suffix('.kept.jsonl'), kept)}")
    result = SlickResult(len(known), categories, None if kept is None else len(kept))
    rows = [[category, str(share.right), *share.cells] for category, share in categories.items()]
    title = f"Knowledge of {config.data} in {config.model}"
    print_table(title, ["category", "examples", "share", "95 % interval"], rows, remarks)
    save_results(config, result, _plot(result), answer.tokens_per_forward)
    return result


def probe(
    answer: Answers, examples: Sequence[PromptCompletion], groups: Sequence[str], asked: Sequence[int], config: SlickConfig
) -> list[Known]:
    """Knowledge of examples[n] for n in `asked`. Solved examples come from the same group.

    Raises:
        DataError: a group has too few solved examples.
    """
    prompts = few_shot_prompts(examples, groups, asked, config)
    targets = [examples[number].completion for number in asked]
    sets = config.exemplar_sets
    greedy = [is_right(text, targets[index // sets], config.match) for index, text in enumerate(answer(prompts))]
    p_greedy = [sum(greedy[index * sets : (index + 1) * sets]) / sets for index in range(len(asked))]
    sampled = [index for index, p in enumerate(p_greedy) if config.sample_all or p == 0]
    repeated = [prompts[index * sets + n] for index in sampled for n in range(sets) for _ in range(config.samples)]
    per_example = sets * config.samples
    # the seed depends on example, set and sample, so that answers to an example do not depend on the other examples asked
    seeds = [random.Random(f"{config.seed} {asked[index]} {n}").getrandbits(47) for index in sampled for n in range(per_example)]
    texts = answer(repeated, seeds) if repeated else []
    p_sampled: dict[int, float] = {}
    for row, index in enumerate(sampled):
        samples = texts[row * per_example : (row + 1) * per_example]
        p_sampled[index] = sum(is_right(text, targets[index], config.match) for text in samples) / per_example
    return [Known(category(p, p_sampled.get(n)), p, p_sampled.get(n)) for n, p in enumerate(p_greedy)]


def few_shot_prompts(
    examples: Sequence[PromptCompletion], groups: Sequence[str], asked: Sequence[int], config: SlickConfig
) -> list[str]:
    """Prompts with random solved examples, (asked * exemplar_sets,). Raises DataError as `probe`."""
    members: dict[str, list[int]] = {}
    for number, group in enumerate(groups):
        members.setdefault(group, []).append(number)
    prompts = []
    for number in asked:
        others = [n for n in members[groups[number]] if examples[n].prompt != examples[number].prompt]
        if len(others) < config.shots:
            raise DataError(
                f"{config.shots} solved examples are needed before each question, and {groups[number] or config.data!r} has "
                f"{len(others)} besides {examples[number].prompt!r}. Ask for fewer --shots, or give more data."
            )
        rng = random.Random(f"{config.seed} {number}")
        prompts += [few_shot(examples, rng.sample(others, config.shots), number) for _ in range(config.exemplar_sets)]
    return prompts


def category(p_greedy: float, p_sampled: float | None) -> Category:
    """The category by figure 2 of the paper. p_sampled may be None if p_greedy is above 0."""
    if p_greedy > 0:
        return "HighlyKnown" if p_greedy == 1 else "MaybeKnown"
    return "WeaklyKnown" if p_sampled else "Unknown"


def is_right(text: str, target: str, match: str) -> bool:
    """True if the answer matches the target.

    Args:
        match: `text` compares the first line after SQuAD's normalisation; `number` compares the number after ####, as `headway
            eval` does.
    """
    if match == "text":
        return same(first_line(text), target)
    return same_answer(extract_strict(text), extract_strict(target))


def few_shot(examples: Sequence[PromptCompletion], shown: Sequence[int], asked: int) -> str:
    """The solved examples `shown`, then the prompt of example `asked`."""
    solved = "".join(f"{examples[n].prompt}{examples[n].completion}\n\n" for n in shown)
    return solved + examples[asked].prompt


def load(config: SlickConfig) -> tuple[list[PromptCompletion], list[str]]:
    """Examples with prompt and completion, and the groups of the examples.

    Raises:
        DataError: an example has no prompt and completion, or a row has no group.
        ConfigError: a group is asked for, and the data is no local file.
    """
    examples = prompts_with_completions(load_examples(config.data, config.split), config.data)
    if config.group is None:
        return examples, [""] * len(examples)
    if not Path(config.data).is_file():
        raise ConfigError(f"--group names a column of a local file, and {config.data} is none.")
    rows = list(load_rows(config.data))
    for location, row in rows:
        if config.group not in row:
            raise DataError(f"{location} has no column {config.group!r}; it has: {', '.join(row)}.")
    return examples, [str(row[config.group]) for _, row in rows]


def _write(path: Path, rows: Sequence[dict[str, Any]]) -> Path:
    write_text(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    return path


def _plot(result: SlickResult) -> Figure:
    figure, axes = labelled_axes("", "examples (%)", SIZE)
    axes.bar(CATEGORIES, [100 * share.share for share in result.categories.values()], color="#2f7ed8")
    return figure
