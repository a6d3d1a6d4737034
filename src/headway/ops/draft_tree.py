"""Trees of drafts: building a tree, its attention mask, and the accepted path.

Node 0 is the last accepted token, all further nodes are drafts (Medusa, Cai et al. 2024, arXiv 2401.10774, section 2.1.2). A
forward pass scores all nodes. The trunk chooses a token after every node (argmax or sample), and the accepted path follows the
choices as long as a child holds the chosen token. The output consists of the trunk's own choices alone. The rule is recursive
rejection (SpecInfer, Miao et al. 2023, arXiv 2305.09781, algorithm 2) for candidates that were selected, not sampled: a candidate
is accepted with its probability among the remaining tokens.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from heapq import heappop, heappush
from typing import NamedTuple

import torch
from torch import Tensor

# Prior of acceptance by rank among siblings: the first child is accepted at 0.4, the second at a quarter of that, the third and
# fourth at a half and a third of the second; measured roughly with the embedded model at temperature 1. The prior decides the shape
# of trees and has no effect on the output.
RANK_ACCEPTANCE, NEXT_RANK_RATIO = 0.4, 0.25


class AcceptedPath(NamedTuple):
    """Accepted nodes in path order, 0 beyond the path, (batch, depth); their number and the bonus token, both (batch,)."""

    nodes: Tensor
    num_accepted: Tensor
    bonus_token: Tensor


class DraftTree(NamedTuple):
    """Drafts 1, 2, ... per sequence, most probable first: tokens and parent nodes, both (batch, count)."""

    tokens: Tensor
    parents: Tensor


@dataclass(frozen=True, eq=False)
class Tree:
    """One tree per sequence.

    Args:
        parents: parent node of draft 1, 2, ..., int64, (batch, drafts); a draft comes after its parent.
    """

    parents: Tensor

    @cached_property
    def ancestors(self) -> Tensor:
        """Mask of tree attention, bool, (batch, nodes, nodes): true where node j is node i or an ancestor of node i."""
        batch, drafts = self.parents.shape
        reach = torch.eye(drafts + 1, device=self.parents.device).repeat(batch, 1, 1)
        reach[:, 1:].scatter_(2, self.parents[..., None], 1)
        for _ in range(drafts.bit_length()):  # every product doubles the number of levels
            reach = (reach @ reach).clamp(max=1)
        return reach > 0

    @cached_property
    def depths(self) -> Tensor:
        """Depth of every node, which is its position after the root's; (batch, nodes)."""
        return self.ancestors.sum(-1) - 1


def append_mask_tokens(above: Tensor, count: int) -> Tensor:
    """Attention mask after appending `count` mask tokens per node behind all nodes, node by node.

    A mask token attends to everything its node attends to, to earlier mask tokens of that node, and to itself. Nodes do not attend
    to mask tokens.

    Args:
        above: attention among nodes, bool, (batch, nodes, nodes).
        count: mask tokens per node.
    Returns: bool, (batch, nodes * (1 + count), nodes * (1 + count)).
    """
    batch, nodes, _ = above.shape
    device = above.device
    causal = torch.ones(count, count, dtype=torch.bool, device=device).tril()
    same_node = torch.kron(torch.eye(nodes, dtype=torch.bool, device=device), causal).expand(batch, -1, -1)
    mask_rows = torch.cat([above.repeat_interleave(count, dim=1), same_node], dim=2)
    return torch.cat([torch.nn.functional.pad(above, (0, nodes * count)), mask_rows], dim=1)


def parents_of(paths: Sequence[Sequence[int]]) -> list[int]:
    """Parent nodes of a static tree given as paths: (0, 2) is the third child of the root's first child.

    Drafts are numbered in the order of the paths.

    Raises:
        ValueError: a path is empty, appears twice, or comes before its parent.
    """
    nodes: dict[tuple[int, ...], int] = {(): 0}
    for path in map(tuple, paths):
        if path in nodes or path[:-1] not in nodes:
            raise ValueError(f"path {path} is empty, appears twice, or comes before its parent {path[:-1]}")
        nodes[path] = len(nodes)
    return [nodes[tuple(path[:-1])] for path in paths]


