"""Drafts of parallel heads equal the predictions of the same heads without a cache."""

import pytest
import torch

from headway import HeadwayModel
from headway.decoding import heads_drafter
from headway.decoding.drafters.parallel import ParallelDrafter
from headway.errors import UnsupportedModelError
from tests.references import padded
from tests.tiny import ALL, tiny_trunk

PROMPTS = [[5, 9, 23, 4, 40, 8], [7, 31, 8], [12]]


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ALL)
def test_drafts_from_the_cache_are_the_predictions_for_the_whole_text(architecture):
    try:
        model = HeadwayModel.from_trunk(tiny_trunk(architecture), count=2).eval()
    except UnsupportedModelError as error:
        pytest.skip(str(error))
    for parameter in model.heads.parameters():
        parameter.data += 0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1))
    drafted = []

    def record(self, batch, count):
        found = plain(self, batch, count)
        drafted.extend((list(row.tokens), batch.draft_tokens(count)[r].tolist()) for r, row in enumerate(batch.rows))
        return found

    plain = ParallelDrafter.draft
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ParallelDrafter, "draft", record)
        chain = heads_drafter("chain")
        ids, mask = padded(PROMPTS)
        model.generate(ids, attention_mask=mask, max_new_tokens=20, eos_token_id=None, adaptive=False, drafter=chain)
    assert len(drafted) > 12
    with torch.no_grad():
        for tokens, drafts in drafted[::3]:
            states = model(torch.tensor([tokens[:-1]])).hidden_states[1 : 1 + len(drafts)]
            assert drafts == [int(model.view.unembedding.logits(state[0, -1]).argmax()) for state in states]
