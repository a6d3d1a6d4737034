"""Sampled trees with multi-candidate rejection: the output has the trunk's distribution for every tree, batch and sequence of draft
sizes, and more drafts are accepted than in chains."""

import itertools

import pytest
import torch
from transformers import (
    LogitsProcessorList,
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from headway import HeadwayModel
from headway.decoding import Engine, heads_drafter, ngram_drafter
from headway.decoding.draft_length import DraftLengthController
from headway.decoding.drafters.base import Draft
from headway.decoding.drafters.parallel import ParallelDrafter
from headway.errors import ConfigError
from tests.references import check_drawn, reference, submit
from tests.tiny import tiny_trunk

LENGTH = 4  # the prefill samples the first token, and no draft is the last token: trees are two deep
TREE = [(0,), (1,), (0, 0), (0, 1), (1, 0), (1, 1), (2,)]
TREES = {"fixed": heads_drafter(TREE), "dynamic": heads_drafter()}
PROMPTS = [[1, 3], [2], [4, 0, 1, 1]]
WARPERS = {
    "repetition_penalty": RepetitionPenaltyLogitsProcessor,
    "temperature": TemperatureLogitsWarper,
    "top_k": TopKLogitsWarper,
    "top_p": TopPLogitsWarper,
    "min_p": MinPLogitsWarper,
}
# number of samples, and settings of the distribution; a penalty costs time per sequence
CASES = [
    (2000, {"temperature": 1.0}),
    (2000, {"temperature": 1.5, "top_k": 3}),
    (2000, {"temperature": 0.7, "top_p": 0.8}),
    (2000, {"min_p": 0.2}),
    (800, {"repetition_penalty": 1.8, "temperature": 1.4}),
    (800, {"repetition_penalty": 0.6, "top_k": 4, "top_p": 0.95}),
]


@pytest.fixture(scope="module")
def model() -> HeadwayModel:
    trunk = tiny_trunk(vocab_size=5, bos_token_id=None, eos_token_id=None, pad_token_id=0)
    return HeadwayModel.from_trunk(trunk, count=2).eval()


def enumerated(trunk, prompt, case, length=LENGTH):
    """Probability of every sequence, from plain forwards and transformers' processors in transformers' order."""
    steps = LogitsProcessorList(WARPERS[name](case[name]) for name in WARPERS if name in case)
    sequences = list(itertools.product(range(5), repeat=length))
    ids = torch.tensor([[*prompt, *sequence] for sequence in sequences])
    chances = torch.ones(len(sequences), dtype=torch.float64)
    with torch.no_grad():
        logits = trunk(ids, attention_mask=torch.ones_like(ids)).logits.float()
    for column in range(len(prompt), ids.shape[1]):
        scores = steps(ids[:, :column], logits[:, column - 1].clone())
        chances *= scores.softmax(-1).gather(1, ids[:, column, None])[:, 0]
    return dict(zip(sequences, (chances / chances.sum()).tolist(), strict=True))


def sampled(model, prompts, count, case, **settings):
    """Sampled tokens per prompt, (samples, prompts, tokens), and the statistics."""
    width = max(map(len, prompts))
    ids = torch.tensor([[0] * (width - len(p)) + p for p in prompts]).repeat(count, 1)
    mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts]).repeat(count, 1)
    sampling = {"do_sample": True, "max_new_tokens": LENGTH, "seed": 7, "eos_token_id": None, "top_k": 0, "adaptive": False}
    settings = {"acceptance": "multi-candidate"} | settings
    out = model.generate(ids, attention_mask=mask, **{**sampling, **case, **settings})
    return out.sequences[:, width:].unflatten(0, (count, len(prompts))), out.stats


