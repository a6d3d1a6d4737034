"""One run from scratch: a small model learns a generated task towards n tokens at once, and is scored along the way."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch.utils.data import Dataset
from transformers import PreTrainedTokenizerBase, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from headway.data import PackedRow
from headway.experiments.reproduce.configs import SHAPES, ScratchConfig
from headway.experiments.reproduce.models import fresh_model, parameters_beside_embeddings
from headway.experiments.reproduce.runs import Measures, Run
from headway.files import write_json
from headway.model import HeadwayModel
from headway.objectives import MultiToken, NextToken
from headway.training.configs import TrainingConfig
from headway.training.loop import run as train
from headway.trunk import eval_mode

CURVE = "curve.json"
POOL = 10_000_000  # examples that differ, at most: the sampler keeps an index of each


@dataclass(frozen=True)
class Task:
    """What is learnt: row `index` of the run with a seed, and how a model is scored on what is held out."""

    tokenizer: PreTrainedTokenizerBase
    length: int  # of the longest row, in tokens
    row: Callable[[int, int], PackedRow]  # of seed and index
    score: Callable[[HeadwayModel], Measures]
    final: Callable[[HeadwayModel], Measures] = lambda _: {}  # measured once, at the end


class Drawn(Dataset):
    """Rows made when they are asked for, the same for all arms of a seed."""

    def __init__(self, task: Task, seed: int, count: int) -> None:
        self.task, self.seed, self.count = task, seed, count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> PackedRow:
        return self.task.row(self.seed, index)


def learn(config: ScratchConfig, task: Task, run: Run, folder: Path, advance: Callable[[int], None]) -> dict[str, Any]:
    """Train `run` in `folder`, from its newest checkpoint on, and return its curve and what was measured last.

    Raises: as `headway.training.loop.run`.
    """
    steps, batch_size, rate = config.steps, config.batch_size, config.learning_rate
    assert steps is not None and batch_size is not None and rate is not None  # the config is resolved
    model = fresh_model(SHAPES[run.size], run.n, len(task.tokenizer), task.length, run.seed)
    every = max(1, steps // config.points)
    curve = Curve(model, task, folder / CURVE, every, advance)
    settings = TrainingConfig(
        data=config.EXPERIMENT,
        output_dir=folder,
        max_steps=steps,
        batch_size=batch_size // config.gradient_accumulation,
        gradient_accumulation=config.gradient_accumulation,
        bf16=config.bf16,
        learning_rate=rate,
        warmup_ratio=min(0.05, 2000 / steps),
        weight_decay=0.1,
        beta2=0.95,
        max_length=task.length,
        pack=False,
        seed=run.seed,
        save_steps=every,
        log_steps=every,
        quiet=True,
    )
    objective = MultiToken() if run.n > 1 else NextToken()
    rows = Drawn(task, run.seed, min(steps * batch_size, POOL))
    train(settings, model, objective, rows, callbacks=[curve])
    model.eval()
    return {
        "parameters": parameters_beside_embeddings(model),
        "curve": curve.points,
        "measures": {**curve.points[-1]["measures"], **task.final(model)},
    }


class Curve(TrainerCallback):
    """Scores the model `every` so many steps; what was scored before a resumed checkpoint is read back."""

    def __init__(self, model: HeadwayModel, task: Task, path: Path, every: int, advance: Callable[[int], None]) -> None:
        self.model, self.task, self.path, self.every, self.advance = model, task, path, every, advance
        self.points: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else []

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self.points = [point for point in self.points if point["step"] <= state.global_step]
        self.advance(state.global_step)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self.advance(1)
        if state.global_step % self.every == 0 or state.global_step == state.max_steps:
            with eval_mode(self.model):
                self.points.append({"step": state.global_step, "measures": self.task.score(self.model)})
            write_json(self.path, self.points)  # before the checkpoint of this step
