"""`headway bench decode`: decoding variants of Headway and transformers on the same prompts, with equal output.

Variants are interleaved batch by batch, because a disturbance of the machine then affects all alike. Ratios are paired by repeat.
"""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import track
from torch import Tensor
from transformers import CompileConfig

from headway.data import load_examples
from headway.decoding import DecodeStats, assistant_drafter, fallback_drafter, heads_drafter, ngram_drafter
from headway.decoding.drafters import DRAFTERS, drafter_by_name
from headway.decoding.padding import left_block
from headway.errors import DataError
from headway.evaluation.benchmarks.speed import greedy
from headway.evaluation.benchmarks.timing import peak_memory, wait
from headway.evaluation.benchmarks.transformers_mtp import decoding_with, native_heads
from headway.evaluation.configs import DecodeBenchConfig
from headway.evaluation.loading import keep_special_tokens
from headway.evaluation.prompts import prompt_tokens
from headway.evaluation.results import as_json
from headway.files import write_json, write_text
from headway.heads import SequentialHeads
from headway.model import HeadwayModel, load_model_and_tokenizer, load_trunk
from headway.reports.plots import figure_to_svg, labelled_axes
from headway.reports.tables import print_table
from headway.trunk.roofline import memory_bandwidth

BASELINE = "transformers"
AUTOREGRESSIVE = "plain"
STEPS = ("prefill", "draft", "verify", "accept")
SHOWN_POSITIONS = 6  # of drafts, in the table
BANDWIDTH_BYTES = 2**29  # read to measure the memory bandwidth: more than any cache holds


@dataclass
class DecodingVariant:
    """A way to decode a batch, with measurements.

    decode: maps token ids and attention mask, both (batch, width), to the sequences, (batch, width + new), and the statistics of
        Headway's own variants.
    """

    decode: Callable[[Tensor, Tensor], tuple[Tensor, DecodeStats | None]]
    single_sequence: bool = False  # decodes no batch of several prompts
    seconds: list[float] = field(default_factory=list)  # by repeat
    peak: float = 0.0  # MiB above the memory in use before
    stats: list[DecodeStats] = field(default_factory=list)  # by batch of the last repeat
    identical: bool = True  # generated the tokens of autoregressive decoding in every repeat


@dataclass(frozen=True, kw_only=True)
class VariantResult:
    """Speed of a variant. The fields from `tokens_per_second` on exist for Headway's own variants."""

    seconds: list[float]  # by repeat
    ratio: float  # speed over transformers' generate, median over repeats
    ratio_min: float
    ratio_max: float
    over_own_plain: float  # speed over Headway's autoregressive decoding, median
    peak_mib: float  # memory above the weights
    identical: bool  # output equal to autoregressive decoding
    tokens_per_second: float | None = None
    tokens_per_forward: float | None = None
    acceptance: tuple[float, ...] | None = None  # per-position acceptance rate
    split: dict[str, float] | None = None  # share of the time by step
    of_bandwidth: float | None = None  # least time to read all weights once a forward, as a share of the time


@dataclass(frozen=True)
class DecodeBenchResult:
    """Results by batch size and variant."""

    settings: DecodeBenchConfig
    threads: int
    dtype: str
    bandwidth_gb_per_second: float
    batches: dict[int, dict[str, VariantResult]]


def run(config: DecodeBenchConfig) -> DecodeBenchResult:
    """Measure all variants, print two tables a batch size, and write JSON and a plot.

    Raises:
        CheckpointError: a model cannot be loaded.
        DataError: the source has too few prompts.
    """
    torch.set_num_threads(config.threads)
    model, tokenizer = load_model_and_tokenizer(config.model, dtype=config.dtype)
    keep_special_tokens(model.trunk)  # all variants decode greedily
    prompts = _prompts(config, tokenizer)
    console = Console(soft_wrap=True, highlight=False)
    bandwidth = memory_bandwidth(model.device, torch.float32, BANDWIDTH_BYTES)
    dtype = str(model.trunk.dtype)
    batches = {}
    for batch in config.batches:
        batches[batch] = results = _results(_measure(config, model, prompts, batch), model, bandwidth)
        _print_speeds(results, f"batch {batch}: {len(prompts)} prompts, {config.threads} thread(s), {dtype}")
        _print_steps(results)
        for name, variant in results.items():
            if not variant.identical:
                console.print(f"[yellow]{name} generated other tokens than autoregressive decoding.[/yellow]")
    console.print(
        f"speed: over transformers' generate, median and spread of {config.repeats} repeats. vs plain: over Headway's "
        "autoregressive decoding. bw: least time to read all weights once a forward, as a share of the time. MiB: memory above the "
        "weights. same: the output equals autoregressive decoding."
    )
    result = DecodeBenchResult(config, config.threads, dtype, bandwidth / 1e9, batches)
    if config.output_file is not None:
        write_json(config.output_file, as_json(result))
        plot = config.output_file.with_suffix(".svg")
        _plot(batches, plot)
        console.print(f"Results: {config.output_file}   Plot: {plot}", markup=False)
    return result


