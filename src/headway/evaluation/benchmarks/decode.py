"""`headway bench decode`: every way to decode the same prompts, side by side in one run, with the same output demanded of all.

Ways take turns batch by batch, so that what disturbs the machine disturbs all of them. Ratios are paired by repeat.
"""

import statistics
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from matplotlib import pyplot
from rich import box
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import Tensor
from transformers import CompileConfig

from headway.data import load_examples
from headway.decoding import DecodeStats, assistant_drafter, fallback_drafter, heads_drafter, ngram_drafter
from headway.errors import DataError
from headway.evaluation.benchmarks.timing import peak_memory, wait
from headway.evaluation.benchmarks.transformers_mtp import decoding_with, native_heads
from headway.evaluation.configs import DecodeBenchConfig
from headway.evaluation.tasks.exact_match import left_padded
from headway.files import write_json, write_text
from headway.heads import SequentialHeads
from headway.model import HeadwayModel, load_model_and_tokenizer, load_trunk
from headway.reports.plots import figure_to_svg
from headway.trunk.roofline import memory_bandwidth

BASE = "transformers"
OWN = "plain"
STEPS = ("prefill", "draft", "verify", "accept")
SHOWN = 6  # positions of drafts
STREAMED = 2**29  # bytes whose reading shows the bandwidth: more than the caches hold


@dataclass
class Way:
    """How to decode a batch: gives the sequences (rows, width + new), and Headway's figures where it has any."""

    decode: Callable[[Tensor, Tensor], tuple[Tensor, DecodeStats | None]]
    one_row: bool = False
    seconds: list[float] = field(default_factory=list)  # by repeat
    peak: float = 0.0  # MiB above what was in use before
    stats: list[DecodeStats] = field(default_factory=list)  # of the last repeat
    identical: bool = True


def run(config: DecodeBenchConfig) -> dict[str, Any]:
    """Measure, print a table for each batch size, and write JSON and a plot beside it if asked.

    Raises: CheckpointError, DataError, ConfigError as what it loads.
    """
    torch.set_num_threads(config.threads)
    model, tokenizer = load_model_and_tokenizer(config.model, dtype=config.dtype)
    prompts = _prompts(config, tokenizer)
    console = Console()
    bandwidth = memory_bandwidth(model.device, torch.float32, STREAMED)
    results: dict[str, Any] = {
        "settings": asdict(config) | {"output_file": str(config.output_file)},
        "threads": config.threads,
        "dtype": str(model.trunk.dtype),
        "bandwidth_gb_per_second": bandwidth / 1e9,
        "batches": {},
    }
    for batch in config.batches:
        found = _measure(config, model, prompts, batch)
        results["batches"][str(batch)] = figures = _figures(found, model, bandwidth)
        console.print(_table(figures, f"batch {batch}: {len(prompts)} prompts, {config.threads} thread(s), {results['dtype']}"))
        console.print(_split_table(figures))
        for name, way in figures.items():
            if not way["identical"]:
                console.print(f"[yellow]{name} wrote other tokens than plain decoding.[/yellow]")
    console.print(
        f"speed: over transformers' plain generate, median and spread of {config.repeats} repeats. bw: time that reading all "
        "weights once a pass takes at the least, of the time taken. MiB: memory above the weights. same: the output."
    )
    if config.output_file is not None:
        write_json(config.output_file, results)
        plot = config.output_file.with_suffix(".svg")
        _plot(results, plot)
        console.print(f"Figures: {config.output_file}   Plot: {plot}")
    return results


def _prompts(config: DecodeBenchConfig, tokenizer: Any) -> list[list[int]]:
    examples = load_examples(config.data, "test", None)
    texts = [e.get("prompt") or e.get("text", "") for e in examples]
    encoded = [tokenizer(text, verbose=False)["input_ids"][: config.prompt_tokens] for text in texts[: 4 * config.prompts]]
    found = [ids for ids in encoded if len(ids) > 1][: config.prompts]
    if len(found) < max(config.batches):
        raise DataError(f"{config.data} has {len(found)} prompts, fewer than a batch of {max(config.batches)}.")
    return found


