"""Acceptance of drafts, by the acceptance rules of the sequences, and the commit of accepted paths to batch and cache."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from headway.decoding.batch import DecodingBatch
from headway.decoding.batch_sampler import perturbed_logits, process_logits, sampler_groups
from headway.decoding.drafters.base import Draft
from headway.decoding.kv_cache import RaggedKVCache
from headway.decoding.verify_inputs import VerifyInputs
from headway.errors import ConfigError
from headway.ops.draft_tree import AcceptedPath, follow_target
from headway.ops.verification.block import accept_block
from headway.ops.verification.greedy import accept_greedy
from headway.ops.verification.multi_candidate import accept_candidates
from headway.ops.verification.rejection import accept_sampled
from headway.ops.verification.rule import Accepted
from headway.ops.verification.typical import accept_typical

COUPLED = "coupled"  # trunk and drafter sample with the same Gumbel noise, and a draft is accepted if the tokens agree
# rules for sampled chains; arguments: target, proposal, tokens, generator, limit (see `headway.ops.verification.rejection`)
RULES: dict[str, Callable[..., Accepted] | None] = {
    COUPLED: None,
    "token": accept_sampled,
    "block": accept_block,
    "multi-candidate": accept_sampled,  # equal to it where each token has one candidate
    "typical": accept_typical,
}
# rules for sampled trees; sequences with another rule draft chains
TREE_RULES: dict[str, Callable[..., AcceptedPath]] = {"multi-candidate": accept_candidates}


def acceptance_rules(name: str) -> tuple[Callable[..., Accepted] | None, Callable[..., AcceptedPath] | None]:
    """The rules for chains and for trees by name; None for Gumbel-coupled sampling.

    Raises:
        ConfigError: for an unknown name.
    """
    if not isinstance(name, str) or name not in RULES:
        raise ConfigError(f"There is no acceptance rule {name!r}; there are: {', '.join(RULES)}.")
    return RULES[name], TREE_RULES.get(name)


def accept(batch: DecodingBatch, logits: Tensor, draft: Draft | None, inputs: VerifyInputs) -> AcceptedPath:
    """Accepted drafts of all sequences and the bonus tokens; logits (rows, 1 + drafts, vocab)."""
    processed = process_logits(batch, logits, parents=draft.parents if draft is not None else None)
    if not inputs.drafts and all(row.sampler.rule is None for row in batch.rows):
        bonus_token = perturbed_logits(batch, processed).argmax(-1).squeeze(1)
        return AcceptedPath(inputs.positions[:, :0], torch.zeros_like(bonus_token), bonus_token)
    if inputs.tree is not None:
        assert draft is not None
        return _accept_tree(batch, processed, draft, inputs)
    return _accept_chain(batch, processed, draft, inputs)


def _accept_chain(batch: DecodingBatch, processed: Tensor, draft: Draft | None, inputs: VerifyInputs) -> AcceptedPath:
    drafts = batch.draft_tokens(inputs.drafts)
    steps = torch.arange(1 + inputs.drafts, device=batch.device).expand(len(batch.rows), -1)
    max_accepted = torch.tensor(inputs.max_accepted, device=batch.device)
    num_accepted, bonus_token = accept_greedy(perturbed_logits(batch, processed, steps), drafts, max_accepted)
    for sampler, members in sampler_groups(batch):
        if sampler.rule is not None:
            target, tokens = sampler.probabilities(processed[members]), drafts[members]
            proposal = _proposal(draft, tokens, members, target.shape[2])
            part = sampler.rule(target, proposal, tokens, sampler.generator, max_accepted[members])
            num_accepted[members], bonus_token[members] = part.num_accepted, part.bonus_token
    nodes = torch.where(steps[:, :-1] < num_accepted[:, None], steps[:, :-1] + 1, 0)
    return AcceptedPath(nodes, num_accepted, bonus_token)


def _accept_tree(batch: DecodingBatch, processed: Tensor, draft: Draft, inputs: VerifyInputs) -> AcceptedPath:
    tree, drafts, valid = inputs.tree, batch.draft_tokens(inputs.drafts), (inputs.slots >= 0)[:, 1:]
    assert tree is not None
    # without a proposal distribution the trunk's own sample decides, which is as exact
    judged = [
        (sampler, rule, rows) for sampler, rows in sampler_groups(batch) if (rule := sampler.tree_rule) and draft.proposal_index
    ]
    if sum(len(members) for *_, members in judged) < len(batch.rows):
        path = follow_target(tree, drafts, perturbed_logits(batch, processed, tree.depths).argmax(-1), valid)
    else:
        path = AcceptedPath(torch.zeros_like(drafts), torch.zeros_like(drafts[:, 0]), torch.zeros_like(drafts[:, 0]))
    for sampler, rule, members in judged:
        proposal = torch.stack([part[members] for part in draft.distributions], dim=1)
        origins = torch.tensor(draft.proposal_index, device=batch.device).expand(len(members), -1)
        target, parents = sampler.probabilities(processed[members]), tree.parents[members]
        part = rule(target, proposal, drafts[members], parents, sampler.generator, valid[members], origins)
        path.nodes[members], path.num_accepted[members], path.bonus_token[members] = part
    return path


def _proposal(draft: Draft | None, tokens: Tensor, members: list[int], vocabulary: int) -> Tensor:
    """Distributions that the drafts (rows, depth) were sampled from, (rows, depth, vocab); one-hot for certain drafts."""
    depth = tokens.shape[1]
    if draft is None or not draft.distributions:
        return one_hot(tokens, vocabulary).float()
    return torch.stack(draft.distributions, dim=1)[members, :depth]


def token_logprobs(batch: DecodingBatch, logits: Tensor, path: AcceptedPath, inputs: VerifyInputs) -> list[list[float]]:
    """Log-probabilities of the accepted drafts and the bonus tokens: log_softmax(logits / temperature).

    Call before the tokens are compacted.

    Args:
        logits: of the trunk, before processors, (rows, 1 + drafts, vocab).
    """
    temperatures = torch.tensor([row.sampler.temperature for row in batch.rows], device=batch.device)[:, None, None]
    scaled = logits.float() / temperatures
    nodes = torch.cat([torch.zeros_like(path.num_accepted)[:, None], path.nodes], dim=1)  # predictions are read at these nodes
    after = torch.cat([path.nodes, torch.zeros_like(path.num_accepted)[:, None]], dim=1)  # and these nodes' tokens follow
    tokens = batch.tokens_at(batch.ends - 1 + after)
    tokens.scatter_(1, path.num_accepted[:, None], path.bonus_token[:, None])
    rows = torch.arange(len(batch.rows), device=batch.device)[:, None]
    logprobs = (scaled[rows, nodes, tokens] - scaled.logsumexp(-1).gather(1, nodes)).tolist()
    return [row[: count + 1] for row, count in zip(logprobs, path.num_accepted.tolist(), strict=True)]


def compact_accepted_path(batch: DecodingBatch, cache: RaggedKVCache, path: AcceptedPath) -> None:
    """Move tokens and cache entries of an accepted tree path to the slots of a chain."""
    newest = batch.ends - 1
    nodes = path.nodes[:, : int(path.num_accepted.max())]
    targets = newest + torch.arange(1, nodes.shape[1] + 1, device=batch.device)
    sources = torch.where(nodes > 0, newest + nodes, targets)
    moving = sources != targets
    if bool(moving.any()):
        tokens = batch.tokens[: len(batch.rows)]
        tokens.scatter_(1, targets, tokens.gather(1, sources))
        cache.compact(torch.where(moving, sources, -1), torch.where(moving, targets, -1))


def append_bonus_token(batch: DecodingBatch, path: AcceptedPath, inputs: VerifyInputs) -> list[tuple[list[int], list[int]]]:
    """Write the bonus token after the accepted drafts; return, per row, the new tokens and the accepted nodes (from 1)."""
    columns = batch.ends + path.num_accepted[:, None] if inputs.drafts else batch.ends
    batch.tokens[: len(batch.rows)].scatter_(1, columns, path.bonus_token[:, None])
    if not inputs.drafts:
        return [([token], []) for token in path.bonus_token.tolist()]
    # one transfer
    block = torch.cat([path.num_accepted[:, None], path.nodes, batch.draft_tokens(inputs.drafts + 1)], dim=1).tolist()
    first = 1 + inputs.drafts
    return [(row[first : first + row[0] + 1], row[1 : 1 + row[0]]) for row in block]
