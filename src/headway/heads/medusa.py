"""Medusa heads (Cai et al. 2024, arXiv 2401.10774, section 2.1.1): residual blocks on the trunk's last state.

head_k = W2_k (blocks_k(h)), where a block is x + SiLU(W1 x). W2_k starts as the trunk's unembedding and W1 as zero, so that the
initial output of every head equals the trunk's output.
"""

from collections.abc import Mapping
from typing import Any, Self

from torch import Tensor, nn

from headway.errors import ConfigError
from headway.heads.base import HeadsConfig
from headway.heads.modules.residual import DraftLMHeads, HiddenStateHeads, ResidualBlock
from headway.trunk import ForwardContext, HiddenStates, TrunkView


class MedusaHeads(HiddenStateHeads):
    """Options: `layers`, number of residual blocks per head, default 1; `tied`, share the trunk's unembedding, default false."""

    family = "medusa"
    options = frozenset({"layers", "tied"})
    drafting = "parallel"

    def __init__(self, config: HeadsConfig, blocks: nn.ModuleList, own: DraftLMHeads | None) -> None:
        super().__init__(config)
        self.blocks, self.unembedding = blocks, own

    @classmethod
    def from_trunk(cls, view: TrunkView, count: int, options: Mapping[str, Any]) -> Self:
        config = cls.config_for(view, count, options)
        if (layers := options.get("layers", 1)) < 0:
            raise ConfigError(f"layers is a number of residual blocks, from 0, not {layers}.")
        like = view.unembedding.weight
        blocks = nn.ModuleList(nn.Sequential(*(ResidualBlock(config.hidden_size) for _ in range(layers))) for _ in range(count))
        own = None if options.get("tied") else DraftLMHeads(view, count, config.default_draft_vocab)
        return cls(config, blocks.to(like.device, like.dtype), own)

    @property
    def attends(self) -> bool:
        return False

    def select_inputs(self, hidden_states: HiddenStates) -> Tensor:
        return hidden_states.last

    def states(self, hidden: Tensor, input_ids: Tensor, context: ForwardContext, count: int | None = None) -> list[Tensor]:
        return [block(hidden) for block in self.blocks[:count]]
