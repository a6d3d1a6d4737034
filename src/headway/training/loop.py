"""What all stages share: arguments for the trainer, resuming, and the files a run leaves in its folder."""

import importlib.util
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import torch
import yaml
from safetensors import SafetensorError
from torch.utils.data import Dataset
from transformers import PreTrainedTokenizerBase, PrinterCallback, TrainerCallback, TrainerState, TrainingArguments

import headway.config
from headway.errors import CheckpointError, ConfigError, HeadwayError
from headway.files import write_json
from headway.model import HeadwayModel, load_tokenizer
from headway.objectives import Objective
from headway.training.checkpoints import GracefulInterrupt, MarkComplete, clear, newest, steps_of
from headway.training.configs import TrainingConfig
from headway.training.denoising import SetEpoch
from headway.training.distributed import barrier
from headway.training.step import TrainingStep
from headway.training.trainer import HeadwayTrainer

CONFIG = "config.headway.yaml"
# keys in the saved settings of runs up to December 2026
OLD_KEYS = {
    "out": "output_dir",
    "length": "max_length",
    "count": "num_heads",
    "schedule": "lr_scheduler",
    "grad_clip": "max_grad_norm",
}
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
    """Train what requires a gradient, from the newest whole checkpoint on if there is one.

    Raises: ConfigError where `output_dir` holds checkpoints of a run with other settings, or what the log needs is not
        installed; HeadwayError for a NaN loss or a full disk; KeyboardInterrupt after a Ctrl-C that saved a checkpoint.
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
        heads_learning_rate=config.heads_lr,
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
        if stop.asked:
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
    """Save model, tokenizer, history and a record of the run; every process has to call. Returns the folder."""
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
    """Save the tokenizer of `source` into `folder`, if it has one."""
    try:
        tokenizer = load_tokenizer(source)
    except CheckpointError:
        return
    with report_disk_errors(folder):
        tokenizer.save_pretrained(folder)


@contextmanager
def report_disk_errors(out: Path) -> Iterator[None]:
    """A full disk, which torch and safetensors report each in its own way, as one HeadwayError."""
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
    """Prepare the folder; returns the checkpoint to continue."""
    barrier()
    if arguments.should_save and out.is_dir():
        clear(out, keep_whole=config.resume)
    barrier()
    found = newest(out) if out.is_dir() else None
    if found is not None and (out / CONFIG).is_file():
        before = read_settings(type(config), out / CONFIG)
        for name in vars(config):
            if name not in RESUME_OVERRIDABLE and getattr(before, name) != getattr(config, name):
                raise ConfigError(
                    f"{found} is of a run with {name}: {getattr(before, name)}, not {getattr(config, name)}. "
                    "Use the same settings, another output_dir, or --no-resume to start over."
                )
    barrier()
    if arguments.should_save:
        headway.config.save(config, out / CONFIG)
    return found


def read_settings(cls: type[C], file: Path) -> C:
    """The settings that a run saved beside its results, keys of earlier versions included.

    Raises: ConfigError where the file is damaged or belongs to another command.
    """
    try:
        values = yaml.safe_load(file.read_text(encoding="utf-8")) or {}
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"{file} cannot be read: {' '.join(str(error).split())}") from error
    values = {OLD_KEYS.get(key, key): value for key, value in values.items()}
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
    return TrainingArguments(
        output_dir=str(config.output_dir),
        max_steps=config.max_steps or -1,
        num_train_epochs=config.epochs,
        per_device_train_batch_size=config.batch_size,
        per_device_eval_batch_size=config.batch_size,
        gradient_accumulation_steps=config.gradient_accumulation,
        learning_rate=config.learning_rate,
        warmup_steps=config.warmup_ratio,
        lr_scheduler_type=SCHEDULERS[config.lr_scheduler],
        weight_decay=config.weight_decay,
        adam_beta2=config.beta2,
        optim="adamw_torch",
        max_grad_norm=config.max_grad_norm,
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
        # shards need their gradients reduced at every pass; copies can wait for the last one of a step
        accelerator_config={"gradient_accumulation_kwargs": {"sync_each_batch": True}} if sharded else {},
    )
