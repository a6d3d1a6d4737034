"""Medusa heads against the formula of the paper, written out."""

import torch
from torch.nn import functional as F

from headway import HeadwayModel
from headway.objectives import MultiToken
from tests.tiny import tiny_trunk


def shaken(family, count=3, **options):
    """Heads that are no longer as they start, on a frozen trunk, and some text."""
    model = HeadwayModel.from_trunk(tiny_trunk(), family=family, count=count, **options)
    model.trunk.requires_grad_(False)
    g = torch.Generator().manual_seed(1)
    for parameter in model.heads.parameters():
        parameter.data += 0.1 * torch.randn(parameter.shape, generator=g)
    ids = torch.randint(3, 60, (2, 15), generator=g)
    hidden = model.trunk.model(input_ids=ids).last_hidden_state
    return model, ids, hidden, model.trunk.get_input_embeddings()(ids)


def check_losses(model, ids, logits):
    """`logits`: of each head at each position; the weights are Medusa's, 0.8^k."""
    batch = {"input_ids": ids, "labels": ids}
    loss = MultiToken(head_weights="medusa", next_token=False).loss(model, batch, 0.0)
    expected, items = 0.0, ids.shape[0] * (ids.shape[1] - 1)
    for k, each in enumerate(logits):
        summed = F.cross_entropy(each[:, : -(k + 2)].flatten(0, 1), ids[:, k + 2 :].flatten(), reduction="sum")
        expected = expected + 0.8 ** (k + 1) * summed / items
    torch.testing.assert_close(loss.total, expected, rtol=1e-5, atol=1e-6)
    parameters = list(model.heads.parameters())
    ours, theirs = (torch.autograd.grad(each, parameters) for each in (loss.total, expected))
    for mine, plain in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, plain, rtol=1e-4, atol=1e-6)


def test_loss_and_gradients_are_those_of_the_paper():
    model, ids, hidden, _ = shaken("medusa", layers=2)
    heads = model.heads
    logits = []
    for k in range(3):
        x = hidden
        for block in heads.blocks[k]:
            x = x + F.silu(x @ block.linear.weight.T + block.linear.bias)
        logits.append(x @ heads.unembedding.weights[k].T)
    check_losses(model, ids, logits)


def test_fresh_heads_say_what_the_trunk_says():
    model = HeadwayModel.from_trunk(tiny_trunk("gpt2"), family="medusa", count=2)
    ids = torch.tensor([[5, 9, 23, 4, 17, 8]])
    own, *heads = (u.logits(s) for u, s in zip(model.unembeddings, model(ids).hidden_states, strict=True))
    assert all(torch.equal(head, own) for head in heads)