def build_top_paths_tree(log_probabilities: Tensor, count: int) -> DraftTree:
    """Tree of the `count` most probable paths, or of all paths if there are fewer.

    Distributions of different depths are independent, so the probability of a path is the product of its tokens' probabilities.
    Parents come first, and a smaller tree is the beginning of a larger tree (dynamic trees by path confidence: EAGLE-2, Li et al.
    2024, arXiv 2406.16858, section 4). The chain of most probable tokens comes before all further paths: if the beginning of that
    chain is right, its end is right more often than independent distributions suggest.

    Args:
        log_probabilities: (batch, depth, vocab).
        count: number of drafts.
    """
    _, depth, vocab = log_probabilities.shape
    top, ids = log_probabilities.topk(min(count, vocab), dim=2)  # (batch, depth, width)
    scores, tokens = [top[:, 0].clone()], [ids[:, 0]]
    parents = [torch.full_like(ids[:, 0], -1)]  # index among the paths of all depths; -1: the root
    start = 0
    for d in range(1, depth):
        paths = scores[-1][..., None] + top[:, d, None]  # (batch, paths so far, width)
        chain = paths[:, 0, 0].clone()
        paths[:, 0, 0] = torch.inf  # a path that ties by rounding must not come first
        best, index = paths.flatten(1).topk(min(count, paths[0].numel()), dim=1)
        best[:, 0] = chain
        width = top.shape[2]
        scores.append(best)
        tokens.append(ids[:, d].gather(1, index % width))
        parents.append(start + index // width)
        start += paths.shape[1]
    return select_top_nodes(scores, tokens, parents, count)


def select_top_nodes(scores: list[Tensor], tokens: list[Tensor], parents: list[Tensor], count: int) -> DraftTree:
    """The `count` most probable of the given paths, the chain of the first path of every depth before all further paths.

    Args:
        scores: log-probability of each path, (batch, paths) per depth.
        tokens: last token of each path, (batch, paths) per depth.
        parents: path that a path extends, as index among the paths of all depths, -1 for the root, (batch, paths) per depth.
        count: number of paths to keep.
    """
    for d, depth_scores in enumerate(scores):
        depth_scores[:, 0] = len(scores) - d  # above all logarithms
    # a stable sort puts a parent before a child of equal probability
    order = torch.cat(scores, 1).sort(dim=1, descending=True, stable=True).indices
    ranks = torch.arange(1, order.shape[1] + 1, device=order.device).expand_as(order)
    nodes = torch.empty_like(order).scatter_(1, order, ranks)
    above = torch.cat(parents, 1).gather(1, order[:, :count])
    return DraftTree(
        torch.cat(tokens, 1).gather(1, order[:, :count]),
        torch.where(above < 0, 0, nodes.gather(1, above.clamp(min=0))),
    )


@cache
def optimal_static_tree(depth: int, count: int, width: int) -> tuple[int, ...]:
    """Parent nodes of the tree of `count` drafts with the highest expected number of accepted drafts (Sequoia, Chen et al.
    2024, arXiv 2402.12374, section 3.1).

    The acceptance of a child depends on its rank among siblings alone (`RANK_ACCEPTANCE`). The tree starts with a chain, is wider
    near the root, and a smaller tree is the beginning of a larger tree.

    Args:
        depth: largest number of consecutive drafts.
        count: number of drafts; fewer if depth and width allow no more.
        width: largest number of children per node.
    """
    nodes: dict[tuple[int, ...], int] = {(): 0}  # by rank among siblings at each depth
    waiting: list[tuple[bool, float, tuple[int, ...]]] = [(False, -_share(0), (0,))]  # (off chain, -acceptance, path)
    while waiting and len(nodes) <= count:
        _, priority, path = heappop(waiting)
        nodes[path] = len(nodes)
        above, rank = path[:-1], path[-1]
        if len(path) < depth:
            heappush(waiting, (any(path), priority * _share(0), (*path, 0)))
        if rank + 1 < width:
            heappush(waiting, (True, priority / _share(rank) * _share(rank + 1), (*above, rank + 1)))
    return tuple(nodes[path[:-1]] for path in nodes if path)


def _share(rank: int) -> float:
    """Prior probability that a path continues with the child of this rank."""
    return RANK_ACCEPTANCE * (NEXT_RANK_RATIO / rank if rank else 1.0)


def follow_target(tree: Tree, drafts: Tensor, chosen: Tensor, valid: Tensor | None = None) -> AcceptedPath:
    """Path from the root along the trunk's choices, as far as drafts hold the chosen tokens.

    Args:
        tree: the tree of each sequence.
        drafts: draft tokens, (batch, drafts).
        chosen: token that the trunk chose after each node, (batch, drafts + 1).
        valid: false for padding drafts, bool, (batch, drafts); default: all true.
    """
    matches = drafts == chosen.gather(1, tree.parents)
    # Of siblings with the same token the first counts: choosing the sibling with the longest path would bias the output.
    same = (drafts[:, None] == drafts[..., None]) & (tree.parents[:, None] == tree.parents[..., None])
    matches = matches & ~same.tril(-1).any(-1)
    if valid is not None:
        matches = matches & valid
    matches = torch.nn.functional.pad(matches, (1, 0), value=True)
    accepted = (matches[:, None] | ~tree.ancestors).all(-1)  # (batch, nodes): the node and all its ancestors match
    last = torch.where(accepted, tree.depths, -1).argmax(1)  # (batch,)
    on_path = tree.ancestors[torch.arange(len(last), device=last.device), last]
    nodes = torch.where(on_path, tree.depths, 0)[:, 1:]  # 1, 2, ... along the path, 0 off it
    ranked = torch.zeros_like(chosen).scatter_(1, nodes, torch.arange(1, chosen.shape[1], device=nodes.device).expand_as(nodes))
    return AcceptedPath(ranked[:, 1:], nodes.amax(1) if nodes.shape[1] else last, chosen.gather(1, last[:, None]).squeeze(1))
