"""Which path of a tree of drafts stays, when one pass of the trunk has scored all of its nodes.

Greedy: the path the trunk itself would have taken. Drawn: recursive rejection sampling at each node, its children tried one
after the other (SpecInfer, Miao et al. 2023, arXiv 2305.09781, algorithm 2; without replacement: Jeon et al. 2024,
arXiv 2402.14160, section 3.1). Trees as Medusa writes them (Cai et al. 2024, arXiv 2401.10774, section 2.1.2).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Generator, Tensor

from headway.ops.distributions import draw


class Path(NamedTuple):
    """The accepted path, from node 0 on and padded by repeating its last node, (batch, max_depth + 1); how many drafts it has
    and the one token that follows them, both (batch,)."""

    nodes: Tensor
    kept: Tensor
    following: Tensor


class TreeLaw(NamedTuple):
    """How likely it is that the path ends in each node, (batch, nodes), and what follows then, (batch, nodes, vocab)."""

    ends: Tensor
    following: Tensor


@dataclass(frozen=True, eq=False)
class Tree:
    """A tree of drafts; node 0 is the last settled token, and siblings are tried in the order of their nodes.

    Args:
        parents: the node each node follows, -1 for node 0, int64, (nodes,) or one tree a row, (batch, nodes).
    Raises: ValueError if a parent does not come before its child, or node 0 is not the only root.
    """

    parents: Tensor

    def __post_init__(self) -> None:
        parents = self.parents
        if parents.dim() not in (1, 2) or parents.shape[-1] == 0 or parents.dtype != torch.int64:
            raise ValueError(f"parents must be int64, (nodes,) or (batch, nodes), got {parents.dtype} {tuple(parents.shape)}")
        own = torch.arange(parents.shape[-1], device=parents.device)
        fits = torch.where(own == 0, parents == -1, (parents >= 0) & (parents < own))
        if not bool(fits.all()):
            raise ValueError(f"node 0 must be the only root (-1) and parents come before children, got {parents.tolist()}")

    @classmethod
    def chain(cls, depth: int) -> "Tree":
        """One draft after the other.

        Raises: ValueError if `depth` is negative.
        """
        if depth < 0:
            raise ValueError(f"depth must not be negative, got {depth}")
        return cls(torch.arange(-1, depth))

    @classmethod
    def from_paths(cls, paths: Sequence[Sequence[int]]) -> "Tree":
        """A tree from the paths to its nodes: (0, 2) is the third child of the root's first child, as in Medusa's choices.

        Nodes are numbered by depth, then by path. A child's number among its siblings is its place in the path.

        Raises: ValueError if a path is empty or twice there, or its parent or its elder sibling is missing.
        """
        ordered = sorted((tuple(path) for path in paths), key=lambda path: (len(path), path))
        nodes: dict[tuple[int, ...], int] = {(): 0}
        for path in ordered:
            if path in nodes:
                raise ValueError(f"path {path} is empty or twice there")
            if path[:-1] not in nodes:
                raise ValueError(f"path {path} has no parent {path[:-1]}")
            if path[-1] != 0 and (*path[:-1], path[-1] - 1) not in nodes:
                raise ValueError(f"path {path} has no elder sibling {(*path[:-1], path[-1] - 1)}")
            nodes[path] = len(nodes)
        return cls(torch.tensor([-1] + [nodes[path[:-1]] for path in ordered]))

    @cached_property
    def ancestors(self) -> Tensor:
        """Row i sees column j where j is i or lies on the way to it, bool, (..., nodes, nodes): the mask of tree attention."""
        nodes = self.parents.shape[-1]
        own = torch.arange(nodes, device=self.parents.device)
        seen = ((own == self.parents[..., None]) | (own == own[:, None])).float()
        for _ in range((nodes - 1).bit_length()):  # each product doubles how far up a node sees
            seen = (seen @ seen).clamp(max=1)
        return seen > 0

    @cached_property
    def depths(self) -> Tensor:
        """How many drafts lie on the way to each node, itself included: the position after the root's; as `parents`."""
        return self.ancestors.sum(-1) - 1

    @cached_property
    def ranks(self) -> Tensor:
        """The place of each node among its siblings, 0 for the one tried first; as `parents`."""
        siblings = self.parents[..., None] == self.parents[..., None, :]
        return siblings.tril(-1).sum(-1)

    @cached_property
    def children(self) -> Tensor:
        """The children of each node in the order they are tried, -1 where there are no more, (..., nodes, width)."""
        *batch, nodes = self.parents.shape
        table = self.parents.new_full((*batch, nodes * self.width), -1)
        own = torch.arange(1, nodes, device=self.parents.device).expand(*batch, -1)
        return table.scatter(-1, self.slots, own).unflatten(-1, (nodes, self.width))

    @cached_property
    def slots(self) -> Tensor:
        """Where each node but the root is in the flattened table of children, (..., nodes - 1)."""
        return (self.parents * self.width + self.ranks)[..., 1:]

    @cached_property
    def width(self) -> int:
        """The most children that a node has."""
        return int(self.ranks.max()) + 1 if self.parents.shape[-1] > 1 else 0

    @cached_property
    def max_depth(self) -> int:
        """The most drafts that a path has."""
        return int(self.depths.max())


