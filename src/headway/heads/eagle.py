"""EAGLE (Li et al. 2024, arXiv 2401.15077, section 3): one layer that foresees the trunk's next states.

state_k at i = layer(fc([embedding of token i + k + 1; state_{k-1} at i])), state_{-1} being the trunk's last state at i. State k
stands for the trunk's last state at i + k + 1, and the trunk's own unembedding reads it. Names and shapes on disk are those of the
published checkpoints.
"""

from collections.abc import Mapping
from typing import Any, Self

import torch
from torch import Tensor, nn
from transformers import LlamaConfig

from headway.errors import ConfigError
from headway.heads.base import HeadsConfig, HeadStack
from headway.heads.modules.draft_layer import DraftLayer, embedded, fit, llama_config
from headway.heads.modules.unrolled import unrolled
from headway.trunk import ForwardContext, HiddenStates, TrunkView

NOISE = 0.1


class EagleHeads(HeadStack):
    """Options:
    noise: in training the trunk's states are moved by up to this much, drawn uniformly, 0.1 if not given (section 3.2).
    trained_steps: how many steps learn; all if not given, 1 as published. Drafting with steps that never learnt to read what the
        step before them wrote is what EAGLE-3's and HASS' (arXiv 2408.15766) training does away with.
    bias: whether fc has one, as some published checkpoints.
    layer: sizes of the layer that are not the trunk's, such as {intermediate_size: 512}.
    """

    family = "eagle"
    options = frozenset({"bias", "layer", "noise", "trained_steps"})
    drafting = "recursive"
    predicts_hidden_states = True

    def __init__(self, config: HeadsConfig, layer: LlamaConfig) -> None:
        super().__init__(config)
        width = config.hidden_size
        self.fc = nn.Linear(2 * width, width, bias=bool(config.options.get("bias")))
        self.layers = nn.ModuleList([DraftLayer(layer, config.layers)])

    @classmethod
    def from_trunk(cls, view: TrunkView, count: int, options: Mapping[str, Any]) -> Self:
        made = cls.config_for(view, count, options)
        if (noise := options.get("noise", NOISE)) < 0:
            raise ConfigError(f"noise is how far states are moved at most, from 0, not {noise}.")
        if (steps := options.get("trained_steps", 1)) < 1:
            raise ConfigError(f"trained_steps is how many steps learn, from 1, not {steps}.")
        stack = cls(made, llama_config(view, options.get("layer") or {}))
        with torch.no_grad():  # at first the trunk's state passes through
            stack.fc.weight.zero_()[:, made.hidden_size :] = torch.eye(made.hidden_size)
            if stack.fc.bias is not None:
                stack.fc.bias.zero_()
        return fit(stack, view)

    def select_inputs(self, hidden_states: HiddenStates) -> Tensor:
        return hidden_states.last

    def states(self, hidden: Tensor, input_ids: Tensor, context: ForwardContext, count: int | None = None) -> list[Tensor]:
        options, count = self.config.options, self.count if count is None else count
        if self.training and (noise := options.get("noise", NOISE)):
            hidden = hidden + noise * (2 * torch.rand_like(hidden) - 1)
        return unrolled(self, hidden, input_ids, context, count, options.get("trained_steps"))

    def step(self, k: int, carried: Tensor, tokens: Tensor, context: ForwardContext) -> tuple[Tensor, Tensor]:
        joined = self.fc(torch.cat([embedded(tokens, context.view), carried], dim=-1))
        state = self.layers[0](joined, joined, context)
        return state, state
