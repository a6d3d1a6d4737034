"""Checks of settings and tokenizer against the model, before anything is trained."""

import dataclasses
import warnings
from pathlib import Path
from typing import TypeVar

from transformers import PreTrainedTokenizerBase

from headway.errors import ConfigError
from headway.model import HeadwayModel, check_tokenizer_fits
from headway.training.configs import FinetuneConfig, HeadsTrainConfig
from headway.trunk import TrunkView
from headway.trunk.quantization import trunk_is_quantized

C = TypeVar("C", FinetuneConfig, HeadsTrainConfig)


def validate(config: FinetuneConfig | HeadsTrainConfig, model: HeadwayModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """Check that the model can be trained with these settings and this tokenizer.

    Raises:
        ConfigError: the model is quantised or reads fewer tokens than `max_length`, or `output_dir` is the folder of the model.
        CheckpointError: the tokenizer has tokens that the model does not embed.
    """
    if Path(config.output_dir).resolve() == Path(config.model).resolve():
        raise ConfigError(f"output_dir is the model's own folder, {config.model}: choose another, so that the run can be resumed.")
    if trunk_is_quantized(model.trunk):
        raise ConfigError(f"{config.model} is quantised and cannot be trained: train the model it was made from, then quantise.")
    check_tokenizer_fits(model, tokenizer)
    limit = model.view.context
    if limit is not None and config.max_length > limit:
        raise ConfigError(f"max_length {config.max_length} is more than the {limit} tokens that {config.model} can read.")


def resolve_packing(config: C, view: TrunkView) -> C:
    """Settings with a document a row, and a UserWarning, for a trunk that cannot keep the documents of a row apart."""
    if not config.pack or view.takes_masks:
        return config
    cause = "takes no 4-D attention masks" if view.maskable else "has recurrent layers"
    warnings.warn(
        f"{type(view.model).__name__} {cause}, so documents of one row would see each other: each gets a row of its own.",
        UserWarning,
        stacklevel=2,
    )
    return dataclasses.replace(config, pack=False)
