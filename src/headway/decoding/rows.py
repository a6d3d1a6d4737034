"""The rows being decoded: their tokens, how far each has come, and how each chooses its next token."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from transformers import GenerationConfig

from headway.decoding.scores import Scores
from headway.decoding.stopping import Stops, eos_tokens
from headway.errors import ConfigError


@dataclass(eq=False)
class Row:
    """One sequence. `tokens` are settled, the prompt first; at most `limit` will be."""

    tokens: list[int]
    prompt: int
    limit: int
    scores: Scores
    stops: Stops
    emit: Callable[[list[int]], None] | None = None  # gets new tokens as they are settled
    prefilled: int = 0  # prompt tokens that the trunk has read
    finished: bool = False
    cancelled: bool = False
    error: Exception | None = None

    @property
    def new(self) -> list[int]:
        return self.tokens[self.prompt :]

    def take(self, tokens: list[int]) -> None:
        """Settle new tokens. What goes wrong where they are handed to stays with this row."""
        self.tokens += tokens
        if self.emit is not None:
            try:
                self.emit(tokens)
            except Exception as error:  # of a stranger's function: anything at all
                self.error = error

    @property
    def usable(self) -> int:
        """Drafts that can still count: one token always follows them."""
        return self.limit - len(self.tokens) - 1


@dataclass(eq=False)
class Batch:
    """The rows of one step, in the order of the cache.

    tokens: (room, columns); token p of a row stands in column p, drafts after the settled ones.
    """

    tokens: Tensor
    rows: list[Row] = field(default_factory=list)

    @property
    def device(self) -> torch.device:
        return self.tokens.device

    @property
    def lengths(self) -> list[int]:
        return [len(row.tokens) for row in self.rows]

    def at(self, positions: Tensor) -> Tensor:
        """Tokens at (rows, n) positions; anything where a position is negative."""
        return self.tokens[: len(self.rows)].gather(1, positions.clamp(0, self.tokens.shape[1] - 1))

    def processed(self, logits: Tensor, offset: int = 0) -> Tensor:
        """Scores of logits, both (rows, n, vocab), in float32; the first of n follows the settled tokens and `offset` drafts."""
        scores = logits.float()
        if all(row.scores.plain for row in self.rows):
            return scores
        scores = scores.clone()
        for r, row in enumerate(self.rows):
            for t in range(0 if row.scores.plain else logits.shape[1]):
                prefix = self.tokens[r, : len(row.tokens) + offset + t]
                scores[r, t] = row.scores.processed(logits[r, t], prefix, row.prompt, row.limit)
        return scores

    def groups(self) -> list[tuple[Scores, list[int]]]:
        """Rows that choose alike."""
        found: defaultdict[Scores, list[int]] = defaultdict(list)
        for r, row in enumerate(self.rows):
            found[row.scores].append(r)
        return list(found.items())

    def write_draft(self, k: int, logits: Tensor) -> Tensor | None:
        """Choose draft k of each row from logits (rows, vocab), given the drafts before it, and write it down.

        Returns: what it was drawn from, (rows, vocab); None if all rows are greedy.
        """
        processed = self.processed(logits[:, None], k)[:, 0]
        groups = self.groups()
        if len(groups) == 1:
            tokens, distribution = groups[0][0].choose(processed)
        else:
            tokens = torch.empty(len(self.rows), dtype=torch.long, device=self.device)
            sampled = any(scores.sampled for scores, _ in groups)
            distribution = torch.zeros_like(processed) if sampled else None
            for scores, members in groups:
                tokens[members], drawn_from = scores.choose(processed[members])
                if distribution is not None and drawn_from is not None:
                    distribution[members] = drawn_from
        columns = torch.tensor(self.lengths, device=self.device) + k
        self.tokens[: len(self.rows)].scatter_(1, columns[:, None], tokens[:, None])
        return distribution


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


def token_lists(block: Tensor, mask: Tensor) -> list[list[int]]:
    """Left-padded rows (batch, width) as lists without their padding."""
    rows: Sequence[tuple[list[int], int]] = zip(block.tolist(), mask.sum(1).tolist(), strict=True)  # type: ignore[assignment]
    return [row[len(row) - count :] for row, count in rows]
