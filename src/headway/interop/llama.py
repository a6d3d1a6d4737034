"""The Llama layer of EAGLE's drafters in a config: as readers of all ages want it written, and what of it heads must be told."""

from collections.abc import Mapping
from typing import Any

from huggingface_hub.errors import StrictDataclassError
from torch import Tensor
from transformers import LlamaConfig

from headway.errors import CheckpointError, UnsupportedModelError
from headway.heads import HeadStack
from headway.heads.modules.draft_layer import OPTIONS, llama_config
from headway.interop.draft_checkpoint import Draft, same
from headway.model import HeadwayModel
from headway.trunk import TrunkView

UNLIKE = {"hidden_act": "silu", "mlp_bias": False}  # what Headway's layer is


def written(layer: LlamaConfig, model: HeadwayModel) -> dict[str, Any]:
    """The layer's config as `config.json` has it. Rotary settings stand there twice: older readers know `rope_theta` and
    `rope_scaling`, transformers 5 writes `rope_parameters`."""
    left_out = {"transformers_version", "use_cache", "pad_token_id", "attention_dropout"}
    found = {name: value for name, value in layer.to_diff_dict().items() if name not in left_out}
    rope = found["rope_parameters"] = _rope(layer)
    scaled = {name: value for name, value in rope.items() if name != "rope_theta"} | {"type": rope["rope_type"]}
    scaling = None if rope["rope_type"] == "default" else scaled
    trunk = model.view.config
    tokens = {name: getattr(trunk, name, None) for name in ("bos_token_id", "eos_token_id")}
    dtype = str(model.unembedding.weight.dtype).removeprefix("torch.")
    return found | {"rope_theta": rope["rope_theta"], "rope_scaling": scaling, "torch_dtype": dtype} | tokens


def read(said: Mapping[str, Any], draft: Draft, view: TrunkView, recorded: Any) -> dict[str, Any]:
    """The heads' option `layer`: what the layer that a config describes has otherwise than the trunk.

    Args: said: the config; recorded: the option as it was when Headway wrote this, taken where it means the same.
    Raises: UnsupportedModelError for a layer of another kind, CheckpointError for a config that describes none.
    """
    kind = said.get("model_type", "llama")
    if kind != "llama":
        raise UnsupportedModelError(f"{draft.folder} holds a drafter of {kind} layers, and Headway's EAGLE heads are Llama layers.")
    for name, ours in UNLIKE.items():
        if said.get(name, ours) != ours:
            raise UnsupportedModelError(f"{draft.folder}: {name} is {said[name]!r}, and in Headway's EAGLE heads {ours!r}.")
    if (layers := said.get("num_hidden_layers", 1)) != 1:
        raise UnsupportedModelError(f"{draft.folder} holds a drafter of {layers} layers, and Headway's EAGLE heads have one.")
    try:
        theirs = LlamaConfig(**{name: value for name, value in said.items() if name not in ("dtype", "torch_dtype")})
    except (StrictDataclassError, TypeError, ValueError) as error:
        raise CheckpointError(f"{draft.folder}: config.json describes no Llama layer: {error}") from error
    if biased := any(name.endswith(".self_attn.q_proj.bias") for name in draft.headers):
        theirs.attention_bias = biased
    wanted, usual = _told(theirs), _told(llama_config(view, {}))
    if isinstance(recorded, dict) and set(recorded) <= set(OPTIONS) and _told(llama_config(view, recorded)) == wanted:
        return recorded
    return {name: value for name, value in wanted.items() if value != usual[name]}


def unbiased(heads: HeadStack) -> list[str]:
    """Biases that a file may leave out, made zero: those who set `qkv_bias` have none behind the attention."""
    found = {name: bias for name, bias in heads.checkpoint_tensors().items() if name.endswith("o_proj.bias")}
    for bias in found.values():
        bias.data.zero_()
    return list(found)


def copies(tensors: Mapping[str, Tensor], trunks: Mapping[str, Tensor]) -> tuple[dict[str, str], list[str]]:
    """Which tensors a drafter repeats, or could compute: why each is left out, and which of them nobody misses."""
    reasons, alike = {}, []
    for name, tensor in tensors.items():
        if name in trunks and same(tensor, trunks[name]):
            reasons[name] = "it is the trunk's own"
            alike.append(name)
        elif name in trunks:
            reasons[name] = "it is not the trunk's own, and these heads read the trunk's"
        elif name.endswith("rotary_emb.inv_freq"):
            reasons[name] = "it follows from the config"
            alike.append(name)
    return reasons, alike


def _told(layer: LlamaConfig) -> dict[str, Any]:
    return {name: _rope(layer) if name == "rope_parameters" else getattr(layer, name) for name in OPTIONS}


def _rope(layer: LlamaConfig) -> dict[str, Any]:
    """Without the name that older configs have for the kind."""
    return {name: value for name, value in (layer.rope_parameters or {}).items() if name != "type"}
