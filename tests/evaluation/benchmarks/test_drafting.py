"""Drafting results equal those of the same calls by hand, with trees of the size asked for and equal output."""

from typing import Any

import pytest
import torch

from headway.decoding import heads_drafter, limit_draft_tokens
from headway.evaluation.benchmarks.drafting import drafting
from headway.evaluation.benchmarks.speed import measure_speed
from headway.model import HeadwayModel
from tests.tiny import tiny_trunk

PROMPTS = [[5, 9, 11, 7], [3, 4, 8]]


@pytest.mark.slow
@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("family", ["parallel", "sequential", "hydra"])
def test_every_variant_generates_the_tokens_of_autoregressive_decoding(family: str, temperature: float) -> None:
    model = HeadwayModel.from_trunk(tiny_trunk(), family, 3)
    found = drafting(model, PROMPTS, max_new_tokens=12, nodes=7, repeats=1, temperature=temperature, seed=1)
    assert set(found) == {"plain", "adaptive", "chain", "tree"}
    assert all(result.identical for result in found.values())
    assert found["plain"].ratios == [1.0] and found["plain"].tokens_per_forward == 1.0


def test_a_chain_has_the_statistics_of_the_speed_measurement() -> None:
    model = HeadwayModel.from_trunk(tiny_trunk(), "medusa", 3)
    results, speed = drafting(model, PROMPTS, 12, nodes=63, repeats=1), measure_speed(model, PROMPTS, 12, repeats=1)
    assert (results["chain"].tokens_per_forward, results["chain"].acceptance) == (speed.chain, speed.acceptance)
    assert results["tree"].tokens_per_forward == speed.tree and speed.identical


@pytest.mark.slow
@pytest.mark.parametrize("family", ["medusa", "hydra", "sequential"])
@pytest.mark.parametrize("nodes", [2, 6, 24])
def test_a_tree_has_as_many_drafts_as_asked_for_and_no_more(family: str, nodes: int) -> None:
    model = HeadwayModel.from_trunk(tiny_trunk(), family, 3)
    ids = torch.tensor(PROMPTS[:1])
    settings: dict[str, Any] = {"max_new_tokens": 16, "do_sample": False, "adaptive": False, "eos_token_id": None}
    stats = model.generate(ids, drafter=limit_draft_tokens(nodes, heads_drafter()), **settings).stats
    steps = stats.num_sequence_forwards - 1  # without the prefill
    assert nodes * (steps - 3) <= stats.num_draft_tokens <= nodes * steps, "the last steps may have no use for so many"
    assert drafting(model, PROMPTS[:1], 8, nodes, repeats=1)["tree"].drafts == nodes


def test_a_limit_of_tree_nodes_leaves_chains_unchanged() -> None:
    model = HeadwayModel.from_trunk(tiny_trunk(), "sequential", 3)
    how: dict[str, Any] = {"max_new_tokens": 12, "do_sample": False, "adaptive": False}
    ids, chain = torch.tensor(PROMPTS[:1]), heads_drafter("chain")
    limited, free = (model.generate(ids, drafter=make, **how) for make in (limit_draft_tokens(2, chain), chain))
    assert limited.stats.num_draft_tokens == free.stats.num_draft_tokens


def test_output_that_differs_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    model = HeadwayModel.from_trunk(tiny_trunk(), "medusa", 2)
    generate = HeadwayModel.generate

    def altered(self: HeadwayModel, *args: Any, **kwargs: Any) -> Any:
        out = generate(self, *args, **kwargs)
        if kwargs.get("adaptive") is False:
            out.sequences[0, -1] += 1
        return out

    monkeypatch.setattr(HeadwayModel, "generate", altered)
    found = drafting(model, PROMPTS, 4, repeats=1)
    assert {name: result.identical for name, result in found.items()} == {
        "plain": True,
        "adaptive": True,
        "chain": False,
        "tree": False,
    }
