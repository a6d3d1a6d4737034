"""Decoding with the heads of a model as chains, trees and adaptive drafts, beside autoregressive decoding."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from headway.decoding import Generation, RaggedKVCache, heads_drafter, limit_draft_tokens, proposes_trees
from headway.decoding.drafters.base import build_drafter
from headway.decoding.padding import left_block
from headway.evaluation.benchmarks.speed import greedy, interleaved, merged_stats, same_sequences
from headway.model import HeadwayModel

AUTOREGRESSIVE = "plain"


@dataclass(frozen=True)
class DraftingResult:
    """Speed and acceptance of a decoding variant. Tokens per forward count the bonus token: autoregressive decoding has 1."""

    ratios: list[float]  # tokens per second over autoregressive decoding, by repeat
    tokens_per_second: float  # median over repeats
    tokens_per_forward: float
    acceptance: list[float]  # per-position acceptance rate, of the steps that reach the position
    reached: list[int]  # by position, number of steps that reach it
    drafts: int  # largest number of drafts in a step
    identical: bool  # True if all repeats generated the tokens of autoregressive decoding


def drafting(
    model: HeadwayModel,
    prompts: Sequence[Sequence[int]],
    max_new_tokens: int = 48,
    nodes: int = 24,
    repeats: int = 3,
    temperature: float = 0.0,
    seed: int = 0,
) -> dict[str, DraftingResult]:
    """Decode single prompts with all variants, interleaved, `repeats` times after a warm-up.

    Args:
        nodes: drafts in a tree.
        temperature: 0 decodes greedily. Above 0, tokens are sampled, and all variants sample the same tokens.
        seed: seed of the samples.
    Returns: results by variant: "plain" (autoregressive), "adaptive", "chain" (one draft a head) and, if the family proposes
        trees, "tree".
    """
    groups = [left_block([prompt], 0, model.device) for prompt in prompts]
    sampling = greedy(max_new_tokens)
    if temperature:
        sampling |= {"do_sample": True, "temperature": temperature, "seed": seed, "top_k": 0}

    def decode(group: tuple[Tensor, Tensor], **arguments: Any) -> Generation:
        return model.generate(group[0], attention_mask=group[1], **sampling, **arguments)

    variants, max_drafts = _variants(model, nodes)
    rounds = interleaved(decode, groups, variants, repeats)
    baseline = [merged_stats(outs[AUTOREGRESSIVE]) for outs in rounds[1:]]
    results = {}
    for name in variants:
        timed = [merged_stats(outs[name]) for outs in rounds[1:]]
        results[name] = DraftingResult(
            ratios=[stats.tokens_per_second / base.tokens_per_second for stats, base in zip(timed, baseline, strict=True)],
            tokens_per_second=statistics.median(stats.tokens_per_second for stats in timed),
            tokens_per_forward=timed[-1].tokens_per_forward,
            acceptance=list(timed[-1].acceptance),
            reached=list(timed[-1].num_drafts_per_pos),
            drafts=max_drafts[name],
            identical=all(same_sequences(outs[name], outs[AUTOREGRESSIVE]) for outs in rounds),
        )
    return results


def _variants(model: HeadwayModel, nodes: int) -> tuple[dict[str, dict[str, Any]], dict[str, int]]:
    """By name of the variant, the arguments of `generate` and the largest number of drafts in a step."""
    drafter = build_drafter(heads_drafter(), model, RaggedKVCache(0, 0))
    variants: dict[str, dict[str, Any]] = {AUTOREGRESSIVE: {"speculative": False}, "adaptive": {}}
    variants["chain"] = {"drafter": heads_drafter("chain"), "adaptive": False}
    max_drafts = {AUTOREGRESSIVE: 0, "adaptive": drafter.draft_sizes[-1], "chain": model.count}
    if proposes_trees(drafter):
        variants["tree"] = {"drafter": limit_draft_tokens(nodes, heads_drafter()), "adaptive": False}
        max_drafts["tree"] = min(nodes, drafter.draft_sizes[-1])
    return variants, max_drafts
