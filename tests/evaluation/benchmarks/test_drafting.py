"""How heads draft, measured: against the same calls by hand, with trees of the size asked for, and the same output in all ways."""

from typing import Any

import pytest
import torch

from headway.decoding import heads_drafter, limit_draft_tokens
from headway.evaluation.benchmarks.drafting import drafting
from headway.evaluation.benchmarks.speed import interleaved, measure_speed
from headway.model import HeadwayModel
from tests.tiny import tiny_trunk

PROMPTS = [[5, 9, 11, 7], [3, 4, 8]]


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("family", ["parallel", "sequential", "hydra"])
def test_every_way_writes_what_plain_decoding_writes(family: str, temperature: float) -> None:
    model = HeadwayModel.from_trunk(tiny_trunk(), family, 3)
    found = drafting(model, PROMPTS, max_new_tokens=12, nodes=7, repeats=1, temperature=temperature, seed=1)
    assert set(found) == {"plain", "adaptive", "chain", "tree"}
    assert all(way.identical for way in found.values())
    assert found["plain"].ratios == [1.0] and found["plain"].tokens_per_forward == 1.0


def test_figures_of_a_chain_are_those_of_the_speed_measurement() -> None:
    model = HeadwayModel.from_trunk(tiny_trunk(), "medusa", 3)
    found, same = drafting(model, PROMPTS, 12, nodes=63, repeats=1), measure_speed(model, PROMPTS, 12, repeats=1)
    assert (found["chain"].tokens_per_forward, found["chain"].acceptance) == (same.chain, same.acceptance)
    assert found["tree"].tokens_per_forward == same.tree and same.identical


@pytest.mark.parametrize("family", ["medusa", "hydra", "sequential"])
@pytest.mark.parametrize("nodes", [2, 6, 24])
def test_a_tree_has_as_many_drafts_as_asked_for_and_no_more(family: str, nodes: int) -> None:
    model = HeadwayModel.from_trunk(tiny_trunk(), family, 3)
    ids = torch.tensor(PROMPTS[:1])
    settings: dict[str, Any] = {"max_new_tokens": 16, "do_sample": False, "adaptive": False, "eos_token_id": None}
    stats = model.generate(ids, drafter=limit_draft_tokens(nodes, heads_drafter()), **settings).stats
    rounds = stats.forwards - 1  # the first one reads the prompt
    assert nodes * (rounds - 3) <= stats.drafted <= nodes * rounds, "the last rounds may have no use for so many"
    assert drafting(model, PROMPTS[:1], 8, nodes, repeats=1)["tree"].drafts == nodes


def test_chains_stay_as_they_are() -> None:
    model = HeadwayModel.from_trunk(tiny_trunk(), "sequential", 3)
    how: dict[str, Any] = {"max_new_tokens": 12, "do_sample": False, "adaptive": False}
    ids, chain = torch.tensor(PROMPTS[:1]), heads_drafter("chain")
    limited, free = (model.generate(ids, drafter=make, **how) for make in (limit_draft_tokens(2, chain), chain))
    assert limited.stats.drafted == free.stats.drafted


def test_output_that_differs_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    model = HeadwayModel.from_trunk(tiny_trunk(), "medusa", 2)
    right = HeadwayModel.generate

    def wrong(self: HeadwayModel, *args: Any, **kwargs: Any) -> Any:
        out = right(self, *args, **kwargs)
        if kwargs.get("adaptive") is False:
            out.sequences[0, -1] += 1
        return out

    monkeypatch.setattr(HeadwayModel, "generate", wrong)
    found = drafting(model, PROMPTS, 4, repeats=1)
    assert {name: way.identical for name, way in found.items()} == {
        "plain": True,
        "adaptive": True,
        "chain": False,
        "tree": False,
    }


def test_ways_take_turns_and_each_goes_first_as_often() -> None:
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
    assert len(rounds) == 2 and all(len(outs) == 2 for found in rounds for outs in found.values())
