"""Blocks of padded prompts to lists of tokens, and lists of tokens to a padded block."""

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import GenerationConfig

from headway.decoding.stopping import eos_tokens
from headway.errors import ConfigError


def left_pad(input_ids: Tensor, attention_mask: Tensor | None, config: GenerationConfig) -> tuple[Tensor, Tensor]:
    """The prompts with all padding moved to the left, and their attention mask as bool; both (batch, width).

    Raises:
        ConfigError: for an argument that is no tensor of whole numbers, for shapes that disagree, and for a row without tokens.
    """
    for name, value in (("input_ids", input_ids), ("attention_mask", attention_mask)):
        if not isinstance(value, Tensor) and not (value is None and name == "attention_mask"):
            raise ConfigError(f"{name} must be a tensor (batch, seq), got a {type(value).__name__}: return_tensors='pt' gives one.")
    if input_ids.is_floating_point() or input_ids.is_complex() or input_ids.dtype == torch.bool:
        raise ConfigError(f"input_ids must be whole numbers, got {input_ids.dtype}.")
    if input_ids.dim() != 2 or input_ids.numel() == 0:
        hint = ": one row is input_ids[None]" if input_ids.dim() == 1 else ""
        raise ConfigError(f"input_ids must be (batch, seq) with at least one token, got {tuple(input_ids.shape)}{hint}.")
    mask = _infer_mask(input_ids, config) if attention_mask is None else attention_mask.to(input_ids.device) != 0
    if mask.shape != input_ids.shape:
        raise ConfigError(f"attention_mask is {tuple(mask.shape)}, but input_ids is {tuple(input_ids.shape)}.")
    if not bool(mask.any(1).all()):
        raise ConfigError(f"Row {int((~mask.any(1)).nonzero()[0])} of the prompts has no token.")
    order = mask.long().argsort(dim=1, stable=True)
    return input_ids.gather(1, order), mask.gather(1, order)


def token_lists(block: Tensor, mask: Tensor) -> list[list[int]]:
    """Left-padded rows (batch, width) as lists without the padding."""
    rows: Sequence[tuple[list[int], int]] = zip(block.tolist(), mask.sum(1).tolist(), strict=True)  # type: ignore[assignment]
    return [row[len(row) - count :] for row, count in rows]


def left_block(rows: Sequence[Sequence[int]], padding: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Token lists as a block padded on the left, and its attention mask as bool; both (batch, longest)."""
    width = max(map(len, rows))
    block = torch.tensor([[padding] * (width - len(row)) + list(row) for row in rows], device=device)
    mask = torch.tensor([[False] * (width - len(row)) + [True] * len(row) for row in rows], device=device)
    return block, mask


def right_block(rows: Sequence[Sequence[int]], padding: int, device: torch.device) -> Tensor:
    """Token lists as a block padded on the right, (batch, longest)."""
    longest = max(map(len, rows))
    return torch.tensor([[*row, *[padding] * (longest - len(row))] for row in rows], device=device)


def _infer_mask(input_ids: Tensor, config: GenerationConfig) -> Tensor:
    """True except at padding tokens; as in transformers, a padding token that also ends sequences is no padding."""
    pad = config.pad_token_id
    if pad is None or pad in eos_tokens(config):
        return torch.ones_like(input_ids, dtype=torch.bool)
    return input_ids != pad
