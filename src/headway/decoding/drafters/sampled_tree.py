"""Tokens of a tree of fixed shape: siblings are the most probable tokens, or sampled without replacement if the rule needs samples.

The k largest of log-probabilities plus Gumbel noise are k samples without replacement, in sampling order (Kool et al. 2019, arXiv
1903.06059, section 2.3). The acceptance rule judges the children of a single node per depth, and all nodes of a depth may share
the noise (`headway.ops.verification.multi_candidate`).

The distribution after a node depends on the path to the node only if a sequence has logits processors, for example a repetition
penalty: then every node has a separate distribution. Otherwise there is a single distribution per depth.
"""

from collections import defaultdict
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from headway.decoding.batch import DecodingBatch
from headway.decoding.batch_sampler import perturbed_logits, process_logits, sampler_groups
from headway.ops.noise import gumbel


class SampledTree(NamedTuple):
    """Distributions that drafts were sampled from, (rows, vocab), and per node the index of the children's distribution."""

    distributions: list[Tensor]
    proposal_index: list[int]


def sample_tree(batch: DecodingBatch, parents: Sequence[int], logits: Tensor) -> SampledTree:
    """Sample the drafts of a tree that all sequences share, and write the drafts into the batch.

    Args:
        parents: parent node of every draft; siblings are in sampling order.
        logits: output of the heads, the same for all paths, (rows, depth, vocab).
    """
    rows = len(batch.rows)
    tokens = torch.zeros(rows, len(parents), dtype=torch.long, device=batch.device)
    children: defaultdict[int, list[int]] = defaultdict(list)
    for draft, parent in enumerate(parents, 1):
        children[parent].append(draft)
    parents_per_row = torch.tensor(parents, device=batch.device).expand(rows, -1)
    one_per_depth = all(row.sampler.has_no_processors for row in batch.rows)
    noise = _noise_seeds(batch)
    tree = SampledTree([], [0] * (1 + len(parents)))
    level = [0]  # nodes of the current depth
    for depth in range(logits.shape[1]):
        level = [node for node in level if children[node]]
        if not level:
            break
        nodes = level[:1] if one_per_depth else level
        processed = process_logits(batch, logits[:, depth, None].expand(-1, len(nodes), -1), nodes, parents_per_row)
        depths = torch.full((rows, len(nodes)), depth, device=batch.device)
        ranked, probabilities = _ranked_tokens(batch, processed, depths, noise, max(len(children[node]) for node in level))
        chosen: list[tuple[int, int, int]] = []  # draft, index of its parent in `nodes`, rank among its siblings
        for n, node in enumerate(level):
            index = 0 if one_per_depth else n
            tree.proposal_index[node] = len(tree.distributions) + index
            chosen += [(draft, index, rank) for rank, draft in enumerate(children[node])]
        level, indices, ranks = (list(part) for part in zip(*chosen, strict=True))
        tokens[:, [draft - 1 for draft in level]] = ranked[:, indices, ranks]
        batch.set_draft_tokens(tokens)  # processors read the drafts above a node
        tree.distributions.extend(probabilities.unbind(1))
    return tree


def _noise_seeds(batch: DecodingBatch) -> Tensor:
    """Seeds of the noise of this step, (rows,); 0 for sequences without a sampling rule for trees."""
    seeds = torch.zeros(len(batch.rows), dtype=torch.long, device=batch.device)
    for sampler, members in sampler_groups(batch):
        if sampler.tree_rule is not None:
            seeds[members] = torch.randint(2**63 - 1, (len(members),), generator=sampler.generator, device=batch.device)
    return seeds


def _ranked_tokens(batch: DecodingBatch, processed: Tensor, depths: Tensor, noise: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """First `count` tokens after every node, and the distributions of the samples.

    Args:
        processed: logits after the processors, (rows, nodes, vocab).
        depths: depth of every node, (rows, nodes).
        noise: seeds, (rows,).
    Returns: tokens, (rows, nodes, count), and probabilities, (rows, nodes, vocab), undefined for sequences that do not sample.
    """
    all_sampled = all(row.sampler.tree_rule is not None for row in batch.rows)
    scores = processed.clone() if all_sampled else perturbed_logits(batch, processed, depths).clone()
    probabilities = torch.empty_like(processed)
    for sampler, members in sampler_groups(batch):
        if sampler.tree_rule is not None:
            probabilities[members] = sampler.probabilities(processed[members])
            scores[members] = probabilities[members].log() + gumbel(noise[members], depths[members], processed.shape[2])
    return scores.topk(count, dim=2).indices, probabilities
