"""Trees of drafts: which to propose, what each node may look at, and which path stays once one forward has scored all nodes.

Node 0 is the last settled token, the others are drafts (Medusa, Cai et al. 2024, arXiv 2401.10774, section 2.1.2). The trunk
chooses a token after every node, its likeliest or one that it draws, and the path follows those choices for as long as a
child carries them. Nothing but the trunk's own choices comes out: this is recursive rejection (SpecInfer, Miao et al. 2023,
arXiv 2305.09781, algorithm 2) for candidates that were picked rather than drawn, each accepted with its probability among
those that are left.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor


class AcceptedPath(NamedTuple):
    """The nodes that stay, in their order, (batch, depth), those beyond the path being 0; how many they are and the one
    token that follows them, both (batch,)."""

    nodes: Tensor
    num_accepted: Tensor
    bonus_token: Tensor


class DraftTree(NamedTuple):
    """Drafts 1, 2, ... of each row, the likeliest first: their tokens, and the nodes that they follow; both (batch, count)."""

    tokens: Tensor
    parents: Tensor


@dataclass(frozen=True, eq=False)
class Tree:
    """A tree a row.

    Args: parents: (batch, drafts), int64: the node that draft 1, 2, ... follows; each comes after its parent.
    """

    parents: Tensor

    @cached_property
    def ancestors(self) -> Tensor:
        """Row i sees column j where j is i or lies on the way to it, bool, (batch, nodes, nodes): the mask of tree attention."""
        batch, drafts = self.parents.shape
        seen = torch.eye(drafts + 1, device=self.parents.device).repeat(batch, 1, 1)
        seen[:, 1:].scatter_(2, self.parents[..., None], 1)
        for _ in range(drafts.bit_length()):  # each product doubles how far up a node sees
            seen = (seen @ seen).clamp(max=1)
        return seen > 0

    @cached_property
    def depths(self) -> Tensor:
        """How many drafts lie on the way to each node, itself included: its position after the root's; (batch, nodes)."""
        return self.ancestors.sum(-1) - 1


def with_masks(above: Tensor, count: int) -> Tensor:
    """Who sees whom once `count` masks stand behind each node, after all nodes and node by node.

    A mask sees what its node sees, the masks of that node before it, and itself; nobody else sees a mask.

    Args: above: which nodes see which, bool, (batch, nodes, nodes).
    Returns: (batch, nodes * (1 + count), nodes * (1 + count)).
    """
    batch, nodes, _ = above.shape
    device = above.device
    before = torch.ones(count, count, dtype=torch.bool, device=device).tril()
    own = torch.kron(torch.eye(nodes, dtype=torch.bool, device=device), before).expand(batch, -1, -1)
    seen = torch.cat([above.repeat_interleave(count, dim=1), own], dim=2)
    return torch.cat([torch.nn.functional.pad(above, (0, nodes * count)), seen], dim=1)


def parents_of(paths: Sequence[Sequence[int]]) -> list[int]:
    """Parents of the drafts of a fixed tree, from the paths to them: (0, 2) is the third child of the root's first child.

    Drafts are numbered in the order given.
    Raises: ValueError if a path is empty, there twice, or comes before its parent.
    """
    nodes: dict[tuple[int, ...], int] = {(): 0}
    for path in map(tuple, paths):
        if path in nodes or path[:-1] not in nodes:
            raise ValueError(f"path {path} is empty, there twice, or comes before its parent {path[:-1]}")
        nodes[path] = len(nodes)
    return [nodes[tuple(path[:-1])] for path in paths]


