"""Classes for models that transformers runs only with code from the hub, although every part is in transformers."""

from transformers import AutoConfig, AutoModelForCausalLM, Qwen2Config, Qwen2ForCausalLM
from transformers.models.auto.configuration_auto import CONFIG_MAPPING


class MiMoConfig(Qwen2Config):
    model_type = "mimo"


class MiMoForCausalLM(Qwen2ForCausalLM):
    """MiMo-7B (arXiv 2505.07608): a Qwen2 with MTP layers in the checkpoints, skipped by this class."""

    config_class = MiMoConfig
    _keys_to_ignore_on_load_unexpected: list[str] | None = [r"^model\.mtp_layers\."]  # noqa: RUF012  declared as in the base class


def register() -> None:
    """Register the classes with transformers' Auto classes, unless transformers knows the model."""
    if MiMoConfig.model_type not in CONFIG_MAPPING:
        AutoConfig.register(MiMoConfig.model_type, MiMoConfig)
        AutoModelForCausalLM.register(MiMoConfig, MiMoForCausalLM)
