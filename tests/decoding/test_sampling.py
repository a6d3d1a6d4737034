"""Sampled output has the trunk's own distribution: every sequence of a 5-token vocabulary enumerated, drawn, and compared."""

import pytest
import torch

from headway import HeadwayModel
from headway.decoding import fallback_drafter, heads_drafter, ngram_drafter
from headway.errors import ConfigError
from tests.references import check_drawn, enumerated
from tests.tiny import tiny_trunk

LENGTH, DRAWS = 3, 6000
CASES = [
    {"temperature": 0.7, "top_k": 0},
    {"temperature": 1.5, "top_k": 3},
    {"top_p": 0.8, "top_k": 0},
    {"temperature": 1.3, "top_k": 4, "top_p": 0.9},
    {"min_p": 0.2, "top_k": 0},
]


FULL = {"drafter": heads_drafter("dynamic")}  # of 5 tokens each is in the tree
BOTH = {"drafter": fallback_drafter(ngram_drafter(shortest=2), heads_drafter("chain"))}
WAYS = [
    ("parallel", FULL),
    ("parallel", {"drafter": heads_drafter([(0,), (1,), (0, 0), (1, 1)])}),
    ("parallel", {"acceptance": "block"}),
    ("sequential", FULL),
    ("sequential", {"drafter": heads_drafter("chain")}),
    ("sequential", {"acceptance": "token"}),
    ("parallel", BOTH),
    ("parallel", BOTH | {"acceptance": "token"}),
    ("medusa", FULL),
    ("hydra", FULL),
    ("hydra", {"acceptance": "block"}),
    ("redrafter", FULL),
    ("eagle", FULL),
    ("eagle3", {"acceptance": "block"}),
    ("gated-lora", FULL),
    ("gated-lora", {"acceptance": "block"}),
    ("parallel", {"speculative": False}),
]


ALONE, RAGGED = [[1, 3]], [[1, 3], [2], [4, 0, 1, 1]]
EVERY = [(*way, case, prompts) for way in WAYS for case in CASES for prompts in (ALONE, RAGGED)]
# what is accepted does not depend on the family that drafted: two of them in every case, the others in one
FIRST = ("parallel", "sequential")
ENOUGH = [
    each for each in EVERY if each[2:] == (CASES[3], RAGGED) or (each[0] in FIRST and (each[3] is RAGGED or each[2] is CASES[3]))
]


@pytest.mark.slow
@pytest.mark.parametrize(("family", "way", "case", "prompts"), ENOUGH)
def test_drawn_sequences_follow_the_enumerated_distribution(family, way, case, prompts):
    trunk = tiny_trunk(vocab_size=5, bos_token_id=None, eos_token_id=None, pad_token_id=0)
    model = HeadwayModel.from_trunk(trunk, family=family, count=2)
    width = max(map(len, prompts))
    ids = torch.tensor([[0] * (width - len(p)) + p for p in prompts]).repeat(DRAWS, 1)
    mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts]).repeat(DRAWS, 1)
    sampling = {"do_sample": True, "max_new_tokens": LENGTH, "seed": 7, "eos_token_id": None, "adaptive": False}
    out = model.generate(ids, attention_mask=mask, **sampling, **case, **way)
    if way.get("speculative", True):
        assert sum(out.stats.num_accepted_tokens_per_pos) > 0
    if way.get("speculative", True) and way is not FULL:
        assert out.stats.num_accepted_tokens_per_pos != out.stats.num_drafts_per_pos  # both outcomes of the rule happened
    drawn = out.sequences[:, width:].view(DRAWS, len(prompts), LENGTH)
    for row, prompt in enumerate(prompts):
        check_drawn(drawn[:, row].tolist(), enumerated(trunk, prompt, case))


@pytest.mark.slow
@pytest.mark.parametrize("family", ["parallel", "sequential", "medusa", "hydra", "eagle", "eagle3", "gated-lora"])
def test_a_seed_decides_the_text_whatever_drafts_and_whatever_the_company(family):
    """The same tokens plainly, with trees, chains and as many drafts as pay, and for each row in other places of a batch."""
    model = HeadwayModel.from_trunk(tiny_trunk(), family=family, count=3)
    ids = torch.tensor([[5, 9, 23], [7, 31, 8], [40, 2, 2]])
    sampling = {"do_sample": True, "max_new_tokens": 20, "seed": 3, "temperature": 1.2, "eos_token_id": None}
    plain = model.generate(ids, speculative=False, **sampling)
    assert len(set(map(tuple, plain.sequences[:, 3:].tolist()))) == 3
    for way in ({}, {"adaptive": False}, {"drafter": heads_drafter("chain")}, {"repetition_penalty": 1.0001}):
        assert torch.equal(model.generate(ids, **sampling, **way).sequences, plain.sequences)
    assert torch.equal(model.generate(ids[:1], **sampling).sequences, plain.sequences[:1])


def test_an_unknown_rule_is_refused():
    model = HeadwayModel.from_trunk(tiny_trunk(), count=1)
    with pytest.raises(ConfigError, match="no acceptance rule 'blok'; there are: coupled, token, block, multi-candidate, typical"):
        model.generate(torch.tensor([[5]]), do_sample=True, acceptance="blok")


def test_typical_acceptance_is_not_exact():
    """What follows the drafts is the likeliest token, never drawn: so is the first one, before there are any."""
    model = HeadwayModel.from_trunk(tiny_trunk(vocab_size=5, eos_token_id=None), count=2)
    ids = torch.tensor([[1, 3]]).repeat(200, 1)
    sampling = {"do_sample": True, "max_new_tokens": 4, "seed": 3, "eos_token_id": None, "adaptive": False}
    first = {rule: model.generate(ids, acceptance=rule, **sampling).sequences[:, 2].unique() for rule in ("token", "typical")}
    assert len(first["token"]) > 1 and first["typical"].tolist() == [int(model.trunk(ids[:1]).logits[0, -1].argmax())]


def test_the_same_seed_draws_the_same_and_leaves_the_global_one_alone():
    model = HeadwayModel.from_trunk(tiny_trunk(), count=2)
    ids = torch.tensor([[5, 9, 23]])
    before = torch.get_rng_state()
    first, second, other = (model.generate(ids, do_sample=True, max_new_tokens=20, seed=s).sequences for s in (1, 1, 2))
    assert torch.equal(first, second) and not torch.equal(first, other)
    assert torch.equal(before, torch.get_rng_state())
