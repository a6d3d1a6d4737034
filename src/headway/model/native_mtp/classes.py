"""Models that transformers runs only with code from the hub, though it has all they need: here they are told as what they are."""

from transformers import AutoConfig, AutoModelForCausalLM, Qwen2Config, Qwen2ForCausalLM
from transformers.models.auto.configuration_auto import CONFIG_MAPPING


class MiMoConfig(Qwen2Config):
    model_type = "mimo"


class MiMoForCausalLM(Qwen2ForCausalLM):
    """MiMo-7B (arXiv 2505.07608): a Qwen2 whose checkpoints hold MTP layers, which are skipped here."""

    config_class = MiMoConfig
    _keys_to_ignore_on_load_unexpected: list[str] | None = [r"^model\.mtp_layers\."]  # noqa: RUF012  as its base has it


def register() -> None:
    """Make transformers' Auto classes know them, unless they do already."""
    if MiMoConfig.model_type not in CONFIG_MAPPING:
        AutoConfig.register(MiMoConfig.model_type, MiMoConfig)
        AutoModelForCausalLM.register(MiMoConfig, MiMoForCausalLM)
