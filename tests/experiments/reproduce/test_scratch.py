"""Training from scratch: resumable, with rows that depend on seed and index alone."""

import json
from pathlib import Path
from typing import Any

import pytest
from tests.experiments.reproduce.tiny import SIZES
from transformers import TrainerCallback

from headway.experiments.reproduce import induction, polynomial, scale, scratch
from headway.experiments.reproduce.configs import InductionConfig, PolynomialConfig, ScaleConfig
from headway.experiments.reproduce.specs import ReproductionSpec


class StepsSeen(TrainerCallback):
    """Steps that were taken. Ctrl-C arrives after the step `interrupt`."""

    def __init__(self, interrupt: int | None = None) -> None:
        self.steps: list[int] = []
        self.interrupt = interrupt

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.steps.append(state.global_step)
        if state.global_step == self.interrupt:
            raise KeyboardInterrupt


@pytest.mark.slow
def test_a_killed_run_resumes_from_its_checkpoint_to_the_same_end(tmp_path: Path) -> None:
    config = PolynomialConfig(output_dir=tmp_path, pauses=[0], tested=3, **SIZES).resolved()
    task, spec = polynomial.task_of(config, 0), ReproductionSpec("n=2", "0.05M", 0, 2)
    whole = scratch.learn(config, task, spec, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        scratch.learn(config, task, spec, tmp_path / "cut", [StepsSeen(interrupt=3)])  # after the checkpoint of step 2
    assert [point["step"] for point in json.loads((tmp_path / "cut" / "curve.json").read_text())["points"]] == [2]
    again = StepsSeen()
    assert scratch.learn(config, task, spec, tmp_path / "cut", [again]) == whole
    assert again.steps == [3, 4]


@pytest.fixture
def text(tmp_path: Path) -> str:
    (tmp_path / "text.txt").write_text("def double(x):\n    return x + x  # \u00e9\n" * 30, encoding="utf-8")
    return str(tmp_path / "text.txt")


@pytest.mark.parametrize("name", ["polynomial", "induction", "scale"])
def test_rows_depend_on_seed_and_index_alone_and_fit_the_maximum_length(name: str, text: str) -> None:
    task = {
        "polynomial": lambda: polynomial.task_of(PolynomialConfig(**SIZES).resolved(), 3),
        "induction": lambda: induction.task_of(InductionConfig(**SIZES).resolved()),
        "scale": lambda: scale.task_of(ScaleConfig(**SIZES, text=text, max_length=16).resolved()),
    }[name]()
    rows = [task.row(seed, index) for seed in range(2) for index in range(20)]
    assert rows == [task.row(seed, index) for seed in range(2) for index in range(20)]
    assert rows[:20] != rows[20:]
    assert max(len(row["input_ids"]) for row in rows) <= task.max_length
    assert not any(task.tokenizer.unk_token_id in row["input_ids"] for row in rows)
