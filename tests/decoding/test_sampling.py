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


def enumerated(trunk, prompt, case):
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
    found = {}
    with torch.no_grad():
        for sequence in itertools.product(range(5), repeat=LENGTH):
            ids = torch.tensor([[*prompt, *sequence]])
            logits = trunk(ids).logits[0]
            chance = 1.0
            for step, token in enumerate(sequence):
                scores = logits[len(prompt) + step - 1][None].float()
                for warper in warpers:
                    scores = warper(ids, scores)
                chance *= scores.softmax(-1)[0, token].item()
            found[sequence] = chance
    assert abs(sum(found.values()) - 1) < 1e-4
    return found


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
        chances = enumerated(trunk, prompt, case)
        counts = dict.fromkeys(chances, 0)
        for sequence in drawn[:, row].tolist():
            counts[tuple(sequence)] += 1
        assert all(counts[sequence] == 0 for sequence, chance in chances.items() if chance == 0)
        # cells that expect fewer than 5 draws are one cell, as the test needs
        common = [s for s, chance in chances.items() if chance * DRAWS >= 5]
        expected = [chances[s] * DRAWS for s in common]
        observed = [counts[s] for s in common]
        if (rest := DRAWS - sum(expected)) > 5:
            expected.append(rest)
            observed.append(DRAWS - sum(observed))
        else:
            observed[0] += DRAWS - sum(observed)
        scale = DRAWS / sum(expected)
        assert stats.chisquare(observed, [e * scale for e in expected]).pvalue > 1e-4


def test_the_same_seed_draws_the_same_and_leaves_the_global_one_alone():
    model = HeadwayModel.from_trunk(tiny_trunk(), count=2)
    ids = torch.tensor([[5, 9, 23]])
    before = torch.get_rng_state()
    first, second, other = (model.generate(ids, do_sample=True, max_new_tokens=20, seed=s).sequences for s in (1, 1, 2))
    assert torch.equal(first, second) and not torch.equal(first, other)
    assert torch.equal(before, torch.get_rng_state())
