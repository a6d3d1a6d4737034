"""Trainer callbacks of the runs: seconds per step, scores during training, and peak memory.

Callbacks keep figures in files: a run that continues from a checkpoint keeps counting.
"""

import json
import time
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from headway.errors import HeadwayError
from headway.evaluation.benchmarks.timing import peak_memory, wait
from headway.experiments.worker import PROGRESS
from headway.files import write_json, write_text
from headway.model import HeadwayModel
from headway.trunk import eval_mode

WARMUP_STEPS, TIMED_STEPS = 3, 5
PROGRESS_SECONDS = 1.0  # between writes of the progress file


@dataclass(frozen=True)
class Point:
    """Scores after a step of a run."""

    step: int
    metrics: dict[str, float]
    seconds: float = field(compare=False)  # of training, so far


class StepTimer(TrainerCallback):
    """Seconds per step, wall clock and processor, without the time between steps."""

    def __init__(self, path: Path) -> None:
        self.path = path
        known = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        self.by_step: dict[str, float] = known.get("seconds", {})
        self.processor_by_step: dict[str, float] = known.get("processor", {})
        self._started = self._processor_started = self._reported = 0.0

    @property
    def seconds(self) -> float:
        return sum(self.by_step.values())

    def seconds_until(self, step: int) -> float:
        """Seconds of the steps up to and including `step`."""
        return sum(seconds for known, seconds in self.by_step.items() if int(known) <= step)

    @property
    def processor_seconds(self) -> float:
        """Seconds of processor time of the steps. On a busy machine, fewer than `seconds`."""
        return sum(self.processor_by_step.values())

    @property
    def step_seconds(self) -> float:
        """Mean seconds of a step after the warm-up. Raises HeadwayError if there are only warm-up steps."""
        steady = [seconds for step, seconds in self.by_step.items() if int(step) > WARMUP_STEPS]
        if not steady:
            raise HeadwayError(f"The time of a step needs more than {WARMUP_STEPS} steps.")
        return sum(steady) / len(steady)

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Forget steps after the checkpoint: a killed run repeats the steps."""
        for known in (self.by_step, self.processor_by_step):
            for step in [step for step in known if int(step) > state.global_step]:
                del known[step]

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._started, self._processor_started = time.perf_counter(), time.process_time()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        wait(args.device)
        now, step = time.perf_counter(), str(state.global_step)
        self.by_step[step] = now - self._started
        self.processor_by_step[step] = time.process_time() - self._processor_started
        if now - self._reported > PROGRESS_SECONDS:
            self._reported = now
            write_text(self.path.parent / PROGRESS, f"{state.global_step / state.max_steps:.3f}")

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.save()

    def save(self) -> None:
        write_json(self.path, {"seconds": self.by_step, "processor": self.processor_by_step})


class CurveRecorder(StepTimer):
    """Seconds per step, and scores of the model after some steps.

    Args:
        path: file of seconds and points.
        steps: steps after which the model is scored.
        score: metrics of a model. Raises HeadwayError if the run has diverged.
    """

    def __init__(self, path: Path, steps: Iterable[int], score: Callable[[HeadwayModel], dict[str, float]]) -> None:
        super().__init__(path)
        known = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        self.points = [Point(**point) for point in known.get("points", [])]
        self.steps, self.score = set(steps), score

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        super().on_train_begin(args, state, control, **kwargs)
        self.points = [point for point in self.points if point.step <= state.global_step]

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        super().on_step_end(args, state, control, **kwargs)
        if state.global_step in self.steps:
            model: HeadwayModel = kwargs["model"].model
            with eval_mode(model):
                self.points.append(Point(state.global_step, self.score(model), self.seconds))
            self.save()  # before the checkpoint of this step

    def save(self) -> None:
        points = [asdict(point) for point in self.points]
        write_json(self.path, {"seconds": self.by_step, "processor": self.processor_by_step, "points": points})


class MemoryRecorder(TrainerCallback):
    """Peak memory of training above the loaded trunk, in MiB: the heads, and allocations of steps up to the first checkpoint.

    A run that continues from a checkpoint starts with the optimiser's moments in memory. The file of the first part counts.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.peak: float = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else 0.0
        self._open = ExitStack()
        self._allocated = [0.0]
        self._heads = 0.0

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self.peak and state.global_step:
            return
        self.peak = 0.0
        heads = kwargs["model"].model.heads
        parameters = heads.parameters() if heads is not None else ()
        self._heads = sum(parameter.numel() * parameter.element_size() for parameter in parameters) / 2**20
        self._allocated = self._open.enter_context(peak_memory(args.device))

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if not self.peak:
            self._open.close()
            self.peak = self._allocated[0] + self._heads
            write_json(self.path, self.peak)

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.on_save(args, state, control)
