"""Independent heads on one shared state (Gloeckle et al. 2024, arXiv 2404.19737, section 2 and Table S4).

Each head is one transformer layer of the trunk's own kind over the state before the trunk's last layer, starts as a copy
of that layer, and shares the trunk's final norm and unembedding. The linear variant is one matrix on the trunk's last state.
"""

from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Self

from torch import Tensor, nn

from headway.heads.base import HeadsConfig, HeadStack, check_layer_runs, copy_layer
from headway.trunk import ForwardContext, HiddenStates, StopAfterKVWrite, TrunkView


class ParallelHeads(HeadStack):
    """Option `linear`: the linear variant, identity at first."""

    family = "parallel"
    options = frozenset({"linear"})
    drafting = "parallel"
    predicts_hidden_states = True

    def __init__(self, config: HeadsConfig, layers: nn.ModuleList) -> None:
        super().__init__(config)
        self.layers = layers

    @classmethod
    def from_trunk(cls, view: TrunkView, count: int, options: Mapping[str, Any]) -> Self:
        made = cls.config_for(view, count, options)
        if options.get("linear"):
            last = next(view.layers[-1].parameters())
            layers = [nn.Linear(made.hidden_size, made.hidden_size, bias=False) for _ in range(count)]
            for layer in layers:
                nn.init.eye_(layer.weight)
            stack = nn.ModuleList(layers).to(last.device, last.dtype)
        else:
            check_layer_runs(view)
            stack = nn.ModuleList(copy_layer(view.layers[-1], made.layers + k) for k in range(count))
        return cls(made, stack)

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
        rotary = context.rotary(hidden)  # once for all
        return [context.view.norm(context.run_layer(layer, hidden, rotary)) for layer in layers]

    def store_keys(self, hidden: Tensor, context: ForwardContext, count: int) -> None:
        """Put into the cache what later positions will look at of `hidden` (batch, seq, hidden), for the first `count` heads."""
        rotary = context.rotary(hidden)
        for layer in self.layers[:count]:
            with suppress(StopAfterKVWrite):
                context.run_layer(layer, hidden, rotary)

    def extra_repr(self) -> str:
        return f"count={self.count}, linear={self.linear}"
