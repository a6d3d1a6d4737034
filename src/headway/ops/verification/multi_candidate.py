"""Multi-candidate rejection: several drafts for one place, drawn from the drafter without replacement, judged one after the other
(SpecInfer, Miao et al. 2023, arXiv 2305.09781, algorithm 2; Yang et al. 2024, arXiv 2401.06706; without replacement: Jeon et al.
2024, arXiv 2402.14160, and Sequoia, Chen et al. 2024, arXiv 2402.12374, section 3.2).

After each node of a tree the trunk has a distribution p and the drafter drew the node's children from q. The first child x stays
with probability min(1, p(x) / q(x)). If it goes, what is missing is norm(max(p - q, 0)), which takes the place of p; the next
child was drawn from q without x, norm(q), which takes the place of q. After the last child the token is drawn from p. With one
child a node this is token-level rejection (`headway.ops.verification.rejection`).

Which children a node has may depend on anything but what is drawn for this round: on the budget, on what rounds before it were
like, even on q. A child may not be added, left out or moved because of which tokens came up, as it would then no longer be drawn
from the q that it is judged by. For this reason the shape of a tree is settled first (`shape`), and filled then.

At each depth one node's children are looked at, since the path goes on from one child. So nodes of a depth may share the noise
that their children are drawn with: what is looked at was still drawn independently of all that was looked at before.
"""

from functools import cache
from heapq import heappop, heappush

import torch
from torch import Generator, Tensor

from headway.ops.draft_tree import AcceptedPath
from headway.ops.sampling import draw

# how often the first child stays, and the second as a share of that, the third half and the fourth a third as often as the second:
# about so with the embedded model at temperature 1. It decides the shape of trees, not what comes out of them
FIRST, NEXT = 0.4, 0.25


def accept_candidates(
    target: Tensor,
    draft: Tensor,
    tokens: Tensor,
    parents: Tensor,
    generator: Generator | None = None,
    alive: Tensor | None = None,
    proposal_index: Tensor | None = None,
) -> AcceptedPath:
    """Keep a path of a tree of drafts that leaves the target distribution unchanged.

    Args:
        target: probabilities of the trunk after truncation, after each node, (batch, drafts + 1, vocab); rows sum to 1.
        draft: probabilities that children were drawn from, (batch, n, vocab).
        tokens: drafted tokens, (batch, drafts); children of a node differ, and stand in the order in which they were drawn. A
            child without probability, where a node has more children than its q has tokens, never stays.
        parents: the node that each draft follows, (batch, drafts), as in `headway.ops.draft_tree.Tree`.
        alive: drafts that each row really has, bool, (batch, drafts), siblings together; default: all.
        drawn_from: which of the n distributions the children of each node were drawn from, (batch, drafts + 1); default: n is
            drafts + 1, and each node has its own. What it says of a node without children is not looked at.
    Raises: ValueError if the shapes disagree.
    """
    batch, drafts = tokens.shape
    if target.shape[:2] != (batch, drafts + 1) or parents.shape != tokens.shape or draft.shape[::2] != target.shape[::2]:
        shapes = {"target": target, "draft": draft, "tokens": tokens, "parents": parents}
        raise ValueError("shapes disagree: " + ", ".join(f"{name} {tuple(x.shape)}" for name, x in shapes.items()))
    uniform = torch.rand(tokens.shape, generator=generator, device=tokens.device, dtype=target.dtype)
    there = torch.ones_like(tokens, dtype=torch.bool) if alive is None else alive
    node, kept, nodes = tokens.new_zeros(batch), tokens.new_zeros(batch), torch.zeros_like(tokens)
    p = target[:, 0].clone()  # what the token after the path is drawn from; (batch, vocab)
    rows = torch.arange(batch if drafts else 0, device=tokens.device)  # those whose paths may go on
    while rows.numel():
        at = node[rows]
        left = there[rows] & (parents[rows] == at[:, None])  # children that were not judged yet, (rows, drafts)
        q = draft[rows, at if proposal_index is None else proposal_index[rows, at]]
        further = []
        while (some := left.any(1)).any():
            rows, left, q = rows[some], left[some], q[some]
            child = left.long().argmax(1)  # the first one
            x = tokens[rows, child, None]  # (rows, 1)
            likely = q.gather(1, x).squeeze(1)
            stays = (likely > 0) & (uniform[rows, child] * likely < p[rows].gather(1, x).squeeze(1))  # u < p / q
            onward, new = rows[stays], child[stays] + 1
            nodes[onward, kept[onward]] = new
            kept[onward] += 1
            node[onward], p[onward] = new, target[onward, new]
            further.append(onward)
            rows, q, x = rows[~stays], q[~stays], x[~stays]
            left = left[~stays].scatter(1, child[~stays, None], False)
            # no mass is left only where p and q agree up to rounding: p is then the right distribution too
            p[rows] = _normalised((p[rows] - q).clamp(min=0), p[rows])
            q = q.scatter(1, x, 0)
            q = _normalised(q, q)
        rows = torch.cat(further) if further else rows[:0]
    return AcceptedPath(nodes, kept, draw(p, generator))


def _normalised(weights: Tensor, otherwise: Tensor) -> Tensor:
    """Rows that sum to 1, or those of `otherwise` where there is nothing to divide; (rows, vocab)."""
    mass = weights.sum(-1, keepdim=True)
    return torch.where(mass > 0, weights / mass.clamp(min=torch.finfo(mass.dtype).tiny), otherwise)


@cache
def shape(depth: int, count: int, width: int) -> tuple[int, ...]:
    """Parents of the `count` drafts of a tree, or of as many as there are: those that are the likeliest to stay where children of
    a rank stay as often everywhere (Sequoia, section 3.1).

    It starts with a chain, is wider near the root, and a smaller tree is the beginning of a larger one.

    Args: depth: drafts after each other, at most. width: children of a node, at most.
    """
    nodes: dict[tuple[int, ...], int] = {(): 0}  # by rank among siblings at each depth
    waiting: list[tuple[bool, float, tuple[int, ...]]] = [(False, -_share(0), (0,))]  # off the chain, minus how likely, which
    while waiting and len(nodes) <= count:
        _, likely, path = heappop(waiting)
        nodes[path] = len(nodes)
        above, rank = path[:-1], path[-1]
        if len(path) < depth:
            heappush(waiting, (any(path), likely * _share(0), (*path, 0)))
        if rank + 1 < width:
            heappush(waiting, (True, likely / _share(rank) * _share(rank + 1), (*above, rank + 1)))
    return tuple(nodes[path[:-1]] for path in nodes if path)


def _share(rank: int) -> float:
    """Of the nodes that a path reaches, those where it goes on with the child of this rank."""
    return FIRST * (NEXT / rank if rank else 1.0)
