"""The training loop of all stages: arguments of the trainer, resuming, and the files of a run."""

import dataclasses
import importlib.util
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar, cast

import torch
import yaml
from safetensors import SafetensorError
from torch.utils.data import Dataset
from transformers import PreTrainedTokenizerBase, PrinterCallback, TrainerCallback, TrainerState, TrainingArguments

import headway.config
from headway.config import RENAMED
from headway.errors import CheckpointError, ConfigError, HeadwayError
from headway.files import write_json
from headway.model import HeadwayModel, load_tokenizer
from headway.objectives import Objective
from headway.training.checkpoints import GracefulInterrupt, MarkComplete, delete_checkpoints, newest, steps_of
from headway.training.configs import TrainingConfig
from headway.training.denoising import SetEpoch
from headway.training.distributed import barrier
from headway.training.step import TrainingStep
from headway.training.trainer import HeadwayTrainer

CONFIG = "config.headway.yaml"
HISTORY = "history.json"
SCHEDULERS = {"cosine": "cosine", "constant": "constant_with_warmup", "linear": "linear"}
# settings that a resumed run may change: none of them affects a training step
RESUME_OVERRIDABLE = {
    "output_dir",
    "save_steps",
    "save_limit",
    "log_steps",
    "resume",
    "report_to",
    "quiet",
    "validation",
    "validation_split",
}
# values in the saved settings of runs of earlier versions
OLD_VALUES = {("teacher", "itself"): "online", ("teacher", "original"): "frozen"}
C = TypeVar("C", bound=TrainingConfig)


def run(
    config: TrainingConfig,
    model: HeadwayModel,
    objective: Objective,
    rows: Dataset,
    validation: Dataset | None = None,
    callbacks: Sequence[TrainerCallback] = (),
) -> HeadwayTrainer:
    """Train all parameters that require a gradient, resuming from the newest complete checkpoint in `output_dir`.

    Args:
        config: settings of the run.
        model: trunk and heads.
        objective: loss to minimise; collates the batches.
        rows: training data, items for `objective.collate`.
        validation: data to measure the objective's metrics on.
        callbacks: further callbacks of the trainer.
    Returns: the trainer, with the history of the run in its state.
    Raises:
        ConfigError: `output_dir` holds checkpoints of a run with other settings, or the package of `report_to` is not installed.
        HeadwayError: the loss became NaN, or the disk is full.
        KeyboardInterrupt: after a Ctrl-C that saved a checkpoint.
    """
    out = Path(config.output_dir)
    arguments = _arguments(config)
    found = _start(config, out, arguments)
    if config.gradient_checkpointing:
        model.gradient_checkpointing_enable()
    step = TrainingStep(model, objective)
    stop = GracefulInterrupt()
    trainer = HeadwayTrainer(
        step,
        arguments,
        data_collator=objective.collate,
        train_dataset=rows,
        eval_dataset=validation,
        callbacks=[*callbacks, MarkComplete(), SetEpoch(rows), stop],
        heads_learning_rate=cast(float, config.heads_lr),
        sharded=config.sharding == "fsdp" and arguments.world_size > 1,
    )
    trainer.remove_callback(PrinterCallback)
    with report_disk_errors(out):
        try:
            if found is not None and _finished(found):
                trainer.load_checkpoint(found)
                trainer.state = TrainerState.load_from_json(str(found / "trainer_state.json"))
            else:
                trainer.train(resume_from_checkpoint=str(found) if found else None)
        finally:
            stop.restore()
        if stop.requested:
            raise KeyboardInterrupt
        last = trainer.state.log_history[-2:]  # the last step may have been evaluated when it was saved
        if validation is not None and not any(name.startswith("eval_") for entry in last for name in entry):
            trainer.evaluate()
    return trainer


def save_run(
    config: TrainingConfig,
    trainer: HeadwayTrainer,
    model: HeadwayModel,
    tokenizer: PreTrainedTokenizerBase,
    record: dict[str, Any],
) -> Path:
    """Save model, tokenizer, history and a record of the run. Every process has to call. Returns the folder."""
    out = Path(config.output_dir)
    if trainer.args.should_save:
        history = trainer.state.log_history
        last = next((entry for entry in reversed(history) if "loss" in entry), {})
        losses = {name: value for name, value in last.items() if name.startswith("loss")}
        record = record | {
            "data": config.sources,
            "steps": trainer.state.global_step,
            "seed": config.seed,
            "losses": losses,
        }
        with report_disk_errors(out):
            model.save_pretrained(out, training=record)
            tokenizer.save_pretrained(out)
        write_json(out / HISTORY, history)
    barrier()
    return out


