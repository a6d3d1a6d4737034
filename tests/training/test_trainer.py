"""Division of the loss over accumulation steps, and learning rates of trunk and heads."""

from pathlib import Path

import pytest
import torch

from headway.model import load_tokenizer
from headway.objectives import OBJECTIVES
from headway.training import finetune
from headway.training.configs import FinetuneConfig
from headway.training.datasets import build_dataset
from headway.training.loop import run
from headway.training.recipes import for_finetuning
from headway.training.stages.finetune import freeze, load_model
from tests.training.recipes import losses, weights

QUICK = {"max_length": 48, "batch_size": 4, "log_steps": 1, "quiet": True, "learning_rate": 1e-2}


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
