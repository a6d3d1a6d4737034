"""Callbacks that time steps, record curves and peak memory, over interruptions."""

import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from headway.errors import HeadwayError
from headway.experiments.timing import WARMUP_STEPS, CurveRecorder, MemoryRecorder, Point, StepTimer


def train(callback: StepTimer, first: int, last: int, saved: tuple[int, ...] = ()) -> None:
    """Call the callback as the trainer does, for the steps `first` to `last`, with a checkpoint after some."""
    arguments, state = SimpleNamespace(device=torch.device("cpu")), SimpleNamespace(global_step=first - 1, max_steps=10)
    model = SimpleNamespace(model=torch.nn.Linear(1, 1))
    callback.on_train_begin(arguments, state, None)
    for step in range(first, last + 1):
        callback.on_step_begin(arguments, state, None)
        state.global_step = step
        callback.on_step_end(arguments, state, None, model=model)
        if step in saved:
            callback.on_save(arguments, state, None)


def test_a_resumed_run_keeps_seconds_up_to_its_checkpoint_and_repeats_the_rest(tmp_path: Path) -> None:
    first = StepTimer(tmp_path / "seconds.json")
    train(first, 1, 5, saved=(2, 4))
    resumed = StepTimer(tmp_path / "seconds.json")
    assert resumed.by_step == {step: first.by_step[step] for step in "1234"}
    train(resumed, 3, 6)
    assert list(resumed.by_step) == ["1", "2", "3", "4", "5", "6"]
    assert resumed.by_step["2"] == first.by_step["2"] and resumed.by_step["4"] != first.by_step["4"]
    assert resumed.seconds == sum(resumed.by_step.values()) == resumed.seconds_until(6)


def test_the_time_of_a_step_leaves_out_the_warm_up(tmp_path: Path) -> None:
    timer = StepTimer(tmp_path / "seconds.json")
    timer.by_step = {str(step): 9.0 if step <= WARMUP_STEPS else 2.0 for step in range(1, WARMUP_STEPS + 3)}
    assert timer.step_seconds == 2.0
    timer.by_step = {"1": 9.0}
    with pytest.raises(HeadwayError, match="needs more than 3 steps"):
        _ = timer.step_seconds


def test_points_are_scored_in_eval_mode_and_dropped_beyond_the_checkpoint(tmp_path: Path) -> None:
    modes: list[bool] = []

    def score(model: Any) -> dict[str, float]:
        modes.append(model.training)
        return {"loss": float(len(modes))}

    recorder = CurveRecorder(tmp_path / "points.json", [2, 4, 6], score)
    train(recorder, 1, 4)
    assert recorder.points == [Point(2, {"loss": 1.0}, 0.0), Point(4, {"loss": 2.0}, 0.0)] and not any(modes)
    assert recorder.points[1].seconds == pytest.approx(recorder.seconds)
    resumed = CurveRecorder(tmp_path / "points.json", [2, 4, 6], score)
    assert resumed.points == recorder.points
    train(resumed, 3, 6)
    assert [(point.step, point.metrics["loss"]) for point in resumed.points] == [(2, 1.0), (4, 3.0), (6, 4.0)]


def test_memory_counts_the_heads_and_the_steps_up_to_the_first_checkpoint(tmp_path: Path) -> None:
    heads = torch.nn.Linear(2**18, 4, bias=False)  # 4 MiB
    arguments: tuple[Any, ...] = (SimpleNamespace(device=torch.device("cpu")), SimpleNamespace(global_step=0), None)
    kwargs = {"model": SimpleNamespace(model=SimpleNamespace(heads=heads))}
    memory = MemoryRecorder(tmp_path / "memory.json")
    memory.on_train_begin(*arguments, **kwargs)
    taken = torch.ones(2**24)  # 64 MiB
    time.sleep(0.3)  # it is sampled
    memory.on_save(*arguments)
    assert 64 < memory.peak < 90 and taken.sum() > 0
    resumed = MemoryRecorder(tmp_path / "memory.json")
    resumed.on_train_begin(arguments[0], SimpleNamespace(global_step=2), None, **kwargs)
    resumed.on_train_end(*arguments)
    assert resumed.peak == memory.peak
