"""Medusa heads against the formula of the paper, written out."""

import torch
from torch.nn import functional as F

from headway import HeadwayModel
from tests.references import check_head_losses, perturbed_heads
from tests.tiny import tiny_trunk


def test_loss_and_gradients_equal_the_papers_formula():
    model, ids, hidden, _ = perturbed_heads("medusa", layers=2)
    heads = model.heads
    logits = []
    for k in range(3):
        x = hidden
        for block in heads.blocks[k]:
            x = x + F.silu(x @ block.linear.weight.T + block.linear.bias)
        logits.append(x @ heads.unembedding.weights[k].T)
    check_head_losses(model, ids, logits)


def test_untrained_heads_predict_as_the_trunk():
    model = HeadwayModel.from_trunk(tiny_trunk("gpt2"), family="medusa", count=2)
    ids = torch.tensor([[5, 9, 23, 4, 17, 8]])
    own, *heads = (u.logits(s) for u, s in zip(model.unembeddings, model(ids).hidden_states, strict=True))
    assert all(torch.equal(head, own) for head in heads)
