"""Cache entries of chained heads come from committed tokens alone."""

import pytest
import torch

from headway import HeadwayModel
from headway.decoding.drafters.chained import ChainedDrafter
from tests.references import padded
from tests.tiny import tiny_trunk

PROMPTS = [[5, 9, 23, 4, 40, 8], [7, 31, 8], [12]]


def test_rejected_drafts_leave_no_trace_in_the_cache_of_chained_heads():
    """A draft equals the draft of a new decoding from the same prefix."""
    model = HeadwayModel.from_trunk(tiny_trunk(), family="sequential", count=3)
    drafted = {}

    def record(self, batch, count):
        found = plain(self, batch, count)
        for r, row in enumerate(batch.rows):
            end = len(row.tokens)
            drafted[tuple(row.tokens)] = batch.tokens[r, end : end + count].tolist()
        return found

    plain = ChainedDrafter.draft
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ChainedDrafter, "draft", record)
        ids, mask = padded(PROMPTS)
        model.generate(ids, attention_mask=mask, max_new_tokens=20, eos_token_id=None, adaptive=False)
        long = dict(drafted)
        drafted.clear()
        for prefix in list(long)[::4]:
            if len(long[prefix]) == 3:
                model.generate(torch.tensor([prefix[:-1]]), max_new_tokens=6, eos_token_id=None, adaptive=False)
                assert drafted[prefix] == long[prefix]
