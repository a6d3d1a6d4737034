"""Drafts of parallel heads: all at once from one state, the likeliest paths through what each head holds likely, as a tree."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from headway.decoding.batch import DecodingBatch
from headway.decoding.batch_sampler import perturbed_logits, sample_draft_token
from headway.decoding.compiled import Compiled, compiled_draft_sizes, worthwhile
from headway.decoding.drafters.base import TREE_DRAFT_SIZES, Draft, HeadsDrafter
from headway.decoding.drafters.sampled_tree import draft_tree
from headway.decoding.kv_cache import RaggedKVCache
from headway.errors import ConfigError
from headway.heads import HeadStack
from headway.ops.draft_tree import DraftTree, build_top_paths_tree, parents_of
from headway.ops.verification.multi_candidate import optimal_static_tree
from headway.trunk import ForwardContext, TrunkView

CHUNK = 4096  # settled tokens that heads catch up on at once


class ParallelDrafter(HeadsDrafter):
    """Head k at the last position that the trunk has read predicts the token k + 2 further on."""

    def __init__(
        self,
        heads: HeadStack,
        view: TrunkView,
        cache: RaggedKVCache,
        tree: str | Sequence[Sequence[int]] = "dynamic",
        compiled: Compiled | None = None,
    ) -> None:
        super().__init__(heads, view, cache)
        self.heads: Any = heads  # families of this kind have store_keys()
        self.compiled = compiled if heads.attends else None
        self.chains = tree == "chain"
        self.paths: list[list[int]] = []
        if tree == "dynamic":
            self.draft_sizes = (*self.draft_sizes, *(n for n in TREE_DRAFT_SIZES if n > self.depth))
        elif not isinstance(tree, str):
            self.fix(tree)
        elif not self.chains:
            raise ConfigError(f"There is no tree {tree!r}; there are: dynamic, chain, or a list of paths.")

    def fix(self, tree: Sequence[Sequence[int]]) -> None:
        """Draft the paths of this tree from now on. Raises ConfigError where there are not as many heads, or tokens."""
        self.paths = [list(path) for path in tree]
        self.parents = parents_of(self.paths)
        self.draft_sizes = (0, len(self.paths)) if self.paths else (0,)
        self.config_key = tuple(map(tuple, self.paths))
        if (depth := max(map(len, self.paths), default=0)) > self.depth:
            raise ConfigError(f"The tree is {depth} deep, but there are {self.depth} heads.")
        if (widest := 1 + max(map(max, self.paths), default=0)) > (tokens := self.view.unembedding.size):
            raise ConfigError(f"The tree has {widest} tokens for one place, but the vocabulary is {tokens}.")

    def max_draft_tokens(self, max_accepted: int) -> int:
        return super().max_draft_tokens(max_accepted) if self.chains else self.draft_sizes[-1]

    def draft(self, batch: DecodingBatch, count: int) -> Draft:
        heads = min(count, self.depth, max(row.max_accepted for row in batch.rows))
        if self.paths:
            heads = max(map(len, self.paths))
        self._catch_up(batch, heads)
        logits = self._logits(self._newest(batch, heads))
        scores = [row.sampler for row in batch.rows]
        chained = self.chains or any(s.rule is not None and s.tree_rule is None for s in scores)
        drawn = any(s.tree_rule is not None for s in scores)
        if drawn and not chained and (self.paths or count > self.depth):
            parents = self.parents if self.paths else optimal_static_tree(heads, count, logits.shape[2])
            found = draft_tree(batch, parents, logits)
            each = torch.tensor(parents, device=batch.device).expand(len(scores), -1)
            return Draft(found.distributions, parents=each, proposal_index=found.proposal_index)
        if chained or drawn or not all(s.has_no_processors for s in scores):
            distributions = [d for k in range(heads) if (d := sample_draft_token(batch, k, logits[:, k])) is not None]
            return Draft(distributions, [heads] * len(scores))
        preferences = perturbed_logits(batch, logits.float(), torch.arange(heads, device=batch.device).expand(len(batch.rows), -1))
        if count <= self.depth and not self.paths:  # a tree as small is this chain
            batch.set_draft_tokens(preferences.argmax(-1))
            return Draft([], [heads] * len(batch.rows))
        grown = self._fixed(preferences) if self.paths else build_top_paths_tree(preferences.log_softmax(2), count)
        batch.set_draft_tokens(grown.tokens)
        return Draft([], parents=grown.parents)

    def _catch_up(self, batch: DecodingBatch, heads: int) -> None:
        """Store the keys of settled tokens that the trunk has read and the heads have not, but for the newest."""
        self._store()
        rows: list[int] = []
        positions: list[int] = []
        for r, length in enumerate(batch.lengths):
            unread = range(max(0, min(self.read[r][:heads]) - 1), length - 2)
            rows += [r] * len(unread)
            positions += unread
            self.read[r][:heads] = [length] * heads
        if not positions or not self.heads.attends:
            return
        assert self.states is not None, "observe() comes first"
        where = torch.tensor([rows, positions], device=batch.device)
        for part in where.split(CHUNK, dim=1):
            self.cache.set_write_slots_only(part[:1], part[1:])
            self.heads.store_keys(self.states[part[:1], part[1:]], ForwardContext(self.view, part[1:], None, self.cache), heads)

    def _newest(self, batch: DecodingBatch, heads: int) -> Tensor:
        """What the first heads make of the last token that the trunk has read, (rows, heads, hidden)."""
        lengths = batch.lengths
        visible = max(lengths) - 1
        start = visible - 1 if min(lengths) == max(lengths) else None
        positions, hidden = self.newest(batch)
        if self.compiled is not None and worthwhile(positions, self.cache):
            # as many heads as whole rounds draft with, not another form for each of the last tokens; the rest is not looked at
            whole = (min(budget, self.depth) for budget in compiled_draft_sizes(self.draft_sizes))
            count = min((n for n in whole if n >= heads), default=heads)
            return torch.cat(self.compiled.newest(self.cache, hidden, batch.tokens_at(positions), positions, count)[:heads], dim=1)
        self.cache.set_write_slots(positions, visible, contiguous_start=start)
        masks = self.view.causal_masks(positions, visible, start)
        context = ForwardContext(self.view, positions, masks, self.cache)
        found = self.heads.states(hidden, batch.tokens_at(positions), context, heads)
        return torch.cat(found, dim=1)

    def _logits(self, states: Tensor) -> Tensor:
        """(rows, heads, hidden) -> (rows, heads, vocab)."""
        first = self.unembeddings[0]
        if all(own.weight is first.weight for own in self.unembeddings):
            return first.logits(states)
        return torch.stack([own.logits(states[:, k]) for k, own in enumerate(self.unembeddings[: states.shape[1]])], dim=1)

    def _fixed(self, preferences: Tensor) -> DraftTree:
        ranked = preferences.topk(1 + max(map(max, self.paths)), dim=2).indices
        tokens = torch.stack([ranked[:, len(path) - 1, path[-1]] for path in self.paths], dim=1)
        return DraftTree(tokens, torch.tensor(self.parents, device=tokens.device).expand_as(tokens))