def _prompts(config: DecodeBenchConfig, tokenizer: Any) -> list[list[int]]:
    examples = load_examples(config.data, "test", 4 * config.prompts)
    encoded = [prompt_tokens(example, tokenizer, config.prompt_tokens)[: config.prompt_tokens] for example in examples]
    prompts = [ids for ids in encoded if len(ids) > 1][: config.prompts]
    if len(prompts) < max(config.batches):
        raise DataError(f"{config.data} has {len(prompts)} prompts, fewer than a batch of {max(config.batches)}.")
    return prompts


def decoding_variants(config: DecodeBenchConfig, model: HeadwayModel) -> dict[str, DecodingVariant]:
    """All variants that this model supports, by name."""
    length = greedy(config.max_new_tokens) | {"eos_token_id": None}
    trunk: Any = model.trunk

    def headway(**arguments: Any) -> DecodingVariant:
        def decode(ids: Tensor, mask: Tensor) -> tuple[Tensor, DecodeStats | None]:
            output = model.generate(ids, attention_mask=mask, **length, **arguments)
            return output.sequences, output.stats

        return DecodingVariant(decode)

    def transformers(single_sequence: bool = False, **arguments: Any) -> DecodingVariant:
        def decode(ids: Tensor, mask: Tensor) -> tuple[Tensor, DecodeStats | None]:
            return trunk.generate(ids, attention_mask=mask.long(), **length, **arguments), None

        return DecodingVariant(decode, single_sequence)

    variants = {BASELINE: transformers(), AUTOREGRESSIVE: headway(speculative=False)}
    factories = ((name, drafter_by_name(name, model)) for name in DRAFTERS)
    variants |= {name: headway(drafter=factory) for name, factory in factories if factory is not None}
    if model.heads is not None:
        variants["heads, chain"] = headway(drafter=heads_drafter("chain"))
        variants["ngram, else heads"] = headway(drafter=fallback_drafter(ngram_drafter(shortest=2), heads_drafter("chain")))
    if config.compile:
        variants["plain, compiled"] = headway(speculative=False, compile=True)
        if model.heads is not None:
            variants["heads, compiled"] = headway(compile=True)
        variants["ngram, compiled"] = headway(drafter=ngram_drafter(), compile=True)
        compiled: Any = CompileConfig()
        compiled._compile_all_devices = True  # otherwise transformers compiles only on GPUs
        variants["transformers compiled"] = transformers(cache_implementation="static", compile_config=compiled)
    if isinstance(model.heads, SequentialHeads):
        native = native_heads(model)

        def use_mtp(ids: Tensor, mask: Tensor) -> tuple[Tensor, None]:
            with decoding_with(native, model):
                return trunk.generate(ids, attention_mask=mask.long(), use_mtp=True, **length), None

        variants["transformers use_mtp"] = DecodingVariant(use_mtp, single_sequence=True)
    variants["transformers look-up"] = transformers(single_sequence=True, prompt_lookup_num_tokens=8)
    if config.assistant is not None:
        assistant = load_trunk(config.assistant, trunk.dtype).to(trunk.device).eval()
        variants["assistant"] = headway(drafter=assistant_drafter(assistant))
        variants["transformers assistant"] = transformers(single_sequence=True, assistant_model=assistant)
    return variants


def _measure(config: DecodeBenchConfig, model: HeadwayModel, prompts: list[list[int]], batch: int) -> dict[str, DecodingVariant]:
    """The variants, measured at a batch size."""
    variants = {name: each for name, each in decoding_variants(config, model).items() if batch == 1 or not each.single_sequence}
    groups = [left_block(prompts[start : start + batch], 0, model.device) for start in range(0, len(prompts) - batch + 1, batch)]
    # the first repeat is a warm-up; the last repeat measures memory, since watching memory takes time
    for repeat in track(range(config.repeats + 2), f"batch {batch}", transient=True):
        timed = 0 < repeat <= config.repeats
        outputs: dict[str, list[tuple[Tensor, DecodeStats | None]]] = {name: [] for name in variants}
        seconds = dict.fromkeys(variants, 0.0)
        for turn, group in enumerate(groups, repeat):
            order = list(variants.items())
            for name, variant in order[turn % len(order) :] + order[: turn % len(order)]:
                with torch.inference_mode(), nullcontext([0.0]) if timed else peak_memory(model.device) as peak:
                    began = time.perf_counter()
                    outputs[name].append(variant.decode(*group))
                    wait(model.device)
                    seconds[name] += time.perf_counter() - began
                variant.peak = max(variant.peak, peak[0]) if repeat else 0.0
        expected = [sequences for sequences, _ in outputs[AUTOREGRESSIVE]]
        for name, variant in variants.items():
            if timed:
                variant.seconds.append(seconds[name])
                variant.stats = [stats for _, stats in outputs[name] if stats is not None]
            variant.identical &= all(torch.equal(out, same) for (out, _), same in zip(outputs[name], expected, strict=True))
    return variants


