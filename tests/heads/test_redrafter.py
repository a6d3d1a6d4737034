"""The recurrent drafter against the formula of the paper, written out."""

import torch
from torch.nn import functional as F

from headway import HeadwayModel
from tests.references import check_head_losses, perturbed_heads
from tests.tiny import tiny_trunk


def test_loss_and_gradients_equal_the_papers_formula():
    model, ids, hidden, embedded = perturbed_heads("redrafter", layers=2)
    heads = model.heads
    state, logits = torch.zeros_like(hidden), []
    for k in range(3):
        e = torch.roll(embedded, -(k + 1), dims=1)
        state = F.silu(state @ heads.from_state.weight.T + heads.from_state.bias + e @ heads.from_token.weight.T)
        x = torch.cat([hidden, state], dim=-1) @ heads.project.weight.T
        for block in heads.blocks:
            x = x + F.silu(x @ block.linear.weight.T + block.linear.bias)
        logits.append(x @ heads.unembedding.weights[0].T)
    check_head_losses(model, ids, logits)


def test_the_number_of_heads_does_not_change_the_number_of_parameters():
    two, five = (HeadwayModel.from_trunk(tiny_trunk(), family="redrafter", count=count).heads for count in (2, 5))
    assert {name: p.shape for name, p in two.named_parameters()} == {name: p.shape for name, p in five.named_parameters()}
