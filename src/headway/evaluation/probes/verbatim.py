"""Over-fitting watch: how much of what models write stands verbatim in their training data, from checkpoint to checkpoint.

The rate of a length n is the share of the n-grams of tokens that models write which occur in the training completions and not
in the prompt. Text of one kind shares n-grams with its like, so the held-out references' own rate is the level to compare with:
a model that learns copies about as much as they do, one that learns by heart copies more.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy
from matplotlib.figure import Figure
from transformers.utils import logging

from headway import model_path
from headway.data import Example, encode, load_examples
from headway.errors import DataError
from headway.evaluation.probes.answer_log import AnswerLog, fingerprint
from headway.evaluation.probes.answering import JOURNAL, Answerer
from headway.evaluation.probes.checkpoints import learnt_by, saved, settings_of, stages
from headway.evaluation.probes.configs import VerbatimConfig
from headway.evaluation.probes.fragments import covered
from headway.evaluation.probes.ngrams import CorpusNgrams
from headway.evaluation.probes.report import SIZE, save_results
from headway.model import HeadwayModel, best_device, load_tokenizer
from headway.ops import IGNORE
from headway.reports.plots import labelled_axes
from headway.reports.tables import print_table

REFERENCE = "held-out references"
RESAMPLES = 2000


def run(config: VerbatimConfig) -> dict[str, Any]:
    """Measure, show, and write JSON and a plot if asked. Raises DataError, CheckpointError and ConfigError."""
    logging.disable_progress_bar()  # of loading, which takes a moment
    models = _models(config)
    tokenizer: Any = load_tokenizer(models[0].tokenizer)  # counts n-grams alike for all
    if config.run is not None and not config.data:
        training = learnt_by(config.run)
    else:
        training = [example for source in config.data for example in load_examples(source, config.split)]
    documents = [part for example in training for part in learnt(example, tokenizer)]
    indices = [CorpusNgrams(documents, length) for length in config.lengths]
    held_out = load_examples(config.prompts, config.prompts_split, config.limit)
    pairs = [prompt_of(example, tokenizer, config) for example in held_out]
    prompts = [prompt for prompt, _ in pairs]
    results: dict[str, Any] = {"training_tokens": indices[0].tokens, "prompts": len(prompts), "models": {}}
    results["models"][REFERENCE] = rates([text for _, text in pairs], prompts, tokenizer, indices, config.seed)
    journal = AnswerLog(config.output_file.with_suffix(JOURNAL) if config.output_file is not None else None)
    for each in models:
        model = each.load().to(best_device())
        answer = Answerer(
            model,
            load_tokenizer(each.tokenizer),
            max_new_tokens=config.max_new_tokens,
            batch_size=config.batch_size,
            plain=not config.speculative,
            temperature=config.temperature or 1.0,
            journal=journal,
            name=each.identity,
        )
        seeds = [1000 * config.seed + number for number in range(len(prompts))] if config.temperature else None
        texts = answer(prompts, seeds)
        results["models"][each.name] = rates(texts, prompts, tokenizer, indices, config.seed) | {"texts": texts}
    results["settings"] = asdict(config) | {"output_file": str(config.output_file), "run": str(config.run)}
    rows = [[name, *_cells(found)] for name, found in results["models"].items()]
    headings = ["model", *(f"{n}-grams copied, 95 %" for n in config.lengths), "longest copy", "tokens"]
    known = {example.get("prompt") for example in training}
    seen = sum(example.get("prompt") in known for example in held_out if "prompt" in example)
    remarks = [f"{results['training_tokens']} training tokens."]
    remarks += [f"{seen} of the {len(prompts)} prompts are in the training data."] if seen else []
    print_table("What stands verbatim in the training data", headings, rows, remarks)
    save_results(config.output_file, results, _plot(results["models"], config.lengths))
    return results


def rates(
    texts: Sequence[str], prompts: Sequence[str], tokenizer: Any, indices: Sequence[CorpusNgrams], seed: int = 0
) -> dict[str, Any]:
    """By length n: the share of all n-grams of the texts that occur in the index and not in the text's own prompt.

    Intervals are of the bootstrap over prompts, at 95 %. `longest` counts the tokens of the longest stretch all of whose
    n-grams, for the smallest n, are copies.
    """
    written = [tokens_of(text, tokenizer) for text in texts]
    shown = [tokens_of(prompt, tokenizer) for prompt in prompts]
    found: dict[str, Any] = {"tokens": sum(map(len, written)), "copied": {}}
    for index in indices:
        copies = [copies_of(text, prompt, index) for text, prompt in zip(written, shown, strict=True)]
        found["copied"][index.length] = _share([sum(c) for c in copies], [len(c) for c in copies], seed)
    smallest = min(indices, key=lambda index: index.length)
    stretches = [
        covered(copies_of(text, prompt, smallest) + [False] * (smallest.length - 1), smallest.length)[: len(text)]
        for text, prompt in zip(written, shown, strict=True)
    ]
    found["longest"] = max(map(longest_run, stretches), default=0)
    return found


def copies_of(text: Sequence[int], prompt: Sequence[int], index: CorpusNgrams) -> list[bool]:
    """Which n-grams of the text are in the index and not in the prompt."""
    n = index.length
    own = {tuple(prompt[start : start + n]) for start in range(len(prompt) - n + 1)}
    return [there and tuple(text[start : start + n]) not in own for start, there in enumerate(index.contains(text))]


def longest_run(flags: Sequence[bool]) -> int:
    longest = run = 0
    for flag in flags:
        run = run + 1 if flag else 0
        longest = max(longest, run)
    return longest


def learnt(example: Example, tokenizer: Any) -> Iterator[list[int]]:
    """The stretches of an example that are learnt: a completion, the assistant's turns, or all of a text."""
    for part in encode(example, tokenizer, max_length=2**40):
        stretch: list[int] = []
        for token, label in zip(part["input_ids"], part["labels"], strict=True):
            if label != IGNORE:
                stretch.append(token)
            elif stretch:
                yield stretch
                stretch = []
        if stretch:
            yield stretch


