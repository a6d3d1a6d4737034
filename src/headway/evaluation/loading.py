"""Models to evaluate."""

from typing import Any, Protocol

from transformers import GenerationConfig, PreTrainedModel

from headway.decoding.generation_config import SPECIAL_TOKENS
from headway.evaluation.configs import Dtype
from headway.model import HeadwayModel, load_model_and_tokenizer


class ModelSettings(Protocol):
    """The part of a command's settings that names a model."""

    @property
    def model(self) -> str: ...

    @property
    def generation_config(self) -> str: ...


def load_evaluated(config: ModelSettings, dtype: Dtype = "saved") -> tuple[HeadwayModel, Any]:
    """Model and tokenizer of a command's settings.

    Raises:
        CheckpointError: the model or the tokenizer cannot be loaded, or the model does not embed all tokens of the tokenizer.
    """
    model, tokenizer = load_model_and_tokenizer(config.model, dtype=dtype)
    if config.generation_config == "none":
        keep_special_tokens(model.trunk)
    return model, tokenizer


def keep_special_tokens(trunk: PreTrainedModel) -> None:
    """Remove all settings from the trunk's generation config but the special tokens."""
    saved = trunk.generation_config
    trunk.generation_config = GenerationConfig(**{name: getattr(saved, name, None) for name in SPECIAL_TOKENS})
