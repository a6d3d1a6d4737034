"""How a model's heads draft: one draft a head, trees of a given size, as many drafts as pay; each against plain decoding."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from headway.decoding import Generation, RaggedKVCache, heads_drafter, limit_draft_tokens, proposes_trees
from headway.evaluation.benchmarks.speed import interleaved, together
from headway.evaluation.tasks.exact_match import left_padded
from headway.model import HeadwayModel

PLAIN = "plain"


@dataclass(frozen=True)
class Drafted:
    """One way to decode. Tokens a forward count the trunk's own token of each round: plain decoding has 1."""

    ratios: list[float]  # of tokens a second, over plain decoding, one a repeat
    tokens_per_second: float  # median
    tokens_per_forward: float
    acceptance: list[float]  # by position: of the rounds that reach it, the share in which the draft stayed
    reached: list[int]  # how many those rounds are
    drafts: int  # most of a round
    identical: bool  # whether it wrote the same tokens as plain decoding, in all repeats


def drafting(
    model: HeadwayModel,
    prompts: Sequence[Sequence[int]],
    max_new_tokens: int = 48,
    nodes: int = 24,
    repeats: int = 3,
    temperature: float = 0.0,
    seed: int = 0,
) -> dict[str, Drafted]:
    """Decode prompts, one at a time, `plain`, with as many drafts as pay (`adaptive`), and always with one draft a head (`chain`)
    or with trees of `nodes` drafts (`tree`, where the family drafts trees); in turns, `repeats` times after one warm-up.

    Args:
        temperature: 0 decodes greedily; else tokens are drawn, the same ones in all ways.
    """
    groups = [left_padded([prompt], model.device) for prompt in prompts]
    sampling: dict[str, Any] = {"do_sample": False}
    if temperature:
        sampling = {"do_sample": True, "temperature": temperature, "seed": seed, "top_k": 0}

    def decode(group: tuple[Tensor, Tensor], **how: Any) -> Generation:
        return model.generate(group[0], attention_mask=group[1], max_new_tokens=max_new_tokens, **sampling, **how)

    ways, most = _ways(model, nodes)
    rounds = interleaved(decode, groups, ways, repeats)
    found = {}
    for name in ways:
        identical = all(
            torch.equal(mine.sequences, own.sequences) for outs in rounds for mine, own in zip(outs[name], outs[PLAIN], strict=True)
        )
        timed = [{way: together(outs[way]) for way in (name, PLAIN)} for outs in rounds[1:]]
        last = timed[-1][name]
        found[name] = Drafted(
            [one[name].tokens_per_second / one[PLAIN].tokens_per_second for one in timed],
            statistics.median(one[name].tokens_per_second for one in timed),
            last.tokens_per_forward,
            list(last.acceptance),
            list(last.reached),
            most[name],
            identical,
        )
    return found


def _ways(model: HeadwayModel, nodes: int) -> tuple[dict[str, dict[str, Any]], dict[str, int]]:
    """Arguments of `generate`, and the most drafts of a round, by name of the way."""
    free = heads_drafter()(model, RaggedKVCache(0, 0))
    ways: dict[str, dict[str, Any]] = {PLAIN: {"plain": True}, "adaptive": {}}
    ways["chain"] = {"drafter": heads_drafter("chain"), "adaptive": False}
    most = {PLAIN: 0, "adaptive": free.budgets[-1], "chain": model.count}
    if proposes_trees(free):
        ways["tree"] = {"drafter": limit_draft_tokens(nodes, heads_drafter()), "adaptive": False}
        most["tree"] = min(nodes, free.budgets[-1])
    return ways, most
