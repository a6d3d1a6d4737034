"""Which head learns what, and that nothing leaks between packed documents."""

import pytest
import torch
from torch.nn import functional as F

from headway import HeadwayModel
from headway.errors import ConfigError
from headway.heads import FAMILIES as FAMILY_CLASSES
from headway.objectives import MultiToken
from tests.tiny import ARCHITECTURES, FAMILIES, tiny_trunk


def batch_of(rows, segments=None):
    ids = torch.tensor(rows)
    return {
        "input_ids": ids,
        "labels": ids.clone(),
        **({} if segments is None else {"segments": torch.tensor(segments)}),
    }


def random_rows(batch, length, seed=0):
    return torch.randint(3, 60, (batch, length), generator=torch.Generator().manual_seed(seed)).tolist()


@pytest.mark.parametrize(("family", "options"), FAMILIES)
def test_loss_equals_a_naive_reference_with_full_logits(family, options):
    model = HeadwayModel.from_trunk(tiny_trunk(), family=family, count=3, **options)
    batch = batch_of(random_rows(2, 20))
    loss = MultiToken(head_weights="medusa", total_weight=0.5).loss(model, batch, 0.0)
    states = model(batch["input_ids"]).hidden_states
    items, total = 2 * 19, 0.0
    for k, state in enumerate(states):
        logits = model.unembeddings[k].logits(state)[:, : -(k + 1)]
        summed = F.cross_entropy(logits.flatten(0, 1), batch["labels"][:, k + 1 :].flatten(), reduction="sum")
        total = total + (1.0 if k == 0 else 0.5 * 0.8**k) * summed / items
    assert abs(loss.total.item() - total.item()) < 1e-5 * abs(total.item())


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("family", ["parallel", "sequential", "medusa", "hydra", "eagle", "eagle3", "gated-lora"])
def test_packed_loss_equals_unpacked(architecture, family):
    model = HeadwayModel.from_trunk(tiny_trunk(architecture), family=family, count=2)
    documents = [random_rows(1, n, seed=n)[0] for n in (11, 5, 9)]
    objective = MultiToken(feature_weight=float(FAMILY_CLASSES[family].predicts_hidden_states))
    packed = batch_of([[*documents[0], *documents[1], *documents[2], 0, 0]], [[0] * 11 + [1] * 5 + [2] * 9 + [-1] * 2])
    packed["labels"][0, -2:] = -100
    together = objective.loss(model, packed, 0.0, items=1).total
    apart = sum(objective.loss(model, batch_of([document]), 0.0, items=1).total for document in documents)
    torch.testing.assert_close(together, apart, rtol=2e-5, atol=1e-4)


@pytest.mark.parametrize("family", ["parallel", "sequential", "medusa", "hydra", "eagle", "eagle3", "gated-lora"])
@pytest.mark.parametrize("soft", [False, True])
def test_a_frozen_trunk_gets_no_gradient_and_every_head_does(family, soft):
    model = HeadwayModel.from_trunk(tiny_trunk(), family=family, count=3)
    model.trunk.requires_grad_(False)
    MultiToken(next_token=False, distill=soft).loss(model, batch_of(random_rows(2, 20)), 0.0).total.backward()
    assert all(p.grad is None for p in model.trunk.parameters())
    modules = dict(model.heads.named_children())
    alone = modules.get("layers") or modules.get("blocks") or [model.heads]
    if family == "gated-lora":
        alone = [*model.heads.adapters, model.heads.sampler, *(torch.nn.ParameterList([e]) for e in model.heads.embeddings)]
    for head in alone:
        assert sum(p.grad.abs().sum() for p in head.parameters()) > 0


@pytest.mark.parametrize("family", ["parallel", "medusa", "hydra", "eagle", "eagle3", "gated-lora"])
@pytest.mark.parametrize("soft", [False, True])
def test_heads_with_a_reduced_vocabulary_learn_what_they_can_say(family, soft):
    """sum over known tokens of p log(p(. | known) / q), p being the label or what the trunk says."""
    model = HeadwayModel.from_trunk(tiny_trunk(), family=family, count=2)
    known = torch.tensor([4, 9, 17, 30, 31, 55])
    model.heads.set_draft_vocab(known)
    batch = batch_of(random_rows(2, 20))
    loss = MultiToken(distill=soft).loss(model, batch, 0.0)
    states = model(batch["input_ids"]).hidden_states
    own = model.unembedding.logits(states[0]).log_softmax(-1).detach()
    total = F.nll_loss(own[:, :-1].flatten(0, 1), batch["labels"][:, 1:].flatten(), reduction="sum")
    for k in (1, 2):
        q = model.unembeddings[k].logits(states[k])[:, : -k - 1].log_softmax(-1)[..., known]
        p = own[:, k:-1].exp() if soft else F.one_hot(batch["labels"][:, k + 1 :], 61).float()
        p = p[..., known]
        mass = p.sum(-1, keepdim=True).clamp(min=1e-30)
        total = total + (torch.special.xlogy(p, p / mass) - p * q).sum()
    torch.testing.assert_close(loss.total, total / (2 * 19), rtol=1e-5, atol=1e-5)
    loss.total.backward()
    assert model.trunk.get_input_embeddings().weight.grad.abs().sum() > 0


