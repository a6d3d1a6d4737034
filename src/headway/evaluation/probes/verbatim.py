"""Memorisation probe: share of generated text that occurs verbatim in the training data, from checkpoint to checkpoint.

The rate of a length n is the share of generated n-grams of tokens that occur in the training completions and not in the prompt.
Texts of the same kind share n-grams: compare with the rate of the held-out references. A model that generalises
copies about as much as the references; a model that memorises copies more.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy
from matplotlib.figure import Figure
from transformers.utils import logging

from headway import model_path
from headway.data import Example, PromptCompletion, Text, load_examples, tokenize
from headway.errors import DataError
from headway.evaluation.loading import keep_special_tokens
from headway.evaluation.probes.answer_log import AnswerLog, fingerprint
from headway.evaluation.probes.answering import LOG_SUFFIX, Answerer
from headway.evaluation.probes.checkpoints import load_saved, run_models, run_settings, training_examples
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


@dataclass(frozen=True)
class CopiedShare:
    """Share of copied n-grams with 95 % interval; None without n-grams."""

    share: float | None
    low: float | None
    high: float | None
    ngrams: int


@dataclass(frozen=True)
class CopyRates:
    """Copies in the texts of a model.

    tokens: number of generated tokens.
    copied: share of copied n-grams, by n.
    longest: tokens of the longest stretch of copied n-grams, for the smallest n.
    texts: the generated texts.
    """

    tokens: int
    copied: dict[int, CopiedShare]
    longest: int
    texts: list[str] | None = None


@dataclass(frozen=True)
class VerbatimResult:
    """Copy rates by model, the held-out references included."""

    training_tokens: int
    prompts: int
    models: dict[str, CopyRates]


def run(config: VerbatimConfig) -> VerbatimResult:
    """Run the probe, print a table, and write JSON and a plot.

    Raises:
        DataError: a prompt cannot be used.
        CheckpointError: a model cannot be loaded, or the folder is of no fine-tuning run.
    """
    logging.disable_progress_bar()  # loading takes a moment
    models = _models(config)
    tokenizer: Any = load_tokenizer(models[0].tokenizer)  # counts the n-grams of all models
    if config.run is not None and not config.data:
        training = training_examples(config.run)
    else:
        training = [example for source in config.data for example in load_examples(source, config.split)]
    documents = [tokens for example in training for tokens in learnt(example, tokenizer)]
    indices = [CorpusNgrams(documents, length) for length in config.lengths]
    held_out = load_examples(config.prompts, config.prompts_split, config.limit)
    pairs = [prompt_and_reference(example, tokenizer, config) for example in held_out]
    prompts = [prompt for prompt, _ in pairs]
    results = {REFERENCE: rates([text for _, text in pairs], prompts, tokenizer, indices, config.seed)}
    answer_log = AnswerLog(config.output_file.with_suffix(LOG_SUFFIX) if config.output_file is not None else None)
    for model in models:
        loaded = model.load().to(best_device())
        if config.generation_config == "none":
            keep_special_tokens(loaded.trunk)
        answer = Answerer(
            loaded,
            load_tokenizer(model.tokenizer),
            max_new_tokens=config.max_new_tokens,
            batch_size=config.batch_size,
            speculative=config.speculative,
            temperature=config.temperature or 1.0,
            answer_log=answer_log,
            identity=model.identity if config.generation_config == "model" else [model.identity, config.generation_config],
        )
        seeds = [1000 * config.seed + number for number in range(len(prompts))] if config.temperature else None
        texts = answer(prompts, seeds)
        results[model.name] = replace(rates(texts, prompts, tokenizer, indices, config.seed), texts=texts)
    result = VerbatimResult(indices[0].tokens, len(prompts), results)
    headings = ["model", *(f"{n}-grams copied, 95 %" for n in config.lengths), "longest copy", "tokens"]
    known = {example.prompt for example in training if isinstance(example, PromptCompletion)}
    seen = sum(example.prompt in known for example in held_out if isinstance(example, PromptCompletion))
    remarks = [f"{result.training_tokens} training tokens."]
    remarks += [f"{seen} of the {len(prompts)} prompts are in the training data."] if seen else []
    print_table(
        "Verbatim copies of the training data", headings, [[name, *_cells(found)] for name, found in results.items()], remarks
    )
    save_results(config, result, _plot(results, config.lengths))
    return result


def rates(
    texts: Sequence[str], prompts: Sequence[str], tokenizer: Any, indices: Sequence[CorpusNgrams], seed: int = 0
) -> CopyRates:
    """Copy rates of texts, with bootstrap intervals over prompts.

    Args:
        texts: generated texts.
        prompts: prompts of the texts. The n-grams of a prompt are no copies.
        tokenizer: splits texts and prompts.
        indices: n-grams of the training data, an index for every n.
        seed: seed of the bootstrap.
    """
    written = [tokens_of(text, tokenizer) for text in texts]
    shown = [tokens_of(prompt, tokenizer) for prompt in prompts]
    shares = {}
    for index in indices:
        copies = [copies_of(text, prompt, index) for text, prompt in zip(written, shown, strict=True)]
        shares[index.length] = _share([sum(c) for c in copies], [len(c) for c in copies], seed)
    smallest = min(indices, key=lambda index: index.length)
    stretches = [
        covered(copies_of(text, prompt, smallest) + [False] * (smallest.length - 1), smallest.length)[: len(text)]
        for text, prompt in zip(written, shown, strict=True)
    ]
    return CopyRates(sum(map(len, written)), shares, max(map(longest_run, stretches), default=0))


def copies_of(text: Sequence[int], prompt: Sequence[int], index: CorpusNgrams) -> list[bool]:
    """True for n-grams of the text that are in the index and not in the prompt."""
    n = index.length
    of_prompt = {tuple(prompt[start : start + n]) for start in range(len(prompt) - n + 1)}
    return [known and tuple(text[start : start + n]) not in of_prompt for start, known in enumerate(index.contains(text))]


def longest_run(flags: Sequence[bool]) -> int:
    """Length of the longest run of True."""
    longest = run = 0
    for flag in flags:
        run = run + 1 if flag else 0
        longest = max(longest, run)
    return longest


def learnt(example: Example, tokenizer: Any) -> Iterator[list[int]]:
    """Stretches of an example with label tokens: a completion, the assistant's turns, or a whole text."""
    for part in tokenize(example, tokenizer, max_length=2**40):
        stretch: list[int] = []
        for token, label in zip(part["input_ids"], part["labels"], strict=True):
            if label != IGNORE:
                stretch.append(token)
            elif stretch:
                yield stretch
                stretch = []
        if stretch:
            yield stretch


