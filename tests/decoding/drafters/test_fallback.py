"""Sequences without drafts of the first drafter get drafts of the second, and the text is the trunk's own."""

import pytest
import torch

from headway import HeadwayModel
from headway.decoding import fallback_drafter, heads_drafter, ngram_drafter
from headway.decoding.drafters.fallback import FallbackDrafter
from headway.errors import ConfigError
from tests.references import check_batch_invariance, check_greedy
from tests.tiny import tiny_trunk

ROWS = [[5, 9, 23, 4, 40, 8], [7, 31, 8, 7, 31], [12]]
BOTH = fallback_drafter(ngram_drafter(depth=6, shortest=2), heads_drafter("chain"))


@pytest.fixture(scope="module")
def model():
    return HeadwayModel.from_trunk(tiny_trunk(), count=2).eval()


def test_output_is_batch_invariant_and_equals_the_trunks(model):
    check_greedy(model, ROWS, BOTH, max_new_tokens=30, eos_token_id=None)
    check_batch_invariance(model, ROWS, [9, 30, 17], BOTH)


def test_sequences_without_a_match_get_drafts_of_the_heads(model, monkeypatch):
    seen = []
    plain = FallbackDrafter.draft

    def record(self, batch, count):
        found = plain(self, batch, count)
        first = [self.first.indexes[r].continuation(row.tokens, count) for r, row in enumerate(batch.rows)]
        drafts = batch.draft_tokens(count).tolist()
        for r, row in enumerate(batch.rows):
            seen.append((list(row.tokens), first[r], drafts[r][: found.lengths[r]], row.max_accepted))
        return found

    monkeypatch.setattr(FallbackDrafter, "draft", record)
    width = max(map(len, ROWS))
    ids = torch.tensor([[0] * (width - len(row)) + row for row in ROWS])
    mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in ROWS])
    model.generate(ids, attention_mask=mask, max_new_tokens=24, eos_token_id=None, drafter=BOTH, adaptive=False)
    assert {bool(first) for _, first, _, _ in seen} == {True, False}
    for tokens, first, drafts, max_accepted in seen:
        if first and max_accepted > 0:
            assert drafts == first[: len(drafts)] and drafts
        elif max_accepted > 1:
            with torch.no_grad():
                states = model(torch.tensor([tokens[:-1]])).hidden_states[1:]
            assert drafts == [int(model.view.unembedding.logits(state[0, -1]).argmax()) for state in states][: len(drafts)]


def test_drafters_of_trees_are_refused(model):
    with pytest.raises(ConfigError, match="chains"):
        model.generate(torch.tensor([[5, 6]]), drafter=fallback_drafter(ngram_drafter(), heads_drafter()), max_new_tokens=4)
