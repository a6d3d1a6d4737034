"""Where the tokens of a round stand: in their rows, in the cache, and who sees whom."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from headway.decoding.batch import Batch, SequenceState
from headway.decoding.drafters.base import Draft
from headway.ops.draft_tree import AcceptedPath, Tree, append_mask_tokens
from headway.trunk import Masks, TrunkView


@dataclass(frozen=True)
class VerifyInputs:
    """Where the last settled token of each row and its drafts stand; all (rows, 1 + drafts).

    positions: as the trunk counts them, -1 for a draft that a row does not have. slots: in the cache, likewise.
    usable: how many drafts of each row can stay. masks: for a tree; a chain's follow from its positions. start: where the
    slots of all rows are this one and those after it. ridden: where masks ride, what the forward runs over.
    """

    positions: Tensor
    slots: Tensor
    visible: int
    max_accepted: list[int]
    tree: Tree | None = None
    masks: Masks = None
    start: int | None = None
    mask_token_inputs: "MaskTokenInputs | None" = None

    @property
    def drafts(self) -> int:
        return self.positions.shape[1] - 1


@dataclass(frozen=True)
class MaskTokenInputs:
    """A whole forward in which masks ride: its tokens, then the masks behind them, all (rows, tokens in all).

    Masks take slots after those of the tokens, which the next forward overwrites. There is none where nothing is to be drafted:
    what would follow a row's last token is not asked for, and positions there may be more than the trunk has.
    """

    positions: Tensor
    slots: Tensor
    visible: int
    masks: Masks
    count: int  # behind each token
    last: bool = False  # rather, behind the last token of each row alone


def build_verify_inputs(view: TrunkView, batch: Batch, draft: Draft | None, budget: int, masks: int = 0) -> VerifyInputs:
    """What a round looks at: each row's last settled token and at most `budget` drafts, as many as it can use; behind each
    of them as many masks as are given."""
    max_accepted = [max(0, min(budget, row.max_accepted)) for row in batch.rows] if budget else [0] * len(batch.rows)
    if draft is not None and draft.lengths is not None:
        max_accepted = [min(*pair) for pair in zip(max_accepted, draft.lengths, strict=True)]
    layout = (
        _tree(view, batch, draft, max_accepted) if draft is not None and draft.parents is not None else chain(batch, max_accepted)
    )
    return replace(layout, mask_token_inputs=_ridden(view, batch, layout, masks)) if masks else layout


def _tree(view: TrunkView, batch: Batch, draft: Draft, max_accepted: list[int]) -> VerifyInputs:
    assert draft.parents is not None
    tree, budget = Tree(draft.parents), draft.parents.shape[1]
    newest = batch.ends - 1  # (rows, 1)
    valid = tree.depths <= torch.tensor(max_accepted, device=batch.device)[:, None]
    positions = newest + tree.depths
    visible = max(batch.lengths) + budget
    keys = torch.arange(visible, device=batch.device).expand(len(batch.rows), -1)
    node = keys - newest  # which node a slot holds
    drafted = (node >= 0) & (node <= budget)
    node = node.clamp(0, budget)
    masks = view.masks(
        torch.where(valid, positions, -1),
        torch.where(drafted, positions.gather(1, node), keys),
        allowed=~drafted[:, None] | tree.ancestors.gather(2, node[:, None].expand(-1, budget + 1, -1)),
    )
    slots = newest + torch.arange(budget + 1, device=batch.device)
    # what is written for a dead draft is overwritten like what a rejected one left
    start = batch.lengths[0] - 1 if min(batch.lengths) == max(batch.lengths) else None
    return VerifyInputs(torch.where(valid, positions, -1), torch.where(valid, slots, -1), visible, max_accepted, tree, masks, start)


def _ridden(view: TrunkView, batch: Batch, layout: VerifyInputs, count: int) -> MaskTokenInputs:
    rows, nodes = layout.positions.shape
    every = nodes * (1 + count)
    newest = batch.ends - 1  # (rows, 1)
    positions = torch.cat([layout.positions, _ahead(layout.positions, batch.rows, count)], dim=1)
    slots = newest + torch.arange(every, device=batch.device)
    visible = max(batch.lengths) - 1 + every
    keys = torch.arange(visible, device=batch.device).expand(rows, -1)
    place = keys - newest  # which token of this forward a slot holds
    here = (place >= 0) & (place < every)
    place = place.clamp(0, every - 1)
    above = layout.tree.ancestors if layout.tree is not None else torch.ones(nodes, nodes, device=batch.device).bool().tril()
    seen = append_mask_tokens(above.expand(rows, -1, -1), count)
    masks = view.masks(
        positions,
        torch.where(here, positions.gather(1, place), torch.where(keys < newest, keys, -1)),
        allowed=~here[:, None] | seen.gather(2, place[:, None].expand(-1, every, -1)),
    )
    return MaskTokenInputs(positions, torch.where(positions < 0, -1, slots), visible, masks, count)


def prompt_mask_tokens(view: TrunkView, rows: Sequence[SequenceState], layout: VerifyInputs, count: int) -> MaskTokenInputs:
    """Where prompts are read: masks behind the last token of each row, which stand and see as if they followed it."""
    newest = layout.positions.amax(dim=1, keepdim=True)
    positions = torch.cat([layout.positions, _ahead(newest, rows, count)], dim=1)
    visible = max(layout.visible, int(positions.max()) + 1)
    return MaskTokenInputs(positions, positions, visible, view.causal_masks(positions, visible), count, last=True)


def _ahead(positions: Tensor, rows: Sequence[SequenceState], count: int) -> Tensor:
    """Positions of the masks behind tokens at (rows, n) positions, (rows, n * count)."""
    last = torch.tensor([row.limit for row in rows], device=positions.device)[:, None, None] - 2
    ahead = positions[..., None] + torch.arange(1, count + 1, device=positions.device)
    return torch.where((positions[..., None] >= 0) & (ahead <= last), ahead, -1).flatten(1)


def chain(batch: Batch, max_accepted: list[int]) -> VerifyInputs:
    """One draft after the other, as many as each row can use."""
    lengths = batch.lengths
    positions, most = batch.ends - 1, max(max_accepted)
    uneven = min(max_accepted) < most
    if most:
        steps = torch.arange(most + 1, device=batch.device)
        positions = positions + steps
    if uneven:
        positions = torch.where(steps <= torch.tensor(max_accepted, device=batch.device)[:, None], positions, -1)
    visible = max(length + n for length, n in zip(lengths, max_accepted, strict=True))
    start = lengths[0] - 1 if not uneven and min(lengths) == max(lengths) else None
    return VerifyInputs(positions, positions, visible, max_accepted, start=start)


def accepted_positions(path: AcceptedPath, layout: VerifyInputs) -> Tensor:
    """Positions of the last settled token and of the drafts that stay, -1 for the others; (rows, 1 + drafts)."""
    stays = torch.zeros_like(layout.positions, dtype=torch.bool)
    stays.scatter_(1, path.nodes, True)
    stays[:, 0] = True
    return torch.where(stays, layout.positions, -1)