@pytest.mark.parametrize("family", [name for name, kind in FAMILY_CLASSES.items() if kind.predicts_hidden_states])
def test_features_are_smooth_l1_distances_from_the_trunks_later_states(family):
    """Where the label is learnt, weighted as the head's other loss and divided as it; towards the trunk nothing flows."""
    model = HeadwayModel.from_trunk(tiny_trunk(), family=family, count=2)
    batch = batch_of(random_rows(2, 20), [[0] * 8 + [1] * 12, [0] * 20])
    batch["labels"][1, :6] = -100
    loss = MultiToken("medusa", total_weight=0.5, feature_weight=3.0).loss(model, batch, 0.0)
    plain = MultiToken("medusa", total_weight=0.5).loss(model, batch, 0.0)
    states = [state.detach() for state in model(batch["input_ids"], batch["segments"]).hidden_states]
    expected, distances = 0.0, []
    for k in (1, 2):
        for row, i in ((row, i) for row in (0, 1) for i in range(19 - k)):
            if i >= 5 if row else not i < 8 <= i + k + 1:
                distances.append(F.smooth_l1_loss(states[k][row, i], states[0][row, i + k]))
                expected += 3.0 * 0.5 * 0.8**k * distances[-1]
    items = 7 + 11 + 14
    torch.testing.assert_close(loss.total - plain.total, expected / items, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(loss.metrics["loss_features"], torch.stack(distances).mean())
    only = MultiToken(next_token=False, total_weight=1e-9, feature_weight=1e9).loss(model, batch, 0.0).total
    seen = torch.autograd.grad(only, model.trunk.lm_head.weight, allow_unused=True)[0]
    assert seen is None or seen.abs().max() < 1e-6  # distances are read through no unembedding


def test_features_are_refused_where_states_are_of_another_kind():
    batch = batch_of(random_rows(1, 9))
    for family in ("medusa", "hydra", "eagle3"):
        model = HeadwayModel.from_trunk(tiny_trunk(), family=family, count=1)
        with pytest.raises(ConfigError, match=f"{family} heads predict no hidden states"):
            MultiToken(feature_weight=1.0).loss(model, batch, 0.0)
    with pytest.raises(ConfigError, match="feature_weight cannot be negative"):
        MultiToken(feature_weight=-1.0)


@pytest.mark.slow
@pytest.mark.parametrize("k", [0, 1, 2])
def test_head_learns_the_token_at_its_own_offset_and_no_other(k):
    """The token at i + k + 2 repeats the one at i: with one-token memory (linear heads), only head k can know it."""
    period = k + 2
    torch.manual_seed(k)
    trunk = tiny_trunk(num_hidden_layers=1)
    for parameter in trunk.model.layers.parameters():  # the trunk's state is the token itself, nothing before it
        if parameter.dim() > 1:
            parameter.data.zero_()
    trunk.requires_grad_(False)
    model = HeadwayModel.from_trunk(trunk, family="parallel", count=3, linear=True)
    optimizer = torch.optim.Adam(model.heads.parameters(), lr=0.03)
    for step in range(150):
        seed = torch.randint(3, 60, (16, period), generator=torch.Generator().manual_seed(step))
        rows = seed.repeat(1, 24 // period + 1)[:, :24]
        loss = MultiToken(next_token=False).loss(model, {"input_ids": rows, "labels": rows}, 0.0)
        optimizer.zero_grad()
        loss.total.backward()
        optimizer.step()
    learnt = [loss.metrics[f"loss_{offset}"] < 0.3 for offset in (2, 3, 4)]
    assert learnt == [(head + 2) % period == 0 for head in range(3)], loss.metrics  # offset 4 is two periods of 2


def test_gradient_checkpointing_changes_no_gradient():
    grads = []
    for checkpointing in (False, True):
        model = HeadwayModel.from_trunk(tiny_trunk(), count=2).train()
        if checkpointing:
            model.gradient_checkpointing_enable()
        MultiToken().loss(model, batch_of(random_rows(2, 20)), 0.0).total.backward()
        grads.append([p.grad for p in model.parameters()])
    for plain, checkpointed in zip(*grads, strict=True):
        torch.testing.assert_close(plain, checkpointed)
