"""The Llama layer that EAGLE's drafters are made of, on a trunk of any architecture.

Its parts and their names are transformers' own Llama's, so that what is trained here is what other engines run. All steps of
a draft share the layer and its one entry in a cache.
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

# of the layer, where they are not to be as the trunk's
SIZES = ("attention_bias", "head_dim", "intermediate_size", "num_attention_heads", "num_key_value_heads", "rms_norm_eps")
OPTIONS = (*SIZES, "rope_parameters")
ROPES = ("default", "linear", "dynamic", "yarn", "llama3")  # those that fit heads of any width
INNER = ("intermediate_size", "n_inner", "ffn_dim", "ffn_hidden_size")
Stack = TypeVar("Stack", bound=nn.Module)
EPSILONS = ("rms_norm_eps", "layer_norm_eps", "layer_norm_epsilon", "norm_epsilon")


class DraftLayer(GradientCheckpointingLayer):
    """A Llama layer without a norm before its attention, which may read `inputs` states of the trunk's width instead of one."""

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
        """`attended` (batch, seq, inputs * hidden) is what attention reads, `residual` (batch, seq, hidden) what it adds to."""
        self.config._attn_implementation = context.view.config._attn_implementation  # masks are made for the trunk's
        masks = context.masks
        if isinstance(masks, dict):
            masks = masks["full_attention"] if "full_attention" in masks else next(iter(masks.values()))
        rotary = self.rotary_emb(attended, context.position_ids)
        found, _ = self.self_attn(attended, position_embeddings=rotary, attention_mask=masks, past_key_values=context.cache)
        hidden = residual + found
        return hidden + self.mlp(self.post_attention_layernorm(hidden))


def llama_config(view: TrunkView, given: Mapping[str, Any]) -> LlamaConfig:
    """The layer's own config: sizes and rotary positions of the trunk, as far as it has them, but for what is `given`.

    Raises: ConfigError for something given that no layer has, or that does not go together; UnsupportedModelError for a trunk whose
        embeddings are of another width than its states.
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
    """The trunk's table of embeddings, (vocab, hidden), without what some trunks multiply them by: engines do not."""
    return cast(nn.Embedding, view.model.get_input_embeddings()).weight


def embedded(tokens: Tensor, view: TrunkView) -> Tensor:
    return F.embedding(tokens, embeddings(view))


def fit(stack: Stack, view: TrunkView) -> Stack:
    """`stack` with parameters of the trunk's type, and on its device; rotary frequencies stay in float32."""
    like = view.unembedding.weight
    for parameter in stack.parameters():
        parameter.data = parameter.data.to(like.dtype)
    return stack.to(like.device)


@torch.no_grad()
def scale_of(norm: nn.Module, width: int, like: Tensor) -> Tensor:
    """What a norm multiplies each of `width` normed values by, whether it is written as w, 1 + w or with a bias."""
    signs = torch.ones(width, device=like.device, dtype=like.dtype)
    signs[1::2] = -1  # of mean 0 and of mean square 1
    return (norm(signs) - norm(-signs)) / 2 * signs


def _first(config: Any, names: Sequence[str]) -> Any:
    return next((value for name in names if (value := getattr(config, name, None)) is not None), None)


def _rope(trunk: Any) -> dict[str, Any]:
    parameters = getattr(trunk, "rope_parameters", None) or {}
    parameters = parameters.get("full_attention", parameters) or {}  # some trunks have one for each kind of layer
    if parameters.get("rope_type", "default") not in ROPES:
        parameters = {name: value for name, value in parameters.items() if name == "rope_theta"}
    whole = {name: value for name, value in parameters.items() if name != "partial_rotary_factor"}
    return {"rope_type": "default", "rope_theta": 10000.0, **whole}
