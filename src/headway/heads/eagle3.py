"""EAGLE-3 (Li et al. 2025, arXiv 2503.01840, section 3): one layer over three of the trunk's states, run on its own output.

carried_0 = midlayer(embedding of token i + 1, fc([low; middle; high states at i])), carried_k = midlayer(embedding of token
i + k + 1, carried_{k-1}), state_k = norm(carried_k), which an unembedding of the drafter's own reads. All steps are trained as they
are used (`headway.heads.modules.unrolled`). Names and shapes on disk are those of the published checkpoints.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Self

import torch
from torch import Tensor, nn
from transformers import LlamaConfig
from transformers.models.llama.modeling_llama import LlamaRMSNorm

from headway.errors import ConfigError
from headway.heads.base import HeadsConfig, HeadStack
from headway.heads.modules.draft_layer import DraftLayer, embedded, fit, llama_config, scale_of
from headway.heads.modules.unrolled import unrolled
from headway.ops import Unembedding
from headway.trunk import ForwardContext, HiddenStates, TrunkView


class Eagle3Heads(HeadStack):
    """Options:
    layers_read: which states of the trunk are read, i as in transformers' `hidden_states[i]`: what enters layer i, and after the
        last layer what the unembedding reads; if not given (2, layers // 2, layers - 3), nearer to the ends in shallow trunks.
    norm_before_residual: whether the layer adds to the normed states instead of the states themselves.
    layer: sizes of the layer that are not the trunk's, such as {intermediate_size: 512}.
    """

    family = "eagle3"
    options = frozenset({"layer", "layers_read", "norm_before_residual"})
    drafting = "recursive"

    def __init__(self, config: HeadsConfig, layer: LlamaConfig, unembedding: Tensor) -> None:
        super().__init__(config)
        width = config.hidden_size
        self.fc = nn.Linear(len(self.layers_read) * width, width, bias=False)
        self.midlayer = MidLayer(layer, config.layers, bool(config.options.get("norm_before_residual")))
        self.norm = LlamaRMSNorm(width, layer.rms_norm_eps)
        self.lm_head = nn.ParameterDict({"weight": nn.Parameter(unembedding)})  # no nn.Linear, for those are quantised

    @classmethod
    def from_trunk(cls, view: TrunkView, count: int, options: Mapping[str, Any]) -> Self:
        made = cls.config_for(view, count, options)
        read = list(options.get("layers_read") or default_layers(made.layers))
        if not read or any(not 0 <= i <= made.layers for i in read):
            raise ConfigError(f"layers_read are states of a trunk of {made.layers} layers, from 0 to {made.layers}, not {read}.")
        made = replace(made, options={**made.options, "layers_read": read})
        shared, tokens = view.unembedding, made.default_draft_vocab
        like = shared.weight
        known = like if tokens is None else like[tokens.to(like.device)]
        stack = cls(made, llama_config(view, options.get("layer") or {}), known.detach().clone() * shared.scale)
        with torch.no_grad():  # at first the last of the states read passes through
            stack.fc.weight.zero_()[:, -made.hidden_size :] = torch.eye(made.hidden_size)
            stack.norm.weight.copy_(scale_of(view.norm, made.hidden_size, like))
        return fit(stack, view)

    @property
    def layers_read(self) -> list[int]:
        return self.config.options["layers_read"]

    @property
    def hidden_state_layers(self) -> tuple[int, ...]:
        return tuple(sorted({i for i in self.layers_read if i < self.config.layers}))

    def select_inputs(self, hidden_states: HiddenStates) -> Tensor:
        return torch.cat(
            [hidden_states.inner[i] if i < self.config.layers else hidden_states.last for i in self.layers_read], dim=-1
        )

    def states(self, hidden: Tensor, input_ids: Tensor, context: ForwardContext, count: int | None = None) -> list[Tensor]:
        return unrolled(self, hidden, input_ids, context, self.count if count is None else count)

    def step(self, k: int, carried: Tensor, tokens: Tensor, context: ForwardContext) -> tuple[Tensor, Tensor]:
        carried = self.fc(carried) if k == 0 else carried
        carried = self.midlayer(embedded(tokens, context.view), carried, context)
        return carried, self.norm(carried)

    def unembeddings(self, view: TrunkView) -> list[Unembedding]:
        return [Unembedding(self.lm_head["weight"], tokens=self.draft_tokens, vocabulary=view.unembedding.size)] * self.count

    def set_draft_vocab(self, tokens: Tensor) -> None:
        super().set_draft_vocab(tokens)
        self.lm_head["weight"] = nn.Parameter(self.lm_head["weight"].detach()[self.draft_tokens])


class MidLayer(DraftLayer):
    """A Llama layer whose attention reads the normed embedding beside the normed state."""

    def __init__(self, config: LlamaConfig, index: int, norm_before_residual: bool) -> None:
        super().__init__(config, index, inputs=2)
        self.hidden_norm = LlamaRMSNorm(config.hidden_size, config.rms_norm_eps)
        self.input_layernorm = LlamaRMSNorm(config.hidden_size, config.rms_norm_eps)
        self.norm_before_residual = norm_before_residual

    def forward(self, embedded: Tensor, hidden: Tensor, context: ForwardContext) -> Tensor:
        normed = self.hidden_norm(hidden)
        attended = torch.cat([self.input_layernorm(embedded), normed], dim=-1)
        residual = normed if self.norm_before_residual else hidden
        return super().forward(attended, residual, context)


def default_layers(layers: int) -> tuple[int, int, int]:
    """Which states are read of a trunk of so many layers: low, middle and high ones."""
    if layers > 6:
        return 2, layers // 2, layers - 3
    return layers // 4, layers // 2, layers - 1 if layers > 2 else layers
