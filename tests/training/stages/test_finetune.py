"""What learns, what does not, and what ends up on disk."""

import dataclasses
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from headway.errors import CheckpointError, ConfigError
from headway.model import HeadwayModel, load_tokenizer
from headway.objectives import OBJECTIVES
from headway.training import finetune, pretrain, train_heads
from headway.training.configs import FinetuneConfig, HeadsTrainConfig, PretrainConfig
from headway.training.datasets import build_dataset
from headway.training.loop import run
from headway.training.recipes import for_finetuning
from headway.training.stages.finetune import freeze, load_model
from tests.training.recipes import losses, save_data, save_tokenizer, weights

QUICK = {"max_length": 48, "batch_size": 4, "log_steps": 1, "quiet": True, "learning_rate": 1e-2}


def test_the_distance_from_the_trunks_states_is_learnt_and_in_the_log(model: str, data: str, out: Path) -> None:
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


@pytest.mark.slow
@pytest.mark.parametrize("family", ["parallel", "sequential"])
@pytest.mark.parametrize("objective", ["multi-token", "distillation"])
def test_a_lora_checkpoint_loads_as_a_plain_model_with_the_same_logits(
    model: str, data: str, out: Path, family: str, objective: str
) -> None:
    config = FinetuneConfig(
        model=model, data=data, output_dir=out, family=family, num_heads=1, objective=objective, lora=True, max_steps=3, **QUICK
    )
    finetune(config)
    plain, ours = AutoModelForCausalLM.from_pretrained(out), HeadwayModel.from_pretrained(out)
    assert set(plain.state_dict()) == set(AutoModelForCausalLM.from_pretrained(model).state_dict())
    before = weights(Path(model))
    changed = {name for name, tensor in weights(out).items() if name in before and not torch.equal(tensor, before[name])}
    assert any("q_proj" in name for name in changed)
    assert not any("norm" in name or "embed" in name or "lm_head" in name for name in changed)
    tokens = AutoTokenizer.from_pretrained(out)("one plus two is three", return_tensors="pt")["input_ids"]
    with torch.no_grad():
        torch.testing.assert_close(plain(tokens).logits, ours.unembedding.logits(ours.eval()(tokens).hidden_states[0]))


@pytest.mark.slow
@pytest.mark.parametrize("lora", [False, True])
def test_registers_are_learnt_logged_kept_in_checkpoints_and_absent_from_the_model(
    model: str, data: str, out: Path, lora: bool
) -> None:
    config = FinetuneConfig(
        model=model,
        data=data,
        output_dir=out,
        objective="registers",
        lora=lora,
        max_steps=4,
        save_steps=2,
        validation=data,
        **QUICK,
    )
    finetune(config)
    assert set(weights(out)) == set(weights(Path(model))) and not (out / "headway.json").exists()
    history = json.loads((out / "history.json").read_text())
    assert all({"loss_1", "loss_registers"} <= set(entry) for entry in history if "loss" in entry)
    assert any({"eval_loss_1", "eval_loss_registers"} <= set(entry) for entry in history)
    kept = [load_file(out / f"checkpoint-{step}" / "model.safetensors")["objective.embedding"] for step in (2, 4)]
    assert kept[0].shape == (32,) and not torch.equal(*kept)
    HeadwayModel.from_pretrained(out)


def test_next_token_finetuning_learns_and_does_not_touch_the_heads(model: str, data: str, out: Path, tmp_path: Path) -> None:
    heads = tmp_path / "heads"
    HeadwayModel.from_trunk(model, count=1).heads.save_pretrained(heads)
    config = FinetuneConfig(
        model=model, heads=str(heads), data=data, output_dir=out, objective="next-token", epochs=4, validation=data, **QUICK
    )
    finetune(config)
    assert losses(out)[-1] < losses(out)[0] - 0.5
    before, after = weights(heads), weights(out)
    assert all(torch.equal(tensor, after[name]) for name, tensor in before.items())
    evaluated = [entry for entry in json.loads((out / "history.json").read_text()) if "eval_loss_1" in entry]
    assert evaluated[-1]["eval_loss_1"] < losses(out)[0]


@pytest.mark.slow
@pytest.mark.parametrize("objective", ["multi-token", "registers"])
def test_gradient_accumulation_equals_a_big_batch(model: str, data: str, tmp_path: Path, objective: str) -> None:
    for name, batch, accumulation in (("big", 4, 1), ("small", 1, 4)):
        sizes = {"batch_size": batch, "gradient_accumulation": accumulation, "pack": False, "objective": objective}
        config = FinetuneConfig(
            model=model, data=data, output_dir=tmp_path / name, family="parallel", max_steps=4, **{**QUICK, **sizes}
        )
        finetune(config)
    assert losses(tmp_path / "big") == pytest.approx(losses(tmp_path / "small"), abs=1e-5)
    big, small = weights(tmp_path / "big"), weights(tmp_path / "small")
    for name, tensor in big.items():
        torch.testing.assert_close(tensor, small[name], atol=2e-4, rtol=1e-3)