def _results(variants: Mapping[str, DecodingVariant], model: HeadwayModel, bandwidth: float) -> dict[str, VariantResult]:
    """Results by name of the variant.

    Args:
        bandwidth: bytes per second.
    """
    weight_bytes = sum(parameter.numel() * parameter.element_size() for parameter in model.trunk.parameters())
    results = {}
    for name, variant in variants.items():
        ratios = _ratios(variants[BASELINE].seconds, variant.seconds)
        headway: dict[str, Any] = {}
        if variant.stats:
            stats, seconds = DecodeStats.merge(variant.stats), statistics.median(variant.seconds)
            split = {step: stats.seconds.get(step, 0.0) for step in STEPS}
            headway = {
                "tokens_per_second": stats.tokens / seconds,
                "tokens_per_forward": stats.tokens_per_forward,
                "acceptance": stats.acceptance,
                "split": {step: value / sum(split.values()) for step, value in split.items()},
                "of_bandwidth": stats.num_steps * weight_bytes / bandwidth / seconds,
            }
        results[name] = VariantResult(
            seconds=variant.seconds,
            ratio=statistics.median(ratios),
            ratio_min=min(ratios),
            ratio_max=max(ratios),
            over_own_plain=statistics.median(_ratios(variants[AUTOREGRESSIVE].seconds, variant.seconds)),
            peak_mib=variant.peak,
            identical=variant.identical,
            **headway,
        )
    return results


def _ratios(baseline: Sequence[float], seconds: Sequence[float]) -> list[float]:
    return [base / own for base, own in zip(baseline, seconds, strict=True)]


def _print_speeds(results: Mapping[str, VariantResult], title: str) -> None:
    rows = [
        [
            name,
            f"{result.ratio:.2f}x",
            f"{result.ratio_min:.2f}-{result.ratio_max:.2f}",
            f"{result.over_own_plain:.2f}x",
            f"{result.tokens_per_forward:.2f}" if result.tokens_per_forward is not None else "",
            f"{result.of_bandwidth:.0%}" if result.of_bandwidth is not None else "",
            f"{result.peak_mib:.0f}",
            "yes" if result.identical else "NO",
        ]
        for name, result in results.items()
    ]
    print_table(title, ["variant", "speed", "spread", "vs plain", "tokens per forward", "bw", "MiB", "same"], rows)


def _print_steps(results: Mapping[str, VariantResult]) -> None:
    rows = [
        [
            name,
            *(f"{result.split[step]:.0%}" for step in STEPS),
            " ".join(f"{rate:.0%}" for rate in (result.acceptance or ())[:SHOWN_POSITIONS]),
        ]
        for name, result in results.items()
        if result.split is not None
    ]
    print_table("time by step of Headway's variants", ["variant", *STEPS, "per-position acceptance rate"], rows)


def _plot(batches: Mapping[int, Mapping[str, VariantResult]], path: Path) -> None:
    sizes = list(batches)
    names = list(dict.fromkeys(name for results in batches.values() for name in results))
    figure, axes = labelled_axes("", "speed over transformers' generate", (8, 4))
    width = 0.8 / len(names)
    for index, name in enumerate(names):
        shown = [(column, batches[size][name]) for column, size in enumerate(sizes) if name in batches[size]]
        heights = [result.ratio for _, result in shown]
        spread = [[r.ratio - r.ratio_min for _, r in shown], [r.ratio_max - r.ratio for _, r in shown]]
        colour = ("#7a8595", "#aab3be", "#c9d0d8")[index % 3] if name.startswith("transformers") else None
        positions = [column + index * width for column, _ in shown]
        axes.bar(positions, heights, width, yerr=spread, label=name, capsize=2, color=colour)
    axes.axhline(1, color="#555", lw=1, ls="--")
    axes.set_xticks([column + 0.4 - width / 2 for column in range(len(sizes))], [f"batch {size}" for size in sizes])
    axes.legend(frameon=False, fontsize=8, ncols=2)
    write_text(path, figure_to_svg(figure))
