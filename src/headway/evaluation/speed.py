"""How much faster the heads make decoding: the same prompts, model and machine, in turns, and the same output."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from headway.decoding import Generation, heads_drafter
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
        rounds.append({plain: Totals.of(out) for plain, out in outs.items()})
    del rounds[0]  # it warmed up, and learnt what pays
    chained = Totals.of(chains)
    return Speed(
        [found[False].tokens_per_second / found[True].tokens_per_second for found in rounds],
        statistics.median(found[False].tokens_per_second for found in rounds),
        statistics.median(found[True].tokens_per_second for found in rounds),
        rounds[-1][False].tokens_per_forward,
        chained.tokens_per_forward,
        Totals.of(trees).tokens_per_forward,
        chained.acceptance,
        identical,
        torch.get_num_threads(),
        batch,
    )


@dataclass(frozen=True)
class Totals:
    """Several calls as one."""

    tokens: int
    forwards: int
    seconds: float
    reached: list[int]
    accepted: list[int]

    @classmethod
    def of(cls, outs: Sequence[Generation]) -> "Totals":
        stats = [out.stats for out in outs]
        return cls(
            sum(s.tokens for s in stats),
            sum(s.forwards for s in stats),
            sum(sum(s.seconds.values()) for s in stats),
            [sum(column) for column in zip(*(s.reached for s in stats), strict=True)],
            [sum(column) for column in zip(*(s.accepted for s in stats), strict=True)],
        )

    @property
    def tokens_per_second(self) -> float:
        return self.tokens / self.seconds

    @property
    def tokens_per_forward(self) -> float:
        return self.tokens / self.forwards

    @property
    def acceptance(self) -> list[float]:
        return [kept / seen if seen else 0.0 for kept, seen in zip(self.accepted, self.reached, strict=True)]
