"""How heads propose a chain of tokens after each step of the trunk."""

from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from headway.decoding.cache import RaggedCache
from headway.decoding.settings import Settings
from headway.heads import HeadStack, SequentialHeads
from headway.ops import Unembedding
from headway.ops.acceptance import sample
from headway.trunk import Tapped, TrunkView


@dataclass(frozen=True)
class Draft:
    tokens: Tensor  # (batch, depth)
    probabilities: Tensor | None  # what they were drawn from, (batch, depth, vocab); None when greedy


@dataclass(frozen=True)
class Passed:
    """What one pass over the trunk left, for the heads to draft from."""

    tapped: Tapped
    positions: Tensor  # of the tokens in the pass, (batch, tokens)
    states: list[Tensor]  # of parallel heads, each (batch, tokens, hidden)


class HeadsDrafter:
    """Drafts with the model's own heads.

    Parallel heads run inside the trunk's pass, so a draft only reads them. Sequential heads run after it, depth by depth, over a
    trailing window of positions: it covers what was just accepted and, before that, the entries that an earlier draft filled
    with tokens that turned out wrong.
    """

    def __init__(self, heads: HeadStack, view: TrunkView, settings: Settings, generator: Generator | None) -> None:
        self.heads = heads
        self.view = view
        self.settings = settings
        self.generator = generator
        self.unembedding: Unembedding = view.unembedding
        self.trailing: Tensor | None = None  # last states of the positions before the next pass, (batch, window, hidden)

    def draft(self, passed: Passed, base: Tensor, sequence: Tensor, cache: RaggedCache, depth: int) -> Draft:
        """Propose `depth` tokens a row, after the token that the trunk itself chose.

        Args:
            base: index in the pass of each row's last confirmed token, (batch,).
            sequence: tokens by position, the trunk's choice included, (batch, capacity).
        """
        if isinstance(self.heads, SequentialHeads):
            return self._chained(self.heads, passed, base, sequence, cache, depth)
        rows = torch.arange(len(base), device=base.device)
        logits = torch.stack([self.unembedding.logits(state[rows, base]) for state in passed.states[:depth]], 1)
        return self._choose(logits)

    def select(self, rows: Tensor) -> None:
        """Keep only these rows."""
        if self.trailing is not None:
            self.trailing = self.trailing[rows]

    def _choose(self, logits: Tensor) -> Draft:
        if not self.settings.do_sample:
            return Draft(logits.argmax(-1), None)
        probabilities = self.settings.warp(logits.float()).softmax(-1)
        tokens = sample(probabilities.flatten(0, 1), self.generator).view(probabilities.shape[:2])
        return Draft(tokens, probabilities)

    def _chained(
        self, heads: SequentialHeads, passed: Passed, base: Tensor, sequence: Tensor, cache: RaggedCache, depth: int
    ) -> Draft:
        hidden, last = self._window(passed, base)  # (batch, window, hidden), (batch,)
        rows = torch.arange(len(base), device=base.device)
        top = passed.positions[rows, base]  # position of each row's last confirmed token
        positions = top[:, None] - last[:, None] + torch.arange(hidden.shape[1], device=top.device)
        positions = torch.where(positions > top[:, None], -1, positions)
        keys = cache.place(positions, int(top.max()) + 1)
        masks = self.view.masks(positions.clamp(min=0), keys)
        sequence = sequence.clone()
        found = []
        for k in range(depth):
            tokens = sequence.gather(1, (positions + k + 1).clamp(0, sequence.shape[1] - 1))
            hidden, state = heads.step(k, hidden, tokens, positions.clamp(min=0), masks, self.view, cache)
            found.append(self._choose(self.unembedding.logits(state[rows, last])[:, None]))
            place = (top + k + 2).clamp(max=sequence.shape[1] - 1)
            sequence[rows, place] = found[-1].tokens[:, 0]
        probabilities = [draft.probabilities for draft in found if draft.probabilities is not None]
        return Draft(torch.cat([draft.tokens for draft in found], 1), torch.cat(probabilities, 1) if probabilities else None)

    def _window(self, passed: Passed, base: Tensor) -> tuple[Tensor, Tensor]:
        """States to run the depths over, and the index in them of each row's last confirmed token."""
        states = passed.tapped.last
        size = 2 * self.heads.count
        if self.trailing is None:  # the prompt: all of it, and what comes before it is nothing
            self.trailing = states.new_zeros(states.shape[0], size, states.shape[2])
            window, last = states, base
        else:
            window = None
            last = torch.full_like(base, size - 1)
        joined = torch.cat([self.trailing, states], 1)
        index = base[:, None] + 1 + torch.arange(size, device=base.device)  # ends at the last confirmed one
        self.trailing = joined.gather(1, index[..., None].expand(-1, -1, states.shape[2]))
        return (self.trailing if window is None else window), last
