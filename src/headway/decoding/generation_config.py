"""The arguments of transformers' `generate` that apply here, with its defaults, and what is wrong with those that do not."""

import copy
import difflib
import math
import reprlib
from collections.abc import Iterable
from numbers import Integral
from typing import Any

from torch import Tensor
from transformers import GenerationConfig, PreTrainedModel

from headway.errors import ConfigError
from headway.ops.noise import folded
from headway.trunk import num_embeddings

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
WHOLE = ("max_new_tokens", "max_length", "min_new_tokens", "min_length", "num_return_sequences", "no_repeat_ngram_size", "top_k")
TOKENS = ("eos_token_id", "pad_token_id", "forced_bos_token_id", "forced_eos_token_id")
# arguments of our own `generate` -> what `Engine.submit` has in their place
OWN = {
    "attention_mask": "prompts come without padding",
    "streamer": "stream= takes a function that gets new tokens",
    "generator": "seed= takes a number for each row",
    "plain": "an Engine without drafter= decodes plainly",
    "drafter": "it is an argument of Engine",
    "adaptive": "it is an argument of Engine",
    "compile": "it is an argument of Engine",
    "max_rows": "it is an argument of Engine",
}


def resolve(
    trunk: PreTrainedModel, given: GenerationConfig | None, arguments: dict[str, Any], one_row: bool = False
) -> GenerationConfig:
    """Arguments over `given` over the trunk's own generation config over transformers' defaults.

    Args: one_row: whether there is no place for more than one continuation of a prompt.
    Raises: ConfigError for an argument that is unknown, not supported, of the wrong type, or out of range.
    """
    if given is not None and not isinstance(given, GenerationConfig):
        raise ConfigError(f"generation_config must be a GenerationConfig, got {_short(given)}. Give what it holds as arguments.")
    known = {name for name in vars(GenerationConfig()) if not name.startswith("_")} | set(UNSUPPORTED)
    for name, value in arguments.items():
        if name in FOREIGN:
            if value is not None and value is not False and not (isinstance(value, list) and not value):
                raise ConfigError(f"generate does not support {name}.")
        elif name in OWN:
            raise ConfigError(f"Engine.submit has no argument {name!r} as generate has: {OWN[name]}.")
        elif name not in known:
            near = difflib.get_close_matches(
                name, [*sorted(known), *OWN, "generation_config", "tokenizer", "seed", "acceptance"], n=1
            )
            raise ConfigError(f"generate has no argument {name!r}." + (f" Did you mean {near[0]!r}?" if near else ""))
    config = copy.deepcopy(given) if given is not None else GenerationConfig()
    for layer in (vars(trunk.generation_config), DEFAULTS):
        for name, value in layer.items():
            if name in known and getattr(config, name, None) is None:
                setattr(config, name, copy.deepcopy(value))
    for name, value in arguments.items():
        if name not in FOREIGN:
            setattr(config, name, value)
    for name, value in DEFAULTS.items():
        if getattr(config, name) is None:  # an argument that is None switches off what the trunk's own config or a default asks for
            setattr(config, name, 0 if name == "top_k" else value)
    for name, value in vars(config).items():
        if isinstance(value, Tensor) or type(value).__module__ == "numpy":
            setattr(config, name, value.tolist())
    _check(config)
    if one_row and config.num_return_sequences > 1:
        raise ConfigError(
            f"Engine.submit continues a prompt once, not num_return_sequences={config.num_return_sequences} times: submit it that "
            "often, each with a seed of its own or with none."
        )
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


def seed_number(seed: Any) -> int:
    """A seed as int64; whole numbers of any size are welcome. Raises ConfigError for anything else."""
    if not is_whole(seed):
        raise ConfigError(f"seed must be a whole number, got {_short(seed)}.")
    return folded(int(seed))


def prompt_tokens(trunk: PreTrainedModel, prompt: Any) -> list[int]:
    """The tokens of one prompt, from a sequence of whole numbers or a tensor of one dimension.

    Raises: ConfigError where it is something else, is empty, or holds a token that the trunk does not know.
    """
    if isinstance(prompt, str):
        raise ConfigError(f"The prompt must be tokens, not text, got {_short(prompt)}: give tokenizer(prompt).input_ids.")
    if isinstance(prompt, Tensor) or type(prompt).__module__ == "numpy":
        if len(prompt.shape) != 1:
            raise ConfigError(f"The prompt must be the tokens of one row, got {tuple(prompt.shape)}: submit each row on its own.")
        prompt = prompt.tolist()
    if not isinstance(prompt, Iterable) or not all(map(is_whole, prompt := list(prompt))):
        raise ConfigError(f"The prompt must be whole numbers, the tokens of one row, got {_short(prompt)}.")
    if not prompt:
        raise ConfigError("The prompt has no token.")
    check_known(trunk, min(prompt), max(prompt))
    return [int(token) for token in prompt]


def check_known(trunk: PreTrainedModel, lowest: int, highest: int) -> None:
    """Raises ConfigError where tokens of that range are not all among those that the trunk embeds."""
    size = num_embeddings(trunk)
    if not 0 <= lowest <= highest < size:
        wrong = lowest if lowest < 0 else highest
        raise ConfigError(
            f"The prompt has the token {wrong}, but this model knows 0 to {size - 1}: is the tokenizer another model's?"
        )


def is_whole(value: Any, least: float = -math.inf) -> bool:
    """Whether a value is a whole number, and not a smaller one."""
    return isinstance(value, Integral) and not isinstance(value, bool) and int(value) >= least


def _check(config: GenerationConfig) -> None:
    for name, harmless in UNSUPPORTED.items():
        value = getattr(config, name, None)
        if value not in harmless:
            raise ConfigError(f"generate does not support {name}={value!r}.")
    for name in WHOLE:
        if (value := getattr(config, name)) is not None and not is_whole(value):
            raise ConfigError(f"{name} must be a whole number, got {_short(value)}.")
    for name in TOKENS:
        value = getattr(config, name)
        if value is not None and not all(map(is_whole, value if isinstance(value, list | tuple | set) else [value])):
            raise ConfigError(f"{name} must be a token or several, as whole numbers, got {_short(value)}.")
    if config.num_return_sequences < 1 or (config.num_return_sequences > 1 and not config.do_sample):
        raise ConfigError(
            f"num_return_sequences={config.num_return_sequences} needs do_sample=True: greedy rows would all be equal."
        )
    if config.do_sample:
        ranges = {
            "temperature": (lambda t: 0 < t < math.inf, "a number above 0"),
            "top_k": (lambda k: k >= 0, "a whole number, 0 for all"),
            "top_p": (lambda p: 0 < p <= 1, "above 0 and at most 1"),
            "min_p": (lambda p: 0 <= p <= 1, "from 0 to 1"),
        }
        for name, (fine, range_) in ranges.items():
            value = getattr(config, name)
            if value is not None and not (isinstance(value, int | float) and fine(value)):
                raise ConfigError(f"{name} must be {range_}, got {_short(value)}.")


def _short(value: Any) -> str:
    """How a value reads in an error: a model's own description has pages."""
    return reprlib.repr(value) if isinstance(value, str | int | float | list | tuple | dict) else f"a {type(value).__name__}"
