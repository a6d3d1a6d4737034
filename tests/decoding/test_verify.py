"""Verification from fixed logits: paths, bonus tokens, log-probabilities and the inputs of the forward."""

import pytest
import torch
from transformers import GenerationConfig

from headway.decoding.batch import DecodingBatch, SequenceState
from headway.decoding.drafters.base import Draft
from headway.decoding.sampler import Sampler
from headway.decoding.stopping import StoppingCriteria
from headway.decoding.verify import RULES, TREE_RULES, accept, acceptance_rules, append_bonus_token, token_logprobs
from headway.decoding.verify_inputs import accepted_positions, build_verify_inputs, chain_inputs
from headway.errors import ConfigError
from headway.trunk import TrunkView
from tests.tiny import tiny_trunk

GREEDY = Sampler(GenerationConfig(), torch.device("cpu"))


def batch_of(*prompts, sampler=GREEDY, limit=20):
    rows = [SequenceState(list(p), len(p), limit, sampler, StoppingCriteria([])) for p in prompts]
    tokens = torch.zeros(len(rows), 24, dtype=torch.long)
    for r, prompt in enumerate(prompts):
        tokens[r, : len(prompt)] = torch.tensor(prompt)
    return DecodingBatch(tokens, rows)


def logits_for(choices, vocabulary=10):
    """Logits (rows, n, vocab) with these argmax tokens."""
    return 5 * torch.nn.functional.one_hot(torch.tensor(choices), vocabulary).float()


def test_a_chain_is_accepted_up_to_the_first_token_the_trunk_does_not_choose():
    batch = batch_of([1, 2], [3])
    batch.set_draft_tokens(torch.tensor([[4, 5, 6], [7, 8, 9]]))
    inputs = chain_inputs(batch, [3, 2])
    assert inputs.positions.tolist() == [[1, 2, 3, 4], [0, 1, 2, -1]] and inputs.kv_length == 5
    logits = logits_for([[4, 5, 1, 1], [7, 8, 3, 9]])
    path = accept(batch, logits, Draft([], [3, 2]), inputs)
    assert accepted_positions(path, inputs).tolist() == [[1, 2, 3, -1], [0, 1, 2, -1]]
    expected = logits.log_softmax(-1).max(-1).values
    logprobs = token_logprobs(batch, logits, path, inputs)
    assert append_bonus_token(batch, path, inputs) == [([4, 5, 1], [1, 2]), ([7, 8, 3], [1, 2])]
    assert [len(row) for row in logprobs] == [3, 3] and logprobs[0] == pytest.approx(expected[0, :3].tolist(), abs=1e-5)


def test_a_tree_is_followed_along_the_tokens_of_the_trunk():
    batch = batch_of([1, 2])
    parents = torch.tensor([[0, 0, 2, 3]])
    batch.set_draft_tokens(torch.tensor([[4, 5, 6, 7]]))
    inputs = build_verify_inputs(TrunkView(tiny_trunk()), batch, Draft([], parents=parents), 4)
    logits = logits_for([[5, 1, 6, 8, 1]])
    path = accept(batch, logits, Draft([], parents=parents), inputs)
    assert path.nodes[0, :2].tolist() == [2, 3] and path.num_accepted.tolist() == [2] and path.bonus_token.tolist() == [8]
    expected = logits.log_softmax(-1)[0, [0, 2, 3], [5, 6, 8]]
    assert token_logprobs(batch, logits, path, inputs)[0] == pytest.approx(expected.tolist(), abs=1e-5)


def test_without_drafts_the_argmax_is_the_bonus_token():
    batch = batch_of([1, 2], [3])
    inputs = chain_inputs(batch, [0, 0])
    path = accept(batch, logits_for([[4], [9]]), None, inputs)
    assert append_bonus_token(batch, path, inputs) == [([4], []), ([9], [])]
    assert batch.tokens[0, 2] == 4 and batch.tokens[1, 1] == 9 and inputs.contiguous_start is None


def test_rules_have_names_and_unknown_names_are_refused():
    for name in RULES:
        assert acceptance_rules(name) == (RULES[name], TREE_RULES.get(name))
    with pytest.raises(ConfigError, match="no acceptance rule 'blok'; there are: coupled, token"):
        acceptance_rules("blok")
