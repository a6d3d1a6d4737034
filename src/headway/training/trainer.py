"""`transformers.Trainer` for any objective.

The loss is divided by the objective's count over all processes and accumulation steps. The objective knows the progress of the run
and fills the log with metrics. Heads have their own learning rate. Models can be sharded on any device.
"""

import math
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.utils.data import DataLoader
from transformers import Trainer

from headway.errors import HeadwayError
from headway.objectives import WithHeads
from headway.training.distributed import (
    copy_into,
    full_tensor,
    shard,
    shard_like,
    sum_over_processes,
    trainable_parameters,
)
from headway.training.step import TrainingStep

WEIGHTS = "model.safetensors"
HEADS = "model.heads."  # prefix of the names of the heads' parameters in a step


class HeadwayTrainer(Trainer):
    """Trainer of a `TrainingStep`. Checkpoints hold trainable parameters only; frozen parameters come from the starting model."""

    def __init__(self, *args: Any, heads_learning_rate: float, sharded: bool = False, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.sharded = sharded
        if sharded:
            shard(self.step)
            # transformers then neither wraps nor moves the model. It would write no checkpoints either, which is why the
            # flag is set after its constructor, and checkpoints are written by this class.
            self.is_distributed_loading_by_transformers = True
        self.heads_learning_rate = heads_learning_rate
        self._sums: dict[str, Tensor] = {}  # metric -> sum and count since the last log, (2,)

    @property
    def step(self) -> TrainingStep:
        return cast(TrainingStep, self.model)

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """AdamW with a learning rate for the trunk and another for the heads; norms and biases without weight decay."""
        if self.optimizer is None:
            kind, options = self.get_optimizer_cls_and_kwargs(self.args)
            groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
            for name, parameter in trainable_parameters(self.step):
                groups.setdefault((name.startswith(HEADS), parameter.ndim >= 2), []).append(parameter)
            self.optimizer = kind(
                [
                    {
                        "params": parameters,
                        "lr": self.heads_learning_rate if heads else self.args.learning_rate,
                        "weight_decay": self.args.weight_decay if matrix else 0.0,
                    }
                    for (heads, matrix), parameters in sorted(groups.items())
                ],
                **options,
            )
        return self.optimizer

    def get_batch_samples(
        self, epoch_iterator: Iterator, num_batches: int, device: torch.device
    ) -> tuple[list, Tensor | int | None]:
        """Batches of an optimiser step, and the sum of the objective's count over all processes."""
        batches, _ = super().get_batch_samples(epoch_iterator, num_batches, device)
        own = sum(self.step.objective.count(batch) for batch in batches)
        return batches, sum_over_processes(torch.tensor(own, device=device)).clamp(min=1)

    def compute_loss(self, model: nn.Module, inputs: dict, return_outputs: bool = False, num_items_in_batch: Any = None) -> Any:
        progress = self.state.global_step / max(self.state.max_steps, 1)
        loss, outputs = super().compute_loss(model, {**inputs, "progress": progress}, True, num_items_in_batch)
        _add(self._sums, outputs["metrics"], self.step.objective.count(inputs))
        return (loss, outputs) if return_outputs else loss

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add the objective's metrics, means since the last line. Raises HeadwayError on a loss of NaN."""
        if "loss" in logs:
            if not math.isfinite(logs["loss"]):
                raise HeadwayError(
                    f"The loss became {logs['loss']} by step {self.state.global_step}. Lower learning_rate, raise "
                    "warmup_ratio, or switch bf16 off. The run resumes from its last checkpoint."
                )
            if self._sums:
                logs |= _means({name: sum_over_processes(sums) for name, sums in self._sums.items()})
                self._sums = {}
        super().log(logs, start_time)

    @torch.no_grad()
    def evaluate(self, eval_dataset: Any = None, ignore_keys: Any = None, metric_key_prefix: str = "eval") -> dict:
        """Means of the metrics of the objective over the validation data."""
        rows: Any = self.eval_dataset if eval_dataset is None else eval_dataset
        training = self.step.training
        self.step.eval()
        sums: dict[str, Tensor] = {}
        for batch in DataLoader(rows, self.args.eval_batch_size, collate_fn=self.data_collator):
            batch = {name: value.to(self.args.device) for name, value in batch.items()}
            outputs = self.step(**batch, progress=self.state.global_step / max(self.state.max_steps, 1))
            _add(sums, outputs["metrics"], self.step.objective.count(batch))
        self.step.train(training)
        metrics = {f"{metric_key_prefix}_{name}": mean for name, mean in _means(sums).items()}
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def _clip_grad_norm(self, model: nn.Module) -> Any:
        """Clip gradients. Detached heads are clipped separately: the norm of heads must not scale the trunk's gradient."""
        objective = self.step.objective
        if not (isinstance(objective, WithHeads) and objective.gradient == "detached"):
            return super()._clip_grad_norm(model)
        parts: dict[bool, list[nn.Parameter]] = {True: [], False: []}
        for name, parameter in trainable_parameters(self.step):
            parts[name.startswith(HEADS)].append(parameter)
        super()._clip_grad_norm(nn.ParameterList(parts[True]))
        return super()._clip_grad_norm(nn.ParameterList(parts[False]))

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Write the trainable parameters. Every process has to call."""
        folder = Path(output_dir or self.args.output_dir or ".")
        tensors = {name: full_tensor(parameter.detach()).cpu().contiguous() for name, parameter in trainable_parameters(self.step)}
        if self.args.should_save:
            folder.mkdir(parents=True, exist_ok=True)
            save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})

    def load_checkpoint(self, folder: Path) -> None:
        """Read the parameters that `save_model` wrote. Raises HeadwayError for a checkpoint of another model."""
        tensors = load_file(folder / WEIGHTS)
        for name, parameter in trainable_parameters(self.step):
            if name not in tensors or tensors[name].shape != parameter.shape:
                raise HeadwayError(f"{folder} is a checkpoint of another model. Use another output_dir, or --no-resume.")
            copy_into(parameter, tensors[name])

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        self.load_checkpoint(Path(resume_from_checkpoint))

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        if not self.sharded or self.optimizer is None or self.lr_scheduler is None:
            return super()._save_optimizer_and_scheduler(output_dir)
        state = self.optimizer.state_dict()
        state["state"] = {
            index: {key: full_tensor(value) if isinstance(value, Tensor) else value for key, value in entries.items()}
            for index, entries in state["state"].items()
        }
        if self.args.should_save:
            torch.save(state, Path(output_dir) / "optimizer.pt")
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                torch.save(self.lr_scheduler.state_dict(), Path(output_dir) / "scheduler.pt")

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        super()._load_optimizer_and_scheduler(checkpoint)
        for parameter, entries in self.optimizer.state.items() if self.optimizer is not None else ():
            for key, value in entries.items():
                if isinstance(value, Tensor):
                    entries[key] = shard_like(value, parameter)


def _add(sums: dict[str, Tensor], metrics: dict[str, Tensor], count: int) -> None:
    """Add means, weighted by the count of the batch, to running sums and counts, (2,). NaN adds nothing."""
    for name, mean in metrics.items():
        new = torch.stack([mean.float().nan_to_num() * count, (~mean.isnan()) * count])
        sums[name] = sums[name] + new if name in sums else new


def _means(sums: dict[str, Tensor]) -> dict[str, float]:
    totals = {name: value.tolist() for name, value in sums.items()}
    return {name: total / count for name, (total, count) in totals.items() if count}
