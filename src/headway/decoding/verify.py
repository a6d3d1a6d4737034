"""Which drafts of each row stay, by the rule of each: rows of different rules stand side by side in a batch."""

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from headway.decoding.batch import Batch
from headway.decoding.drafters.base import Draft
from headway.decoding.verify_inputs import VerifyInputs
from headway.ops.draft_tree import AcceptedPath, follow_target
from headway.ops.verification.greedy import accept_greedy


def accept(batch: Batch, logits: Tensor, draft: Draft | None, layout: VerifyInputs) -> AcceptedPath:
    """Which drafts of each row stay, and the token after them; logits (rows, 1 + drafts, vocab)."""
    processed = batch.processed(logits, parents=draft.parents if draft is not None else None)
    if not layout.drafts and all(row.scores.rule is None for row in batch.rows):
        bonus_token = batch.preferences(processed).argmax(-1).squeeze(1)
        return AcceptedPath(layout.positions[:, :0], torch.zeros_like(bonus_token), bonus_token)
    if layout.tree is not None:
        assert draft is not None
        return _accept_tree(batch, processed, draft, layout)
    return _accept_chain(batch, processed, draft, layout)


def _accept_chain(batch: Batch, processed: Tensor, draft: Draft | None, layout: VerifyInputs) -> AcceptedPath:
    drafts = batch.drafted(layout.drafts)
    steps = torch.arange(1 + layout.drafts, device=batch.device).expand(len(batch.rows), -1)
    max_accepted = torch.tensor(layout.max_accepted, device=batch.device)
    kept, bonus_token = accept_greedy(batch.preferences(processed, steps), drafts, max_accepted)
    for scores, members in batch.groups():
        if scores.rule is not None:
            target, tokens = scores.probabilities(processed[members]), drafts[members]
            proposal = _proposal(draft, tokens, members, target.shape[2])
            part = scores.rule(target, proposal, tokens, scores.generator, max_accepted[members])
            kept[members], bonus_token[members] = part.num_accepted, part.bonus_token
    return AcceptedPath(torch.where(steps[:, :-1] < kept[:, None], steps[:, :-1] + 1, 0), kept, bonus_token)


def _accept_tree(batch: Batch, processed: Tensor, draft: Draft, layout: VerifyInputs) -> AcceptedPath:
    tree, drafts, valid = layout.tree, batch.drafted(layout.drafts), (layout.slots >= 0)[:, 1:]
    assert tree is not None
    # where nothing was drawn to be judged, the trunk's own choice is as exact
    judged = [(scores, rule, members) for scores, members in batch.groups() if (rule := scores.tree_rule) and draft.proposal_index]
    if sum(len(members) for *_, members in judged) < len(batch.rows):
        path = follow_target(tree, drafts, batch.preferences(processed, tree.depths).argmax(-1), valid)
    else:
        path = AcceptedPath(torch.zeros_like(drafts), torch.zeros_like(drafts[:, 0]), torch.zeros_like(drafts[:, 0]))
    for scores, rule, members in judged:
        proposal = torch.stack([part[members] for part in draft.distributions], dim=1)
        origins = torch.tensor(draft.proposal_index, device=batch.device).expand(len(members), -1)
        target, parents = scores.probabilities(processed[members]), tree.parents[members]
        part = rule(target, proposal, drafts[members], parents, scores.generator, valid[members], origins)
        path.nodes[members], path.num_accepted[members], path.bonus_token[members] = part
    return path


def _proposal(draft: Draft | None, tokens: Tensor, members: list[int], vocabulary: int) -> Tensor:
    """What the drafted `tokens` (rows, depth) were drawn from, (rows, depth, vocab); certain where they were not drawn."""
    depth = tokens.shape[1]
    if draft is None or not draft.distributions:
        return one_hot(tokens, vocabulary).float()
    return torch.stack(draft.distributions, dim=1)[members, :depth]
