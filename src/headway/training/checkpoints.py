"""Checkpoints that are whole or ignored: a marker is written last, and only folders that have one are continued."""

import json
import os
import shutil
import signal
import threading
from pathlib import Path
from types import FrameType
from typing import Any

from torch import distributed
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from headway.files import write_json
from headway.training.distributed import barrier

MARKER = "whole.json"


def newest(out: Path) -> Path | None:
    """The newest whole checkpoint in a folder."""
    whole = [folder for folder in out.glob("checkpoint-*") if (folder / MARKER).is_file()]
    return max(whole, key=steps_of, default=None)


def steps_of(folder: Path) -> int:
    return int(json.loads((folder / MARKER).read_text(encoding="utf-8"))["step"])


def clear(out: Path, keep_whole: bool) -> None:
    """Delete checkpoints: those that were cut off while being written, or all."""
    for folder in out.glob("checkpoint-*"):
        if not (keep_whole and (folder / MARKER).is_file()):
            shutil.rmtree(folder)


class MarkComplete(TrainerCallback):
    """Writes the marker once all processes have written their part and the disk has it."""

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        state.compute_steps(args, state.max_steps)  # a checkpoint brings along how often its own run saved and logged

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        barrier()
        if state.is_world_process_zero:
            folder = Path(args.output_dir or ".") / f"checkpoint-{state.global_step}"
            for file in folder.iterdir():
                with file.open("rb") as opened:
                    os.fsync(opened.fileno())
            processes = distributed.get_world_size() if distributed.is_initialized() else 1
            write_json(folder / MARKER, {"step": state.global_step, "of": state.max_steps, "processes": processes})
        barrier()


class GracefulInterrupt(TrainerCallback):
    """Ctrl-C finishes the step, saves a checkpoint and stops; a second one stops at once. One process only."""

    def __init__(self) -> None:
        self.asked = False
        self.before: Any = None

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if threading.current_thread() is threading.main_thread() and args.world_size == 1:
            self.before = signal.signal(signal.SIGINT, self._ask)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if self.asked:
            control.should_save = True
            control.should_training_stop = True

    def restore(self) -> None:
        if self.before is not None:
            signal.signal(signal.SIGINT, self.before)
            self.before = None

    def _ask(self, _number: int, _frame: FrameType | None) -> None:
        self.asked = True
        self.restore()