def ways(config: DecodeBenchConfig, model: HeadwayModel) -> dict[str, Way]:
    """By name, those that this model has."""
    length = {"max_new_tokens": config.max_new_tokens, "eos_token_id": None, "do_sample": False}
    trunk: Any = model.trunk

    def own(**how: Any) -> Way:
        def decode(ids: Tensor, mask: Tensor) -> tuple[Tensor, DecodeStats | None]:
            out = model.generate(ids, attention_mask=mask, **length, **how)
            return out.sequences, out.stats

        return Way(decode)

    def theirs(one_row: bool = False, **how: Any) -> Way:
        def decode(ids: Tensor, mask: Tensor) -> tuple[Tensor, DecodeStats | None]:
            return trunk.generate(ids, attention_mask=mask, **length, **how), None

        return Way(decode, one_row)

    found = {BASE: theirs(), OWN: own(plain=True)}
    if model.heads is not None:
        found |= {"heads": own(), "heads, chain": own(drafter=heads_drafter("chain"))}
        found["n-grams, else heads"] = own(drafter=fallback_drafter(ngram_drafter(shortest=2), heads_drafter("chain")))
    found["n-grams"] = own(drafter=ngram_drafter())
    if config.compile:
        found["plain, compiled"] = own(plain=True, compile=True)
        if model.heads is not None:
            found["heads, compiled"] = own(compile=True)
        found["n-grams, compiled"] = own(drafter=ngram_drafter(), compile=True)
        compiled: Any = CompileConfig()
        compiled._compile_all_devices = True  # else on GPUs alone
        found["transformers compiled"] = theirs(cache_implementation="static", compile_config=compiled)
    if isinstance(model.heads, SequentialHeads):
        native = native_heads(model)

        def use_mtp(ids: Tensor, mask: Tensor) -> tuple[Tensor, None]:
            with decoding_with(native, model):
                return trunk.generate(ids, attention_mask=mask, use_mtp=True, **length), None

        found["transformers use_mtp"] = Way(use_mtp, one_row=True)
    found["transformers look-up"] = theirs(one_row=True, prompt_lookup_num_tokens=8)
    if config.assistant is not None:
        assistant = load_trunk(config.assistant, trunk.dtype).to(trunk.device).eval()
        found["assistant"] = own(drafter=assistant_drafter(assistant))
        found["transformers assistant"] = theirs(one_row=True, assistant_model=assistant)
    return found


def _measure(config: DecodeBenchConfig, model: HeadwayModel, prompts: list[list[int]], batch: int) -> dict[str, Way]:
    found = {name: way for name, way in ways(config, model).items() if batch == 1 or not way.one_row}
    groups = [left_padded(prompts[start : start + batch], model.device) for start in range(0, len(prompts) - batch + 1, batch)]
    # the first round warms up, the last one measures memory: watching that takes time
    for repeat in track(range(config.repeats + 2), f"batch {batch}", transient=True):
        timed = 0 < repeat <= config.repeats
        outs: dict[str, list[tuple[Tensor, DecodeStats | None]]] = {name: [] for name in found}
        seconds = dict.fromkeys(found, 0.0)
        for turn, group in enumerate(groups, repeat):
            order = list(found.items())
            for name, way in order[turn % len(order) :] + order[: turn % len(order)]:
                with torch.inference_mode(), nullcontext([0.0]) if timed else peak_memory(model.device) as peak:
                    began = time.perf_counter()
                    outs[name].append(way.decode(*group))
                    wait(model.device)
                    seconds[name] += time.perf_counter() - began
                way.peak = max(way.peak, peak[0]) if repeat else 0.0
        for name, way in found.items():
            if timed:
                way.seconds.append(seconds[name])
                way.stats = [stats for _, stats in outs[name] if stats is not None]
            way.identical &= all(torch.equal(mine, own) for (mine, _), (own, _) in zip(outs[name], outs[OWN], strict=True))
    return found


