"""Config of the Llama layer in EAGLE drafters: written for old and new readers, read as the heads' option `layer`."""

from collections.abc import Mapping
from typing import Any

from huggingface_hub.errors import StrictDataclassError
from torch import Tensor
from transformers import LlamaConfig

from headway.errors import CheckpointError, UnsupportedModelError
from headway.heads import HeadStack
from headway.heads.modules.draft_layer import OPTIONS, llama_config
from headway.interop.draft_checkpoint import DraftCheckpoint, equal_tensors
from headway.model import HeadwayModel
from headway.trunk import TrunkView

FIXED = {"hidden_act": "silu", "mlp_bias": False}  # settings of the heads' layer that no option changes


def layer_config(layer: LlamaConfig, model: HeadwayModel) -> dict[str, Any]:
    """Config of the layer for `config.json`.

    Rotary settings are written twice: `rope_theta` and `rope_scaling` for older readers, `rope_parameters` for transformers 5.
    """
    excluded = {"transformers_version", "use_cache", "pad_token_id", "attention_dropout"}
    config = {name: value for name, value in layer.to_diff_dict().items() if name not in excluded}
    rope = config["rope_parameters"] = _rope(layer)
    scaled = {name: value for name, value in rope.items() if name != "rope_theta"} | {"type": rope["rope_type"]}
    scaling = None if rope["rope_type"] == "default" else scaled
    trunk = model.view.config
    tokens = {name: getattr(trunk, name, None) for name in ("bos_token_id", "eos_token_id")}
    dtype = str(model.unembedding.weight.dtype).removeprefix("torch.")
    return config | {"rope_theta": rope["rope_theta"], "rope_scaling": scaling, "torch_dtype": dtype} | tokens


def layer_option(declared: Mapping[str, Any], checkpoint: DraftCheckpoint, view: TrunkView, recorded: Any) -> dict[str, Any]:
    """The heads' option `layer`: settings of the declared layer that differ from the trunk's.

    Args:
        declared: config of the layer.
        checkpoint: the drafter.
        view: the trunk.
        recorded: the option that an export of Headway wrote, returned if it means the same.
    Raises:
        UnsupportedModelError: the layer is not one Llama layer of the heads' kind.
        CheckpointError: the config describes no Llama layer.
    """
    kind = declared.get("model_type", "llama")
    if kind != "llama":
        raise UnsupportedModelError(
            f"{checkpoint.folder} holds a drafter of {kind} layers, and Headway's EAGLE heads are Llama layers."
        )
    for name, value in FIXED.items():
        if declared.get(name, value) != value:
            raise UnsupportedModelError(
                f"{checkpoint.folder}: {name} is {declared[name]!r}, and in Headway's EAGLE heads {value!r}."
            )
    if (layers := declared.get("num_hidden_layers", 1)) != 1:
        raise UnsupportedModelError(f"{checkpoint.folder} holds a drafter of {layers} layers, and Headway's EAGLE heads have one.")
    try:
        layer = LlamaConfig(**{name: value for name, value in declared.items() if name not in ("dtype", "torch_dtype")})
    except (StrictDataclassError, TypeError, ValueError) as error:
        raise CheckpointError(f"{checkpoint.folder}: config.json describes no Llama layer: {error}") from error
    if biased := any(name.endswith(".self_attn.q_proj.bias") for name in checkpoint.headers):
        layer.attention_bias = biased
    settings, defaults = _settings(layer), _settings(llama_config(view, {}))
    if isinstance(recorded, dict) and set(recorded) <= set(OPTIONS) and _settings(llama_config(view, recorded)) == settings:
        return recorded
    return {name: value for name, value in settings.items() if value != defaults[name]}


def zero_output_bias(heads: HeadStack) -> list[str]:
    """Set the bias of the attention output to zero and return its names: drafters with `qkv_bias` have no such bias in the file."""
    biases = {name: bias for name, bias in heads.checkpoint_tensors().items() if name.endswith("o_proj.bias")}
    for bias in biases.values():
        bias.data.zero_()
    return list(biases)


def redundant_tensors(tensors: Mapping[str, Tensor], of_trunk: Mapping[str, Tensor]) -> tuple[dict[str, str], list[str]]:
    """Tensors that repeat the trunk's or follow from the config: reasons for leaving them out, and names without information."""
    reasons, expected = {}, []
    for name, tensor in tensors.items():
        if name in of_trunk and equal_tensors(tensor, of_trunk[name]):
            reasons[name] = "it is the trunk's own"
            expected.append(name)
        elif name in of_trunk:
            reasons[name] = "it is not the trunk's own, and these heads read the trunk's"
        elif name.endswith("rotary_emb.inv_freq"):
            reasons[name] = "it follows from the config"
            expected.append(name)
    return reasons, expected


def _settings(layer: LlamaConfig) -> dict[str, Any]:
    return {name: _rope(layer) if name == "rope_parameters" else getattr(layer, name) for name in OPTIONS}


def _rope(layer: LlamaConfig) -> dict[str, Any]:
    """Rotary settings without `type`, the name of the kind in older configs."""
    return {name: value for name, value in (layer.rope_parameters or {}).items() if name != "type"}