def prompt_of(example: Example, tokenizer: Any, config: VerbatimConfig) -> tuple[str, str]:
    """What to write on, and what stands there in truth. Raises DataError for conversations."""
    if "prompt" in example:
        return example["prompt"], example["completion"]
    if "messages" in example:
        raise DataError(f"{config.prompts} holds conversations; give prompts with prompt and completion, or texts.")
    ids = tokens_of(example["text"], tokenizer)
    if len(ids) <= config.prompt_tokens:
        raise DataError(f"a text of {config.prompts} has {len(ids)} tokens; ask for fewer --prompt-tokens, or longer texts.")
    rest = ids[config.prompt_tokens :][: config.max_new_tokens]
    return tokenizer.decode(ids[: config.prompt_tokens]), tokenizer.decode(rest)


def tokens_of(text: str, tokenizer: Any) -> list[int]:
    ids: list[int] = tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
    return ids


@dataclass(frozen=True)
class _Model:
    name: str
    identity: Any  # what tells its texts from others'
    tokenizer: str
    load: Callable[[], HeadwayModel]


def _models(config: VerbatimConfig) -> list[_Model]:
    if config.run is not None:
        tokenizer = settings_of(config.run).model
        return [_Model(name, fingerprint(folder), tokenizer, load) for name, folder, load in stages(config.run)]
    return [_Model(model, fingerprint(model_path(model)), model, partial(saved, model)) for model in config.models]


def _share(copied: Sequence[int], of: Sequence[int], seed: int) -> dict[str, Any]:
    total = sum(of)
    if not total:
        return {"share": None, "low": None, "high": None, "ngrams": 0}
    drawn = numpy.random.default_rng(seed).integers(len(of), size=(RESAMPLES, len(of)))
    sums = numpy.asarray(of)[drawn].sum(1)
    low, high = numpy.percentile((numpy.asarray(copied)[drawn].sum(1) / sums.clip(min=1)), (2.5, 97.5))
    return {"share": sum(copied) / total, "low": float(low), "high": float(high), "ngrams": total}


def _cells(found: dict[str, Any]) -> list[str]:
    cells = [
        f"{f['share']:.1%}  {f['low']:.1%} - {f['high']:.1%}" if f["share"] is not None else "none written"
        for f in found["copied"].values()
    ]
    return [*cells, str(found["longest"]), str(found["tokens"])]


def _plot(models: dict[str, Any], lengths: Sequence[int]) -> Figure:
    figure, axes = labelled_axes("", "n-grams in the training data (%)", SIZE)
    names = [name for name in models if name != REFERENCE]
    for n in lengths:
        shown = [(place, models[name]["copied"][n]) for place, name in enumerate(names)]
        shown = [(place, f) for place, f in shown if f["share"] is not None]
        places = [place for place, _ in shown]
        (curve,) = axes.plot(places, [100 * f["share"] for _, f in shown], "o-", label=f"{n}-grams")
        bounds = ([100 * f[end] for _, f in shown] for end in ("low", "high"))
        axes.fill_between(places, *bounds, color=curve.get_color(), alpha=0.15, lw=0)
        level = models[REFERENCE]["copied"][n]["share"]
        if level is not None:
            axes.axhline(100 * level, color=curve.get_color(), lw=1, ls="--", label=f"{n}-grams, {REFERENCE}")
    axes.set_xticks(range(len(names)), names, rotation=30, ha="right")
    axes.set_ylim(bottom=0)
    axes.legend(frameon=False, fontsize=8)
    return figure
