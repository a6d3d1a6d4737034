"""Drafts of chained heads: each has cache entries of its own at every position, computed from the tokens that follow there."""

import torch
from torch import Tensor

from headway.decoding.batch import DecodingBatch
from headway.decoding.batch_sampler import sample_draft_token
from headway.decoding.drafters.base import Draft
from headway.decoding.drafters.recursive import Beam, RecursiveDrafter


class ChainedDrafter(RecursiveDrafter):
    """Head k reads head k - 1 and the token it predicted.

    A head's cache entries near the end were computed from drafts. Each round runs the heads again from the first of
    those on, so that entries left behind always come from true tokens.

    In a chain each head runs once, over all of those. In a tree the entry of head d that needs the drafts up to one of depth k,
    and no more, is that at k - d beyond the last token that the trunk has read: it belongs to this draft, and is computed for
    all d >= k when the draft is chosen. To head d the text ends d tokens earlier.
    """

    def _chain(self, batch: DecodingBatch, depth: int) -> Draft:
        positions, hidden = self.window(batch, depth, again=self.depth)
        context = self._context(positions, self._look_at_text(batch, positions))
        distributions = []
        for k in range(depth):
            hidden, state = self.heads.step(k, hidden, batch.tokens_at(positions + k + 1), context)
            if (found := sample_draft_token(batch, k, self.unembeddings[k].logits(state[:, -1]))) is not None:
                distributions.append(found)
        return Draft(distributions, [depth] * len(batch.rows))

    def _read(self, batch: DecodingBatch, depth: int) -> Beam:
        """What the tip carries is the states of all heads at the ends of their texts, (rows, 1, heads * width)."""
        positions, hidden = self.window(batch, depth, again=self.depth)
        context = self._context(positions, self._look_at_text(batch, positions))
        first, carried = hidden, []
        for d in range(depth):
            hidden, state = self.heads.step(d, hidden, batch.tokens_at(positions + d + 1), context)
            first = first if d else state[:, -1:]
            carried.append(hidden[:, [max(-1 - d, -hidden.shape[1])]])  # of a text that short nothing is looked at
        return self._root(torch.cat(carried, dim=2), first)

    def _step(self, batch: DecodingBatch, k: int, beam: Beam, parents: Tensor, tokens: Tensor) -> Beam:
        newest = batch.ends - 2
        before = self._followed(k, beam, parents)
        carried, state = [], before.state
        for d, hidden in enumerate(before.carried.split(self.heads.config.hidden_size, dim=2)[:-1], k):
            positions = (newest - d + k).expand_as(tokens)
            context = self._context(positions, self._look_back(newest - d, positions, before.ancestors, before.depths))
            hidden, own = self.heads.step(d, hidden, tokens, context)
            state = own if d == k else state
            carried.append(hidden)
        return before._replace(carried=torch.cat(carried, dim=2), state=state)
