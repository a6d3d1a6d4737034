"""The Llama layer of EAGLE's drafters, for a trunk of any architecture.

Parts and names are transformers' own Llama classes, so that other engines run the trained layer unchanged. All steps of a
draft share the layer and one cache entry.
"""

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar, cast

import torch
from huggingface_hub.errors import StrictDataclassError
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import LlamaConfig
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.models.llama.modeling_llama import LlamaAttention, LlamaMLP, LlamaRMSNorm, LlamaRotaryEmbedding

from headway.errors import ConfigError, UnsupportedModelError
from headway.trunk import ForwardContext, TrunkView

# sizes of the layer that may differ from the trunk's
SIZES = ("attention_bias", "head_dim", "intermediate_size", "num_attention_heads", "num_key_value_heads", "rms_norm_eps")
OPTIONS = (*SIZES, "rope_parameters")
ROPES = ("default", "linear", "dynamic", "yarn", "llama3")  # rotary embeddings that fit attention heads of any width
INNER = ("intermediate_size", "n_inner", "ffn_dim", "ffn_hidden_size")
Stack = TypeVar("Stack", bound=nn.Module)
EPSILONS = ("rms_norm_eps", "layer_norm_eps", "layer_norm_epsilon", "norm_epsilon")


class DraftLayer(GradientCheckpointingLayer):
    """A Llama layer without a norm before attention, with `inputs` concatenated states as the input of attention."""

    def __init__(self, config: LlamaConfig, index: int, inputs: int = 1) -> None:
        super().__init__()
        self.self_attn = LlamaAttention(config, index)
        for name in ("q_proj", "k_proj", "v_proj") if inputs > 1 else ():
            narrow = getattr(self.self_attn, name)
            wide = nn.Linear(inputs * narrow.in_features, narrow.out_features, narrow.bias is not None)
            setattr(self.self_attn, name, wide)
        self.mlp = LlamaMLP(config)
        self.post_attention_layernorm = LlamaRMSNorm(config.hidden_size, config.rms_norm_eps)
        self.rotary_emb = LlamaRotaryEmbedding(config)  # has no parameters

    @property
    def config(self) -> LlamaConfig:
        return self.self_attn.config

    def forward(self, attended: Tensor, residual: Tensor, context: ForwardContext) -> Tensor:
        """Output of the layer, (batch, seq, hidden).

        Args:
            attended: input of attention, (batch, seq, inputs * hidden).
            residual: input of the residual connection, (batch, seq, hidden).
        """
        self.config._attn_implementation = (
            context.view.config._attn_implementation
        )  # the form of masks depends on the implementation
        masks = context.masks
        if isinstance(masks, dict):
            masks = masks["full_attention"] if "full_attention" in masks else next(iter(masks.values()))
        rotary = self.rotary_emb(attended, context.position_ids)
        output, _ = self.self_attn(attended, position_embeddings=rotary, attention_mask=masks, past_key_values=context.cache)
        hidden = residual + output
        return hidden + self.mlp(self.post_attention_layernorm(hidden))


def llama_config(view: TrunkView, given: Mapping[str, Any]) -> LlamaConfig:
    """Config of the draft layer: sizes and rotary embedding of the trunk, overridden by `given`.

    Raises:
        ConfigError: an unknown name in `given`, or values that contradict each other.
        UnsupportedModelError: the trunk's embeddings and hidden states have different widths.
    """
    if unknown := set(given) - set(OPTIONS):
        raise ConfigError(f"layer has no {', '.join(sorted(unknown))}; it has: {', '.join(OPTIONS)}.")
    trunk, table = view.config, embeddings(view)
    width, heads = trunk.hidden_size, getattr(trunk, "num_attention_heads", None)
    if not isinstance(heads, int):
        raise UnsupportedModelError(f"{type(view.model).__name__} has no number of attention heads for EAGLE's layer.")
    if table.shape[1] != width:
        raise UnsupportedModelError(
            f"{type(view.model).__name__} has embeddings of width {table.shape[1]}, but states of {width}: EAGLE takes one width."
        )
    sizes = {
        "intermediate_size": _first(trunk, INNER) or 4 * width,
        "num_attention_heads": heads,
        "num_key_value_heads": getattr(trunk, "num_key_value_heads", None) or heads,
        "head_dim": getattr(trunk, "head_dim", None) or width // heads,
        "rms_norm_eps": _first(trunk, EPSILONS) or 1e-6,
        "rope_parameters": _rope(trunk),
        "max_position_embeddings": view.context or 2048,
    }
    shared = {"vocab_size": view.unembedding.size, "hidden_size": width, "num_hidden_layers": 1, "tie_word_embeddings": False}
    try:
        return LlamaConfig(**shared, **(sizes | dict(given)))
    except (StrictDataclassError, TypeError, ValueError) as error:
        raise ConfigError(f"No layer can be made with layer: {dict(given)}: {error}") from error


def embeddings(view: TrunkView) -> Tensor:
    """The trunk's embedding table, (vocab, hidden), without the factor of some trunks, because other engines apply no factor."""
    return cast(nn.Embedding, view.model.get_input_embeddings()).weight


def embedded(tokens: Tensor, view: TrunkView) -> Tensor:
    return F.embedding(tokens, embeddings(view))


def like_trunk(stack: Stack, view: TrunkView) -> Stack:
    """The stack on the trunk's device, with parameters in the trunk's data type; rotary frequencies stay in float32."""
    like = view.unembedding.weight
    for parameter in stack.parameters():
        parameter.data = parameter.data.to(like.dtype)
    return stack.to(like.device)


@torch.no_grad()
def scale_of(norm: nn.Module, width: int, like: Tensor) -> Tensor:
    """Factor that a norm applies to each normed value, (width,); independent of the form w, 1 + w or w with a bias."""
    signs = torch.ones(width, device=like.device, dtype=like.dtype)
    signs[1::2] = -1  # mean 0 and mean square 1
    return (norm(signs) - norm(-signs)) / 2 * signs


def _first(config: Any, names: Sequence[str]) -> Any:
    return next((value for name in names if (value := getattr(config, name, None)) is not None), None)


def _rope(trunk: Any) -> dict[str, Any]:
    parameters = getattr(trunk, "rope_parameters", None) or {}
    parameters = parameters.get("full_attention", parameters) or {}  # some trunks have an entry per type of layer
    if parameters.get("rope_type", "default") not in ROPES:
        parameters = {name: value for name, value in parameters.items() if name == "rope_theta"}
    whole = {name: value for name, value in parameters.items() if name != "partial_rotary_factor"}
    return {"rope_type": "default", "rope_theta": 10000.0, **whole}
