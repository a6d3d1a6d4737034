"""Arms of the fine-tuning experiment start from random or pretrained heads on one trunk."""

from pathlib import Path

import pytest

from headway.experiments.reproduce import finetuning
from headway.experiments.reproduce.configs import FinetuningConfig
from headway.experiments.reproduce.specs import ReproductionSpec
from headway.model import HeadwayModel


@pytest.mark.slow
def test_arms_start_from_random_or_pretrained_heads_and_one_trunk(tmp_path: Path) -> None:
    sizes = {"steps": 1, "batch_size": 1, "examples": 8, "test_examples": 2, "max_length": 128}
    config = FinetuningConfig(output_dir=tmp_path, learning_rate=1e-9, **sizes).resolved()
    arms = ("next-token", "random heads, full weight", "pretrained heads, small weight")
    found = {arm: finetuning.learn(config, ReproductionSpec(arm, "", 0), tmp_path / arm) for arm in arms}
    losses = [run.metrics["loss"] for run in found.values()]
    assert max(losses) - min(losses) < 1e-4  # nothing was learnt at such a rate
    own = HeadwayModel.from_pretrained("embedded").heads.layers[0].mlp.up_proj.weight
    moved = {
        arm: float((HeadwayModel.from_pretrained(tmp_path / arm / "model").heads.layers[0].mlp.up_proj.weight - own).abs().mean())
        for arm in arms
    }
    assert moved[arms[0]] < 1e-6 and moved[arms[2]] < 1e-6 and moved[arms[1]] > 0.01
