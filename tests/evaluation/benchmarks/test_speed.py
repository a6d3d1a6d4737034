"""The speed measurement reports the statistics of its decoding, and interleaves the variants. No test reads the clock."""

import statistics
from typing import Any

import torch

from headway import HeadwayModel
from headway.decoding import DecodeStats, heads_drafter
from headway.evaluation.benchmarks.speed import interleaved, measure_speed
from tests.tiny import tiny_trunk


def test_acceptance_and_tokens_per_forward_are_those_of_the_chain():
    model = HeadwayModel.from_trunk(tiny_trunk(), count=3).eval()
    result = measure_speed(model, [[5, 9, 23], [7, 31], [12]], max_new_tokens=8, repeats=2, batch=2)
    assert result.identical and len(result.ratios) == 2 and len(result.acceptance) == 3
    assert (result.ratio, result.ratio_min, result.ratio_max) == (
        statistics.median(result.ratios),
        min(result.ratios),
        max(result.ratios),
    )
    chain = [
        model.generate(
            torch.tensor(ids), attention_mask=torch.tensor(mask), drafter=heads_drafter("chain"), adaptive=False, max_new_tokens=8
        ).stats
        for ids, mask in [([[5, 9, 23], [0, 7, 31]], [[1, 1, 1], [0, 1, 1]]), ([[12]], [[1]])]
    ]
    stats = DecodeStats.merge(chain)
    assert result.acceptance == list(stats.acceptance) and result.chain == stats.tokens_per_forward


def test_variants_are_interleaved_and_each_goes_first_as_often() -> None:
    calls: list[tuple[str, str]] = []

    def decode(group: Any, name: str) -> Any:
        calls.append((group, name))

    groups: Any = ["one", "two"]
    rounds = interleaved(decode, groups, {"a": {"name": "a"}, "b": {"name": "b"}}, repeats=1)
    assert calls == [
        *[("one", n) for n in "ab"],
        *[("two", n) for n in "ba"],
        *[("one", n) for n in "ba"],
        *[("two", n) for n in "ab"],
    ]
    assert len(rounds) == 2 and all(len(outs) == 2 for variants in rounds for outs in variants.values())
