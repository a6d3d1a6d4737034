"""EAGLE-3 (Li et al. 2025, arXiv 2503.01840, section 3): one layer over three hidden states of the trunk, run on its own output.

r_0 = midlayer(embedding of token i + 1, fc([low; middle; high hidden states at i])), r_k = midlayer(embedding of token i + k + 1,
r_{k-1}), state_k = norm(r_k). The drafter has its own unembedding. Training runs all steps as in decoding
(`headway.heads.modules.unrolled`). Names and shapes on disk equal the published checkpoints.
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
from headway.heads.modules.draft_layer import DraftLayer, embedded, like_trunk, llama_config, scale_of
from headway.heads.modules.unrolled import unrolled
from headway.ops import Unembedding
from headway.trunk import ForwardContext, HiddenStates, TrunkView


class Eagle3Heads(HeadStack):
    """One draft layer for all steps, with an unembedding of its own.

    Options:
        layers_read: indices of the trunk's hidden states to read, as in transformers' `hidden_states`: index i is the input of
            layer i, and the last index is the input of the unembedding. Default: (2, layers // 2, layers - 3), closer to the
            ends in shallow trunks.
        norm_before_residual: the residual connection starts from the normed states; default false.
        layer: sizes of the layer that differ from the trunk's, such as {intermediate_size: 512}.
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
        self.lm_head = nn.ParameterDict(
            {"weight": nn.Parameter(unembedding)}
        )  # a parameter, because nn.Linear layers are quantised

    @classmethod
    def from_trunk(cls, view: TrunkView, count: int, options: Mapping[str, Any]) -> Self:
        config = cls.config_for(view, count, options)
        read = list(options.get("layers_read") or default_layers(config.layers))
        if not read or any(not 0 <= i <= config.layers for i in read):
            raise ConfigError(
                f"layers_read are hidden states of a trunk of {config.layers} layers, from 0 to {config.layers}, not {read}."
            )
        config = replace(config, options={**config.options, "layers_read": read})
        shared, tokens = view.unembedding, config.default_draft_vocab
        like = shared.weight
        known = like if tokens is None else like[tokens.to(like.device)]
        stack = cls(config, llama_config(view, options.get("layer") or {}), known.detach().clone() * shared.scale)
        with torch.no_grad():  # the layer starts from the last of these states alone
            stack.fc.weight.zero_()[:, -config.hidden_size :] = torch.eye(config.hidden_size)
            stack.norm.weight.copy_(scale_of(view.norm, config.hidden_size, like))
        return like_trunk(stack, view)

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

    def step(self, k: int, recurrent_state: Tensor, tokens: Tensor, context: ForwardContext) -> tuple[Tensor, Tensor]:
        recurrent_state = self.fc(recurrent_state) if k == 0 else recurrent_state
        recurrent_state = self.midlayer(embedded(tokens, context.view), recurrent_state, context)
        return recurrent_state, self.norm(recurrent_state)

    def unembeddings(self, view: TrunkView) -> list[Unembedding]:
        return [Unembedding(self.lm_head["weight"], tokens=self.draft_tokens, vocabulary=view.unembedding.size)] * self.count

    def set_draft_vocab(self, tokens: Tensor) -> None:
        super().set_draft_vocab(tokens)
        self.lm_head["weight"] = nn.Parameter(self.lm_head["weight"].detach()[self.draft_tokens])


class MidLayer(DraftLayer):
    """A Llama layer with the concatenation of the normed embedding and the normed state as input of attention."""

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
    """Indices of a low, a middle and a high hidden state of a trunk with this number of layers."""
    if layers > 6:
        return 2, layers // 2, layers - 3
    return layers // 4, layers // 2, layers - 1 if layers > 2 else layers
