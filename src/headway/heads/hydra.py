"""Hydra heads (Ankner et al. 2024, arXiv 2402.05109, section 3): Medusa heads that see the drafts before theirs.

head_k = W2_k (blocks_k([h; embedding of token i + 1; ...; embedding of token i + k + 1])), which starts as the trunk's own answer.
With `layers: 4` and `prefix: true` these are Hydra++'s (section 4): deeper heads, and one transformer layer over the trunk's
states before them.
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
    """Options: `layers`, residual blocks of a head, 1 if not given; `prefix`, a layer of the trunk's kind before all heads; `tied`,
    whether heads share the trunk's unembedding."""

    family = "hydra"
    options = frozenset({"layers", "prefix", "tied"})
    drafting = "recursive"

    def __init__(self, config: HeadsConfig, blocks: nn.ModuleList, prefix: nn.ModuleDict | None, own: DraftLMHeads | None) -> None:
        super().__init__(config)
        self.blocks, self.prefix, self.unembedding = blocks, prefix, own

    @classmethod
    def from_trunk(cls, view: TrunkView, count: int, options: Mapping[str, Any]) -> Self:
        made = cls.config_for(view, count, options)
        if (layers := options.get("layers", 1)) < 1:
            raise ConfigError(f"layers is a number of residual blocks, from 1, not {layers}.")
        like, width = view.unembedding.weight, made.hidden_size
        blocks = nn.ModuleList(
            nn.Sequential(ResidualBlock(width, k + 2), *(ResidualBlock(width) for _ in range(layers - 1))) for k in range(count)
        ).to(like.device, like.dtype)
        prefix = None
        if options.get("prefix"):
            check_layer_runs(view)
            norm = copy.deepcopy(view.norm).requires_grad_(True)
            prefix = nn.ModuleDict({"layer": copy_layer(view.layers[-1], made.layers), "norm": norm})
        own = None if options.get("tied") else DraftLMHeads(view, count, made.default_draft_vocab)
        return cls(made, blocks, prefix, own)

    @property
    def attends(self) -> bool:
        return self.prefix is not None

    def select_inputs(self, hidden_states: HiddenStates) -> Tensor:
        return hidden_states.last

    def step(self, k: int, carried: Tensor, tokens: Tensor, context: ForwardContext) -> tuple[Tensor, Tensor]:
        if k == 0 and self.prefix is not None:
            carried = self.prefix["norm"](context.run_layer(self.prefix["layer"], carried))
        seen = torch.cat([carried, context.view.model.get_input_embeddings()(tokens)], dim=-1)  # (batch, seq, (k + 2) * hidden)
        return seen, self.blocks[k](seen)
