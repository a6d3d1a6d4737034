"""Hydra heads against the formula of the paper, written out."""

import pytest
import torch
from safetensors.torch import load_file
from torch.nn import functional as F

from headway import HeadwayModel
from tests.references import check_head_losses, perturbed_heads
from tests.tiny import tiny_trunk


@pytest.mark.parametrize("layers", [1, 3])
def test_loss_and_gradients_equal_the_papers_formula(layers):
    model, ids, hidden, embedded = perturbed_heads("hydra", layers=layers)
    heads = model.heads
    logits = []
    for k in range(3):
        seen = [hidden, *(torch.roll(embedded, -(j + 1), dims=1) for j in range(k + 1))]
        first, *others = heads.blocks[k]
        x = torch.cat(seen, dim=-1)
        x = x @ first.input_projection.weight.T + F.silu(x @ first.linear.weight.T + first.linear.bias)
        for block in others:
            x = x + F.silu(x @ block.linear.weight.T + block.linear.bias)
        logits.append(x @ heads.unembedding.weights[k].T)
    check_head_losses(model, ids, logits)


def test_a_prefix_is_one_layer_of_the_trunk_over_its_last_hidden_states():
    model, ids, hidden, embedded = perturbed_heads("hydra", count=1, prefix=True, tied=True)
    heads = model.heads
    rotary = model.trunk.model.rotary_emb(hidden, torch.arange(15)[None])
    lowest = torch.finfo(torch.float32).min
    mask = torch.full((15, 15), lowest).triu(1)[None, None].expand(2, -1, -1, -1)
    layer = heads.prefix["layer"]
    prefixed = heads.prefix["norm"](layer(hidden, attention_mask=mask, position_embeddings=rotary))
    x = torch.cat([prefixed, torch.roll(embedded, -1, dims=1)], dim=-1)
    block = heads.blocks[0][0]
    x = x @ block.input_projection.weight.T + F.silu(x @ block.linear.weight.T + block.linear.bias)
    check_head_losses(model, ids, [model.unembedding.logits(x)])


def test_untrained_heads_predict_as_the_trunk():
    model = HeadwayModel.from_trunk(tiny_trunk(), family="hydra", count=2)
    ids = torch.tensor([[5, 9, 23, 4, 17, 8]])
    own, *heads = (u.logits(s) for u, s in zip(model.unembeddings, model(ids).hidden_states, strict=True))
    for head in heads:
        torch.testing.assert_close(head, own)


def test_names_on_disk_are_those_of_earlier_checkpoints(tmp_path):
    model = HeadwayModel.from_trunk(tiny_trunk(), family="hydra", count=2)
    model.heads.save_pretrained(tmp_path)
    names = set(load_file(tmp_path / "headway.safetensors"))
    assert "blocks.0.0.through.weight" in names and not any("input_projection" in name for name in names)
