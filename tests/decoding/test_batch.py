"""A sequence gains the tokens up to its end and no more, and the batch reads and writes the columns of each row."""

import pytest
import torch

from headway.decoding.batch import DecodingBatch, SequenceState
from headway.decoding.stopping import FinishReason, StoppingCriteria


def sequence(tokens, limit=20, eos=(2,), **how):
    return SequenceState(list(tokens), 2, limit, None, StoppingCriteria(eos), **how)


@pytest.mark.parametrize(
    ("new", "limit", "tokens", "reason"),
    [
        ([7, 8], 20, [7, 8], None),
        ([7, 2, 8], 20, [7, 2], FinishReason.STOP),
        ([7, 8], 4, [7, 8], FinishReason.LENGTH),
        ([7, 2], 4, [7, 2], FinishReason.STOP),
    ],
)
def test_tokens_are_committed_up_to_the_end(new, limit, tokens, reason):
    row = sequence([5, 6], limit)
    assert row.commit(new) == len(tokens) and row.new_tokens == tokens and row.finish_reason == reason


def test_cancelled_and_failed_sequences_gain_nothing():
    cancelled, failed = sequence([5, 6]), sequence([5, 6])
    cancelled.cancel()
    failed.fail(RuntimeError("first"))
    failed.fail(RuntimeError("second"))
    assert cancelled.commit([7]) == failed.commit([7]) == 0 and str(failed.error) == "first"
    assert (cancelled.finish_reason, failed.finish_reason) == (FinishReason.CANCELLED, FinishReason.ERROR)


def test_a_sequence_cancelled_before_delivery_drops_the_tokens_of_the_step():
    heard = []
    row = sequence([5, 6], on_tokens=heard.extend, logprobs=[-1.0, -2.0, -3.0])
    row.commit([7, 8, 9])
    row.deliver(1)
    row.cancel()
    row.deliver(2)
    assert heard == [9] and row.new_tokens == [7] and row.logprobs == [-1.0]


def test_drafts_follow_the_committed_tokens_of_each_row():
    batch = DecodingBatch(torch.zeros(3, 8, dtype=torch.long), [sequence([5, 6]), sequence([5, 6, 7])])
    batch.set_draft_tokens(torch.tensor([[11, 12], [13, 14]]))
    batch.set_draft_tokens(torch.tensor([[15], [16]]), 1)
    assert batch.draft_tokens(2).tolist() == [[11, 15], [13, 16]] and batch.lengths == [2, 3]
    assert batch.tokens_at(torch.tensor([[2, -1], [3, 99]])).tolist() == [[11, 0], [13, 0]]
    batch.rows[0].commit([11])
    assert batch.ends.tolist() == [[3], [3]]
