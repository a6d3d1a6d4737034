"""Drafts of recursive heads: each goes on from the draft before it, along a chain or along the likeliest paths of a tree.

A tree grows depth by depth: heads run at once over the likeliest paths so far, and of all tokens that any of them holds likely
those at the end of the likeliest paths are proposed (EAGLE-2, Li et al. 2024, arXiv 2406.16858, sections 4.1 and 4.2). For a
recurrent drafter this is its beam search, whose beams share their beginnings (ReDrafter, arXiv 2403.09919, section 3.3).
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from headway.decoding.batch import DecodingBatch
from headway.decoding.batch_sampler import perturbed_logits, sample_draft_token
from headway.decoding.drafters.base import TREE_DRAFT_SIZES, Draft, HeadsDrafter
from headway.decoding.kv_cache import RaggedKVCache
from headway.errors import ConfigError
from headway.heads import HeadStack
from headway.ops.draft_tree import select_top_nodes
from headway.trunk import ForwardContext, Masks, TrunkView

BEAM_WIDTH = 10  # paths that heads go on from at once, EAGLE-2's own choice


class Beam(NamedTuple):
    """The ends of some paths.

    carried, state: what heads carry on from there and predict with, (rows, paths, width).
    ancestors: (rows, paths, drafts that heads have run over), bool: those on the way to each, itself included.
    depths: which head ran over each of those drafts, (drafts,).
    """

    carried: Tensor
    state: Tensor
    ancestors: Tensor
    depths: Tensor


class RecursiveDrafter(HeadsDrafter):
    """Head k goes on at the draft that head k - 1 predicted. Cache entries of drafts are overwritten by those of true tokens."""

    def __init__(
        self, heads: HeadStack, view: TrunkView, cache: RaggedKVCache, tree: str | Sequence[Sequence[int]] = "dynamic"
    ) -> None:
        super().__init__(heads, view, cache)
        if tree not in ("dynamic", "chain"):
            raise ConfigError(
                f"{heads.family} heads draft trees of their own shape or chains: tree is dynamic or chain, not {tree!r}."
            )
        self.chains = tree == "chain"
        if not self.chains:
            self.draft_sizes = (*self.draft_sizes, *(n for n in TREE_DRAFT_SIZES if n > self.depth))

    def max_draft_tokens(self, max_accepted: int) -> int:
        return super().max_draft_tokens(max_accepted) if self.chains else self.draft_sizes[-1]

    def catch_up_tokens(self, batch: DecodingBatch, count: int) -> int:
        return super().catch_up_tokens(batch, count) if self.heads.attends else 0

    def draft(self, batch: DecodingBatch, count: int) -> Draft:
        depth = min(count, self.depth, max(row.max_accepted for row in batch.rows), 1 + self._room(batch))
        chosen_alike = all(
            row.sampler.has_no_processors and row.sampler.rule is None and row.sampler.tree_rule is None for row in batch.rows
        )
        if self.chains or count <= self.depth or not chosen_alike:
            return self._chain(batch, depth)
        return self._tree(batch, depth, count)

    def _chain(self, batch: DecodingBatch, depth: int) -> Draft:
        beam = self._read(batch, depth)
        distributions = []
        for k in range(depth):
            if (found := sample_draft_token(batch, k, self.unembeddings[k].logits(beam.state[:, -1]))) is not None:
                distributions.append(found)
            if k + 1 < depth:
                first = torch.zeros(len(batch.rows), 1, dtype=torch.long, device=batch.device)
                beam = self._step(batch, k + 1, beam, first, batch.draft_tokens(k + 1)[:, -1:])
        return Draft(distributions, [depth] * len(batch.rows))

    def _tree(self, batch: DecodingBatch, depth: int, count: int) -> Draft:
        beam = self._read(batch, depth)
        width = min(BEAM_WIDTH, -(-count // 2))
        if self.heads.attends and depth > 1:
            width = max(1, min(width, self._room(batch) // (depth - 1)))
        reached = torch.zeros(len(batch.rows), 1, device=batch.device)  # log-probability of each path
        origins = torch.full_like(reached, -1, dtype=torch.long)  # which of all the paths found it is
        scores: list[Tensor] = []
        tokens: list[Tensor] = []
        parents: list[Tensor] = []
        for k in range(depth):
            logits = self.unembeddings[k].logits(beam.state).float()
            places = torch.full(logits.shape[:2], k, device=batch.device)
            likely, ids = perturbed_logits(batch, logits, places).log_softmax(2).topk(min(width, logits.shape[2]), dim=2)
            bonus_token = ids.shape[2]
            found = (reached[..., None] + likely).flatten(1)
            start = sum(part.shape[1] for part in scores)
            scores.append(found)
            tokens.append(ids.flatten(1))
            parents.append(origins.repeat_interleave(bonus_token, dim=1))
            if k + 1 == depth:
                break
            ranked = found.clone()
            ranked[:, 0] = torch.inf  # the chain of the likeliest tokens goes on whatever the rounding
            best = ranked.topk(min(width, found.shape[1]), dim=1).indices
            reached, origins = found.gather(1, best), start + best
            beam = self._step(batch, k + 1, beam, best // bonus_token, tokens[-1].gather(1, best))
        grown = select_top_nodes(scores, tokens, parents, count)
        batch.set_draft_tokens(grown.tokens)
        return Draft([], parents=grown.parents)

    def _read(self, batch: DecodingBatch, depth: int) -> Beam:
        """The first head at the last token that the trunk has read, after what else it has not read."""
        masks = None
        if self.heads.attends:
            positions, hidden = self.window(batch, self.depth, again=1)
            masks = self._look_at_text(batch, positions)
        else:
            positions, hidden = self.newest(batch)
        carried, state = self.heads.step(0, hidden, batch.tokens_at(positions + 1), self._context(positions, masks))
        return self._root(carried[:, -1:], state[:, -1:])

    def _root(self, carried: Tensor, state: Tensor) -> Beam:
        none = torch.zeros(0, dtype=torch.long, device=state.device)
        return Beam(carried, state, none.bool().expand(len(state), 1, 0), none)

    def _step(self, batch: DecodingBatch, k: int, beam: Beam, parents: Tensor, tokens: Tensor) -> Beam:
        """Head k after `tokens`, which follow the paths `parents` of the tip; both (rows, paths)."""
        newest = batch.ends - 2
        positions = (newest + k).expand_as(tokens)
        before, masks = self._followed(k, beam, parents), None
        if self.heads.attends:
            masks = self._look_back(newest, positions, before.ancestors, before.depths)
        carried, state = self.heads.step(k, before.carried, tokens, self._context(positions, masks))
        return before._replace(carried=carried, state=state)

    def _followed(self, k: int, beam: Beam, parents: Tensor) -> Beam:
        """Of the paths `parents` of the tip, which head k goes on from, and itself among their ancestors once it has run."""
        rows = torch.arange(len(parents), device=parents.device)[:, None]
        carried, state, above = (part[rows, parents] for part in beam[:3])
        if not self.heads.attends:
            return Beam(carried, state, above, beam.depths)
        itself = torch.eye(parents.shape[1], dtype=torch.bool, device=parents.device).expand(len(parents), -1, -1)
        return Beam(carried, state, torch.cat([above, itself], dim=2), torch.cat([beam.depths, torch.full_like(parents[0], k)]))

    def _context(self, positions: Tensor, masks: Masks) -> ForwardContext:
        return ForwardContext(self.view, positions.clamp(min=0), masks, self.cache)

    def _look_at_text(self, batch: DecodingBatch, positions: Tensor) -> Masks:
        visible = max(batch.lengths) - 1
        self.cache.set_write_slots(positions, visible)
        return self.view.causal_masks(positions, visible)

    def _look_back(self, newest: Tensor, positions: Tensor, ancestors: Tensor, depths: Tensor) -> Masks:
        """Each of the newest drafts sees its row's text up to `newest` (rows, 1) and its ancestors; positions (rows, drafts).

        Drafts take the slots after that text in the order in which heads run over them.
        """
        ran, now = ancestors.shape[2], positions.shape[1]
        visible = max(int(newest.max()) + 1 + ran, 1)
        keys = torch.arange(visible, device=positions.device).expand(len(positions), -1)
        place = keys - newest - 1  # among the drafts
        drafted = (place >= 0) & (place < ran)
        place = place.clamp(0, ran - 1)
        self.cache.set_write_slots(newest + 1 + torch.arange(ran - now, ran, device=positions.device), visible)
        return self.view.masks(
            positions,
            torch.where(drafted, newest + depths[place], torch.where(keys > newest, -1, keys)),
            allowed=~drafted[:, None] | ancestors.gather(2, place[:, None].expand(-1, now, -1)),
        )

    def _room(self, batch: DecodingBatch) -> int:
        """How many drafts heads can run over."""
        return self.cache.capacity - (max(batch.lengths) - 1) if self.heads.attends else self.depth