def prompt_and_reference(example: Example, tokenizer: Any, config: VerbatimConfig) -> tuple[str, str]:
    """Prompt and true continuation of an example. Raises DataError for conversations and for short texts."""
    if isinstance(example, PromptCompletion):
        return example.prompt, example.completion
    if not isinstance(example, Text):
        raise DataError(f"{config.prompts} holds conversations; give prompts with prompt and completion, or texts.")
    ids = tokens_of(example.text, tokenizer)
    if len(ids) <= config.prompt_tokens:
        raise DataError(f"a text of {config.prompts} has {len(ids)} tokens; ask for fewer --prompt-tokens, or longer texts.")
    reference = ids[config.prompt_tokens :][: config.max_new_tokens]
    return tokenizer.decode(ids[: config.prompt_tokens]), tokenizer.decode(reference)


def tokens_of(text: str, tokenizer: Any) -> list[int]:
    ids: list[int] = tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
    return ids


@dataclass(frozen=True)
class _Model:
    name: str
    identity: Any  # distinguishes the texts of this model from others in the answer log
    tokenizer: str
    load: Callable[[], HeadwayModel]


def _models(config: VerbatimConfig) -> list[_Model]:
    if config.run is not None:
        tokenizer = run_settings(config.run).model
        return [_Model(model.name, fingerprint(model.folder), tokenizer, model.load) for model in run_models(config.run)]
    return [_Model(model, fingerprint(model_path(model)), model, partial(load_saved, model)) for model in config.models]


def _share(copied: Sequence[int], counts: Sequence[int], seed: int) -> CopiedShare:
    """Share of copied n-grams, with a bootstrap interval over texts.

    Args:
        copied: number of copied n-grams, by text.
        counts: number of n-grams, by text.
        seed: seed of the bootstrap.
    """
    total = sum(counts)
    if not total:
        return CopiedShare(None, None, None, 0)
    resamples = numpy.random.default_rng(seed).integers(len(counts), size=(RESAMPLES, len(counts)))
    sums = numpy.asarray(counts)[resamples].sum(1)
    low, high = numpy.percentile((numpy.asarray(copied)[resamples].sum(1) / sums.clip(min=1)), (2.5, 97.5))
    return CopiedShare(sum(copied) / total, float(low), float(high), total)


def _cells(rates: CopyRates) -> list[str]:
    cells = [
        f"{copied.share:.1%}  {copied.low:.1%} - {copied.high:.1%}" if copied.share is not None else "none written"
        for copied in rates.copied.values()
    ]
    return [*cells, str(rates.longest), str(rates.tokens)]


def _plot(models: Mapping[str, CopyRates], lengths: Sequence[int]) -> Figure:
    figure, axes = labelled_axes("", "n-grams in the training data (%)", SIZE)
    names = [name for name in models if name != REFERENCE]
    for n in lengths:
        shown = [(index, models[name].copied[n]) for index, name in enumerate(names)]
        shown = [(index, copied) for index, copied in shown if copied.ngrams]
        indices = [index for index, _ in shown]
        (curve,) = axes.plot(indices, [100 * (copied.share or 0.0) for _, copied in shown], "o-", label=f"{n}-grams")
        bounds = ([100 * getattr(copied, end) for _, copied in shown] for end in ("low", "high"))
        axes.fill_between(indices, *bounds, color=curve.get_color(), alpha=0.15, lw=0)
        level = models[REFERENCE].copied[n].share
        if level is not None:
            axes.axhline(100 * level, color=curve.get_color(), lw=1, ls="--", label=f"{n}-grams, {REFERENCE}")
    axes.set_xticks(range(len(names)), names, rotation=30, ha="right")
    axes.set_ylim(bottom=0)
    axes.legend(frameon=False, fontsize=8)
    return figure
