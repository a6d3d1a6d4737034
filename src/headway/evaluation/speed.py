"""How much faster the heads make decoding: the same prompts, model and machine, in turns, and the same output."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from headway.decoding import DecodeStats, Generation, heads_drafter
from headway.evaluation.exact_match import left_padded
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
    identical, rounds = all(torch.equal(a.sequences, b.sequences) for a, b in zip(chains, trees, strict=True)), []
    for repeat in range(repeats + 1):
        outs: dict[bool, list[Generation]] = {True: [], False: []}
        for group, chain in zip(groups, chains, strict=True):
            for plain in (True, False) if repeat % 2 else (False, True):
                outs[plain].append(decode(group, plain=plain))
                identical &= torch.equal(outs[plain][-1].sequences, chain.sequences)
        rounds.append({plain: _together(out) for plain, out in outs.items()})
    del rounds[0]  # it warmed up, and learnt what pays
    chained = _together(chains)
    return Speed(
        [found[False].tokens_per_second / found[True].tokens_per_second for found in rounds],
        statistics.median(found[False].tokens_per_second for found in rounds),
        statistics.median(found[True].tokens_per_second for found in rounds),
        rounds[-1][False].tokens_per_forward,
        chained.tokens_per_forward,
        _together(trees).tokens_per_forward,
        list(chained.acceptance),
        identical,
        torch.get_num_threads(),
        batch,
    )


def _together(outs: Sequence[Generation]) -> DecodeStats:
    return DecodeStats.together([out.stats for out in outs])
