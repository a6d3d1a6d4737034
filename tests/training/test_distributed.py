"""Two processes, as copies (DDP) or as shards (FSDP2), learn what one process learns."""

import dataclasses
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from headway.training import finetune
from headway.training.checkpoints import MARKER
from tests.training.recipes import losses, weights
from tests.training.two_processes import RUNS, config_of

PAIRS = [f"{kind}-{name}" for kind in ("ddp", "fsdp") for name in RUNS]


def _launch(model: str, data: str, out: Path) -> None:
    script = Path(__file__).with_name("two_processes.py")
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    root = script.parents[2]
    subprocess.run([*launcher, str(script), model, data, str(out)], check=True, cwd=root, timeout=300)


@pytest.fixture(scope="module")
def runs(model: str, data: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    _launch(model, data, folder)
    for name, changes in RUNS.items():
        finetune(dataclasses.replace(config_of(model, data, folder / f"single-{name}"), **changes))
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("name", PAIRS)
def test_two_processes_give_the_losses_and_weights_of_one(runs: Path, name: str) -> None:
    single = runs / f"single-{name.split('-', 1)[1]}"
    assert losses(runs / name) == pytest.approx(losses(single), abs=1e-5)
    expected, found = weights(single), weights(runs / name)
    assert set(expected) == set(found)
    for key, tensor in expected.items():
        torch.testing.assert_close(found[key], tensor, atol=2e-4, rtol=1e-3)
    AutoModelForCausalLM.from_pretrained(runs / name)


@pytest.mark.slow
def test_two_processes_resume_from_their_checkpoint(model: str, data: str, runs: Path, tmp_path: Path) -> None:
    for name in PAIRS:
        shutil.copytree(runs / name, tmp_path / name)
        shutil.rmtree(tmp_path / name / "checkpoint-6")
    _launch(model, data, tmp_path)
    for name in PAIRS:
        marker = Path(name) / "checkpoint-3" / MARKER
        assert (tmp_path / marker).stat().st_mtime == (runs / marker).stat().st_mtime, f"{name} started over"
        expected, found = weights(runs / name), weights(tmp_path / name)
        for key, tensor in expected.items():
            torch.testing.assert_close(found[key], tensor, atol=1e-6, rtol=1e-6)
