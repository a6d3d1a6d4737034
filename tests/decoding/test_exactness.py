"""Whether a trunk can be decoded exactly is asked once, and the answer kept: it must not depend on when."""

import torch

from headway import HeadwayModel
from headway.decoding.exactness import exactness_issue
from tests.tiny import tiny_trunk


def test_a_trunk_that_is_asked_while_it_trains_decodes_with_drafts_later() -> None:
    trunk = tiny_trunk("gpt2", resid_pdrop=0.5, embd_pdrop=0.5)
    trunk.train()
    assert exactness_issue(trunk) is None
    assert trunk.training and trunk.transformer.drop.training
    out = HeadwayModel.from_trunk(trunk, count=2).eval().generate(torch.tensor([[5, 6, 7]]), max_new_tokens=12, adaptive=False)
    assert out.stats.num_draft_tokens
