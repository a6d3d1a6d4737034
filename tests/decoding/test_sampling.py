"""Sampled output has the trunk's own distribution: every sequence of a 5-token vocabulary enumerated, drawn, and compared."""

import itertools

import pytest
import torch
from scipy import stats
from transformers import MinPLogitsWarper, TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

from headway import HeadwayModel
from tests.tiny import tiny_trunk

LENGTH, DRAWS = 3, 6000
CASES = [
    {"temperature": 0.7, "top_k": 0},
    {"temperature": 1.5, "top_k": 3},
    {"top_p": 0.8, "top_k": 0},
    {"temperature": 1.3, "top_k": 4, "top_p": 0.9},
    {"min_p": 0.2, "top_k": 0},
]


def enumerated(trunk, prompt, case, length=LENGTH):
    """Probability of every sequence, from plain passes and transformers' own warpers."""
    warpers = []
    if "temperature" in case:
        warpers.append(TemperatureLogitsWarper(case["temperature"]))
    if case.get("top_k"):
        warpers.append(TopKLogitsWarper(case["top_k"]))
    if "top_p" in case:
        warpers.append(TopPLogitsWarper(case["top_p"]))
    if "min_p" in case:
        warpers.append(MinPLogitsWarper(case["min_p"]))
    sequences = list(itertools.product(range(5), repeat=length))
    ids = torch.tensor([[*prompt, *sequence] for sequence in sequences])
    chances = torch.ones(len(sequences), dtype=torch.float64)
    with torch.no_grad():
        logits = trunk(ids, attention_mask=torch.ones_like(ids)).logits.float()
    for column in range(len(prompt), ids.shape[1]):
        scores = logits[:, column - 1]
        for warper in warpers:
            scores = warper(ids[:, :column], scores)
        chances *= scores.softmax(-1).gather(1, ids[:, column, None])[:, 0]
    found = dict(zip(sequences, chances.tolist(), strict=True))
    assert abs(sum(found.values()) - 1) < 1e-4
    return found


def check_drawn(drawn, chances):
    """Chi-square of drawn sequences against the probability of each."""
    draws = len(drawn)
    counts = dict.fromkeys(chances, 0)
    for sequence in drawn:
        counts[tuple(sequence)] += 1
    assert all(counts[sequence] == 0 for sequence, chance in chances.items() if chance == 0)
    # cells that expect fewer than 5 draws are one cell, as the test needs
    common = [s for s, chance in chances.items() if chance * draws >= 5]
    expected = [chances[s] * draws for s in common]
    observed = [counts[s] for s in common]
    if (rest := draws - sum(expected)) > 5:
        expected.append(rest)
        observed.append(draws - sum(observed))
    else:
        observed[0] += draws - sum(observed)
    scale = draws / sum(expected)
    assert stats.chisquare(observed, [e * scale for e in expected]).pvalue > 1e-4


@pytest.mark.parametrize("family", ["parallel", "sequential"])
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("prompts", [[[1, 3]], [[1, 3], [2], [4, 0, 1, 1]]])
def test_drawn_sequences_follow_the_enumerated_distribution(family, case, prompts):
    trunk = tiny_trunk(vocab_size=5, bos_token_id=None, eos_token_id=None, pad_token_id=0)
    model = HeadwayModel.from_trunk(trunk, family=family, count=2)
    width = max(map(len, prompts))
    ids = torch.tensor([[0] * (width - len(p)) + p for p in prompts]).repeat(DRAWS, 1)
    mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts]).repeat(DRAWS, 1)
    out = model.generate(ids, attention_mask=mask, do_sample=True, max_new_tokens=LENGTH, seed=7, eos_token_id=None, **case)
    assert sum(out.stats.accepted) > 0 and out.stats.accepted != out.stats.reached  # both outcomes of the rule happened
    drawn = out.sequences[:, width:].view(DRAWS, len(prompts), LENGTH)
    for row, prompt in enumerate(prompts):
        check_drawn(drawn[:, row].tolist(), enumerated(trunk, prompt, case))


def test_the_same_seed_draws_the_same_and_leaves_the_global_one_alone():
    model = HeadwayModel.from_trunk(tiny_trunk(), count=2)
    ids = torch.tensor([[5, 9, 23]])
    before = torch.get_rng_state()
    first, second, other = (model.generate(ids, do_sample=True, max_new_tokens=20, seed=s).sequences for s in (1, 1, 2))
    assert torch.equal(first, second) and not torch.equal(first, other)
    assert torch.equal(before, torch.get_rng_state())
