"""Where the tokens of a round stand: in their rows, in the cache, and who sees whom."""

from dataclasses import dataclass

import torch
from torch import Tensor

from headway.decoding.drafting import Draft
from headway.decoding.rows import Batch
from headway.ops.trees import Path, Tree
from headway.trunk import Masks, TrunkView


@dataclass(frozen=True)
class Layout:
    """Where the last settled token of each row and its drafts stand; all (rows, 1 + drafts).

    positions: as the trunk counts them, -1 for a draft that a row does not have. slots: in the cache, likewise.
    usable: how many drafts of each row can stay. masks: for a tree; a chain's follow from its positions. start: where the
    slots of all rows are this one and those after it.
    """

    positions: Tensor
    slots: Tensor
    visible: int
    usable: list[int]
    tree: Tree | None = None
    masks: Masks = None
    start: int | None = None

    @property
    def drafts(self) -> int:
        return self.positions.shape[1] - 1


def lay_out(view: TrunkView, batch: Batch, draft: Draft | None, budget: int) -> Layout:
    """What a round looks at: each row's last settled token and at most `budget` drafts, as many as it can use."""
    usable = [max(0, min(budget, row.usable)) for row in batch.rows]
    if draft is None or draft.parents is None:
        if draft is not None and draft.lengths is not None:
            usable = [min(*pair) for pair in zip(usable, draft.lengths, strict=True)]
        return chain(batch, usable)
    tree, budget = Tree(draft.parents), draft.parents.shape[1]
    newest = torch.tensor(batch.lengths, device=batch.device)[:, None] - 1  # (rows, 1)
    alive = tree.depths <= torch.tensor(usable, device=batch.device)[:, None]
    positions = newest + tree.depths
    visible = max(batch.lengths) + budget
    keys = torch.arange(visible, device=batch.device).expand(len(batch.rows), -1)
    node = keys - newest  # which node a slot holds
    drafted = (node >= 0) & (node <= budget)
    node = node.clamp(0, budget)
    masks = view.masks(
        torch.where(alive, positions, -1),
        torch.where(drafted, positions.gather(1, node), keys),
        allowed=~drafted[:, None] | tree.ancestors.gather(2, node[:, None].expand(-1, budget + 1, -1)),
    )
    slots = newest + torch.arange(budget + 1, device=batch.device)
    # what is written for a dead draft is overwritten like what a rejected one left
    start = batch.lengths[0] - 1 if min(batch.lengths) == max(batch.lengths) else None
    return Layout(torch.where(alive, positions, -1), torch.where(alive, slots, -1), visible, usable, tree, masks, start)


def chain(batch: Batch, usable: list[int]) -> Layout:
    """One draft after the other, as many as each row can use."""
    lengths = batch.lengths
    steps = torch.arange(max(usable) + 1, device=batch.device)
    positions = torch.tensor(lengths, device=batch.device)[:, None] - 1 + steps
    uneven = min(usable) < max(usable)
    if uneven:
        positions = torch.where(steps <= torch.tensor(usable, device=batch.device)[:, None], positions, -1)
    visible = max(length + n for length, n in zip(lengths, usable, strict=True))
    start = lengths[0] - 1 if not uneven and min(lengths) == max(lengths) else None
    return Layout(positions, positions, visible, usable, start=start)


def kept_positions(path: Path, layout: Layout) -> Tensor:
    """Positions of the last settled token and of the drafts that stay, -1 for the others; (rows, 1 + drafts)."""
    stays = torch.zeros_like(layout.positions, dtype=torch.bool)
    stays.scatter_(1, path.nodes, True)
    stays[:, 0] = True
    return torch.where(stays, layout.positions, -1)
