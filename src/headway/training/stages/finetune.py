"""The second stage: trunk and heads learn a task together, in full or through LoRA (arXiv 2106.09685)."""

import dataclasses
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

import torch
from peft import LoraConfig
from peft.tuners.lora import LoraModel
from torch import nn
from transformers import PreTrainedModel, TrainerCallback, set_seed

from headway.errors import ConfigError
from headway.model import HeadwayModel, has_heads, load_tokenizer
from headway.objectives import OBJECTIVES
from headway.training.configs import FinetuneConfig, HeadsTrainConfig
from headway.training.datasets import rows_of, validation_of
from headway.training.denoising import fit_to
from headway.training.distributed import gather
from headway.training.loop import finish, run
from headway.training.recipes import for_finetuning, recipe_of
from headway.trunk import TrunkView
from headway.trunk.quantization import trunk_is_quantized

Settings = TypeVar("Settings", FinetuneConfig, HeadsTrainConfig)


def finetune(config: FinetuneConfig, callbacks: Sequence[TrainerCallback] = ()) -> Path:
    """Train model and heads on the data and save them together, adapters merged.

    Raises: CheckpointError where model or heads cannot be loaded or do not fit, ConfigError for settings with nothing
        to learn, DataError for data that cannot be read; and as `run` does.
    """
    tokenizer = load_tokenizer(config.model)
    set_seed(config.seed)
    model = load_model(config)
    config = for_finetuning(config, model.heads.config.family if model.heads is not None else None, asks_for_fresh_heads(config))
    check(config, model.trunk)
    config = fitting(config, model.trunk)
    dtype = model.trunk.dtype
    cast(model, torch.float32)
    adapters = freeze(config, model)
    rows = rows_of(config, tokenizer, config.completion_only)
    validation = validation_of(config, tokenizer, config.completion_only)
    fit_to(rows, model, tokenizer)
    trainer = run(config, model, OBJECTIVES[config.objective](config, model, adapters), rows, validation, callbacks)
    gather(trainer.step)
    if adapters is not None:
        adapters.merge_and_unload()  # in place: the trunk's layers are the trunk's own again
    cast(model, dtype)
    model.eval()
    record = {"stage": "finetune", "objective": config.objective, "model": config.model, "lora": config.lora}
    return finish(config, trainer, model, tokenizer, record)


def load_model(config: FinetuneConfig) -> HeadwayModel:
    """The model with the heads that the settings ask for: saved ones, fresh ones, or its own."""
    if config.heads is not None:
        model = HeadwayModel.from_trunk(config.model, count=0)
        model.attach(config.heads, config.num_heads)
    elif asks_for_fresh_heads(config):
        count = recipe_of(config.recipe, config.family).num_heads if config.num_heads is None else config.num_heads
        model = HeadwayModel.from_trunk(config.model, config.family or "parallel", count, **(config.options or {}))
    else:
        model = HeadwayModel.from_pretrained(config.model, config.num_heads)
    if config.objective not in ("next-token", "registers") and not model.count:
        raise ConfigError(
            f"objective: {config.objective} needs heads, and {config.model} has none: give heads (a folder) or family."
        )
    return model


def asks_for_fresh_heads(config: FinetuneConfig) -> bool:
    """Whether the settings name a family, or a number of heads where there are none."""
    return config.family is not None or (config.num_heads is not None and config.heads is None and not has_heads(config.model))


def freeze(config: FinetuneConfig, model: HeadwayModel) -> LoraModel | None:
    """Switch off the gradients of what does not learn; returns the trunk's adapters if it has any."""
    if (config.objective == "next-token" or config.heads_gradient == "none") and model.heads is not None:
        model.heads.requires_grad_(False)
    if config.freeze_trunk:
        model.trunk.requires_grad_(False)
    if not config.lora:
        return None
    settings = LoraConfig(r=config.lora_rank, lora_alpha=config.lora_alpha, target_modules="all-linear", task_type="CAUSAL_LM")
    return LoraModel(model.trunk, settings, "default")


def check(config: FinetuneConfig | HeadsTrainConfig, trunk: PreTrainedModel) -> None:
    """Raise ConfigError where the settings do not fit the model."""
    if Path(config.output_dir).resolve() == Path(config.model).resolve():
        raise ConfigError(f"output_dir is the model's own folder, {config.model}: choose another, so that the run can be resumed.")
    if trunk_is_quantized(trunk):
        raise ConfigError(f"{config.model} is quantised and cannot be trained: train the model it was made from, then quantise.")
    limit = TrunkView(trunk).context
    if limit is not None and config.max_length > limit:
        raise ConfigError(f"max_length {config.max_length} is more than the {limit} tokens that {config.model} can read.")


def fitting(config: Settings, trunk: PreTrainedModel) -> Settings:
    """The settings with a document a row where several cannot be kept apart, with a UserWarning."""
    if not config.pack or TrunkView(trunk).maskable:
        return config
    recurrent = "has recurrent layers, in which documents of one row would see each other"
    warnings.warn(f"{type(trunk).__name__} {recurrent}: each gets a row of its own.", UserWarning, stacklevel=2)
    return dataclasses.replace(config, pack=False)


def cast(module: nn.Module, dtype: torch.dtype | str) -> None:
    """Parameters to another type, buffers left alone: rotary frequencies must stay in float32."""
    kind = getattr(torch, dtype) if isinstance(dtype, str) else dtype
    for parameter in module.parameters():
        if parameter.is_floating_point():
            parameter.data = parameter.data.to(kind)
    for part in module.modules():
        if isinstance(part, PreTrainedModel):
            part.config.dtype = kind
