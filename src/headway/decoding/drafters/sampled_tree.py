"""The drafts of a tree whose shape is settled: siblings are the likeliest, or drawn without replacement where a rule needs that.

The largest log-probabilities after Gumbel noise are a draw without replacement, in its order (Kool et al. 2019, arXiv 1903.06059,
section 2.3). As at each depth the children of one node are looked at, all nodes of a depth share their noise
(`headway.ops.verification.multi_candidate`). What is likely after a node depends on its path only where rows have processors, such
as a repetition penalty: then each node has a distribution of its own, else one a depth.
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
    """What drafts were drawn from, (rows, vocab) each, and which of these the children of each node came from, 0 first."""

    distributions: list[Tensor]
    proposal_index: list[int]


def draft_tree(batch: DecodingBatch, parents: Sequence[int], logits: Tensor) -> SampledTree:
    """Choose the drafts of a tree that all rows share, and write them down.

    Args:
        parents: the node that each draft follows; siblings are taken in this order.
        logits: what heads say, whatever the path, (rows, depth, vocab).
    """
    rows = len(batch.rows)
    tokens = torch.zeros(rows, len(parents), dtype=torch.long, device=batch.device)
    children: defaultdict[int, list[int]] = defaultdict(list)
    for draft, parent in enumerate(parents, 1):
        children[parent].append(draft)
    above = torch.tensor(parents, device=batch.device).expand(rows, -1)
    alike = all(row.sampler.has_no_processors for row in batch.rows)
    noise = _seeds(batch)
    found = SampledTree([], [0] * (1 + len(parents)))
    level = [0]
    for depth in range(logits.shape[1]):
        level = [node for node in level if children[node]]
        if not level:
            break
        nodes = level[:1] if alike else level
        processed = process_logits(batch, logits[:, depth, None].expand(-1, len(nodes), -1), nodes, above)
        places = torch.full((rows, len(nodes)), depth, device=batch.device)
        ranked, likely = _rank(batch, processed, places, noise, max(len(children[node]) for node in level))
        bonus_token: list[tuple[int, int, int]] = []  # a draft, the node among these that it follows, its rank
        for n, node in enumerate(level):
            above_it = 0 if alike else n
            found.proposal_index[node] = len(found.distributions) + above_it
            bonus_token += [(draft, above_it, rank) for rank, draft in enumerate(children[node])]
        level, at, ranks = (list(part) for part in zip(*bonus_token, strict=True))
        tokens[:, [draft - 1 for draft in level]] = ranked[:, at, ranks]
        batch.set_draft_tokens(tokens)  # what is deeper may depend on it
        found.distributions.extend(likely.unbind(1))
    return found


def _seeds(batch: DecodingBatch) -> Tensor:
    """For the noise of this round alone, (rows,); of rows that are judged by what was drawn."""
    seeds = torch.zeros(len(batch.rows), dtype=torch.long, device=batch.device)
    for scores, members in sampler_groups(batch):
        if scores.tree_rule is not None:
            seeds[members] = torch.randint(2**63 - 1, (len(members),), generator=scores.generator, device=batch.device)
    return seeds


def _rank(batch: DecodingBatch, processed: Tensor, places: Tensor, noise: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The first `count` tokens after some nodes of a depth, (rows, nodes, count), and what they were drawn from, (rows, nodes,
    vocab), anything where they were not drawn; processed (rows, nodes, vocab), places (rows, nodes): the depth."""
    drawn = all(row.sampler.tree_rule is not None for row in batch.rows)
    preferences = processed.clone() if drawn else perturbed_logits(batch, processed, places).clone()
    likely = torch.empty_like(processed)
    for scores, members in sampler_groups(batch):
        if scores.tree_rule is not None:
            likely[members] = scores.probabilities(processed[members])
            preferences[members] = likely[members].log() + gumbel(noise[members], places[members], processed.shape[2])
    return preferences.topk(count, dim=2).indices, likely
