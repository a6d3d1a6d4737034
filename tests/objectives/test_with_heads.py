"""Gradients of the trunk with heads beside it, and what heads learn without a gradient into the trunk."""

import copy
from dataclasses import replace

import pytest
import torch
from peft import LoraConfig
from peft.tuners.lora import LoraModel
from torch import nn

from headway import HeadwayModel
from headway.errors import ConfigError
from headway.objectives import MultiToken, NextToken, Registers, SelfDistillation, WithHeads
from headway.objectives.with_heads import constant_parameters
from tests.objectives.test_multi_token import batch_of, random_rows
from tests.tiny import FAMILIES, tiny_trunk

HEADS = MultiToken(next_token=False)


def shaken(model):
    """Heads away from their start, where some of them send no gradient anywhere."""
    with torch.no_grad():
        for parameter in model.heads.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.05)
    return model


def gradients(model, objective, batch, progress=0.5):
    model.zero_grad()
    objective.loss(model, batch, progress).total.backward()
    return {name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None}


def of_trunk(found):
    return {name: gradient for name, gradient in found.items() if name.startswith("trunk.")}


def assert_identical(found, expected):
    assert found.keys() == expected.keys() and expected
    assert all(torch.equal(gradient, expected[name]) for name, gradient in found.items())


def packed():
    batch = batch_of(random_rows(2, 20), [[0] * 9 + [1] * 11, [0] * 15 + [-1] * 5])
    batch["labels"][1, 15:] = -100
    return batch


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize(("family", "options"), FAMILIES)
def test_detached_heads_leave_every_gradient_of_the_trunk_as_it_is_without_heads(family, options, tied):
    trunk = tiny_trunk(tie_word_embeddings=tied)
    batch = packed()
    alone = gradients(HeadwayModel.from_trunk(trunk, count=0), NextToken(), batch)
    model = shaken(HeadwayModel.from_trunk(trunk, family=family, count=2, **options))
    found = gradients(model, WithHeads(NextToken(), HEADS, "detached"), batch)
    assert_identical(of_trunk(found), alone)
    heads = {name for name, parameter in model.named_parameters() if name.startswith("heads.") and found.get(name) is not None}
    assert heads and all(parameter.requires_grad for parameter in model.parameters())
    joint = gradients(model, WithHeads(NextToken(), HEADS, "joint"), batch)
    assert not all(torch.equal(gradient, joint[name]) for name, gradient in alone.items())


@pytest.mark.parametrize("architecture", ["gemma3_text", "gpt2", "mixtral"])
@pytest.mark.parametrize("family", ["sequential", "gated-lora"])
def test_detached_heads_leave_gradients_alone_on_other_trunks(family, architecture):
    trunk, batch = tiny_trunk(architecture), packed()
    alone = gradients(HeadwayModel.from_trunk(trunk, count=0), NextToken(), batch)
    model = shaken(HeadwayModel.from_trunk(trunk, family=family, count=2))
    assert_identical(of_trunk(gradients(model, WithHeads(NextToken(), HEADS), batch)), alone)


@pytest.mark.parametrize("family", ["parallel", "eagle3", "gated-lora"])
def test_detached_heads_leave_gradients_of_adapters_alone(family):
    batch, found = packed(), []
    for heads in (False, True):
        torch.manual_seed(0)
        trunk = tiny_trunk()
        model = shaken(HeadwayModel.from_trunk(trunk, family=family, count=2))
        adapters = LoraModel(trunk, LoraConfig(r=2, target_modules="all-linear", init_lora_weights=False), "default")
        teacher = SelfDistillation(adapters, None)
        objective = WithHeads(teacher, SelfDistillation(adapters, HEADS)) if heads else teacher
        found.append(of_trunk(gradients(model, objective, batch)))
    assert any("lora" in name for name in found[0])
    assert_identical(found[1], found[0])


def test_detached_heads_leave_registers_and_their_embedding_alone():
    batch, found = packed(), []
    trunk = tiny_trunk()
    for heads in (False, True):
        model = HeadwayModel.from_trunk(trunk, family="sequential", count=2)
        registers = Registers(model)
        objective = WithHeads(registers, HEADS) if heads else registers
        found.append({**of_trunk(gradients(model, objective, batch)), "embedding": registers.embedding.grad})
    assert_identical(found[1], found[0])