@pytest.mark.slow
@pytest.mark.parametrize(("draws", "case"), CASES)
@pytest.mark.parametrize("prompts", [PROMPTS[:1], PROMPTS])
def test_sampled_sequences_follow_the_enumerated_distribution(model, prompts, draws, case):
    found, stats = sampled(model, prompts, draws, case, drafter=heads_drafter(TREE))
    assert (
        stats.num_drafts_per_pos[1] > 0
        and 0 < stats.num_accepted_tokens_per_pos[0] < stats.num_drafts_per_pos[0]
        and 0 < stats.num_accepted_tokens_per_pos[1] < stats.num_drafts_per_pos[1]
    )
    for row, prompt in enumerate(prompts):
        check_drawn(found[:, row].tolist(), enumerated(model.trunk, prompt, case))


def test_any_sequence_of_draft_sizes_keeps_the_distribution(model, monkeypatch):
    """Steps without drafts, with chains, with trees, and with trees that hold every token, in turn."""
    draft_sizes = itertools.cycle([1, 7, 0, 2, 11, 63])
    monkeypatch.setattr(DraftLengthController, "choose_draft_length", lambda self, rows, most, *_: min(most, next(draft_sizes)))
    draws, case = [], {"temperature": 1.3}
    for seed in range(6):
        found, stats = sampled(model, PROMPTS[:1], 500, case, adaptive=True, seed=seed)
        draws += found[:, 0].tolist()
        assert stats.tokens == 500 * LENGTH
    check_drawn(draws, enumerated(model.trunk, PROMPTS[0], case))


def test_a_certain_token_is_chosen_whatever_the_candidates(model):
    """The drafter's distribution has a single token, too few to fill a tree."""
    own = reference(model.trunk, [PROMPTS[0]], max_new_tokens=12)[0]
    for drafter in TREES.values():
        found, stats = sampled(model, PROMPTS[:1], 3, {"top_k": 1, "max_new_tokens": 12}, drafter=drafter)
        assert found[:, 0].tolist() == [own] * 3
        assert stats.num_draft_tokens > 0


def test_an_adaptive_engine_drafts_and_keeps_the_distribution(model):
    """The real controller, with many short sequences that join and leave."""
    engine = Engine(model, heads_drafter(), max_batch_size=64)
    common = {"max_new_tokens": LENGTH, "eos_token_id": None, "top_k": 0, "do_sample": True, "acceptance": "multi-candidate"}
    rows = [submit(engine, PROMPTS[0], seed=n, **common) for n in range(1500)]
    engine.run()
    assert engine.stats().num_draft_tokens > 0
    check_drawn([row.new_tokens for row in rows], enumerated(model.trunk, PROMPTS[0], {}))


@pytest.mark.parametrize("rules", [("multi-candidate", "coupled"), ("multi-candidate", "coupled", "token", "block")])
@pytest.mark.parametrize("penalty", [1.0, 1.8])
def test_sequences_with_different_rules_share_a_batch(model, rules, penalty):
    """Greedy and coupled sequences are batch-invariant, and sequences with sampling rules keep the distribution."""
    each, prompt = 500 if penalty == 1.0 else 250, PROMPTS[0]
    engine = Engine(model, heads_drafter(TREE), max_batch_size=4 * each, adaptive=False)
    common = {"max_new_tokens": LENGTH, "eos_token_id": None, "repetition_penalty": penalty, "top_k": 0}
    rows = {
        rule: [submit(engine, prompt, do_sample=True, acceptance=rule, seed=n, **common) for n in range(each)] for rule in rules
    }
    greedy = [submit(engine, prompt, acceptance=rule, do_sample=False, **common) for rule in rules]
    engine.run()
    alone = Engine(model, max_batch_size=each)
    plain = [submit(alone, prompt, do_sample=True, seed=n, **common) for n in range(each)]
    alone.run()
    assert [row.new_tokens for row in rows["coupled"]] == [row.new_tokens for row in plain]
    own = reference(model.trunk, [prompt], max_new_tokens=LENGTH, eos_token_id=None, repetition_penalty=penalty)
    assert [row.new_tokens for row in greedy] == own * len(rules)
    chances = enumerated(model.trunk, prompt, {"repetition_penalty": penalty})
    for rule in rules:
        check_drawn([row.new_tokens for row in rows[rule]], chances)


