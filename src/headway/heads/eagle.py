"""EAGLE (Li et al. 2024, arXiv 2401.15077, section 3): one layer that predicts the trunk's next hidden states.

state_k at i = layer(fc([embedding of token i + k + 1; state_{k-1} at i])), where state_{-1} is the trunk's last hidden state at i.
State k approximates the trunk's last hidden state at i + k + 1, and the trunk's own unembedding maps state k to logits. Names and
shapes on disk equal the published checkpoints.
"""

from collections.abc import Mapping
from typing import Any, Self

import torch
from torch import Tensor, nn
from transformers import LlamaConfig

from headway.errors import ConfigError
from headway.heads.base import HeadsConfig, HeadStack
from headway.heads.modules.draft_layer import DraftLayer, embedded, like_trunk, llama_config
from headway.heads.modules.unrolled import unrolled
from headway.trunk import ForwardContext, HiddenStates, TrunkView

NOISE = 0.1


class EagleHeads(HeadStack):
    """One draft layer for all steps.

    Options:
        noise: amplitude of the uniform noise on the trunk's hidden states in training, default 0.1 (section 3.2).
        trained_steps: number of steps with a gradient, default all; 1 as published. Training every step on the previous step's
            output, as EAGLE-3 and HASS (arXiv 2408.15766) do, removes the mismatch between training and drafting.
        bias: fc has a bias, as in some published checkpoints; default false.
        layer: sizes of the layer that differ from the trunk's, such as {intermediate_size: 512}.
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
        config = cls.config_for(view, count, options)
        if (noise := options.get("noise", NOISE)) < 0:
            raise ConfigError(f"noise is the amplitude of the noise on hidden states, from 0, not {noise}.")
        if (steps := options.get("trained_steps", 1)) < 1:
            raise ConfigError(f"trained_steps is a number of steps with a gradient, from 1, not {steps}.")
        stack = cls(config, llama_config(view, options.get("layer") or {}))
        with torch.no_grad():  # the layer starts from the trunk's state alone
            stack.fc.weight.zero_()[:, config.hidden_size :] = torch.eye(config.hidden_size)
            if stack.fc.bias is not None:
                stack.fc.bias.zero_()
        return like_trunk(stack, view)

    def select_inputs(self, hidden_states: HiddenStates) -> Tensor:
        return hidden_states.last

    def states(self, hidden: Tensor, input_ids: Tensor, context: ForwardContext, count: int | None = None) -> list[Tensor]:
        options, count = self.config.options, self.count if count is None else count
        if self.training and (noise := options.get("noise", NOISE)):
            hidden = hidden + noise * (2 * torch.rand_like(hidden) - 1)
        return unrolled(self, hidden, input_ids, context, count, options.get("trained_steps"))

    def step(self, k: int, recurrent_state: Tensor, tokens: Tensor, context: ForwardContext) -> tuple[Tensor, Tensor]:
        joined = self.fc(torch.cat([embedded(tokens, context.view), recurrent_state], dim=-1))
        state = self.layers[0](joined, joined, context)
        return state, state
