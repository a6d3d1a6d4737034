"""Hydra heads (Ankner et al. 2024, arXiv 2402.05109, section 3): Medusa heads that also read the drafts before their own.

head_k = W2_k (blocks_k([h; embedding of token i + 1; ...; embedding of token i + k + 1])). The initial output equals the trunk's
output. Options `layers: 4` and `prefix: true` give Hydra++ (section 4): deeper heads, and one transformer layer between the trunk's
hidden states and the heads.
"""

import copy
from collections.abc import Mapping
from typing import Any, Self

import torch
from torch import Tensor, nn

from headway.errors import ConfigError
from headway.heads.base import HeadsConfig, check_layer_runs, copy_layer
from headway.heads.modules.residual import DraftLMHeads, HiddenStateHeads, ResidualBlock
from headway.trunk import ForwardContext, HiddenStates, TrunkView


class HydraHeads(HiddenStateHeads):
    """Heads with the drafts' embeddings beside the hidden state.

    Options: `layers`, number of residual blocks per head, default 1; `prefix`, a layer of the trunk's class before all heads,
    default false; `tied`, share the trunk's unembedding, default false.
    """

    family = "hydra"
    options = frozenset({"layers", "prefix", "tied"})
    drafting = "recursive"

    def __init__(self, config: HeadsConfig, blocks: nn.ModuleList, prefix: nn.ModuleDict | None, own: DraftLMHeads | None) -> None:
        super().__init__(config)
        self.blocks, self.prefix, self.unembedding = blocks, prefix, own

    @classmethod
    def from_trunk(cls, view: TrunkView, count: int, options: Mapping[str, Any]) -> Self:
        config = cls.config_for(view, count, options)
        if (layers := options.get("layers", 1)) < 1:
            raise ConfigError(f"layers is a number of residual blocks, from 1, not {layers}.")
        like, width = view.unembedding.weight, config.hidden_size
        blocks = nn.ModuleList(
            nn.Sequential(ResidualBlock(width, k + 2), *(ResidualBlock(width) for _ in range(layers - 1))) for k in range(count)
        ).to(like.device, like.dtype)
        prefix = None
        if options.get("prefix"):
            check_layer_runs(view)
            norm = copy.deepcopy(view.norm).requires_grad_(True)
            prefix = nn.ModuleDict({"layer": copy_layer(view.layers[-1], config.layers), "norm": norm})
        own = None if options.get("tied") else DraftLMHeads(view, count, config.default_draft_vocab)
        return cls(config, blocks, prefix, own)

    @property
    def attends(self) -> bool:
        return self.prefix is not None

    def checkpoint_names(self) -> dict[str, str]:
        # files of version 1 call the projection of several inputs `through`
        return {name: name.replace(".input_projection.", ".through.") for name in super().checkpoint_names()}

    def select_inputs(self, hidden_states: HiddenStates) -> Tensor:
        return hidden_states.last

    def step(self, k: int, recurrent_state: Tensor, tokens: Tensor, context: ForwardContext) -> tuple[Tensor, Tensor]:
        if k == 0 and self.prefix is not None:
            recurrent_state = self.prefix["norm"](context.run_layer(self.prefix["layer"], recurrent_state))
        inputs = torch.cat(
            [recurrent_state, context.view.model.get_input_embeddings()(tokens)], dim=-1
        )  # (batch, seq, (k + 2) * hidden)
        return inputs, self.blocks[k](inputs)
