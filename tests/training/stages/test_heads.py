"""Heads learn beside a trunk that stays as it is."""

import json
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM

from headway.model import HeadwayModel
from headway.training import train_heads
from headway.training.configs import HeadsTrainConfig
from tests.training.recipes import save_tokenizer, weights

QUICK = {"max_length": 48, "batch_size": 4, "log_steps": 1, "quiet": True, "learning_rate": 1e-2}


def test_the_distance_from_hidden_states_of_the_trunk_falls_and_is_logged(model: str, data: str, out: Path) -> None:
    config = HeadsTrainConfig(
        model=model, data=data, output_dir=out, family="eagle", num_heads=2, feature_weight=10.0, max_steps=12, **QUICK
    )
    train_heads(config)
    history = json.loads((out / "history.json").read_text())
    distances = [entry["loss_features"] for entry in history if "loss_features" in entry]
    assert len(distances) == 12 and distances[-1] < 0.9 * distances[0]


def test_heads_train_leaves_every_bit_of_the_trunk_alone_and_changes_every_head(model: str, data: str, out: Path) -> None:
    config = HeadsTrainConfig(model=model, data=data, output_dir=out, num_heads=2, max_steps=3, **QUICK)
    assert train_heads(config) == out
    before, after = weights(Path(model)), weights(out)
    for name, tensor in before.items():
        assert torch.equal(tensor, after[name]), name
    fresh = HeadwayModel.from_trunk(model, count=2)
    trained = HeadwayModel.from_pretrained(out)
    for (name, old), new in zip(fresh.heads.named_parameters(), trained.heads.parameters(), strict=True):
        assert not torch.equal(old, new), name
    record = json.loads((out / "headway.json").read_text())["training"]
    assert record["objective"] == "multi-token" and record["steps"] == 3 and {"loss_2", "loss_3"} <= set(record["losses"])


def test_a_bfloat16_model_is_trained_in_float32_and_saved_as_it_came(data: str, model: str, tmp_path: Path) -> None:
    trunk = AutoModelForCausalLM.from_pretrained(model, dtype=torch.bfloat16)
    trunk.save_pretrained(tmp_path / "half")
    save_tokenizer(tmp_path / "half")
    out = tmp_path / "out"
    train_heads(HeadsTrainConfig(model=str(tmp_path / "half"), data=data, output_dir=out, max_steps=1, bf16=True, **QUICK))
    before, after = weights(tmp_path / "half"), weights(out)
    assert all(torch.equal(tensor, after[name]) for name, tensor in before.items())
    assert all(tensor.dtype == torch.bfloat16 for tensor in after.values())
