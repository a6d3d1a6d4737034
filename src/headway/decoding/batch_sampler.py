"""Logits to tokens for a whole batch with one sampler per sequence."""

from collections import defaultdict
from collections.abc import Sequence

import torch
from torch import Tensor

from headway.decoding.batch import DecodingBatch
from headway.decoding.sampler import Sampler
from headway.ops.sampling import sample


def process_logits(
    batch: DecodingBatch, logits: Tensor, nodes: Sequence[int] | None = None, parents: Tensor | None = None
) -> Tensor:
    """Logits in float32 after the logits processors, (rows, n, vocab). A failing processor ends the sequence.

    Args:
        logits: (rows, n, vocab).
        nodes: n nodes that the predicted tokens follow: 0 is the last committed token, drafts count from 1; default: 0 to
            n - 1.
        parents: (rows, drafts), parent nodes of the drafts; default: a chain.
    """
    processed = logits.float()
    if all(row.sampler.has_no_processors for row in batch.rows):
        return processed
    processed = processed.clone()
    for r, row in enumerate(batch.rows):
        if row.sampler.has_no_processors or row.error is not None:
            continue
        try:
            above = None if parents is None else parents[r].tolist()
            for n, node in enumerate(range(logits.shape[1]) if nodes is None else nodes):
                prefix = _prefix(batch, r, node, above)
                processed[r, n] = row.sampler.process_logits(logits[r, n], prefix, row.prompt_length, row.limit)
        except Exception as error:  # of a processor with settings of this sequence
            row.error = error
    return processed


def sampler_groups(batch: DecodingBatch) -> list[tuple[Sampler, list[int]]]:
    """Samplers of the batch, with the rows of each sampler."""
    groups: defaultdict[Sampler, list[int]] = defaultdict(list)
    for r, row in enumerate(batch.rows):
        groups[row.sampler].append(r)
    return list(groups.items())


def perturbed_logits(batch: DecodingBatch, processed: Tensor, depths: Tensor | None = None) -> Tensor:
    """Scores with the next token as argmax, (rows, n, vocab): logits, plus Gumbel noise for sequences that sample.

    Args:
        processed: logits after the processors, (rows, n, vocab).
        depths: number of drafts before the n tokens, (rows, n); default: none.
    """
    if not any(row.sampler.sampled for row in batch.rows):
        return processed
    seeds = torch.tensor([row.seed for row in batch.rows], device=batch.device)
    positions = batch.ends.expand(-1, processed.shape[1]) if depths is None else batch.ends + depths
    groups = sampler_groups(batch)
    if len(groups) == 1:
        return groups[0][0].perturbed_logits(processed, seeds, positions)
    perturbed = torch.empty_like(processed)
    for sampler, members in groups:
        try:
            perturbed[members] = sampler.perturbed_logits(processed[members], seeds[members], positions[members])
        except Exception as error:  # of settings that these sequences share
            for r in members:
                batch.rows[r].error = error
    return perturbed


def sample_draft_token(batch: DecodingBatch, k: int, logits: Tensor) -> Tensor | None:
    """Sample draft k of all sequences from logits (rows, vocab), given the first k drafts, and write the draft into the batch.

    Returns: the distribution that the draft was sampled from, (rows, vocab); None if no acceptance rule needs the distribution.
    """
    processed = process_logits(batch, logits[:, None], [k])
    tokens = perturbed_logits(batch, processed, torch.full((len(batch.rows), 1), k, device=batch.device)).argmax(-1)
    distribution = None
    for sampler, members in sampler_groups(batch):
        if sampler.rule is not None:
            if distribution is None:
                distribution = torch.nn.functional.one_hot(tokens[:, 0], logits.shape[1]).float()
            distribution[members] = sampler.probabilities(processed[members, 0])
            tokens[members, 0] = sample(distribution[members], sampler.generator)
    batch.set_draft_tokens(tokens, k)
    return distribution


def _prefix(batch: DecodingBatch, r: int, node: int, parents: list[int] | None) -> Tensor:
    """Tokens of row r up to a node of the draft chain, or of the draft tree given by `parents`."""
    end = len(batch.rows[r].tokens)
    if parents is None:
        return batch.tokens[r, : end + node]
    columns = torch.tensor(_path_to(parents, node), dtype=torch.long, device=batch.device) + end - 1
    return torch.cat([batch.tokens[r, :end], batch.tokens[r, columns]])


def _path_to(parents: list[int], node: int) -> list[int]:
    """The drafts from the root to a node, the node included."""
    path = []
    while node:
        path.append(node)
        node = parents[node - 1]
    return path[::-1]
