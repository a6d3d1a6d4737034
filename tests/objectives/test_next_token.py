"""The next-token loss is that of transformers."""

import torch

from headway import HeadwayModel
from headway.objectives import NextToken
from tests.objectives.test_multi_token import batch_of, random_rows
from tests.tiny import tiny_trunk


def test_next_token_loss_equals_transformers():
    model = HeadwayModel.from_trunk(tiny_trunk(), count=2)
    batch = batch_of(random_rows(2, 20))
    expected = model.trunk(input_ids=batch["input_ids"], labels=batch["labels"]).loss
    torch.testing.assert_close(NextToken().loss(model, batch, 0.0).total, expected, rtol=1e-5, atol=1e-6)