def test_heads_have_their_own_learning_rate_and_norms_no_decay(model: str, data: str, out: Path) -> None:
    config = FinetuneConfig(model=model, data=data, output_dir=out, family="sequential", num_heads=1, max_steps=1, **QUICK)
    tokenizer = load_tokenizer(model)
    ours = load_model(config)
    config = for_finetuning(config, "sequential", fresh=True)
    freeze(config, ours)
    trainer = run(config, ours, OBJECTIVES[config.objective](config, ours), build_dataset(config, tokenizer))
    found = {(group["initial_lr"], group["weight_decay"]) for group in trainer.optimizer.param_groups}
    assert found == {(1e-2, 0.0), (1e-2, 0.01), (4e-2, 0.0), (4e-2, 0.01)}
    for group in trainer.optimizer.param_groups:
        assert all((parameter.ndim >= 2) == (group["weight_decay"] > 0) for parameter in group["params"])


@pytest.mark.slow
def test_pretraining_writes_an_ordinary_folder_and_gradient_checkpointing_changes_nothing(tmp_path: Path) -> None:
    data = save_data(tmp_path / "text.jsonl")
    save_tokenizer(tmp_path / "tokenizer")
    config = PretrainConfig(
        data=[str(data)],
        tokenizer=str(tmp_path / "tokenizer"),
        output_dir=tmp_path / "plain",
        hidden_size=16,
        layers=2,
        attention_heads=2,
        key_value_heads=1,
        intermediate_size=16,
        max_steps=3,
        **QUICK,
    )
    pretrain(config)
    other = dataclasses.replace(config, output_dir=tmp_path / "checkpointing", gradient_checkpointing=True)
    pretrain(other)
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "plain")
    assert plain.config.tie_word_embeddings and len(AutoTokenizer.from_pretrained(tmp_path / "plain")) == 26
    assert losses(tmp_path / "plain") == pytest.approx(losses(tmp_path / "checkpointing"), abs=1e-4)
    assert list((tmp_path / "plain" / "cache").iterdir())


def test_a_bfloat16_model_is_trained_in_float32_and_saved_as_it_came(data: str, model: str, tmp_path: Path) -> None:
    trunk = AutoModelForCausalLM.from_pretrained(model, dtype=torch.bfloat16)
    trunk.save_pretrained(tmp_path / "half")
    save_tokenizer(tmp_path / "half")
    out = tmp_path / "out"
    train_heads(HeadsTrainConfig(model=str(tmp_path / "half"), data=data, output_dir=out, max_steps=1, bf16=True, **QUICK))
    before, after = weights(tmp_path / "half"), weights(out)
    assert all(torch.equal(tensor, after[name]) for name, tensor in before.items())
    assert all(tensor.dtype == torch.bfloat16 for tensor in after.values())


def test_mistakes_have_clear_messages(model: str, data: str, out: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="needs heads"):
        finetune(FinetuneConfig(model=model, data=data, output_dir=out, max_steps=1))
    with pytest.raises(ConfigError, match="own folder"):
        finetune(FinetuneConfig(model=model, data=data, output_dir=Path(model), family="parallel"))
    with pytest.raises(ConfigError, match="length 4096"):
        finetune(FinetuneConfig(model=model, data=data, output_dir=out, family="parallel", max_length=4096))
    with pytest.raises(ConfigError, match="not both"):
        FinetuneConfig(model=model, data=data, output_dir=out, family="parallel", heads="somewhere")
    with pytest.raises(ConfigError, match="batch_size"):
        FinetuneConfig(model=model, data=data, output_dir=out, batch_size=0)
    with pytest.raises(CheckpointError, match="tokenizer"):
        finetune(FinetuneConfig(model=str(tmp_path), data=data, output_dir=out))


@pytest.mark.parametrize(
    "changes", [{}, {"objective": "registers"}, {"objective": "distillation", "teacher": "frozen", "lora": True}]
)
def test_detached_heads_learn_and_the_trunk_is_saved_bit_for_bit_as_without_them(
    model: str, data: str, tmp_path: Path, changes: dict
) -> None:
    found = {}
    for gradient in ("none", "detached", "joint"):
        settings = {**QUICK, "num_heads": 2, "family": "sequential", "max_steps": 6, "max_grad_norm": 0.5, **changes}
        out = tmp_path / gradient
        finetune(FinetuneConfig(model=model, data=data, output_dir=out, heads_gradient=gradient, total_weight=1.0, **settings))
        found[gradient] = weights(out)
        entries = [entry for entry in json.loads((out / "history.json").read_text()) if "loss" in entry]
        assert all(("loss_2" in entry) == (gradient != "none") for entry in entries)
    trunk = [name for name in found["none"] if name.startswith("model")]
    heads = [name for name in found["none"] if name.startswith("headway")]
    assert trunk and all(torch.equal(found["none"][name], found["detached"][name]) for name in trunk)
    assert not all(torch.equal(found["none"][name], found["joint"][name]) for name in trunk)
    assert not any(torch.equal(found["none"][name], found["detached"][name]) for name in heads if "norm" not in name)
