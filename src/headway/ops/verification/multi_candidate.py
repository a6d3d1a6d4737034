"""Multi-candidate rejection: several drafts for one position, sampled without replacement, judged one after the other.

SpecInfer (Miao et al. 2023, arXiv 2305.09781, algorithm 2); Yang et al. 2024, arXiv 2401.06706; without replacement: Jeon et al.
2024, arXiv 2402.14160, and Sequoia (Chen et al. 2024, arXiv 2402.12374, section 3.2).

After each node of a tree the trunk has a distribution p, and the drafter sampled the node's children from q. The first child x is
accepted with probability min(1, p(x) / q(x)). After a rejection, norm(max(p - q, 0)) replaces p, and q without x, normalised,
replaces q for the next child. After the last child the bonus token is sampled from p. With one child per node the rule is
token-level rejection (`headway.ops.verification.rejection`).

The number of children of a node may depend on the number of drafts, on earlier steps, even on q, but not on the tokens sampled in
this step: a child added, dropped or moved because of its token would no longer be a sample of the q that judges it. The shape of
the tree is therefore fixed first (`headway.ops.draft_tree.optimal_static_tree`) and filled afterwards.

At each depth the children of one node are judged, because the path continues from one child. Nodes of one depth may therefore
share the noise that samples their children: the judged children are still independent of all children judged before.
"""

import torch
from torch import Generator, Tensor

from headway.ops.draft_tree import AcceptedPath
from headway.ops.sampling import sample


def accept_candidates(
    target: Tensor,
    draft: Tensor,
    tokens: Tensor,
    parents: Tensor,
    generator: Generator | None = None,
    valid: Tensor | None = None,
    proposal_index: Tensor | None = None,
) -> AcceptedPath:
    """Accept a path of a tree of drafts that leaves the target distribution unchanged.

    Args:
        target: probabilities of the trunk after warping, per node, (batch, drafts + 1, vocab); the last axis sums to 1.
        draft: n distributions that children were sampled from, (batch, n, vocab).
        tokens: draft tokens, (batch, drafts). Children of a node differ and stand in sampling order. A child of probability 0 (a
            node with more children than q has tokens) is never accepted.
        parents: parent node of each draft, (batch, drafts), as in `headway.ops.draft_tree.Tree`.
        generator: source of randomness on the same device; None: the global generator.
        valid: false for padding drafts, bool, (batch, drafts), equal among siblings; default: all true.
        proposal_index: index of the distribution that the children of each node were sampled from, (batch, drafts + 1); default: n
            is drafts + 1, and every node has its own. Entries of nodes without children are ignored.
    Raises:
        ValueError: shapes disagree.
    """
    batch, drafts = tokens.shape
    if target.shape[:2] != (batch, drafts + 1) or parents.shape != tokens.shape or draft.shape[::2] != target.shape[::2]:
        shapes = {"target": target, "draft": draft, "tokens": tokens, "parents": parents}
        raise ValueError("shapes disagree: " + ", ".join(f"{name} {tuple(x.shape)}" for name, x in shapes.items()))
    uniform = torch.rand(tokens.shape, generator=generator, device=tokens.device, dtype=target.dtype)
    valid = torch.ones_like(tokens, dtype=torch.bool) if valid is None else valid
    node, num_accepted, nodes = tokens.new_zeros(batch), tokens.new_zeros(batch), torch.zeros_like(tokens)
    p = target[:, 0].clone()  # distribution of the token after the path, (batch, vocab)
    rows = torch.arange(batch if drafts else 0, device=tokens.device)  # sequences with an open path
    while rows.numel():
        parent = node[rows]
        left = valid[rows] & (parents[rows] == parent[:, None])  # children still to judge, (rows, drafts)
        q = draft[rows, parent if proposal_index is None else proposal_index[rows, parent]]
        extended = []
        while (some := left.any(1)).any():
            rows, left, q = rows[some], left[some], q[some]
            child = left.long().argmax(1)  # the first child
            x = tokens[rows, child, None]  # (rows, 1)
            proposal = q.gather(1, x).squeeze(1)
            accepted = (proposal > 0) & (uniform[rows, child] * proposal < p[rows].gather(1, x).squeeze(1))  # u < p / q
            onward, new = rows[accepted], child[accepted] + 1
            nodes[onward, num_accepted[onward]] = new
            num_accepted[onward] += 1
            node[onward], p[onward] = new, target[onward, new]
            extended.append(onward)
            rows, q, x = rows[~accepted], q[~accepted], x[~accepted]
            left = left[~accepted].scatter(1, child[~accepted, None], False)
            # The mass is 0 only if p and q agree up to rounding: then p is the right distribution too.
            p[rows] = _normalised((p[rows] - q).clamp(min=0), p[rows])
            q = q.scatter(1, x, 0)
            q = _normalised(q, q)
        rows = torch.cat(extended) if extended else rows[:0]
    return AcceptedPath(nodes, num_accepted, sample(p, generator))


def _normalised(weights: Tensor, otherwise: Tensor) -> Tensor:
    """Weights divided by their sum, or `otherwise` in rows of sum 0; (rows, vocab)."""
    mass = weights.sum(-1, keepdim=True)
    return torch.where(mass > 0, weights / mass.clamp(min=torch.finfo(mass.dtype).tiny), otherwise)
