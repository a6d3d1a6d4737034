"""Parallel heads: all drafts at once from a single hidden state, as a tree of the most probable paths or a static tree
(Medusa, Cai et al. 2024, arXiv 2401.10774, section 2.1.2).

Head k at the last position that the trunk has processed predicts the token k + 2 positions later, independently of all further
heads.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from headway.decoding.batch import DecodingBatch
from headway.decoding.batch_sampler import perturbed_logits, sample_draft_token
from headway.decoding.compiled import Compiled, compiled_draft_sizes, worthwhile
from headway.decoding.drafters.base import Draft
from headway.decoding.drafters.hidden_states import HeadsDrafter
from headway.decoding.drafters.sampled_tree import sample_tree
from headway.decoding.drafters.tree_shape import TreeOption, tree_draft_sizes
from headway.decoding.kv_cache import RaggedKVCache
from headway.errors import ConfigError
from headway.heads import HeadStack
from headway.ops.draft_tree import DraftTree, build_top_paths_tree, optimal_static_tree, parents_of
from headway.trunk import ForwardContext, TrunkView

MAX_CATCH_UP_TOKENS = 4096  # tokens per forward when heads catch up


class ParallelDrafter(HeadsDrafter):
    """Drafts of parallel heads.

    Greedy sequences get the most probable paths. Sequences with a sampling rule for trees get a tree of fixed shape, filled by
    sampling; all remaining sequences get a chain.
    """

    def __init__(
        self,
        heads: HeadStack,
        view: TrunkView,
        cache: RaggedKVCache,
        tree: TreeOption = "dynamic",
        compiled: Compiled | None = None,
    ) -> None:
        super().__init__(heads, view, cache)
        self.heads: Any = heads  # parallel families have store_keys()
        self.compiled = compiled if heads.attends else None
        self.chain_only = tree == "chain"
        self.paths: list[list[int]] = []  # of the static tree, if there is one
        if tree == "dynamic":
            self.draft_sizes = tree_draft_sizes(self.depth)
        elif not isinstance(tree, str):
            self.set_static_tree(tree)
        elif not self.chain_only:
            raise ConfigError(f"There is no tree {tree!r}; there are: dynamic, chain, or a list of paths.")

    def set_static_tree(self, tree: Sequence[Sequence[int]]) -> None:
        """Draft the paths of this tree in every step.

        Raises:
            ConfigError: the tree is deeper than there are heads, or wider than the vocabulary.
        """
        self.paths = [list(path) for path in tree]
        self.parents = parents_of(self.paths)
        self.draft_sizes = (0, len(self.paths)) if self.paths else (0,)
        self.config_key = tuple(map(tuple, self.paths))
        if (depth := max(map(len, self.paths), default=0)) > self.depth:
            raise ConfigError(f"The tree is {depth} deep, but there are {self.depth} heads.")
        if (width := 1 + max(map(max, self.paths), default=0)) > (tokens := self.view.unembedding.size):
            raise ConfigError(f"The tree has {width} tokens for one position, but the vocabulary has {tokens}.")

    def max_draft_tokens(self, max_accepted: int) -> int:
        return super().max_draft_tokens(max_accepted) if self.chain_only else self.draft_sizes[-1]

    def draft(self, batch: DecodingBatch, num_draft_tokens: int) -> Draft:
        depth = min(num_draft_tokens, self.depth, max(row.max_accepted for row in batch.rows))
        if self.paths:
            depth = max(map(len, self.paths))
        self._catch_up(batch, depth)
        logits = self._logits(self._run_heads(batch, depth))
        samplers = [row.sampler for row in batch.rows]
        chain = self.chain_only or any(s.rule is not None and s.tree_rule is None for s in samplers)
        sampled = any(s.tree_rule is not None for s in samplers)
        if sampled and not chain and (self.paths or num_draft_tokens > self.depth):
            return self._sampled_tree(batch, depth, num_draft_tokens, logits)
        if chain or sampled or not all(s.has_no_processors for s in samplers):
            drafts = (sample_draft_token(batch, k, logits[:, k]) for k in range(depth))
            return Draft([distribution for distribution in drafts if distribution is not None], [depth] * len(samplers))
        perturbed = perturbed_logits(batch, logits.float(), torch.arange(depth, device=batch.device).expand(len(batch.rows), -1))
        if num_draft_tokens <= self.depth and not self.paths:  # the most probable paths are this chain
            batch.set_draft_tokens(perturbed.argmax(-1))
            return Draft([], [depth] * len(batch.rows))
        tree = self._static_tree(perturbed) if self.paths else build_top_paths_tree(perturbed.log_softmax(2), num_draft_tokens)
        batch.set_draft_tokens(tree.tokens)
        return Draft([], parents=tree.parents)

    def _sampled_tree(self, batch: DecodingBatch, depth: int, num_draft_tokens: int, logits: Tensor) -> Draft:
        parents = self.parents if self.paths else optimal_static_tree(depth, num_draft_tokens, logits.shape[2])
        tree = sample_tree(batch, parents, logits)
        parents_per_row = torch.tensor(parents, device=batch.device).expand(len(batch.rows), -1)
        return Draft(tree.distributions, parents=parents_per_row, proposal_index=tree.proposal_index)

    def _catch_up(self, batch: DecodingBatch, depth: int) -> None:
        """Write keys and values of committed tokens that heads have not processed to the cache, the newest token excepted.

        A head runs only at the newest token; for earlier tokens the layer is left before attention.
        """
        self._write_pending()
        rows: list[int] = []
        positions: list[int] = []
        for r, length in enumerate(batch.lengths):
            unprocessed = range(max(0, min(self.processed_lengths[r][:depth]) - 1), length - 2)
            rows += [r] * len(unprocessed)
            positions += unprocessed
            self.processed_lengths[r][:depth] = [length] * depth
        if not positions or not self.heads.attends:
            return
        assert self.states is not None, "observe() comes first"
        tokens = torch.tensor([rows, positions], device=batch.device)
        for part in tokens.split(MAX_CATCH_UP_TOKENS, dim=1):
            self.cache.set_write_slots_only(part[:1], part[1:])
            self.heads.store_keys(self.states[part[:1], part[1:]], ForwardContext(self.view, part[1:], None, self.cache), depth)

    def _run_heads(self, batch: DecodingBatch, count: int) -> Tensor:
        """Hidden states of the first `count` heads at the newest token that the trunk has processed, (rows, heads, hidden)."""
        lengths = batch.lengths
        kv_length = max(lengths) - 1
        start = kv_length - 1 if min(lengths) == max(lengths) else None
        positions, hidden = self.newest(batch)
        if self.compiled is not None and worthwhile(positions, self.cache):
            # as many heads as full steps run, so that the last tokens of a text do not compile another form; the rest is unused
            full_steps = (min(size, self.depth) for size in compiled_draft_sizes(self.draft_sizes))
            heads = min((n for n in full_steps if n >= count), default=count)
            states = self.compiled.newest(self.cache, hidden, batch.tokens_at(positions), positions, heads)
            return torch.cat(states[:count], dim=1)
        self.cache.set_write_slots(positions, kv_length, contiguous_start=start)
        masks = self.view.causal_masks(positions, kv_length, start)
        context = ForwardContext(self.view, positions, masks, self.cache)
        return torch.cat(self.heads.states(hidden, batch.tokens_at(positions), context, count), dim=1)

    def _logits(self, states: Tensor) -> Tensor:
        """(rows, heads, hidden) -> (rows, heads, vocab)."""
        first = self.unembeddings[0]
        if all(unembedding.weight is first.weight for unembedding in self.unembeddings):
            return first.logits(states)
        unembeddings = self.unembeddings[: states.shape[1]]
        return torch.stack([unembedding.logits(states[:, k]) for k, unembedding in enumerate(unembeddings)], dim=1)

    def _static_tree(self, perturbed: Tensor) -> DraftTree:
        """The static tree with the highest-ranked tokens of every head; perturbed logits (rows, depth, vocab)."""
        ranked = perturbed.topk(1 + max(map(max, self.paths)), dim=2).indices
        tokens = torch.stack([ranked[:, len(path) - 1, path[-1]] for path in self.paths], dim=1)
        return DraftTree(tokens, torch.tensor(self.parents, device=tokens.device).expand_as(tokens))
