"""Recursive heads: head k extends the draft of head k - 1, along a chain or along the most probable paths of a tree.

Tree: heads run depth by depth. At depth k, head k runs at once on the `BEAM_WIDTH` most probable paths, and the most probable next
tokens give new paths. In the end the paths of highest probability over all depths become the drafts (EAGLE-2, Li et
al. 2024, arXiv 2406.16858, sections 4.1 and 4.2). For a recurrent drafter this is a beam search with beams that share their
beginnings (ReDrafter, Zhang et al. 2024, arXiv 2403.09919, section 3.3).
"""

from typing import NamedTuple

import torch
from torch import Tensor

from headway.decoding.batch import DecodingBatch
from headway.decoding.batch_sampler import perturbed_logits, sample_draft_token
from headway.decoding.drafters.base import Draft
from headway.decoding.drafters.hidden_states import HeadsDrafter
from headway.decoding.drafters.tree_shape import BEAM_WIDTH, TreeOption, tree_draft_sizes
from headway.decoding.kv_cache import RaggedKVCache
from headway.errors import ConfigError
from headway.heads import HeadStack
from headway.ops.draft_tree import select_top_nodes
from headway.trunk import ForwardContext, Masks, TrunkView


class Beam(NamedTuple):
    """Open paths of a tree, after the last head that ran.

    Attributes:
        recurrent_state: input of the next head, (rows, paths, width).
        hidden_states: input of the unembedding, (rows, paths, hidden).
        ancestors: true for drafts on the path, among the drafts that heads have processed, bool, (rows, paths, processed drafts).
        depths: index of the head per processed draft, (processed drafts,).
    """

    recurrent_state: Tensor
    hidden_states: Tensor
    ancestors: Tensor
    depths: Tensor


