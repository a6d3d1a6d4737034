"""The trunk as it was teaches: against both distributions written out, with a copy and with adapters switched off."""

import copy
import json
from pathlib import Path

import pytest
import torch
from peft import LoraConfig
from peft.tuners.lora import LoraModel
from torch.nn import functional as F

from headway import HeadwayModel
from headway.errors import ConfigError
from headway.objectives import MultiToken, SelfDistillation
from headway.training import finetune
from headway.training.configs import FinetuneConfig
from tests.objectives.test_multi_token import batch_of, random_rows
from tests.tiny import FAMILIES, tiny_trunk
from tests.training.recipes import save_data, save_model


def moved(model):
    """Parameters that learn, each a little away from where it was."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter), alpha=0.02)


@pytest.mark.parametrize(("family", "options"), FAMILIES)
def test_loss_equals_kl_divergences_from_the_original_written_out(family, options):
    model = HeadwayModel.from_trunk(tiny_trunk(), family=family, count=2, **options)
    original = copy.deepcopy(model.trunk)
    moved(model)
    batch = batch_of(random_rows(2, 14))
    batch["labels"][0, :4] = -100
    found = SelfDistillation(original, MultiToken(head_weights="medusa", total_weight=0.5)).loss(model, batch, 0.0).total
    theirs = F.log_softmax(original(input_ids=batch["input_ids"]).logits, -1)
    states, total = model(batch["input_ids"]).hidden_states, 0.0
    for k, state in enumerate(states):
        ours = F.log_softmax(model.unembeddings[k].logits(state), -1)
        for row in range(2):
            for at in range(14 - k - 1):
                if (batch["labels"][row, at + 1 : at + k + 2] != -100).all():  # -100 between is a border that no head looks across
                    kl = F.kl_div(ours[row, at], theirs[row, at + k], log_target=True, reduction="sum")
                    total = total + (1.0 if k == 0 else 0.5 * 0.8**k) * kl
    torch.testing.assert_close(found, total / 23, rtol=1e-4, atol=1e-6)
    found.backward()
    assert all(parameter.grad is None for parameter in original.parameters())
    assert any(parameter.grad is not None and parameter.grad.any() for parameter in model.trunk.parameters())


def test_adapters_switched_off_teach_what_a_copy_teaches_and_are_on_again_afterwards():
    model = HeadwayModel.from_trunk(tiny_trunk(), count=2)
    original = copy.deepcopy(model.trunk)
    adapters = LoraModel(model.trunk, LoraConfig(r=2, target_modules="all-linear", lora_dropout=0.5), "default")
    moved(model)
    model.train()
    batch = batch_of(random_rows(2, 14))
    losses, states = [], []
    for teacher in (original, adapters):
        torch.manual_seed(0)  # of dropout
        losses.append(SelfDistillation(teacher, MultiToken()).loss(model, batch, 0.0).total)
        torch.manual_seed(0)
        states.append(model(batch["input_ids"]).hidden_states[0])
    torch.testing.assert_close(losses[0], losses[1])
    assert torch.equal(states[0], states[1]) and model.trunk.training and losses[0] > 0.01
    losses[1].backward()
    learns = [parameter for name, parameter in model.trunk.named_parameters() if "lora_B" in name]
    assert learns and all(parameter.requires_grad and parameter.grad.any() for parameter in learns)


@pytest.mark.slow
@pytest.mark.parametrize("lora", [False, True])
def test_at_first_the_trunk_has_nothing_to_learn_and_a_resumed_run_has_the_same_teacher(tmp_path: Path, lora: bool) -> None:
    model, data = str(save_model(tmp_path / "model")), str(save_data(tmp_path / "data.jsonl"))
    settings = {"model": model, "data": data, "output_dir": tmp_path / "out", "lora": lora, "family": "parallel", "max_length": 48}
    settings |= {"objective": "distillation", "teacher": "frozen", "batch_size": 4, "learning_rate": 1e-2, "quiet": True}
    config = FinetuneConfig(max_steps=6, save_steps=3, log_steps=1, **settings)
    finetune(config)
    history = json.loads((tmp_path / "out" / "history.json").read_text())
    losses = [entry["loss_1"] for entry in history if "loss_1" in entry]
    assert abs(losses[0]) < 1e-5 and losses[-1] > 1e-3  # what the heads want moves it
    before = (tmp_path / "out" / "model.safetensors").read_bytes()
    (tmp_path / "out" / "checkpoint-6" / "whole.json").unlink()
    finetune(config)  # from step 3
    assert (tmp_path / "out" / "model.safetensors").read_bytes() == before


def test_a_teacher_without_a_pupil_is_refused() -> None:
    for settings in ({}, {"objective": "distillation", "freeze_trunk": True}):
        with pytest.raises(ConfigError, match="teacher: frozen needs objective: distillation"):
            FinetuneConfig(model="embedded", data="stdlib", output_dir=Path("x"), teacher="frozen", **settings)
