"""A killed or interrupted run resumes and ends with the same weights."""

import dataclasses
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from headway.cli import main
from headway.config import RENAMED
from headway.errors import ConfigError
from headway.training import finetune
from headway.training.checkpoints import newest
from headway.training.configs import FinetuneConfig
from headway.training.loop import CONFIG
from tests.training.recipes import losses, save_model, weights

STEPS = 40


@pytest.fixture(scope="module")
def dropping(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A model with dropout: resuming has to restore the random numbers too."""
    return str(save_model(tmp_path_factory.mktemp("dropping"), attention_dropout=0.2))


def _command(model: str, data: str, out: Path) -> list[str]:
    text = (
        f"finetune --model {model} --data {data} --output-dir {out} --family sequential --num-heads 2 --lora --max-length 48 "
        f"--batch-size 2 --gradient-accumulation 2 --max-steps {STEPS} --save-steps 3 --log-steps 1 "
        "--learning-rate 1e-2 --weight-schedule sine --no-pack --quiet --seed 7"
    )
    return [sys.executable, "-m", "headway.cli", *text.split()]


def _reached(out: Path) -> int:
    return max((int(folder.name.split("-")[1]) for folder in out.glob("checkpoint-*")), default=0)


def _signal_at(command: list[str], out: Path, step: int, delay: float, number: signal.Signals) -> int:
    """Start, wait until a checkpoint of that step is being written, wait a little more, send the signal."""
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    while process.poll() is None and _reached(out) < step:
        time.sleep(0.001)
    time.sleep(delay)
    process.send_signal(number)
    return process.wait()


@pytest.mark.slow
def test_three_kills_and_a_ctrl_c_change_no_bit_of_the_final_weights(dropping: str, data: str, tmp_path: Path) -> None:
    draw = random.Random(time.time_ns())
    subprocess.run(_command(dropping, data, tmp_path / "whole"), check=True, stderr=subprocess.DEVNULL)
    out = tmp_path / "killed"
    command = _command(dropping, data, out)
    for step in (3, 12, 21):
        delay = draw.uniform(0, 0.1)
        assert _signal_at(command, out, step, delay, signal.SIGKILL) == -signal.SIGKILL, f"not killed: {step}, {delay}"
    assert _signal_at(command, out, 30, 0, signal.SIGINT) != 0
    stopped = newest(out)
    assert stopped is not None and not (out / "model.safetensors").exists()
    subprocess.run(command, check=True, stderr=subprocess.DEVNULL)
    expected, found = weights(tmp_path / "whole"), weights(out)
    assert set(expected) == set(found)
    for name, tensor in expected.items():
        assert torch.equal(tensor, found[name]), name
    assert losses(out) == losses(tmp_path / "whole")


@pytest.mark.slow
def test_a_killed_run_with_registers_resumes_with_the_same_offsets(dropping: str, data: str, tmp_path: Path) -> None:
    def words(name: str) -> list[str]:
        text = (
            f"finetune --model {dropping} --data {data} --output-dir {tmp_path / name} --objective registers --register-share 0.8 "
            "--max-length 48 --batch-size 2 --max-steps 30 --save-steps 3 --log-steps 1 --learning-rate 1e-2 --quiet --seed 7"
        )
        return text.split()

    assert main(words("whole")) == 0
    command = [sys.executable, "-m", "headway.cli", *words("killed")]
    assert _signal_at(command, tmp_path / "killed", 6, random.Random(time.time_ns()).uniform(0, 0.1), signal.SIGKILL) < 0
    assert not (tmp_path / "killed" / "model.safetensors").exists()
    assert main(words("killed")) == 0
    expected, found = weights(tmp_path / "whole"), weights(tmp_path / "killed")
    assert all(torch.equal(tensor, found[name]) for name, tensor in expected.items())
    assert losses(tmp_path / "killed") == losses(tmp_path / "whole")


@pytest.mark.slow
def test_a_run_of_an_earlier_version_is_resumed_though_its_settings_have_old_names(model: str, data: str, out: Path) -> None:
    config = FinetuneConfig(
        model=model, data=data, output_dir=out, family="parallel", max_steps=4, save_steps=2, max_length=48, quiet=True
    )
    finetune(config)
    expected = weights(out)
    shutil.rmtree(out / "checkpoint-4")
    settings = (out / CONFIG).read_text()
    for old, (new, *_) in RENAMED.items():
        settings = settings.replace(f"\n{new}: ", f"\n{old}: ")
    settings = settings.replace("output_dir: ", "out: ").replace("teacher: online", "teacher: itself")
    (out / CONFIG).write_text(settings)
    assert "\nlength: 48" in settings and "\ndenoising_sequential: 0.14" in settings and "output_dir" not in settings
    with pytest.raises(ConfigError, match="max_length: 48, not 40"):
        finetune(dataclasses.replace(config, max_length=40))
    finetune(config)
    assert all(torch.equal(tensor, weights(out)[name]) for name, tensor in expected.items())
