"""Recurrent drafter (ReDrafter, Zhang et al. 2024, arXiv 2403.09919, section 3.1): one small recurrent network for all depths.

s_k = SiLU(U s_{k-1} + W e + b) with s_{-1} = 0, where e is the embedding of the token before the predicted token. The prediction is
unembedding(blocks(P [h; s_k])), where h is the trunk's last hidden state, the same for all depths. P starts as the projection on h.
"""

from collections.abc import Mapping
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from headway.errors import ConfigError
from headway.heads.base import HeadsConfig
from headway.heads.modules.residual import DraftLMHeads, HiddenStateHeads, ResidualBlock
from headway.trunk import ForwardContext, HiddenStates, TrunkView


class ReDrafterHeads(HiddenStateHeads):
    """Heads that share all parameters: the number of parameters does not depend on the number of heads.

    Options: `layers`, number of residual blocks, default 2; `tied`, share the trunk's unembedding, default false.
    """

    family = "redrafter"
    options = frozenset({"layers", "tied"})
    drafting = "recursive"

    def __init__(self, config: HeadsConfig, layers: int, unembedding: DraftLMHeads | None) -> None:
        super().__init__(config)
        width = config.hidden_size
        self.from_state = nn.Linear(width, width)  # U and b
        self.from_token = nn.Linear(width, width, bias=False)  # W
        self.project = nn.Linear(2 * width, width, bias=False)
        nn.init.eye_(self.project.weight)
        self.blocks = nn.Sequential(*(ResidualBlock(width) for _ in range(layers)))
        self.unembedding = unembedding

    @classmethod
    def from_trunk(cls, view: TrunkView, count: int, options: Mapping[str, Any]) -> Self:
        config = cls.config_for(view, count, options)
        if (layers := options.get("layers", 2)) < 0:
            raise ConfigError(f"layers is a number of residual blocks, from 0, not {layers}.")
        like = view.unembedding.weight
        own = None if options.get("tied") else DraftLMHeads(view, 1, config.default_draft_vocab)
        return cls(config, layers, own).to(like.device, like.dtype)

    @property
    def attends(self) -> bool:
        return False

    def select_inputs(self, hidden_states: HiddenStates) -> Tensor:
        return hidden_states.last

    def step(self, k: int, recurrent_state: Tensor, tokens: Tensor, context: ForwardContext) -> tuple[Tensor, Tensor]:
        width = self.config.hidden_size
        last, state = recurrent_state.split(width, dim=-1) if k else (recurrent_state, torch.zeros_like(recurrent_state))
        state = F.silu(self.from_state(state) + self.from_token(context.view.model.get_input_embeddings()(tokens)))
        recurrent_state = torch.cat([last, state], dim=-1)
        return recurrent_state, self.blocks(self.project(recurrent_state))
