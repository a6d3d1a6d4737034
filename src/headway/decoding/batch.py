"""The rows being decoded: their tokens, how far each has come, and how each chooses its next token."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from transformers import GenerationConfig

from headway.decoding.sampler import Sampler
from headway.decoding.stopping import StoppingCriteria, eos_tokens
from headway.errors import ConfigError
from headway.ops.sampling import sample


@dataclass(eq=False)
class SequenceState:
    """One sequence. `tokens` are settled, the prompt first; at most `limit` will be."""

    tokens: list[int]
    prompt: int
    limit: int
    scores: Sampler
    stops: StoppingCriteria
    seed: int = 0  # of what is drawn for it
    emit: Callable[[list[int]], None] | None = None  # gets new tokens as they are settled
    prefilled: int = 0  # prompt tokens that the trunk has read
    finished: bool = False
    cancelled: bool = False
    ended: bool = False  # it gains no more tokens
    error: Exception | None = None
    on_cancel: Callable[["SequenceState"], None] | None = None  # of the engine that it waits or runs in

    def cancel(self) -> None:
        """Let the row leave before the next step; what it has stays."""
        self.cancelled = True
        if self.on_cancel is not None:
            self.on_cancel(self)

    @property
    def new(self) -> list[int]:
        return self.tokens[self.prompt :]

    def take(self, tokens: list[int]) -> int:
        """Settle those of the new tokens that belong to it; how many. What goes wrong on the way ends this row alone."""
        count = 0
        if self.error is None and not self.cancelled:
            try:
                count, self.ended = self.stops.cut(self.tokens, tokens)
                self.tokens += tokens[:count]
                if self.emit is not None:
                    self.emit(tokens[:count])
            except Exception as error:  # of a stranger's function: anything at all
                self.error = error
        self.ended |= self.cancelled or self.error is not None or len(self.tokens) >= self.limit
        return count

    @property
    def max_accepted(self) -> int:
        """Drafts that can still count: one token always follows them."""
        return self.limit - len(self.tokens) - 1


@dataclass(eq=False)
class Batch:
    """The rows of one step, in the order of the cache.

    tokens: (room, columns); token p of a row stands in column p, drafts after the settled ones.
    """

    tokens: Tensor
    rows: list[SequenceState] = field(default_factory=list)
    _ends: tuple[list[int], Tensor] | None = None

    @property
    def device(self) -> torch.device:
        return self.tokens.device

    @property
    def lengths(self) -> list[int]:
        return [len(row.tokens) for row in self.rows]

    @property
    def ends(self) -> Tensor:
        """The lengths, (rows, 1), where the tokens are; not to be written to."""
        lengths = self.lengths
        if self._ends is None or self._ends[0] != lengths:
            self._ends = (lengths, torch.tensor(lengths, device=self.device)[:, None])
        return self._ends[1]

    def at(self, positions: Tensor) -> Tensor:
        """Tokens at (rows, n) positions; anything where a position is negative."""
        return self.tokens[: len(self.rows)].gather(1, positions.clamp(0, self.tokens.shape[1] - 1))

    def drafted(self, count: int) -> Tensor:
        """What stands after the settled tokens, (rows, count)."""
        columns = self.ends + torch.arange(count, device=self.device)
        return self.tokens[: len(self.rows)].gather(1, columns)

    def processed(self, logits: Tensor, nodes: Sequence[int] | None = None, parents: Tensor | None = None) -> Tensor:
        """Scores of logits, both (rows, n, vocab), in float32. A row whose processors fail keeps its error.

        nodes: what each of n follows: 0, the settled tokens, or a draft, from 1; default: 0 to n - 1.
        parents: (rows, drafts), the node each draft follows; without it each follows the one before.
        """
        scores = logits.float()
        if all(row.scores.plain for row in self.rows):
            return scores
        scores = scores.clone()
        for r, row in enumerate(self.rows):
            if row.scores.plain or row.error is not None:
                continue
            try:
                above = None if parents is None else parents[r].tolist()
                for n, node in enumerate(range(logits.shape[1]) if nodes is None else nodes):
                    prefix = self._prefix(r, node, above)
                    scores[r, n] = row.scores.processed(logits[r, n], prefix, row.prompt, row.limit)
            except Exception as error:  # of processors with settings of its own
                row.error = error
        return scores

    def _prefix(self, r: int, node: int, above: list[int] | None) -> Tensor:
        """The tokens of row r up to a node, of a tree where `above` tells the parents of its nodes."""
        end = len(self.rows[r].tokens)
        if above is None:
            return self.tokens[r, : end + node]
        columns = torch.tensor(_way(above, node), dtype=torch.long, device=self.device) + end - 1
        return torch.cat([self.tokens[r, :end], self.tokens[r, columns]])

    def groups(self) -> list[tuple[Sampler, list[int]]]:
        """Rows that choose alike."""
        found: defaultdict[Sampler, list[int]] = defaultdict(list)
        for r, row in enumerate(self.rows):
            found[row.scores].append(r)
        return list(found.items())

    def preferences(self, processed: Tensor, depths: Tensor | None = None) -> Tensor:
        """What the tokens that rows choose are the largest of, (rows, n, vocab); depths: (rows, n), drafts before each, if any."""
        if not any(row.scores.sampled for row in self.rows):
            return processed
        seeds = torch.tensor([row.seed for row in self.rows], device=self.device)
        positions = self.ends.expand(-1, processed.shape[1]) if depths is None else self.ends + depths
        groups = self.groups()
        if len(groups) == 1:
            return groups[0][0].preferences(processed, seeds, positions)
        found = torch.empty_like(processed)
        for scores, members in groups:
            try:
                found[members] = scores.preferences(processed[members], seeds[members], positions[members])
            except Exception as error:  # of settings that these rows share
                for r in members:
                    self.rows[r].error = error
        return found

    def write_draft(self, k: int, logits: Tensor) -> Tensor | None:
        """Choose draft k of each row from logits (rows, vocab), given the drafts before it, and write it down.

        Returns: what it was drawn from, (rows, vocab); None if none was drawn for a rule that needs that.
        """
        processed = self.processed(logits[:, None], [k])
        tokens = self.preferences(processed, torch.full((len(self.rows), 1), k, device=self.device)).argmax(-1)
        distribution = None
        for scores, members in self.groups():
            if scores.rule is not None:
                if distribution is None:
                    distribution = torch.nn.functional.one_hot(tokens[:, 0], logits.shape[1]).float()
                distribution[members] = scores.probabilities(processed[members, 0])
                tokens[members, 0] = sample(distribution[members], scores.generator)
        self.write(tokens, k)
        return distribution

    def write(self, drafts: Tensor, k: int = 0) -> None:
        """Put (rows, n) drafts after the settled tokens and `k` drafts that are there."""
        columns = self.ends + torch.arange(k, k + drafts.shape[1], device=self.device)
        self.tokens[: len(self.rows)].scatter_(1, columns, drafts)


def _way(parents: list[int], node: int) -> list[int]:
    """The drafts from the root to a node, itself included."""
    way = []
    while node:
        way.append(node)
        node = parents[node - 1]
    return way[::-1]


def first_seed(generator: torch.Generator) -> int:
    """The seed of the first row of a call of `generate` with that generator; the others count on from it."""
    return int(torch.randint(2**48, (), generator=generator, device=generator.device))


def left_pad(input_ids: Tensor, attention_mask: Tensor | None, config: GenerationConfig) -> tuple[Tensor, Tensor]:
    """The prompts with all padding moved to the left, and the mask that goes with them; both (batch, width).

    Raises: ConfigError where these are no tensors of whole numbers, the shapes disagree or a row has no token.
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
