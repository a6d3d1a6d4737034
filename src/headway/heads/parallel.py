"""Parallel heads: independent heads on a shared hidden state (Gloeckle et al. 2024, arXiv 2404.19737, section 2 and Table S4).

A head is one transformer layer of the trunk's own class. Its input is the hidden state before the trunk's last layer, and its
weights start as a copy of that layer. All heads share the trunk's final norm and unembedding. In the linear variant, a head is
one matrix on the trunk's last hidden state.
"""

from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Self

from torch import Tensor, nn

from headway.heads.base import HeadsConfig, HeadStack, check_layer_runs, copy_layer
from headway.trunk import ForwardContext, HiddenStates, StopAfterKVWrite, TrunkView


class ParallelHeads(HeadStack):
    """Option: `linear`, the linear variant; the matrices start as the identity."""

    family = "parallel"
    options = frozenset({"linear"})
    drafting = "parallel"
    predicts_hidden_states = True

    def __init__(self, config: HeadsConfig, layers: nn.ModuleList) -> None:
        super().__init__(config)
        self.layers = layers

    @classmethod
    def from_trunk(cls, view: TrunkView, count: int, options: Mapping[str, Any]) -> Self:
        config = cls.config_for(view, count, options)
        if options.get("linear"):
            last = next(view.layers[-1].parameters())
            layers = [nn.Linear(config.hidden_size, config.hidden_size, bias=False) for _ in range(count)]
            for layer in layers:
                nn.init.eye_(layer.weight)
            stack = nn.ModuleList(layers).to(last.device, last.dtype)
        else:
            check_layer_runs(view)
            stack = nn.ModuleList(copy_layer(view.layers[-1], config.layers + k) for k in range(count))
        return cls(config, stack)

    @property
    def linear(self) -> bool:
        return bool(self.config.options.get("linear"))

    @property
    def hidden_state_layers(self) -> tuple[int, ...]:
        return () if self.linear else (self.config.layers - 1,)

    @property
    def attends(self) -> bool:
        return not self.linear

    def select_inputs(self, hidden_states: HiddenStates) -> Tensor:
        return hidden_states.last if self.linear else hidden_states.inner[self.hidden_state_layers[0]]

    def states(self, hidden: Tensor, input_ids: Tensor, context: ForwardContext, count: int | None = None) -> list[Tensor]:
        layers = self.layers[:count]
        if self.linear:
            return [layer(hidden) for layer in layers]
        rotary = context.rotary(hidden)  # shared by all heads
        return [context.view.norm(context.run_layer(layer, hidden, rotary)) for layer in layers]

    def store_keys(self, hidden: Tensor, context: ForwardContext, count: int) -> None:
        """Write keys and values of `hidden`, (batch, seq, hidden), to the cache for the first `count` heads; compute no output."""
        rotary = context.rotary(hidden)
        for layer in self.layers[:count]:
            with suppress(StopAfterKVWrite):
                context.run_layer(layer, hidden, rotary)

    def extra_repr(self) -> str:
        return f"count={self.count}, linear={self.linear}"
