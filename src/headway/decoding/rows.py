"""The rows being decoded: prompts packed to one side, and how far each row has come."""

from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import GenerationConfig

from headway.decoding.stopping import eos_tokens
from headway.errors import ConfigError


@dataclass
class Rows:
    """Rows that are not finished yet. The token at position p of a row stands in column pads + p.

    tokens: (rows, columns), left-padded prompts and what follows; columns from `ends` on hold drafts or nothing.
    """

    index: list[int]  # which row of the call each one is
    tokens: Tensor
    pads: list[int]
    ends: list[int]  # columns that are settled

    @classmethod
    def start(cls, block: Tensor, mask: Tensor, spare: int) -> "Rows":
        """From left-padded prompts (rows, width), with `spare` columns for what comes."""
        width = block.shape[1]
        tokens = torch.cat([block, block.new_zeros(block.shape[0], spare)], dim=1)
        pads = (width - mask.sum(1)).tolist()
        return cls(list(range(block.shape[0])), tokens, pads, [width] * block.shape[0])

    @property
    def device(self) -> torch.device:
        return self.tokens.device

    @property
    def pads_tensor(self) -> Tensor:
        return torch.tensor(self.pads, device=self.device)

    @property
    def ends_tensor(self) -> Tensor:
        return torch.tensor(self.ends, device=self.device)

    @property
    def longest(self) -> int:
        """Settled tokens of the longest row, without padding."""
        return max(end - pad for end, pad in zip(self.ends, self.pads, strict=True))

    def at(self, positions: Tensor) -> Tensor:
        """Tokens at (rows, n) positions; anything where a position is negative."""
        columns = (positions + self.pads_tensor[:, None]).clamp(0, self.tokens.shape[1] - 1)
        return self.tokens.gather(1, columns)

    def select(self, keep: list[int]) -> None:
        self.index = [self.index[r] for r in keep]
        self.pads = [self.pads[r] for r in keep]
        self.ends = [self.ends[r] for r in keep]
        self.tokens = self.tokens[keep]


def left_pad(input_ids: Tensor, attention_mask: Tensor | None, config: GenerationConfig) -> tuple[Tensor, Tensor]:
    """The prompts with all padding moved to the left, and the mask that goes with them; both (batch, width).

    Raises: ConfigError where the shapes disagree or a row has no token.
    """
    if input_ids.dim() != 2 or input_ids.numel() == 0:
        raise ConfigError(f"input_ids must be (batch, seq) with at least one token, got {tuple(input_ids.shape)}.")
    mask = _infer_mask(input_ids, config) if attention_mask is None else attention_mask.to(input_ids.device) != 0
    if mask.shape != input_ids.shape:
        raise ConfigError(f"attention_mask is {tuple(mask.shape)}, but input_ids is {tuple(input_ids.shape)}.")
    if not bool(mask.any(1).all()):
        raise ConfigError(f"Row {int((~mask.any(1)).nonzero()[0])} of the prompts has no token.")
    order = mask.long().argsort(dim=1, stable=True)
    return input_ids.gather(1, order), mask.gather(1, order)


def _infer_mask(input_ids: Tensor, config: GenerationConfig) -> Tensor:
    """As transformers does: padding tokens are padding, unless they also end sequences."""
    pad = config.pad_token_id
    if pad is None or pad in eos_tokens(config):
        return torch.ones_like(input_ids, dtype=torch.bool)
    return input_ids != pad
