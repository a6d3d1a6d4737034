"""`transformers.Trainer`, with the few things that several heads need.

A loss divided by the labels that a next-token loss sees, over all processes and accumulation steps, so that neither
changes it; progress for the weight schedules; a learning rate for the heads; each head's loss in the log; sharded
models on any device.
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
from headway.ops import IGNORE, shift_labels
from headway.training.distributed import fill, like, shard, summed, trained, whole
from headway.training.step import TrainingStep

WEIGHTS = "model.safetensors"


class HeadwayTrainer(Trainer):
    """Trains a `TrainingStep`. Its checkpoints hold what learns; the rest comes from the model it started with."""

    def __init__(self, *args: Any, heads_learning_rate: float, sharded: bool = False, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.sharded = sharded
        if sharded:
            shard(self.step)
            # as for models that arrive sharded: neither wrapped again nor moved. Told this late because transformers
            # writes no checkpoints of those; ours are written here.
            self.is_distributed_loading_by_transformers = True
        self.heads_learning_rate = heads_learning_rate
        self._sums: dict[str, Tensor] = {}  # name of a loss -> its sum and its labels since the last log, (2,)

    @property
    def step(self) -> TrainingStep:
        return cast(TrainingStep, self.model)

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """Trunk and heads each with their own learning rate; norms and biases without weight decay."""
        if self.optimizer is None:
            kind, options = self.get_optimizer_cls_and_kwargs(self.args)
            groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
            for name, parameter in trained(self.step):
                groups.setdefault((name.startswith("model.heads."), parameter.ndim >= 2), []).append(parameter)
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
        """The batches of one optimiser step, and how many next-token labels they have on all processes together."""
        batches, _ = super().get_batch_samples(epoch_iterator, num_batches, device)
        own = sum(int(_learnt(batch).sum()) for batch in batches)
        return batches, summed(torch.tensor(own, device=device)).clamp(min=1)

    def compute_loss(self, model: nn.Module, inputs: dict, return_outputs: bool = False, num_items_in_batch: Any = None) -> Any:
        progress = self.state.global_step / max(self.state.max_steps, 1)
        loss, outputs = super().compute_loss(model, {**inputs, "progress": progress}, True, num_items_in_batch)
        _add(self._sums, outputs["means"], inputs)
        return (loss, outputs) if return_outputs else loss

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Adds loss_1, loss_2, ...: each offset's mean since the last line. Raises HeadwayError on a loss of NaN."""
        if "loss" in logs:
            if not math.isfinite(logs["loss"]):
                raise HeadwayError(
                    f"The loss became {logs['loss']} by step {self.state.global_step}. Lower learning_rate, raise "
                    "warmup_ratio, or switch bf16 off; resuming goes on from the last checkpoint."
                )
            if self._sums:
                logs |= _means({name: summed(sums) for name, sums in self._sums.items()}, "loss")
                self._sums = {}
        super().log(logs, start_time)

    @torch.no_grad()
    def evaluate(self, eval_dataset: Any = None, ignore_keys: Any = None, metric_key_prefix: str = "eval") -> dict:
        """Mean loss of every offset that the objective computes, over the validation rows."""
        rows: Any = self.eval_dataset if eval_dataset is None else eval_dataset
        training = self.step.training
        self.step.eval()
        sums: dict[str, Tensor] = {}
        for batch in DataLoader(rows, self.args.eval_batch_size, collate_fn=self.data_collator):
            batch = {name: value.to(self.args.device) for name, value in batch.items()}
            _add(sums, self.step(**batch, progress=self.state.global_step / max(self.state.max_steps, 1))["means"], batch)
        self.step.train(training)
        found = _means(sums, f"{metric_key_prefix}_loss")
        self.log(found)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, found)
        return found

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Write what learns; every process has to call."""
        folder = Path(output_dir or self.args.output_dir or ".")
        tensors = {name: whole(parameter.detach()).cpu().contiguous() for name, parameter in trained(self.step)}
        if self.args.should_save:
            folder.mkdir(parents=True, exist_ok=True)
            save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})

    def load_checkpoint(self, folder: Path) -> None:
        """Read what `save_model` wrote. Raises HeadwayError where the folder is of another run."""
        tensors = load_file(folder / WEIGHTS)
        for name, parameter in trained(self.step):
            if name not in tensors or tensors[name].shape != parameter.shape:
                raise HeadwayError(f"{folder} is a checkpoint of another model. Use another output_dir, or --no-resume.")
            fill(parameter, tensors[name])

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        self.load_checkpoint(Path(resume_from_checkpoint))

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        if not self.sharded or self.optimizer is None or self.lr_scheduler is None:
            return super()._save_optimizer_and_scheduler(output_dir)
        state = self.optimizer.state_dict()
        state["state"] = {
            index: {key: whole(value) if isinstance(value, Tensor) else value for key, value in entries.items()}
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
                    entries[key] = like(value, parameter)


def _learnt(batch: dict[str, Tensor]) -> Tensor:
    return shift_labels(batch["labels"], 1, batch.get("segments")) != IGNORE


def _add(sums: dict[str, Tensor], means: dict[str, Tensor], batch: dict[str, Tensor]) -> None:
    """Add a batch's means, weighted by its next-token labels, to sums of losses and labels, (2,) each; NaN counts as none."""
    labels = _learnt(batch).sum()
    for name, mean in means.items():
        new = torch.stack([mean.float().nan_to_num() * labels, (~mean.isnan()) * labels])
        sums[name] = sums[name] + new if name in sums else new


def _means(sums: dict[str, Tensor], prefix: str) -> dict[str, float]:
    found = {f"{prefix}_{name}": value.tolist() for name, value in sums.items()}
    return {name: total / labels for name, (total, labels) in found.items() if labels}
