"""The first stage: heads learn beside a frozen trunk (as in Medusa-1, arXiv 2401.10774)."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import torch
from transformers import TrainerCallback, set_seed

from headway.model import HeadwayModel, load_tokenizer, load_trunk
from headway.objectives import MultiToken
from headway.training.configs import HeadsTrainConfig
from headway.training.datasets import build_dataset, build_validation_dataset
from headway.training.denoising import resize_embeddings_for
from headway.training.distributed import gather
from headway.training.draft_vocabulary import restrict_heads
from headway.training.loop import run, save_run
from headway.training.recipes import for_heads, recipe_of
from headway.training.stages.finetune import cast_parameters
from headway.training.validate import resolve_packing, validate


def train_heads(config: HeadsTrainConfig, callbacks: Sequence[TrainerCallback] = ()) -> Path:
    """Attach heads to a frozen trunk, train the heads, and save both in one folder. Returns the folder.

    Raises:
        CheckpointError: model or heads cannot be loaded, or trunk, heads and tokenizer do not fit together.
        ConfigError: an unknown family or option, or settings that do not fit the model.
        DataError: the data cannot be read or has no labels.
        HeadwayError, KeyboardInterrupt: as `run`.
    """
    tokenizer = load_tokenizer(config.model)
    set_seed(config.seed)
    trunk = load_trunk(config.model)
    model = HeadwayModel.from_trunk(trunk, count=0)
    validate(config, model, tokenizer)
    dtype = trunk.dtype
    cast_parameters(trunk, torch.float32)
    config = resolve_packing(config, model.view)
    if config.heads is not None:
        model.attach(config.heads, config.num_heads)
    elif config.family is None and model.native_mtp is not None:
        model.attach(model.native_mtp.folder, config.num_heads)
    else:
        count = recipe_of(config.recipe, config.family).num_heads if config.num_heads is None else config.num_heads
        model = HeadwayModel.from_trunk(trunk, config.family or "parallel", count, **(config.options or {}))
    assert model.heads is not None
    config = for_heads(config, model.heads.config.family)
    model.trunk.requires_grad_(False)
    objective = MultiToken(
        cast(str, config.head_weights),
        cast(float, config.beta),
        next_token=False,
        distill=config.objective == "distillation",
        feature_weight=cast(float, config.feature_weight),
    )
    rows = build_dataset(config, tokenizer, config.completion_only)
    validation = build_validation_dataset(config, tokenizer, config.completion_only)
    resize_embeddings_for(rows, model, tokenizer)
    record: dict[str, Any] = {"stage": "heads", "objective": config.objective, "model": config.model}
    if config.draft_vocabulary is not None:
        record |= restrict_heads(model, rows, config.draft_vocabulary, tokenizer, config.quiet)
    trainer = run(config, model, objective, rows, validation, callbacks)
    gather(trainer.step)
    cast_parameters(model, dtype)
    model.eval()
    return save_run(config, trainer, model, tokenizer, record)
