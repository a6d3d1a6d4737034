"""Training from scratch: a small model learns a generated task towards n tokens, and is scored along the way."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch.utils.data import Dataset
from transformers import PreTrainedTokenizerBase, TrainerCallback

from headway.data import PackedRow
from headway.experiments.reproduce.configs import SHAPES, ScratchConfig
from headway.experiments.reproduce.models import fresh_model, parameters_beside_embeddings
from headway.experiments.reproduce.specs import ReproductionSpec
from headway.experiments.timing import CurveRecorder, Point
from headway.model import HeadwayModel
from headway.objectives import MultiToken, NextToken
from headway.training.configs import TrainingConfig
from headway.training.loop import run as train

MAX_DISTINCT_ROWS = 10_000_000  # the sampler keeps an index of each row
Metrics = dict[str, float]


@dataclass(frozen=True)
class Learnt:
    """Result of a training run.

    Args:
        curve: scores along the way.
        metrics: scores at the end.
        parameters: number beside the embeddings; None for a pretrained model.
    """

    curve: list[Point]
    metrics: Metrics
    parameters: int | None = None


@dataclass(frozen=True)
class GeneratedTask:
    """A task with generated rows.

    Args:
        tokenizer: tokenizer of the rows.
        max_length: tokens of the longest row.
        row: training row of a seed and an index.
        score: metrics on held-out rows.
        score_at_end: metrics that are measured once, at the end.
    """

    tokenizer: PreTrainedTokenizerBase
    max_length: int
    row: Callable[[int, int], PackedRow]
    score: Callable[[HeadwayModel], Metrics]
    score_at_end: Callable[[HeadwayModel], Metrics] = lambda _: {}


class GeneratedRows(Dataset):
    """Training rows of a seed, generated on access and equal for all arms."""

    def __init__(self, task: GeneratedTask, seed: int, count: int) -> None:
        self.task, self.seed, self.count = task, seed, count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> PackedRow:
        return self.task.row(self.seed, index)


def learn(
    config: ScratchConfig, task: GeneratedTask, spec: ReproductionSpec, folder: Path, callbacks: Sequence[TrainerCallback] = ()
) -> Learnt:
    """Train a model in `folder`, from the newest checkpoint if there is one. Raises: as `headway.training.loop.run`."""
    steps, batch_size, rate = config.steps, config.batch_size, config.learning_rate
    assert steps is not None and batch_size is not None and rate is not None  # the config is resolved
    model = fresh_model(SHAPES[spec.size], spec.n, len(task.tokenizer), task.max_length, spec.seed)
    interval = max(1, steps // config.points)
    recorder = CurveRecorder(folder / "curve.json", {*range(interval, steps + 1, interval), steps}, task.score)
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
        max_length=task.max_length,
        pack=False,
        seed=spec.seed,
        save_steps=interval,
        log_steps=interval,
        quiet=True,
    )
    objective = MultiToken() if spec.n > 1 else NextToken()
    rows = GeneratedRows(task, spec.seed, min(steps * batch_size, MAX_DISTINCT_ROWS))
    train(settings, model, objective, rows, callbacks=[recorder, *callbacks])
    model.eval()
    metrics = {**recorder.points[-1].metrics, **task.score_at_end(model)}
    return Learnt(recorder.points, metrics, parameters_beside_embeddings(model))
