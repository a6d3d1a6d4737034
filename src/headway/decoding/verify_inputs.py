"""Inputs of a verification forward: positions, cache slots and attention masks of the last committed token and the drafts."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from headway.decoding.batch import DecodingBatch, SequenceState
from headway.decoding.drafters.base import Draft
from headway.ops.draft_tree import AcceptedPath, Tree, append_mask_tokens
from headway.trunk import Masks, TrunkView


@dataclass(frozen=True)
class VerifyInputs:
    """Positions and slots of the last committed tokens, followed by the drafts.

    Args:
        positions: position ids, (rows, 1 + drafts); -1 for a draft that a row does not have.
        slots: cache slots, (rows, 1 + drafts); -1 likewise.
        kv_length: number of cache slots that attention reads.
        max_accepted: per row, maximum number of drafts that can be accepted.
        tree: parents of the drafts; None for a chain.
        masks: attention masks of a tree; the masks of a chain follow from the positions.
        contiguous_start: first slot, if all rows write the same contiguous slots.
        mask_token_inputs: the whole forward, if mask tokens are appended.
    """

    positions: Tensor
    slots: Tensor
    kv_length: int
    max_accepted: list[int]
    tree: Tree | None = None
    masks: Masks = None
    contiguous_start: int | None = None
    mask_token_inputs: "MaskTokenInputs | None" = None

    @property
    def drafts(self) -> int:
        return self.positions.shape[1] - 1


@dataclass(frozen=True)
class MaskTokenInputs:
    """Positions and slots of a forward with mask tokens: first the real tokens, then the mask tokens; (rows, all tokens).

    Mask tokens are written to the cache slots after the real tokens, and overwritten by the next forward. At the end of a
    sequence, with no position left for another draft, the mask token is padding (position -1): the answer would be unused, and
    the position could exceed the trunk's maximum.

    Args:
        count: number of mask tokens after every real token.
        last: append mask tokens to the last real token of a row alone.
    """

    positions: Tensor
    slots: Tensor
    kv_length: int
    masks: Masks
    count: int
    last: bool = False


def build_verify_inputs(
    view: TrunkView, batch: DecodingBatch, draft: Draft | None, num_draft_tokens: int, num_mask_tokens: int = 0
) -> VerifyInputs:
    """Inputs that verify at most `num_draft_tokens` drafts per row, with `num_mask_tokens` mask tokens after every token."""
    if num_draft_tokens:
        max_accepted = [max(0, min(num_draft_tokens, row.max_accepted)) for row in batch.rows]
    else:
        max_accepted = [0] * len(batch.rows)
    if draft is not None and draft.lengths is not None:
        max_accepted = [min(*pair) for pair in zip(max_accepted, draft.lengths, strict=True)]
    if draft is not None and draft.parents is not None:
        inputs = _tree_inputs(view, batch, draft, max_accepted)
    else:
        inputs = chain_inputs(batch, max_accepted)
    if num_mask_tokens:
        inputs = replace(inputs, mask_token_inputs=_append_mask_tokens(view, batch, inputs, num_mask_tokens))
    return inputs


def chain_inputs(batch: DecodingBatch, max_accepted: list[int]) -> VerifyInputs:
    """Inputs for a chain of drafts per row, as long as the row can accept."""
    lengths = batch.lengths
    positions, most = batch.ends - 1, max(max_accepted)
    uneven = min(max_accepted) < most
    if most:
        steps = torch.arange(most + 1, device=batch.device)
        positions = positions + steps
    if uneven:
        positions = torch.where(steps <= torch.tensor(max_accepted, device=batch.device)[:, None], positions, -1)
    kv_length = max(length + n for length, n in zip(lengths, max_accepted, strict=True))
    start = lengths[0] - 1 if not uneven and min(lengths) == max(lengths) else None
    return VerifyInputs(positions, positions, kv_length, max_accepted, contiguous_start=start)


def _tree_inputs(view: TrunkView, batch: DecodingBatch, draft: Draft, max_accepted: list[int]) -> VerifyInputs:
    assert draft.parents is not None
    tree, drafts = Tree(draft.parents), draft.parents.shape[1]
    newest = batch.ends - 1  # (rows, 1)
    valid = tree.depths <= torch.tensor(max_accepted, device=batch.device)[:, None]
    positions = newest + tree.depths
    kv_length = max(batch.lengths) + drafts
    keys = torch.arange(kv_length, device=batch.device).expand(len(batch.rows), -1)
    node = keys - newest  # the tree node in each slot
    in_tree = (node >= 0) & (node <= drafts)
    node = node.clamp(0, drafts)
    masks = view.masks(
        torch.where(valid, positions, -1),
        torch.where(in_tree, positions.gather(1, node), keys),
        allowed=~in_tree[:, None] | tree.ancestors.gather(2, node[:, None].expand(-1, drafts + 1, -1)),
    )
    slots = newest + torch.arange(drafts + 1, device=batch.device)
    # the entry of an invalid draft is overwritten, as is the entry of a rejected draft
    start = batch.lengths[0] - 1 if min(batch.lengths) == max(batch.lengths) else None
    positions, slots = torch.where(valid, positions, -1), torch.where(valid, slots, -1)
    return VerifyInputs(positions, slots, kv_length, max_accepted, tree, masks, start)


def _append_mask_tokens(view: TrunkView, batch: DecodingBatch, inputs: VerifyInputs, count: int) -> MaskTokenInputs:
    rows, nodes = inputs.positions.shape
    width = nodes * (1 + count)
    newest = batch.ends - 1  # (rows, 1)
    positions = torch.cat([inputs.positions, _mask_token_positions(inputs.positions, batch.rows, count)], dim=1)
    slots = newest + torch.arange(width, device=batch.device)
    kv_length = max(batch.lengths) - 1 + width
    keys = torch.arange(kv_length, device=batch.device).expand(rows, -1)
    index = keys - newest  # the token of this forward in each slot
    in_forward = (index >= 0) & (index < width)
    index = index.clamp(0, width - 1)
    ancestors = inputs.tree.ancestors if inputs.tree is not None else torch.ones(nodes, nodes, device=batch.device).bool().tril()
    visible = append_mask_tokens(ancestors.expand(rows, -1, -1), count)
    masks = view.masks(
        positions,
        torch.where(in_forward, positions.gather(1, index), torch.where(keys < newest, keys, -1)),
        allowed=~in_forward[:, None] | visible.gather(2, index[:, None].expand(-1, width, -1)),
    )
    return MaskTokenInputs(positions, torch.where(positions < 0, -1, slots), kv_length, masks, count)


def append_prompt_mask_tokens(view: TrunkView, rows: Sequence[SequenceState], inputs: VerifyInputs, count: int) -> MaskTokenInputs:
    """A prefill forward with `count` mask tokens after the last prompt tokens, in the positions that follow."""
    newest = inputs.positions.amax(dim=1, keepdim=True)
    positions = torch.cat([inputs.positions, _mask_token_positions(newest, rows, count)], dim=1)
    kv_length = max(inputs.kv_length, int(positions.max()) + 1)
    return MaskTokenInputs(positions, positions, kv_length, view.causal_masks(positions, kv_length), count, last=True)


def _mask_token_positions(positions: Tensor, rows: Sequence[SequenceState], count: int) -> Tensor:
    """Positions of `count` mask tokens after tokens at (rows, n) positions, (rows, n * count)."""
    last = torch.tensor([row.limit for row in rows], device=positions.device)[:, None, None] - 2
    following = positions[..., None] + torch.arange(1, count + 1, device=positions.device)
    return torch.where((positions[..., None] >= 0) & (following <= last), following, -1).flatten(1)


def accepted_positions(path: AcceptedPath, inputs: VerifyInputs) -> Tensor:
    """Positions of the last committed token and of the accepted drafts, -1 for rejected drafts; (rows, 1 + drafts)."""
    accepted = torch.zeros_like(inputs.positions, dtype=torch.bool)
    accepted.scatter_(1, path.nodes, True)
    accepted[:, 0] = True
    return torch.where(accepted, inputs.positions, -1)
