"""Drafts of chained heads: one after the other, a chain."""

from headway.decoding.drafting import Draft, HeadsDrafter
from headway.decoding.rows import Batch


class ChainedDrafter(HeadsDrafter):
    """Depth k reads depth k - 1 and the token it predicted.

    A depth's cache entries near the end were computed from drafts. Each round runs the depths again from the first of
    those on, so that entries left behind always come from true tokens.
    """

    def draft(self, batch: Batch, count: int) -> Draft:
        positions, hidden = self.window(batch, count, again=self.depth)
        visible = max(batch.lengths) - 1
        self.cache.begin(positions, visible)
        masks = self.view.causal_masks(positions, visible)
        inside = positions.clamp(min=0)
        distributions = []
        for k in range(count):
            tokens = batch.at(positions + k + 1)
            hidden, state = self.heads.step(k, hidden, tokens, inside, masks, self.view, self.cache)
            if (found := batch.write_draft(k, self.unembeddings[k].logits(state[:, -1]))) is not None:
                distributions.append(found)
        return Draft(distributions)