@pytest.mark.parametrize("distill", [False, True])
@pytest.mark.parametrize(("family", "options"), FAMILIES)
def test_heads_learn_detached_what_they_learn_on_a_frozen_trunk(family, options, distill):
    model = shaken(HeadwayModel.from_trunk(tiny_trunk(), family=family, count=2, **options))
    frozen = copy.deepcopy(model)
    frozen.trunk.requires_grad_(False)
    heads = replace(HEADS, distill=distill)
    expected = gradients(frozen, heads, packed())
    found = gradients(model, WithHeads(NextToken(), heads), packed())
    assert expected
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("family", ["parallel", "medusa", "sequential", "eagle3"])
def test_detached_heads_follow_a_frozen_trunk_as_joint_heads_do(family):
    """The trunk does not move: losses of heads over thirty steps are the same."""
    start = HeadwayModel.from_trunk(tiny_trunk(), family=family, count=2)
    curves = []
    for gradient in ("joint", "detached"):
        model = copy.deepcopy(start)
        model.trunk.requires_grad_(False)
        optimizer = torch.optim.AdamW(model.heads.parameters(), lr=3e-3)
        curve = []
        for step in range(30):
            loss = WithHeads(NextToken(), HEADS, gradient).loss(model, batch_of(random_rows(4, 16, seed=step % 3)), 0.0)
            loss.total.backward()
            optimizer.step()
            optimizer.zero_grad()
            curve.append(float(loss.metrics["loss_2"]))
        curves.append(curve)
    assert curves[0][-1] < curves[0][0] - 0.1
    assert curves[1] == pytest.approx(curves[0], abs=1e-3)


def test_joint_gradients_and_metrics_are_those_of_multi_token_training():
    model = shaken(HeadwayModel.from_trunk(tiny_trunk(), family="sequential", count=2))
    batch, together = packed(), MultiToken("medusa", total_weight=0.5)
    expected = gradients(model, together, batch)
    objective = WithHeads(NextToken(), replace(together, next_token=False), "joint")
    found = gradients(model, objective, batch)
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-4, atol=1e-6)
    loss, other = objective.loss(model, batch, 0.5), together.loss(model, batch, 0.5)
    assert {name: float(mean) for name, mean in loss.metrics.items()} == pytest.approx(
        {name: float(mean) for name, mean in other.metrics.items()}
    )


def test_without_a_gradient_heads_are_not_run():
    model = HeadwayModel.from_trunk(tiny_trunk(), family="sequential", count=2)
    loss = WithHeads(NextToken(), HEADS, None).loss(model, packed(), 0.0)
    assert loss.metrics.keys() == {"loss_1"}
    loss.total.backward()
    assert all(parameter.grad is None for parameter in model.heads.parameters())


def test_the_trunk_runs_once_for_both_objectives(monkeypatch):
    model, runs = HeadwayModel.from_trunk(tiny_trunk(), family="parallel", count=2), []
    monkeypatch.setattr(model.trunk.model, "forward", lambda *a, run=model.trunk.model.forward, **k: runs.append(1) or run(*a, **k))
    for gradient in ("detached", "joint"):
        WithHeads(NextToken(), HEADS, gradient).loss(model, packed(), 0.0).total.backward()
    assert len(runs) == 2


def test_losses_of_heads_are_divided_by_their_own_count():
    class EveryOther(NextToken):
        """Counts half of the labels, as an objective over pairs might."""

        def count(self, batch):
            return super().count(batch) // 2

    model = shaken(HeadwayModel.from_trunk(tiny_trunk(), count=2))
    batch = batch_of(random_rows(2, 21))  # 40 labels
    objective = WithHeads(EveryOther(), HEADS)
    whole, half = (objective.loss(model, batch, 0.0, items=items) for items in (20, 40))
    alone = EveryOther().loss(model, batch, 0.0, items=20).total
    torch.testing.assert_close(whole.total - alone, HEADS.loss(model, batch, 0.0, items=40).total)
    torch.testing.assert_close(half.total * 2, whole.total)


def test_an_unknown_gradient_and_heads_whose_layers_would_learn_again_are_refused():
    with pytest.raises(ConfigError, match="detached, joint or None"):
        WithHeads(NextToken(), HEADS, "frozen")
    model = shaken(HeadwayModel.from_trunk(tiny_trunk(), family="gated-lora", count=1)).train()
    model.gradient_checkpointing_enable()
    with pytest.raises(ConfigError, match="switch gradient_checkpointing off"):
        WithHeads(NextToken(), HEADS).loss(model, packed(), 0.0)
    model = shaken(HeadwayModel.from_trunk(tiny_trunk(), family="sequential", count=1)).train()
    plain = gradients(model, WithHeads(NextToken(), HEADS), packed())
    model.gradient_checkpointing_enable()
    for name, gradient in gradients(model, WithHeads(NextToken(), HEADS), packed()).items():
        torch.testing.assert_close(gradient, plain[name])


def test_parameters_learn_again_after_an_error():
    layer = nn.Linear(2, 2)
    layer.bias.requires_grad_(False)
    with pytest.raises(ValueError, match="stop"), constant_parameters(layer):
        assert not layer.weight.requires_grad
        raise ValueError("stop")
    assert layer.weight.requires_grad and not layer.bias.requires_grad