def build_top_paths_tree(log_probabilities: Tensor, count: int) -> DraftTree:
    """The `count` likeliest continuations, or as many as there are.

    What is likely at a depth does not depend on the tokens before it, and a path is as likely as its tokens together. Parents
    come first, and a smaller tree is the beginning of a larger one (dynamic trees by path confidence: EAGLE-2, Li et al. 2024,
    arXiv 2406.16858, section 4). First of all comes the chain of the likeliest tokens: where its beginning is right, its end
    is right more often than tokens that were judged on their own would say.

    Args: log_probabilities: (batch, depth, vocab).
    """
    _, depth, vocab = log_probabilities.shape
    top, ids = log_probabilities.topk(min(count, vocab), dim=2)  # (batch, depth, width)
    scores, tokens = [top[:, 0].clone()], [ids[:, 0]]
    parents = [torch.full_like(ids[:, 0], -1)]  # by place among all the paths found; -1: the root
    start = 0
    for d in range(1, depth):
        paths = scores[-1][..., None] + top[:, d, None]  # (batch, paths so far, width)
        chain = paths[:, 0, 0].clone()
        paths[:, 0, 0] = torch.inf  # rounding makes others as likely, and any of them might come first
        best, place = paths.flatten(1).topk(min(count, paths[0].numel()), dim=1)
        best[:, 0] = chain
        width = top.shape[2]
        scores.append(best)
        tokens.append(ids[:, d].gather(1, place % width))
        parents.append(start + place // width)
        start += paths.shape[1]
    return select_top_nodes(scores, tokens, parents, count)


def select_top_nodes(scores: list[Tensor], tokens: list[Tensor], parents: list[Tensor], count: int) -> DraftTree:
    """The `count` likeliest of the paths found, the chain of the first ones of each depth before all others.

    Args:
        scores, tokens: log-probability of a path and the token it ends in, (batch, paths) for each depth.
        parents: the path that each goes on from, by its place among the paths of all depths; -1: the root.
    """
    for d, found in enumerate(scores):
        found[:, 0] = len(scores) - d  # above all logarithms
    # stable: a parent comes before a child that is as likely
    order = torch.cat(scores, 1).sort(dim=1, descending=True, stable=True).indices
    places = torch.arange(1, order.shape[1] + 1, device=order.device).expand_as(order)
    nodes = torch.empty_like(order).scatter_(1, order, places)
    above = torch.cat(parents, 1).gather(1, order[:, :count])
    return DraftTree(
        torch.cat(tokens, 1).gather(1, order[:, :count]),
        torch.where(above < 0, 0, nodes.gather(1, above.clamp(min=0))),
    )


def follow_target(tree: Tree, drafts: Tensor, chosen: Tensor, alive: Tensor | None = None) -> AcceptedPath:
    """From the root, follow the trunk's choices as far as there are drafts of them.

    Args:
        drafts: their tokens, (batch, drafts).
        chosen: the token that the trunk chose after each node, (batch, drafts + 1).
        alive: drafts that each row really has, bool, (batch, drafts); default: all.
    """
    wanted = drafts == chosen.gather(1, tree.parents)
    # of siblings that carry the same token the first counts: to take the one whose path goes furthest would favour some texts
    same = (drafts[:, None] == drafts[..., None]) & (tree.parents[:, None] == tree.parents[..., None])
    wanted = wanted & ~same.tril(-1).any(-1)
    if alive is not None:
        wanted = wanted & alive
    reached = torch.nn.functional.pad(wanted, (1, 0), value=True)
    whole = (reached[:, None] | ~tree.ancestors).all(-1)  # (batch, nodes): wanted all the way from the root
    last = torch.where(whole, tree.depths, -1).argmax(1)  # (batch,)
    on_path = tree.ancestors[torch.arange(len(last), device=last.device), last]
    nodes = torch.where(on_path, tree.depths, 0)[:, 1:]  # 1, 2, ... along the path, 0 off it
    ranked = torch.zeros_like(chosen).scatter_(1, nodes, torch.arange(1, chosen.shape[1], device=nodes.device).expand_as(nodes))
    return AcceptedPath(ranked[:, 1:], nodes.amax(1) if nodes.shape[1] else last, chosen.gather(1, last[:, None]).squeeze(1))
