"""Decoding speed of the heads beside autoregressive decoding: same prompts, model and machine, interleaved, with equal output."""

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from headway.decoding import DecodeStats, Generation, heads_drafter
from headway.decoding.padding import left_block
from headway.evaluation.configs import EvalConfig
from headway.model import HeadwayModel


@dataclass(frozen=True)
class SpeedResult:
    """Speed with heads over autoregressive decoding, and acceptance of the drafts.

    Seconds depend on the machine, ratios less. Timed decoding is adaptive: the number of drafts is the fastest here. The fields
    `chain`, `tree` and `acceptance` are properties of the heads alone.
    """

    ratios: list[float]  # tokens per second with heads over autoregressive decoding, by repeat
    ratio: float  # median of the ratios
    ratio_min: float
    ratio_max: float
    tokens_per_second: float  # with heads, median over repeats
    plain_tokens_per_second: float  # autoregressive, median over repeats
    tokens_per_forward: float  # adaptive, as timed
    chain: float  # tokens per forward with one draft from each head
    tree: float  # tokens per forward with the largest trees that the heads propose
    acceptance: list[float]  # per-position acceptance rate of the chain
    identical: bool  # True if all variants generated the same tokens
    threads: int
    batch: int


def measure_speed(
    model: HeadwayModel, prompts: Sequence[Sequence[int]], max_new_tokens: int = 64, repeats: int = 3, batch: int = 1
) -> SpeedResult:
    """Decode all prompts with and without heads, interleaved, `repeats` times after a warm-up."""
    groups = [left_block(prompts[start : start + batch], 0, model.device) for start in range(0, len(prompts), batch)]

    def decode(group: tuple[Tensor, Tensor], **arguments: Any) -> Generation:
        return model.generate(group[0], attention_mask=group[1], **greedy(max_new_tokens), **arguments)

    chains = [decode(group, drafter=heads_drafter("chain"), adaptive=False) for group in groups]
    trees = [decode(group, adaptive=False) for group in groups]
    rounds = interleaved(decode, groups, {"heads": {}, "autoregressive": {"speculative": False}}, repeats)
    outputs = [trees, *(generations for outs in rounds for generations in outs.values())]
    identical = all(same_sequences(generations, chains) for generations in outputs)
    timed = [{name: merged_stats(generations) for name, generations in outs.items()} for outs in rounds[1:]]
    chain_stats = merged_stats(chains)
    return SpeedResult(
        **spread([stats["heads"].tokens_per_second / stats["autoregressive"].tokens_per_second for stats in timed]),
        tokens_per_second=statistics.median(stats["heads"].tokens_per_second for stats in timed),
        plain_tokens_per_second=statistics.median(stats["autoregressive"].tokens_per_second for stats in timed),
        tokens_per_forward=timed[-1]["heads"].tokens_per_forward,
        chain=chain_stats.tokens_per_forward,
        tree=merged_stats(trees).tokens_per_forward,
        acceptance=list(chain_stats.acceptance),
        identical=identical,
        threads=torch.get_num_threads(),
        batch=batch,
    )


def greedy(max_new_tokens: int) -> dict[str, Any]:
    """Arguments of `generate` for timing: greedy, without stop strings of the generation config."""
    return {"max_new_tokens": max_new_tokens, "do_sample": False, "stop_strings": None}


def timed_prompts(prompts: Sequence[Sequence[int]], config: EvalConfig) -> list[Sequence[int]]:
    """The prompts to time: the first `speed_prompts` that are not empty, none without `speed`."""
    return [prompt for prompt in prompts if prompt][: config.speed_prompts if config.speed else 0]


def interleaved(
    decode: Callable[..., Generation],
    groups: Sequence[tuple[Tensor, Tensor]],
    variants: Mapping[str, dict[str, Any]],
    repeats: int,
) -> list[dict[str, list[Generation]]]:
    """Decode all groups with all variants in turn. A disturbance of the machine then affects all variants alike.

    Args:
        decode: called with a group and the arguments of the variant.
        groups: token ids and attention mask by batch.
        variants: arguments of `decode` by name.
        repeats: timed repeats.
    Returns: the outputs of the groups, by repeat and variant. Repeat 0 is an extra warm-up that learns draft lengths.
    """
    rounds: list[dict[str, list[Generation]]] = []
    for repeat in range(repeats + 1):
        rounds.append({name: [] for name in variants})
        for turn, group in enumerate(groups, repeat):
            first = turn % len(variants)
            for name in [*variants][first:] + [*variants][:first]:
                rounds[-1][name].append(decode(group, **variants[name]))
    return rounds


def merged_stats(outputs: Sequence[Generation]) -> DecodeStats:
    """Sum of the statistics of several calls."""
    return DecodeStats.merge([output.stats for output in outputs])


def same_sequences(outputs: Sequence[Generation], others: Sequence[Generation]) -> bool:
    """True if both lists hold the same tokens."""
    return all(torch.equal(a.sequences, b.sequences) for a, b in zip(outputs, others, strict=True))


def spread(ratios: list[float]) -> dict[str, Any]:
    """The fields `ratios`, `ratio` (their median), `ratio_min` and `ratio_max` of a result."""
    return {"ratios": ratios, "ratio": statistics.median(ratios), "ratio_min": min(ratios), "ratio_max": max(ratios)}
