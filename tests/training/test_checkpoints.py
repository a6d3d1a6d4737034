"""Checkpoints are complete or ignored."""

import dataclasses
import os
import shutil
from pathlib import Path

import pytest
import torch

from headway.errors import ConfigError
from headway.training import finetune
from headway.training.checkpoints import MARKER, newest
from headway.training.configs import FinetuneConfig
from tests.training.recipes import weights

STEPS = 40


@pytest.mark.slow
def test_a_resumed_run_saves_at_its_new_interval(model: str, data: str, out: Path) -> None:
    config = FinetuneConfig(
        model=model, data=data, output_dir=out, family="parallel", max_steps=5, save_steps=2, max_length=48, quiet=True
    )
    finetune(config)
    for folder in (out / "checkpoint-4", out / "checkpoint-5"):
        shutil.rmtree(folder)
    finetune(dataclasses.replace(config, save_steps=3))
    assert sorted(folder.name for folder in out.glob("checkpoint-*")) == ["checkpoint-3", "checkpoint-5"]


@pytest.mark.slow
def test_an_incomplete_checkpoint_is_ignored_and_a_finished_run_stays_as_it_is(model: str, data: str, out: Path) -> None:
    config = FinetuneConfig(
        model=model, data=data, output_dir=out, family="parallel", max_steps=4, save_steps=2, max_length=48, quiet=True
    )
    finetune(config)
    expected = weights(out)
    os.remove(out / "checkpoint-4" / MARKER)
    (out / "checkpoint-4" / "optimizer.pt").write_bytes(b"cut off")
    assert newest(out) == out / "checkpoint-2"
    finetune(config)  # from step 2
    assert all(torch.equal(tensor, weights(out)[name]) for name, tensor in expected.items())
    finetune(config)  # nothing left to do
    assert all(torch.equal(tensor, weights(out)[name]) for name, tensor in expected.items())
    with pytest.raises(ConfigError, match="seed: 0, not 1"):
        finetune(dataclasses.replace(config, seed=1))
    finetune(dataclasses.replace(config, seed=1, resume=False, max_steps=2))
    assert newest(out) == out / "checkpoint-2"