def accept_tree_greedy(target: Tensor, tokens: Tensor, parents: Tensor | Tree, alive: Tensor | None = None) -> Path:
    """Follow from the root the child that the trunk itself would have chosen, as far as there is one.

    Where siblings carry the same token, the one whose path goes furthest is followed.

    Args:
        target: the trunk's scores after each node, (batch, nodes, vocab).
        tokens: the root's token and the drafts, (batch, nodes).
        parents: the tree or its parents, (nodes,) or (batch, nodes).
        alive: nodes that each row really has, bool, (batch, nodes); default: all. The root is always there.
    Raises: ValueError if the shapes disagree or the tree is broken.
    """
    tree = _tree_of(parents, target, tokens, alive)
    own = target.argmax(-1)  # (batch, nodes)
    chosen = tokens == own.gather(1, tree.parents.clamp(min=0).expand_as(tokens))
    on_path = _unbroken(tree, chosen if alive is None else chosen & alive)  # (batch, nodes)
    last = torch.where(on_path, tree.depths, -1).argmax(-1)  # (batch,)
    return _path_to(tree, last, own.gather(1, last[:, None]).squeeze(1))


def accept_tree_sampled(
    target: Tensor,
    proposal: Tensor | None,
    tokens: Tensor,
    parents: Tensor | Tree,
    generator: Generator | None = None,
    alive: Tensor | None = None,
) -> Path:
    """Keep a path of the tree that leaves the target distribution unchanged.

    Args:
        target: probabilities of the trunk after each node and after truncation, (batch, nodes, vocab); rows sum to 1.
        proposal: row j is what the children of node j were drawn from, in their order and without replacement,
            (batch, nodes, vocab); None where they were not drawn but chosen, like the top k of a head. A candidate that its
            proposal had nothing left to draw is passed over.
        tokens: the root's token and the drafts, (batch, nodes).
        parents: the tree or its parents, (nodes,) or (batch, nodes).
        alive: nodes that each row really has, bool, (batch, nodes); default: all. The root is always there. Where drafts are
            drawn, which nodes there are must be settled before their own tokens are, or the output is not the target's.
    Raises: ValueError if the shapes disagree or the tree is broken.
    """
    tree = _tree_of(parents, target, tokens, alive, proposal)
    law = tree_law(target, proposal, tokens, tree, alive)
    last = draw(law.ends, generator)  # (batch,)
    following = law.following[torch.arange(len(last), device=last.device), last]  # (batch, vocab)
    return _path_to(tree, last, draw(following, generator))


def tree_law(
    target: Tensor, proposal: Tensor | None, tokens: Tensor, parents: Tensor | Tree, alive: Tensor | None = None
) -> TreeLaw:
    """The probability of each outcome of `accept_tree_sampled` for these drafts; the same arguments and errors."""
    tree = _tree_of(parents, target, tokens, alive, proposal)
    batch, nodes = tokens.shape
    there = _unbroken(tree, alive).expand(batch, -1)
    children = tree.children.expand(batch, nodes, -1)
    index = children.clamp(min=0).flatten(1)
    drafts = tokens.gather(1, index).view_as(children)  # (batch, nodes, width)
    tried = (children >= 0) & there.gather(1, index).view_as(children)
    siblings = _chosen_siblings(target, drafts, tried) if proposal is None else _drawn_siblings(target, proposal, drafts, tried)

    taken = siblings.taken.flatten(1).gather(1, tree.slots.expand(batch, -1))  # given that the parent is reached
    taken = torch.cat([torch.ones_like(siblings.none[:, :1]), taken], 1)
    reached = torch.where(tree.ancestors, taken[:, None], 1).prod(-1)  # (batch, nodes)
    # the trunk's row of a node that is not there may hold anything, even NaN
    return TreeLaw(torch.where(there, reached * siblings.none, 0), siblings.following)


