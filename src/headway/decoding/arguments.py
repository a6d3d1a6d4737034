"""The arguments of transformers' `generate` that apply here, with its defaults."""

import copy
import difflib
from typing import Any

from transformers import GenerationConfig, PreTrainedModel

from headway.errors import ConfigError

# name -> the values that ask for nothing
UNSUPPORTED: dict[str, tuple[Any, ...]] = {
    "num_beams": (None, 1),
    "num_beam_groups": (None, 1),
    "diversity_penalty": (None, 0.0),
    "penalty_alpha": (None, 0.0),
    "dola_layers": (None,),
    "prompt_lookup_num_tokens": (None,),
    "assistant_early_exit": (None,),
    "use_mtp": (None, False),
    "guidance_scale": (None, 1, 1.0),
    "watermarking_config": (None,),
    "token_healing": (None, False),
    "typical_p": (None, 1.0),
    "top_h": (None,),
    "epsilon_cutoff": (None, 0.0),
    "eta_cutoff": (None, 0.0),
    "encoder_repetition_penalty": (None, 1.0),
    "encoder_no_repeat_ngram_size": (None, 0),
    "max_time": (None,),
    "output_attentions": (None, False),
    "output_hidden_states": (None, False),
    "output_scores": (None, False),
    "output_logits": (None, False),
    "return_dict_in_generate": (None, False),
}
# arguments of transformers' generate that are no generation settings
FOREIGN = (
    "assistant_model",
    "custom_generate",
    "inputs",
    "inputs_embeds",
    "logits_processor",
    "negative_prompt_ids",
    "past_key_values",
    "position_ids",
    "prefix_allowed_tokens_fn",
    "stopping_criteria",
    "synced_gpus",
    "token_type_ids",
)
DEFAULTS = {
    "do_sample": False,
    "temperature": 1.0,
    "top_k": 50,
    "top_p": 1.0,
    "repetition_penalty": 1.0,
    "no_repeat_ngram_size": 0,
    "num_return_sequences": 1,
}
OWN = (
    "attention_mask",
    "generation_config",
    "streamer",
    "tokenizer",
    "generator",
    "seed",
    "plain",
    "drafter",
    "adaptive",
    "acceptance",
)


def resolve(trunk: PreTrainedModel, given: GenerationConfig | None, arguments: dict[str, Any]) -> GenerationConfig:
    """Arguments over `given` over the trunk's own generation config over transformers' defaults.

    Raises: ConfigError for an argument that is unknown, not supported, or out of range.
    """
    known = {name for name in vars(GenerationConfig()) if not name.startswith("_")} | set(UNSUPPORTED)
    for name, value in arguments.items():
        if name in FOREIGN:
            if value is not None and value is not False:
                raise ConfigError(f"generate does not support {name}.")
        elif name not in known:
            near = difflib.get_close_matches(name, [*sorted(known), *OWN], n=1)
            raise ConfigError(f"generate has no argument {name!r}." + (f" Did you mean {near[0]!r}?" if near else ""))
    config = copy.deepcopy(given) if given is not None else GenerationConfig()
    for layer in (vars(trunk.generation_config), DEFAULTS):
        for name, value in layer.items():
            if name in known and getattr(config, name, None) is None:
                setattr(config, name, copy.deepcopy(value))
    for name, value in arguments.items():
        if name not in FOREIGN:
            setattr(config, name, value)
    _check(config)
    return config


def new_token_limit(trunk: PreTrainedModel, config: GenerationConfig, width: int) -> int:
    """How many tokens may be added to a prompt block of `width` columns.

    Rotary positions only grow unfamiliar past the context, as in transformers; learned ones end, and so does the row.

    Raises: ConfigError where there is no room for any.
    """
    text = trunk.config.get_text_config()
    context = getattr(text, "max_position_embeddings", None)
    if config.max_new_tokens is not None:
        limit = config.max_new_tokens
    elif config.max_length is not None:
        limit = config.max_length - width
    else:
        limit = 20 if context is None else min(20, context - width)
    learned = learned_positions(trunk)
    if learned is not None and width > learned:
        raise ConfigError(f"The prompt has {width} tokens, but this model reads at most {learned}. Shorten the prompt.")
    if limit < 1:
        raise ConfigError(f"No token can be added to a prompt of {width}: max_new_tokens must be at least 1.")
    return limit if learned is None else min(limit, learned + 1 - width)  # the last token is never read


def learned_positions(model: PreTrainedModel) -> int | None:
    """How many positions a model has that learned each of them; None where they go on for ever, as rotary ones do."""
    text = model.config.get_text_config()
    return getattr(text, "max_position_embeddings", None) if getattr(text, "rope_parameters", None) is None else None


def _check(config: GenerationConfig) -> None:
    for name, harmless in UNSUPPORTED.items():
        value = getattr(config, name, None)
        if value not in harmless:
            raise ConfigError(f"generate does not support {name}={value!r}.")
    if config.num_return_sequences < 1 or (config.num_return_sequences > 1 and not config.do_sample):
        raise ConfigError(
            f"num_return_sequences={config.num_return_sequences} needs do_sample=True: greedy rows would all be equal."
        )
    if config.do_sample:
        ranges = {
            "temperature": (config.temperature > 0, "above 0"),
            "top_k": (isinstance(config.top_k, int) and config.top_k >= 0, "a whole number, 0 for all"),
            "top_p": (0 < config.top_p <= 1, "above 0 and at most 1"),
            "min_p": (config.min_p is None or 0 <= config.min_p <= 1, "from 0 to 1"),
        }
        for name, (fine, range_) in ranges.items():
            if not fine:
                raise ConfigError(f"{name} must be {range_}, got {getattr(config, name)!r}.")
