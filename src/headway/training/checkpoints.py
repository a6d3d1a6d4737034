"""Checkpoints that are complete or ignored. A marker is written last, and runs resume only from folders with a marker."""

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
    """Newest complete checkpoint in a folder."""
    complete = [folder for folder in out.glob("checkpoint-*") if (folder / MARKER).is_file()]
    return max(complete, key=steps_of, default=None)


def steps_of(folder: Path) -> int:
    """Number of optimiser steps that a complete checkpoint comes after."""
    return int(json.loads((folder / MARKER).read_text(encoding="utf-8"))["step"])


def delete_checkpoints(out: Path, keep_complete: bool) -> None:
    """Delete all checkpoints in a folder, or only incomplete checkpoints."""
    for folder in out.glob("checkpoint-*"):
        if not (keep_complete and (folder / MARKER).is_file()):
            shutil.rmtree(folder)


class MarkComplete(TrainerCallback):
    """Write the marker once all processes have written their part and the files have reached the disk."""

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        state.compute_steps(args, state.max_steps)  # the state of a checkpoint holds the intervals of its own run

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
    """Stop on Ctrl-C after the current step and a checkpoint. A second Ctrl-C stops at once. For runs of one process."""

    def __init__(self) -> None:
        self.requested = False
        self.previous_handler: Any = None

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if threading.current_thread() is threading.main_thread() and args.world_size == 1:
            self.previous_handler = signal.signal(signal.SIGINT, self._request)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if self.requested:
            control.should_save = True
            control.should_training_stop = True

    def restore(self) -> None:
        """Install the handler of Ctrl-C that was there before."""
        if self.previous_handler is not None:
            signal.signal(signal.SIGINT, self.previous_handler)
            self.previous_handler = None

    def _request(self, _number: int, _frame: FrameType | None) -> None:
        self.requested = True
        self.restore()
