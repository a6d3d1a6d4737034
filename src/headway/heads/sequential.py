"""Sequential heads: a chain of layers, where layer k reads the token before its prediction (DeepSeek-V3, arXiv 2412.19437, section
2.2).

h_k[i] = norm(layer_k(project_k([norm(embedding of token i + k + 1); norm(h_{k-1}[i])]))), with h_{-1} = the trunk's last state.
Order, norms and names on disk equal transformers' `MtpLayer`, so that tensors need no conversion.
"""

import copy
from collections.abc import Mapping
from typing import Any, Self

import torch
from torch import Tensor, nn

from headway.heads.base import HeadsConfig, HeadStack, check_layer_runs, copy_layer
from headway.trunk import ForwardContext, HiddenStates, TrunkView


class SequentialHeads(HeadStack):
    """Option: `shared`, one layer that is applied at all depths (FastMTP, arXiv 2509.18362)."""

    family = "sequential"
    options = frozenset({"shared"})
    drafting = "chained"
    predicts_hidden_states = True

    def __init__(self, config: HeadsConfig, layers: nn.ModuleList) -> None:
        super().__init__(config)
        self.layers = layers

    @classmethod
    def from_trunk(cls, view: TrunkView, count: int, options: Mapping[str, Any]) -> Self:
        config = cls.config_for(view, count, options)
        distinct = min(count, 1) if options.get("shared") else count
        check_layer_runs(view)
        layers = nn.ModuleList(SequentialLayer(view, config.layers + k) for k in range(distinct))
        return cls(config, layers)

    def select_inputs(self, hidden_states: HiddenStates) -> Tensor:
        return hidden_states.last

    def step(self, k: int, recurrent_state: Tensor, tokens: Tensor, context: ForwardContext) -> tuple[Tensor, Tensor]:
        shared = len(self.layers) < self.count
        layer = self.layers[0 if shared else k]
        if shared and context.cache is not None:
            context = context._replace(cache=_CacheOfDepth(context.cache, k))
        state = layer(context.view.model.get_input_embeddings()(tokens), recurrent_state, context)
        return state, state

    def checkpoint_names(self) -> dict[str, str]:
        names = super().checkpoint_names()
        for name in [name for name in names if name.startswith("layers.")]:
            _, index, rest = name.split(".", 2)
            rest = rest.removeprefix("mtp_block.").replace("post_norm.", "shared_head.norm.")
            names[name] = f"model.layers.{self.config.layers + int(index)}.{rest}"
        return names


class SequentialLayer(nn.Module):
    """One depth: a norm per input, a projection of both inputs, a layer of the trunk's own class, a final norm."""

    def __init__(self, view: TrunkView, index: int) -> None:
        super().__init__()
        width = view.config.hidden_size
        self.enorm, self.hnorm, self.post_norm = (copy.deepcopy(view.norm).requires_grad_(True) for _ in range(3))
        weight = next(view.layers[-1].parameters())
        self.eh_proj = nn.Linear(2 * width, width, bias=False, device=weight.device, dtype=weight.dtype)
        with torch.no_grad():  # at first the layer passes the trunk's state on, and the token adds a little noise
            self.eh_proj.weight[:, :width].normal_(std=0.02)
            self.eh_proj.weight[:, width:].copy_(torch.eye(width))
        self.mtp_block = copy_layer(view.layers[-1], index)

    def forward(self, embedded: Tensor, hidden: Tensor, context: ForwardContext) -> Tensor:
        joined = self.eh_proj(torch.cat([self.enorm(embedded), self.hnorm(hidden)], dim=-1))
        return self.post_norm(context.run_layer(self.mtp_block, joined))


class _CacheOfDepth:
    """View of a cache that gives every depth of a shared layer its own entry."""

    def __init__(self, cache: Any, depth: int) -> None:
        self.cache = cache
        self.depth = depth

    def update(self, keys: Tensor, values: Tensor, layer_idx: int, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        return self.cache.update(keys, values, layer_idx + self.depth, *args, **kwargs)
