"""How much faster the heads make decoding: the same prompts, model and machine, in turns, and the same output."""

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from headway.decoding import DecodeStats, Generation, heads_drafter
from headway.evaluation.tasks.exact_match import left_padded
from headway.model import HeadwayModel


@dataclass(frozen=True)
class Speed:
    """Ratios are of whole calls, with heads over plain, one a repeat; seconds depend on the machine, ratios less so.

    Timed decoding verifies as many drafts as pay here. The other figures are of the heads alone: tokens a forward and acceptance
    with one draft a head a round (`chain`), tokens a forward with the largest trees that they propose (`tree`).
    """

    ratios: list[float]
    tokens_per_second: float  # with heads, median
    plain_tokens_per_second: float
    tokens_per_forward: float  # as timed
    chain: float
    tree: float
    acceptance: list[float]
    identical: bool  # whether all wrote the same tokens
    threads: int
    batch: int

    @property
    def ratio(self) -> float:
        return statistics.median(self.ratios)


def speed(
    model: HeadwayModel, prompts: Sequence[Sequence[int]], max_new_tokens: int = 64, repeats: int = 3, batch: int = 1
) -> Speed:
    """Decode all prompts plainly and with the heads, in turns, `repeats` times after one warm-up."""
    groups = [left_padded(prompts[start : start + batch], model.device) for start in range(0, len(prompts), batch)]

    def decode(group: tuple[Tensor, Tensor], **how: Any) -> Generation:
        return model.generate(group[0], attention_mask=group[1], max_new_tokens=max_new_tokens, do_sample=False, **how)

    chains = [decode(group, drafter=heads_drafter("chain"), adaptive=False) for group in groups]
    trees = [decode(group, adaptive=False) for group in groups]
    rounds = interleaved(decode, groups, {"heads": {}, "plain": {"plain": True}}, repeats)
    outs = [trees, *(each for found in rounds for each in found.values())]
    identical = all(torch.equal(a.sequences, b.sequences) for each in outs for a, b in zip(each, chains, strict=True))
    timed = [{name: together(each) for name, each in found.items()} for found in rounds[1:]]
    chained = together(chains)
    return Speed(
        [found["heads"].tokens_per_second / found["plain"].tokens_per_second for found in timed],
        statistics.median(found["heads"].tokens_per_second for found in timed),
        statistics.median(found["plain"].tokens_per_second for found in timed),
        timed[-1]["heads"].tokens_per_forward,
        chained.tokens_per_forward,
        together(trees).tokens_per_forward,
        list(chained.acceptance),
        identical,
        torch.get_num_threads(),
        batch,
    )


def interleaved(
    decode: Callable[..., Generation],
    groups: Sequence[tuple[Tensor, Tensor]],
    ways: Mapping[str, dict[str, Any]],
    repeats: int,
) -> list[dict[str, list[Generation]]]:
    """Every way to decode every group, one after the other, so that what disturbs the machine disturbs all of them.

    Args:
        decode: called with a group and what `ways` says beside it.
    Returns: by repeat and way, what came of each group. The first repeat is one more: it warms up, and learns what pays.
    """
    found: list[dict[str, list[Generation]]] = []
    for repeat in range(repeats + 1):
        found.append({name: [] for name in ways})
        for turn, group in enumerate(groups, repeat):
            first = turn % len(ways)
            for name in [*ways][first:] + [*ways][:first]:
                found[-1][name].append(decode(group, **ways[name]))
    return found


def together(outs: Sequence[Generation]) -> DecodeStats:
    """Several calls as one."""
    return DecodeStats.together([out.stats for out in outs])