@pytest.mark.parametrize(
    ("family", "drafter"),
    [
        ("parallel", heads_drafter("chain")),
        ("parallel", ngram_drafter()),
        ("sequential", heads_drafter()),
        ("hydra", heads_drafter()),
        ("eagle3", heads_drafter()),
    ],
)
def test_multi_candidate_rejection_on_chains_is_token_rejection(family, drafter):
    model = HeadwayModel.from_trunk(tiny_trunk(), family=family, count=3)
    ids = torch.tensor([[5, 9, 5], [7, 31, 7], [40, 2, 2]])
    sampling = {"do_sample": True, "max_new_tokens": 20, "seed": 3, "eos_token_id": None, "adaptive": False, "drafter": drafter}
    one, other = (model.generate(ids, acceptance=rule, **sampling) for rule in ("token", "multi-candidate"))
    assert (
        torch.equal(one.sequences, other.sequences)
        and one.stats.num_accepted_tokens_per_pos == other.stats.num_accepted_tokens_per_pos
    )


def test_more_candidates_have_more_drafts_accepted_at_equal_depth(model):
    """At depth 1 a chain has sum(min(p, q)) drafts accepted per step, two candidates more, and three candidates still more."""
    prompts, case = PROMPTS, {"temperature": 1.2}
    chain = sampled(model, prompts, 800, case, drafter=heads_drafter("chain"), acceptance="token")[1]
    trees = [[(0,), (0, 0)], [(0,), (1,), (0, 0), (1, 0)], [(0,), (1,), (2,), (0, 0), (1, 0), (2, 0)]]
    one, two, three = (sampled(model, prompts, 800, case, drafter=heads_drafter(tree))[1] for tree in trees)
    error = (0.25 / chain.num_drafts_per_pos[0]) ** 0.5
    assert abs(one.acceptance[0] - chain.acceptance[0]) < 5 * 2**0.5 * error
    assert chain.acceptance[0] + 5 * error < two.acceptance[0] < three.acceptance[0]
    assert one.tokens_per_forward < two.tokens_per_forward < three.tokens_per_forward


def test_a_seed_repeats_the_samples_and_leaves_the_global_generator_alone():
    model = HeadwayModel.from_trunk(tiny_trunk(), count=2)
    sampling = {"do_sample": True, "max_new_tokens": 20, "acceptance": "multi-candidate", "eos_token_id": None, "adaptive": False}
    before = torch.get_rng_state()
    first, second, other = (model.generate(torch.tensor([[5, 9, 23]]), seed=s, **sampling).sequences for s in (1, 1, 2))
    assert torch.equal(first, second) and not torch.equal(first, other)
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize(
    ("paths", "complaint"),
    [([(0,), (0, 0), (0, 0, 0)], "3 deep, but there are 2 heads"), ([(0,), (5,)], "6 tokens for one position, but .* has 5")],
)
def test_a_tree_that_does_not_fit_the_model_is_refused(model, paths, complaint):
    with pytest.raises(ConfigError, match=complaint):
        sampled(model, PROMPTS, 1, {}, drafter=heads_drafter(paths))


def test_sequences_with_a_tree_that_was_not_sampled_keep_the_distribution(model, monkeypatch):
    """A custom drafter may ignore the rule: its trees are then judged by the tokens that the trunk samples."""

    def picked(self, batch, count):
        batch.set_draft_tokens(torch.tensor([[0, 1, 2, 3, 0, 1]]).expand(len(batch.rows), -1))
        return Draft([], parents=torch.tensor([[0, 0, 0, 1, 1, 2]]).expand(len(batch.rows), -1))

    monkeypatch.setattr(ParallelDrafter, "draft", picked)
    for rule in ("multi-candidate", "token"):
        found, stats = sampled(model, PROMPTS[:1], 1500, {}, acceptance=rule)
        assert 0 < stats.num_accepted_tokens_per_pos[1] < stats.num_drafts_per_pos[1]
        check_drawn(found[:, 0].tolist(), enumerated(model.trunk, PROMPTS[0], {}))
