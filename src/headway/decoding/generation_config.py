"""Arguments of transformers' `generate` that apply here, with transformers' defaults; all other arguments are refused."""

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

NO_CONFIG = "none"  # generation_config="none": of the model's own generation config, only the special tokens
# unsupported settings, with the values that ask for nothing
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
# unsupported settings that leave the text as it is: refused as arguments, ignored in a model's own generation config
WITHOUT_EFFECT_ON_TEXT = (
    "prompt_lookup_num_tokens",
    "assistant_early_exit",
    "use_mtp",
    "output_attentions",
    "output_hidden_states",
    "output_scores",
    "output_logits",
    "return_dict_in_generate",
)
# arguments of transformers' generate that are no generation settings
UNSUPPORTED_ARGUMENTS = (
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
SINGLE_TOKENS = ("pad_token_id", "bos_token_id", "forced_bos_token_id")
TOKENS = ("eos_token_id", "forced_eos_token_id")  # one token or several
SPECIAL_TOKENS = ("eos_token_id", "pad_token_id", "bos_token_id", "decoder_start_token_id")
# arguments of Headway's `generate` that a request does not have, and the replacement
OF_GENERATE = {
    "attention_mask": "prompts come without padding",
    "streamer": "on_tokens= takes a function that gets new tokens",
    "generator": "seed= takes a number",
    "speculative": "an Engine without drafter= decodes autoregressively",
    "drafter": "it is an argument of Engine",
    "adaptive": "it is an argument of Engine",
    "compile": "it is an argument of Engine",
    "max_batch_size": "it is an argument of Engine",
}
RENAMED = {"plain": "speculative=False", "max_rows": "max_batch_size"}


def resolve(
    trunk: PreTrainedModel, given: GenerationConfig | str | None, arguments: dict[str, Any], one_row: bool = False
) -> GenerationConfig:
    """The generation config in force: `arguments` over `given` over the trunk's own generation config over transformers' defaults.

    Args:
        given: a generation config; "none" takes only the special tokens from the trunk's own generation config.
        arguments: generation settings; None switches a setting off.
        one_row: refuse more than one continuation of a prompt.
    Raises:
        ConfigError: for an argument that is unknown, not supported, of the wrong type, or out of range.
    """
    if given is not None and given != NO_CONFIG and not isinstance(given, GenerationConfig):
        raise ConfigError(f"generation_config must be a GenerationConfig, got {_short(given)}. Give what it holds as arguments.")
    known = {name for name in vars(GenerationConfig()) if not name.startswith("_")} | set(UNSUPPORTED)
    for name, value in arguments.items():
        if name in UNSUPPORTED_ARGUMENTS:
            if value is not None and value is not False and not (isinstance(value, list) and not value):
                raise ConfigError(f"generate does not support {name}.")
        elif name in OF_GENERATE:
            raise ConfigError(f"A request has no setting {name!r} as generate has: {OF_GENERATE[name]}.")
        elif name in RENAMED:
            raise ConfigError(f"generate has no argument {name!r} any more: it is {RENAMED[name]}.")
        elif name not in known:
            near = difflib.get_close_matches(
                name, [*sorted(known), *OF_GENERATE, "generation_config", "tokenizer", "seed", "acceptance"], n=1
            )
            raise ConfigError(f"generate has no argument {name!r}." + (f" Did you mean {near[0]!r}?" if near else ""))
    config = copy.deepcopy(given) if isinstance(given, GenerationConfig) else GenerationConfig()
    own = {name: getattr(config, name, None) for name in UNSUPPORTED}
    for layer in (vars(trunk.generation_config), DEFAULTS):
        for name, value in layer.items():
            if layer is not DEFAULTS and (name in WITHOUT_EFFECT_ON_TEXT or (given == NO_CONFIG and name not in SPECIAL_TOKENS)):
                continue
            if name in known and getattr(config, name, None) is None:
                setattr(config, name, copy.deepcopy(value))
    for name, value in arguments.items():
        if name not in UNSUPPORTED_ARGUMENTS:
            setattr(config, name, value)
    for name, value in DEFAULTS.items():
        if getattr(config, name) is None:  # an argument of None switches off the trunk's own setting or the default
            setattr(config, name, 0 if name == "top_k" else value)
    _normalize(config)
    _check(config, ours={name for name in UNSUPPORTED if name in arguments or own[name] is not None})
    if one_row and config.num_return_sequences > 1:
        raise ConfigError(
            f"A request is continued once, not num_return_sequences={config.num_return_sequences} times: give n= to the Request."
        )
    return config


def _normalize(config: GenerationConfig) -> None:
    """Turn tensors, numpy values, sets and tuples of a generation config into plain numbers and lists."""
    for name, value in vars(config).items():
        if isinstance(value, Tensor) or type(value).__module__ == "numpy":
            value = value.tolist()
        if name in (*TOKENS, *SINGLE_TOKENS) and isinstance(value, Iterable) and not isinstance(value, str):
            value = [token.item() if hasattr(token, "item") else token for token in value]
            value = sorted(value) if isinstance(getattr(config, name), set | frozenset) and all(map(is_whole, value)) else value
            if name in SINGLE_TOKENS and len(value) == 1:
                value = value[0]
        setattr(config, name, value)


def new_token_limit(trunk: PreTrainedModel, config: GenerationConfig, length: int, width: int | None = None) -> int:
    """Maximum number of new tokens after a prompt.

    Rotary positions have no end, as in transformers. Learned positions end, and end the sequence.

    Args:
        length: tokens of the prompt.
        width: columns of the padded block that the prompt is in; `max_length` counts columns. Default: `length`.
    Raises:
        ConfigError: if no token can be added.
    """
    width = length if width is None else width
    context = getattr(trunk.config.get_text_config(), "max_position_embeddings", None)
    if config.max_new_tokens is not None:
        limit = config.max_new_tokens
    elif config.max_length is not None:
        limit = config.max_length - width
    else:
        limit = 20 if context is None else min(20, context - length)
    positions = position_limit(trunk)
    if positions is not None and length > positions:
        raise ConfigError(f"The prompt has {length} tokens, but this model reads at most {positions}. Shorten the prompt.")
    if limit < 1:
        raise ConfigError(f"No token can be added to a prompt of {width}: max_new_tokens must be at least 1.")
    return limit if positions is None else min(limit, positions + 1 - length)  # the last token is never read


def position_limit(model: PreTrainedModel) -> int | None:
    """Number of positions in a model with a table of positions; None for rotary, ALiBi and growing sinusoidal positions."""
    config = model.config.get_text_config()
    if getattr(config, "rope_parameters", None) is not None or getattr(config, "alibi", False):
        return None
    if any(hasattr(module, "make_weights") for module in model.modules()):  # a sinusoidal table that grows (XGLM)
        return None
    limit = getattr(config, "max_position_embeddings", None)
    return None if limit is None else int(limit)


def context_issue(context: int | None, length: int, strict: bool = False) -> str | None:
    """A note about a prompt beyond the context that a model was trained for; None if the prompt fits.

    Args:
        context: number of tokens that the model was trained for, None if unknown.
        length: number of prompt tokens.
    Raises:
        ConfigError: if the prompt does not fit and `strict` is set.
    """
    if context is None or length <= context:
        return None
    note = f"The prompt has {length:,} tokens, but this model was made for {context:,}; the output is likely meaningless."
    if strict:
        raise ConfigError(f"{note} Shorten the prompt, or leave out strict_context.")
    return note


def seed_number(seed: Any) -> int:
    """A seed folded to int64.

    Raises:
        ConfigError: for a seed that is no whole number.
    """
    if not is_whole(seed):
        raise ConfigError(f"seed must be a whole number, got {_short(seed)}.")
    return folded(int(seed))


def prompt_tokens(trunk: PreTrainedModel, prompt: Any) -> list[int]:
    """The tokens of one prompt as a list.

    Args:
        prompt: a sequence of whole numbers, or a tensor (length,).
    Raises:
        ConfigError: for any other type, an empty prompt, and a token that the trunk does not embed.
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
    """Compare a range of tokens with the trunk's embedding.

    Raises:
        ConfigError: if the range is not within the embedding.
    """
    size = num_embeddings(trunk)
    if not 0 <= lowest <= highest < size:
        wrong = lowest if lowest < 0 else highest
        raise ConfigError(
            f"The prompt has the token {wrong}, but this model knows 0 to {size - 1}: is the tokenizer another model's?"
        )


def is_whole(value: Any, least: float = -math.inf) -> bool:
    """True for a whole number (no bool) of at least `least`."""
    return isinstance(value, Integral) and not isinstance(value, bool) and int(value) >= least


def _check(config: GenerationConfig, ours: set[str]) -> None:
    for name, harmless in UNSUPPORTED.items():
        value = getattr(config, name, None)
        if value not in harmless:
            own = ' It is in the model\'s generation config: generation_config="none" leaves that out (--generation-config none).'
            hint = "" if name in ours else own
            raise ConfigError(f"generate does not support {name}={value!r}.{hint}")
    for name in WHOLE:
        if (value := getattr(config, name)) is not None and not is_whole(value):
            raise ConfigError(f"{name} must be a whole number, got {_short(value)}.")
    for name in TOKENS:
        value = getattr(config, name)
        if value is not None and not all(map(is_whole, value if isinstance(value, list) else [value])):
            raise ConfigError(f"{name} must be a token or several, as whole numbers, got {_short(value)}.")
    for name in SINGLE_TOKENS:
        if (value := getattr(config, name)) is not None and not is_whole(value):
            raise ConfigError(f"{name} must be a token, as a whole number, got {_short(value)}.")
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
    """A value as text for an error message, at most a line."""
    return reprlib.repr(value) if isinstance(value, str | int | float | list | tuple | dict) else f"a {type(value).__name__}"