def copy_tokenizer(source: str | Path, folder: Path) -> None:
    """Save the tokenizer of `source` into `folder`, if there is a tokenizer."""
    try:
        tokenizer = load_tokenizer(source)
    except CheckpointError:
        return
    with report_disk_errors(folder):
        tokenizer.save_pretrained(folder)


@contextmanager
def report_disk_errors(out: Path) -> Iterator[None]:
    """Raise HeadwayError for disk errors of torch, safetensors and Python alike."""
    try:
        yield
    except HeadwayError:
        raise
    except (OSError, SafetensorError, RuntimeError) as error:
        text = str(error)
        if isinstance(error, OSError | SafetensorError) or "PytorchStreamWriter" in text or "No space left" in text:
            raise HeadwayError(f"Cannot write {out}: {text.splitlines()[0]}. Free some space, then run again.") from error
        raise


def _start(config: TrainingConfig, out: Path, arguments: TrainingArguments) -> Path | None:
    """Prepare the folder. Returns the checkpoint to resume from, if any."""
    barrier()
    if arguments.should_save and out.is_dir():
        delete_checkpoints(out, keep_complete=config.resume)
    barrier()
    found = newest(out) if out.is_dir() else None
    if found is not None and (out / CONFIG).is_file():
        before = read_settings(type(config), out / CONFIG)
        for name in vars(config):
            if name not in RESUME_OVERRIDABLE and getattr(before, name) != getattr(config, name):
                raise ConfigError(
                    f"{found} belongs to a run with {name}: {getattr(before, name)}, not {getattr(config, name)}. "
                    "Use the same settings, another output_dir, or --no-resume to start over."
                )
    barrier()
    if arguments.should_save:
        headway.config.save(config, out / CONFIG)
    return found


def read_settings(cls: type[C], file: Path) -> C:
    """Settings that a run saved in its folder. Keys and values of earlier versions are translated.

    Raises:
        ConfigError: the file is damaged, or comes from another command.
    """
    try:
        values = yaml.safe_load(file.read_text(encoding="utf-8")) or {}
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"{file} cannot be read: {' '.join(str(error).split())}") from error
    names = {field.name for field in dataclasses.fields(cls)}
    present = {old: new for old, candidates in RENAMED.items() for new in candidates if new in names}
    values = {present.get(key, key): value for key, value in values.items()}
    values = {key: OLD_VALUES.get((key, value), value) if isinstance(value, str) else value for key, value in values.items()}
    return headway.config.build(cls, values, str(file))


def _finished(checkpoint: Path) -> bool:
    state = TrainerState.load_from_json(str(checkpoint / "trainer_state.json"))
    return steps_of(checkpoint) >= state.max_steps


def _arguments(config: TrainingConfig) -> TrainingArguments:
    if config.report_to != "none" and importlib.util.find_spec(config.report_to) is None:
        extra = f"headway[{config.report_to}]"
        raise ConfigError(f"report_to: {config.report_to} needs a package that is not installed: pip install '{extra}'.")
    cpu = not torch.accelerator.is_available()
    sharded = config.sharding == "fsdp"
    optimiser: dict[str, Any] = {  # never None here: a recipe has filled them in
        "learning_rate": config.learning_rate,
        "warmup_steps": config.warmup_ratio,
        "lr_scheduler_type": SCHEDULERS[cast(str, config.lr_scheduler)],
        "weight_decay": config.weight_decay,
        "adam_beta2": config.beta2,
        "max_grad_norm": config.max_grad_norm,
    }
    return TrainingArguments(
        output_dir=str(config.output_dir),
        max_steps=config.max_steps or -1,
        num_train_epochs=config.epochs,
        per_device_train_batch_size=config.batch_size,
        per_device_eval_batch_size=config.batch_size,
        gradient_accumulation_steps=config.gradient_accumulation,
        **optimiser,
        optim="adamw_torch",
        bf16=config.bf16,
        seed=config.seed,
        data_seed=config.seed,
        save_strategy="steps",
        save_steps=config.save_steps,
        save_total_limit=config.save_limit or None,
        eval_strategy="steps" if config.validation is not None else "no",
        eval_steps=config.save_steps if config.validation is not None else None,
        logging_strategy="steps",
        logging_steps=config.log_steps,
        logging_nan_inf_filter=False,
        report_to=[] if config.report_to == "none" else [config.report_to],
        disable_tqdm=config.quiet,
        remove_unused_columns=False,
        dataloader_pin_memory=not cpu,
        use_cpu=cpu,
        ddp_backend="gloo" if cpu and "RANK" in os.environ else None,
        # shards reduce their gradients in every pass, copies in the last pass of a step
        accelerator_config={"gradient_accumulation_kwargs": {"sync_each_batch": True}} if sharded else {},
    )
