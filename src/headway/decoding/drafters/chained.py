"""Chained heads: every head has separate cache entries at every position, computed from the head before and the next token."""

import torch
from torch import Tensor

from headway.decoding.batch import DecodingBatch
from headway.decoding.batch_sampler import sample_draft_token
from headway.decoding.drafters.base import Draft
from headway.decoding.drafters.recursive import Beam, RecursiveDrafter


class ChainedDrafter(RecursiveDrafter):
    """Drafts of chained heads. Head k at a position reads the state of head k - 1 there and the token that head k - 1 predicted.

    The entries of head k at the last k positions depend on drafts. The next step therefore runs the heads again from these
    positions on: entries that stay in the cache come from committed tokens alone.

    Chain: every head runs once, over all positions to process.

    Tree: let p be the last position that the trunk has processed. The entry of head d at position p + k - d depends on drafts up to
    depth k and on nothing deeper. When the draft of depth k is chosen, the entry of every head d >= k at position p + k - d is
    computed. (Head d sees a text that is d tokens shorter.)
    """

    def _chain(self, batch: DecodingBatch, depth: int) -> Draft:
        positions, hidden = self.window(batch, depth, recompute=self.depth)
        context = self._context(positions, self._context_masks(batch, positions))
        distributions = []
        for k in range(depth):
            hidden, state = self.heads.step(k, hidden, batch.tokens_at(positions + k + 1), context)
            if (distribution := sample_draft_token(batch, k, self.unembeddings[k].logits(state[:, -1]))) is not None:
                distributions.append(distribution)
        return Draft(distributions, [depth] * len(batch.rows))

    def _first_step(self, batch: DecodingBatch, depth: int) -> Beam:
        """Beam with the states of all heads, (rows, 1, heads * width); the text of head d ends d tokens earlier."""
        positions, hidden = self.window(batch, depth, recompute=self.depth)
        context = self._context(positions, self._context_masks(batch, positions))
        first, states = hidden, []
        for d in range(depth):
            hidden, state = self.heads.step(d, hidden, batch.tokens_at(positions + d + 1), context)
            first = first if d else state[:, -1:]
            end = max(-1 - d, -hidden.shape[1])  # in a text with fewer than d tokens: any state, never attended to
            states.append(hidden[:, [end]])
        return self._initial_beam(torch.cat(states, dim=2), first)

    def _step(self, batch: DecodingBatch, k: int, beam: Beam, parents: Tensor, tokens: Tensor) -> Beam:
        newest = batch.ends - 2
        before = self._expand(k, beam, parents)
        states, output = [], before.hidden_states
        for d, hidden in enumerate(before.recurrent_state.split(self.heads.config.hidden_size, dim=2)[:-1], k):
            positions = (newest - d + k).expand_as(tokens)
            context = self._context(positions, self._draft_masks(newest - d, positions, before.ancestors, before.depths))
            hidden, state = self.heads.step(d, hidden, tokens, context)
            output = state if d == k else output
            states.append(hidden)
        return before._replace(recurrent_state=torch.cat(states, dim=2), hidden_states=output)