class RecursiveDrafter(HeadsDrafter):
    """Drafts of recursive heads. Head k processes the draft that head k - 1 predicted.

    Cache entries of drafts are overwritten in the next step by entries of committed tokens.
    """

    def __init__(self, heads: HeadStack, view: TrunkView, cache: RaggedKVCache, tree: TreeOption = "dynamic") -> None:
        super().__init__(heads, view, cache)
        if tree not in ("dynamic", "chain"):
            raise ConfigError(
                f"{heads.family} heads draft dynamic trees or chains, no static trees: tree is dynamic or chain, not {tree!r}."
            )
        self.chain_only = tree == "chain"
        if not self.chain_only:
            self.draft_sizes = tree_draft_sizes(self.depth)

    def max_draft_tokens(self, max_accepted: int) -> int:
        return super().max_draft_tokens(max_accepted) if self.chain_only else self.draft_sizes[-1]

    def catch_up_tokens(self, batch: DecodingBatch, num_draft_tokens: int) -> int:
        return super().catch_up_tokens(batch, num_draft_tokens) if self.heads.attends else 0

    def draft(self, batch: DecodingBatch, num_draft_tokens: int) -> Draft:
        depth = min(num_draft_tokens, self.depth, max(row.max_accepted for row in batch.rows), 1 + self._free_slots(batch))
        samplers = [row.sampler for row in batch.rows]
        # processors and sampling rules need the drafts before a draft, so that these sequences draft chains
        coupled = all(s.has_no_processors and s.rule is None and s.tree_rule is None for s in samplers)
        if self.chain_only or num_draft_tokens <= self.depth or not coupled:
            return self._chain(batch, depth)
        return self._tree(batch, depth, num_draft_tokens)

    def _chain(self, batch: DecodingBatch, depth: int) -> Draft:
        beam = self._first_step(batch, depth)
        distributions = []
        for k in range(depth):
            logits = self.unembeddings[k].logits(beam.hidden_states[:, -1])
            if (distribution := sample_draft_token(batch, k, logits)) is not None:
                distributions.append(distribution)
            if k + 1 < depth:
                only_path = torch.zeros(len(batch.rows), 1, dtype=torch.long, device=batch.device)
                beam = self._step(batch, k + 1, beam, only_path, batch.draft_tokens(k + 1)[:, -1:])
        return Draft(distributions, [depth] * len(batch.rows))

    def _tree(self, batch: DecodingBatch, depth: int, num_draft_tokens: int) -> Draft:
        beam = self._first_step(batch, depth)
        width = min(BEAM_WIDTH, -(-num_draft_tokens // 2))
        if self.heads.attends and depth > 1:
            width = max(1, min(width, self._free_slots(batch) // (depth - 1)))
        log_prob = torch.zeros(len(batch.rows), 1, device=batch.device)  # of each open path
        path_index = torch.full_like(log_prob, -1, dtype=torch.long)  # index of each open path among all paths found
        scores: list[Tensor] = []
        tokens: list[Tensor] = []
        parents: list[Tensor] = []
        for k in range(depth):
            logits = self.unembeddings[k].logits(beam.hidden_states).float()
            depths = torch.full(logits.shape[:2], k, device=batch.device)
            log_probs = perturbed_logits(batch, logits, depths).log_softmax(2)
            top, ids = log_probs.topk(min(width, logits.shape[2]), dim=2)  # (rows, paths, children)
            children = ids.shape[2]
            extended = (log_prob[..., None] + top).flatten(1)  # log-probability of each new path, (rows, paths * children)
            start = sum(part.shape[1] for part in scores)
            scores.append(extended)
            tokens.append(ids.flatten(1))
            parents.append(path_index.repeat_interleave(children, dim=1))
            if k + 1 == depth:
                break
            ranked = extended.clone()
            ranked[:, 0] = torch.inf  # the chain of most probable tokens is always extended, whatever the rounding
            best = ranked.topk(min(width, extended.shape[1]), dim=1).indices
            log_prob, path_index = extended.gather(1, best), start + best
            beam = self._step(batch, k + 1, beam, best // children, tokens[-1].gather(1, best))
        tree = select_top_nodes(scores, tokens, parents, num_draft_tokens)
        batch.set_draft_tokens(tree.tokens)
        return Draft([], parents=tree.parents)

    def _first_step(self, batch: DecodingBatch, depth: int) -> Beam:
        """Beam after head 0 has processed all new tokens; the only path ends at the last committed token."""
        masks = None
        if self.heads.attends:
            positions, hidden = self.window(batch, self.depth, recompute=1)
            masks = self._context_masks(batch, positions)
        else:
            positions, hidden = self.newest(batch)
        recurrent_state, hidden = self.heads.step(0, hidden, batch.tokens_at(positions + 1), self._context(positions, masks))
        return self._initial_beam(recurrent_state[:, -1:], hidden[:, -1:])

    def _initial_beam(self, recurrent_state: Tensor, hidden_states: Tensor) -> Beam:
        none = torch.zeros(0, dtype=torch.long, device=hidden_states.device)
        return Beam(recurrent_state, hidden_states, none.bool().expand(len(hidden_states), 1, 0), none)

    def _step(self, batch: DecodingBatch, k: int, beam: Beam, parents: Tensor, tokens: Tensor) -> Beam:
        """Beam after head k has processed `tokens`, extensions of the paths `parents` of the beam; both (rows, paths)."""
        newest = batch.ends - 2
        positions = (newest + k).expand_as(tokens)
        before, masks = self._expand(k, beam, parents), None
        if self.heads.attends:
            masks = self._draft_masks(newest, positions, before.ancestors, before.depths)
        recurrent_state, hidden = self.heads.step(k, before.recurrent_state, tokens, self._context(positions, masks))
        return before._replace(recurrent_state=recurrent_state, hidden_states=hidden)

    def _expand(self, k: int, beam: Beam, parents: Tensor) -> Beam:
        """The paths `parents` of the beam, (rows, paths), for head k to extend.

        If head k attends, the node of the head is added to the ancestors of every path.
        """
        rows = torch.arange(len(parents), device=parents.device)[:, None]
        recurrent_state, hidden, ancestors = (part[rows, parents] for part in beam[:3])
        if not self.heads.attends:
            return Beam(recurrent_state, hidden, ancestors, beam.depths)
        own = torch.eye(parents.shape[1], dtype=torch.bool, device=parents.device).expand(len(parents), -1, -1)
        depths = torch.cat([beam.depths, torch.full_like(parents[0], k)])
        return Beam(recurrent_state, hidden, torch.cat([ancestors, own], dim=2), depths)

    def _context(self, positions: Tensor, masks: Masks) -> ForwardContext:
        return ForwardContext(self.view, positions.clamp(min=0), masks, self.cache)

    def _context_masks(self, batch: DecodingBatch, positions: Tensor) -> Masks:
        """Causal masks for tokens at `positions`, (rows, seq); sets the cache slots."""
        kv_length = max(batch.lengths) - 1
        self.cache.set_write_slots(positions, kv_length)
        return self.view.causal_masks(positions, kv_length)

    def _draft_masks(self, newest: Tensor, positions: Tensor, ancestors: Tensor, depths: Tensor) -> Masks:
        """Masks of the newest drafts: a draft attends to the text and to the ancestors; sets the cache slots of the drafts.

        Drafts take the cache slots after the text, in processing order.

        Args:
            newest: position of the last token of the text, (rows, 1).
            positions: of the newest drafts, (rows, drafts).
            ancestors, depths: as in `Beam`, the newest drafts included.
        """
        processed, new = ancestors.shape[2], positions.shape[1]
        kv_length = max(int(newest.max()) + 1 + processed, 1)
        keys = torch.arange(kv_length, device=positions.device).expand(len(positions), -1)
        index = keys - newest - 1  # of the draft in each slot
        is_draft = (index >= 0) & (index < processed)
        index = index.clamp(0, processed - 1)
        self.cache.set_write_slots(newest + 1 + torch.arange(processed - new, processed, device=positions.device), kv_length)
        return self.view.masks(
            positions,
            torch.where(is_draft, newest + depths[index], torch.where(keys > newest, -1, keys)),
            allowed=~is_draft[:, None] | ancestors.gather(2, index[:, None].expand(-1, new, -1)),
        )

    def _free_slots(self, batch: DecodingBatch) -> int:
        """Number of drafts that heads can process before the cache is full."""
        return self.cache.capacity - (max(batch.lengths) - 1) if self.heads.attends else self.depth
