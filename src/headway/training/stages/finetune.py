"""The second stage: trunk and heads learn a task together, in full or through LoRA (arXiv 2106.09685)."""

from collections.abc import Sequence
from pathlib import Path

import torch
from peft import LoraConfig
from peft.tuners.lora import LoraModel
from torch import nn
from transformers import PreTrainedModel, TrainerCallback, set_seed

from headway.errors import ConfigError
from headway.model import HeadwayModel, has_heads, load_tokenizer
from headway.objectives import OBJECTIVES, TRUNK_OBJECTIVES
from headway.training.configs import FinetuneConfig
from headway.training.datasets import build_dataset, build_validation_dataset
from headway.training.denoising import resize_embeddings_for
from headway.training.distributed import gather
from headway.training.loop import run, save_run
from headway.training.recipes import for_finetuning, recipe_of
from headway.training.validate import resolve_packing, validate


def finetune(config: FinetuneConfig, callbacks: Sequence[TrainerCallback] = ()) -> Path:
    """Train trunk and heads on the data and save both in one folder, adapters merged. Returns the folder.

    Raises:
        CheckpointError: model or heads cannot be loaded, or trunk, heads and tokenizer do not fit together.
        ConfigError: no parameter would learn, or the settings do not fit the model.
        DataError: the data cannot be read or has no labels.
        HeadwayError, KeyboardInterrupt: as `run`.
    """
    tokenizer = load_tokenizer(config.model)
    set_seed(config.seed)
    model = load_model(config)
    config = for_finetuning(config, model.heads.config.family if model.heads is not None else None, asks_for_fresh_heads(config))
    validate(config, model, tokenizer)
    dtype = model.trunk.dtype
    cast_parameters(model, torch.float32)
    config = resolve_packing(config, model.view)
    adapters = freeze(config, model)
    rows = build_dataset(config, tokenizer, config.completion_only)
    validation = build_validation_dataset(config, tokenizer, config.completion_only)
    resize_embeddings_for(rows, model, tokenizer)
    trainer = run(config, model, OBJECTIVES[config.objective](config, model, adapters), rows, validation, callbacks)
    gather(trainer.step)
    if adapters is not None:
        adapters.merge_and_unload()  # in place
    cast_parameters(model, dtype)
    model.eval()
    record = {"stage": "finetune", "objective": config.objective, "model": config.model, "lora": config.lora}
    return save_run(config, trainer, model, tokenizer, record)


def load_model(config: FinetuneConfig) -> HeadwayModel:
    """Model with the heads of the settings: pretrained heads of a folder, randomly initialised heads, or its own heads."""
    if config.heads is not None:
        model = HeadwayModel.from_trunk(config.model, count=0)
        model.attach(config.heads, config.num_heads)
    elif asks_for_fresh_heads(config):
        count = recipe_of(config.recipe, config.family).num_heads if config.num_heads is None else config.num_heads
        model = HeadwayModel.from_trunk(config.model, config.family or "parallel", count, **(config.options or {}))
    else:
        model = HeadwayModel.from_pretrained(config.model, config.num_heads)
    if config.objective not in TRUNK_OBJECTIVES and not model.count:
        raise ConfigError(
            f"objective: {config.objective} needs heads, and {config.model} has none: give heads (a folder) or family."
        )
    return model


def asks_for_fresh_heads(config: FinetuneConfig) -> bool:
    """True if the heads will be randomly initialised: the settings name a family, or a number of heads for a model without."""
    return config.family is not None or (config.num_heads is not None and config.heads is None and not has_heads(config.model))


def freeze(config: FinetuneConfig, model: HeadwayModel) -> LoraModel | None:
    """Switch off gradients of parameters that do not learn. Returns the adapters of the trunk with lora, else None."""
    if (config.objective == "next-token" or config.heads_gradient == "none") and model.heads is not None:
        model.heads.requires_grad_(False)
    if config.freeze_trunk:
        model.trunk.requires_grad_(False)
    if not config.lora:
        return None
    settings = LoraConfig(r=config.lora_rank, lora_alpha=config.lora_alpha, target_modules="all-linear", task_type="CAUSAL_LM")
    return LoraModel(model.trunk, settings, "default")


def cast_parameters(module: nn.Module, dtype: torch.dtype | str) -> None:
    """Cast parameters to another dtype. Buffers keep theirs, since rotary frequencies must stay in float32."""
    kind = getattr(torch, dtype) if isinstance(dtype, str) else dtype
    for parameter in module.parameters():
        if parameter.is_floating_point():
            parameter.data = parameter.data.to(kind)
    for part in module.modules():
        if isinstance(part, PreTrainedModel):
            part.config.dtype = kind