def _figures(found: dict[str, Way], model: HeadwayModel, bandwidth: float) -> dict[str, Any]:
    weights = sum(p.numel() * p.element_size() for p in model.trunk.parameters())
    figures: dict[str, Any] = {}
    for name, way in found.items():
        ratios = [base / own for base, own in zip(found[BASE].seconds, way.seconds, strict=True)]
        figures[name] = {
            "seconds": way.seconds,
            "ratio": statistics.median(ratios),
            "ratio_min": min(ratios),
            "ratio_max": max(ratios),
            "over_own_plain": statistics.median(o / s for o, s in zip(found[OWN].seconds, way.seconds, strict=True)),
            "peak_mib": way.peak,
            "identical": way.identical,
        }
        if way.stats:
            stats = DecodeStats.together(way.stats)
            split = {step: stats.seconds.get(step, 0.0) for step in STEPS}
            figures[name] |= {
                "tokens_per_second": stats.tokens / statistics.median(way.seconds),
                "tokens_per_forward": stats.tokens_per_forward,
                "acceptance": list(stats.acceptance),
                "split": {step: value / sum(split.values()) for step, value in split.items()},
                # the time that reading all weights once a forward takes at the least, as a share of the time taken
                "of_bandwidth": stats.batches * weights / bandwidth / statistics.median(way.seconds),
            }
    return figures


def _table(figures: dict[str, Any], title: str) -> Table:
    table = Table(title=title, box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    for name in ("way", "speed", "spread", "vs plain", "tok/pass", "bw", "MiB", "same"):
        table.add_column(name, justify="left" if name in ("way", "spread") else "right", no_wrap=True)
    for name, f in figures.items():
        table.add_row(
            name,
            f"{f['ratio']:.2f}x",
            f"{f['ratio_min']:.2f}-{f['ratio_max']:.2f}",
            f"{f['over_own_plain']:.2f}x",
            f"{f['tokens_per_forward']:.2f}" if "tokens_per_forward" in f else "",
            f"{f['of_bandwidth']:.0%}" if "of_bandwidth" in f else "",
            f"{f['peak_mib']:.0f}",
            "yes" if f["identical"] else "NO",
        )
    return table


def _split_table(figures: dict[str, Any]) -> Table:
    table = Table(title="where Headway's time goes", box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    table.add_column("way", no_wrap=True)
    for step in STEPS:
        table.add_column(step, justify="right", no_wrap=True)
    table.add_column("kept, by position of the draft", no_wrap=True)
    for name, f in figures.items():
        if "split" in f:
            kept = " ".join(f"{share:.0%}" for share in f["acceptance"][:SHOWN])
            table.add_row(name, *(f"{f['split'][step]:.0%}" for step in STEPS), kept)
    return table


def _plot(results: dict[str, Any], path: Path) -> None:
    batches = list(results["batches"])
    names = list(dict.fromkeys(name for figures in results["batches"].values() for name in figures))
    figure, axes = pyplot.subplots(figsize=(8, 4), layout="constrained")
    width = 0.8 / len(names)
    for place, name in enumerate(names):
        shown = [(b, results["batches"][key][name]) for b, key in enumerate(batches) if name in results["batches"][key]]
        heights = [f["ratio"] for _, f in shown]
        spread = [[f["ratio"] - f["ratio_min"] for _, f in shown], [f["ratio_max"] - f["ratio"] for _, f in shown]]
        colour = ("#7a8595", "#aab3be", "#c9d0d8")[place % 3] if name.startswith("transformers") else None
        axes.bar([b + place * width for b, _ in shown], heights, width, yerr=spread, label=name, capsize=2, color=colour)
    axes.axhline(1, color="#555", lw=1, ls="--")
    axes.set_xticks([b + 0.4 - width / 2 for b in range(len(batches))], [f"batch {key}" for key in batches])
    axes.set_ylabel("speed over transformers' plain generate")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8, ncols=2)
    write_text(path, figure_to_svg(figure))