class _Siblings(NamedTuple):
    """What happens at each node that is reached: a child is taken, (batch, nodes, width), or none, (batch, nodes), and
    what follows after none, (batch, nodes, vocab)."""

    taken: Tensor
    none: Tensor
    following: Tensor


def _chosen_siblings(target: Tensor, drafts: Tensor, tried: Tensor) -> _Siblings:
    """Candidates that were not drawn: each is accepted with p(x) / what the candidates before it left, which over all of
    them is p(x), and p without the candidates, renormalised, follows when none is."""
    rest, taken = target.clone(), torch.empty_like(drafts, dtype=target.dtype)
    for rank in range(drafts.shape[2]):
        x, here = drafts[..., rank, None], tried[..., rank, None]
        p = rest.gather(2, x)
        taken[..., rank] = torch.where(here, p, 0).squeeze(2)
        rest.scatter_(2, x, torch.where(here, 0, p))  # a second child with the same token is never taken
    mass = rest.sum(-1)
    return _Siblings(taken, mass, _normalised(rest, mass, otherwise=target))


def _drawn_siblings(target: Tensor, proposal: Tensor, drafts: Tensor, tried: Tensor) -> _Siblings:
    """Candidates drawn without replacement: x is accepted with min(1, p(x) / q(x)); if it is not, p becomes
    norm(max(p - q, 0)), and q is without x and renormalised, as the next one was drawn from it."""
    p, q, none = target, proposal, torch.ones_like(target[..., 0])
    taken = torch.empty_like(drafts, dtype=target.dtype)
    for rank in range(drafts.shape[2]):
        x = drafts[..., rank, None]  # (batch, nodes, 1)
        q_x = q.gather(2, x)
        # where q has no token left, this candidate was not drawn from anything: it is passed over
        here = tried[..., rank] & (q_x > 0).squeeze(2)
        ratio = (p.gather(2, x) / q_x.clamp(min=torch.finfo(q.dtype).tiny)).clamp(max=1).squeeze(2)
        ratio = torch.where(here, ratio, 0)
        taken[..., rank] = none * ratio
        none = none * (1 - ratio)
        rest = (p - q).clamp(min=0)
        p = torch.where(here[..., None], _normalised(rest, rest.sum(-1), otherwise=p), p)
        rest = q.scatter(2, x, 0)
        q = torch.where(here[..., None], _normalised(rest, rest.sum(-1), otherwise=rest), q)
    return _Siblings(taken, none, p)


def _normalised(rest: Tensor, mass: Tensor, otherwise: Tensor) -> Tensor:
    """rest / mass; where there is no mass, `otherwise`, which is not drawn from but by rounding."""
    mass = mass[..., None]
    return torch.where(mass > 0, rest / mass.clamp(min=torch.finfo(mass.dtype).tiny), otherwise)


def _path_to(tree: Tree, last: Tensor, following: Tensor) -> Path:
    """Climb from the last accepted node, (batch,), to the root."""
    parents, depths = (values.expand(len(last), -1) for values in (tree.parents, tree.depths))
    node, path = last[:, None], []
    for depth in range(tree.max_depth, -1, -1):
        path.append(node)
        node = torch.where(depths.gather(1, node) == depth, parents.gather(1, node), node)
    return Path(torch.cat(path[::-1], 1), depths.gather(1, last[:, None]).squeeze(1), following)


def _unbroken(tree: Tree, flags: Tensor | None) -> Tensor:
    """The nodes to which the flags hold all the way from the root, whose own flag does not count; (batch, nodes)."""
    if flags is None:
        return torch.ones_like(tree.parents, dtype=torch.bool)
    root = torch.arange(flags.shape[1], device=flags.device) == 0
    return ((flags | root)[:, None] | ~tree.ancestors).all(-1)


def _tree_of(parents: Tensor | Tree, target: Tensor, tokens: Tensor, alive: Tensor | None, proposal: Tensor | None = None) -> Tree:
    tree = parents if isinstance(parents, Tree) else Tree(parents)
    shared = tree.parents.dim() == 1
    shapes = {"parents": (len(tokens), *tree.parents.shape) if shared else tree.parents.shape, "target": target.shape[:2]}
    if alive is not None:
        shapes["alive"] = alive.shape
    for name, shape in shapes.items():
        if shape != tokens.shape:
            raise ValueError(f"shapes disagree: {name} {tuple(shape)}, tokens {tuple(tokens.shape)}")
    if proposal is not None and proposal.shape != target.shape:
        raise ValueError(f"shapes disagree: proposal {tuple(proposal.shape)}, target {tuple(target.shape)}")
    return tree
