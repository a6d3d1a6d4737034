"""Parameters that learn and parameters that do not, and the files of a run."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from headway.errors import CheckpointError, ConfigError
from headway.model import HeadwayModel
from headway.training import finetune
from headway.training.configs import FinetuneConfig
from tests.training.recipes import losses, weights

QUICK = {"max_length": 48, "batch_size": 4, "log_steps": 1, "quiet": True, "learning_rate": 1e-2}


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
