"""Combination of two drafters: the second drafter serves the sequences that the first drafter has no draft for.

Example: n-gram look-up before heads. In a repetitive passage, look-up drafts are long and cost nothing; in all further passages the
heads draft.
"""

from torch import Tensor
from torch.nn.functional import one_hot

from headway.decoding.batch import DecodingBatch
from headway.decoding.drafters.base import ChainDrafter, Draft, Drafter, DrafterFactory, build_drafter
from headway.decoding.drafters.limits import proposes_trees
from headway.errors import ConfigError
from headway.trunk import HiddenStates


def fallback_drafter(first: DrafterFactory, second: DrafterFactory) -> DrafterFactory:
    """Factory for `generate(..., drafter=fallback_drafter(ngram_drafter(shortest=2), heads_drafter("chain")))`.

    Args:
        first: factory of a drafter that may have no draft for a sequence.
        second: factory of the drafter for sequences without a draft. Both drafters propose chains.
    Raises:
        ConfigError: when the drafter is built, if a drafter proposes trees.
    """
    return DrafterFactory(
        lambda model, cache: FallbackDrafter(build_drafter(first, model, cache), build_drafter(second, model, cache))
    )


class FallbackDrafter(ChainDrafter):
    """Two drafters that see the same steps; see `fallback_drafter`."""

    def __init__(self, first: Drafter, second: Drafter) -> None:
        super().__init__(max(first.depth, second.depth))
        for part in (first, second):
            if proposes_trees(part):
                raise ConfigError('Only drafters of chains can be combined: heads_drafter("chain"), ngram_drafter(), an assistant.')
        self.first, self.second = first, second
        self.hidden_state_layers = tuple({*first.hidden_state_layers, *second.hidden_state_layers})
        self.config_key = tuple((type(part), part.draft_sizes, part.config_key) for part in (first, second))

    def catch_up_tokens(self, batch: DecodingBatch, num_draft_tokens: int) -> int:
        return sum(part.catch_up_tokens(batch, min(num_draft_tokens, part.depth)) for part in (self.first, self.second))

    def num_mask_tokens(self, num_draft_tokens: int, max_accepted: int) -> int:
        return max(part.num_mask_tokens(min(num_draft_tokens, part.depth), max_accepted) for part in (self.first, self.second))

    def observe(self, hidden_states: HiddenStates, positions: Tensor, first: int = 0) -> None:
        self.first.observe(hidden_states, positions, first)
        self.second.observe(hidden_states, positions, first)

    def draft(self, batch: DecodingBatch, num_draft_tokens: int) -> Draft:
        draft = self.first.draft(batch, min(num_draft_tokens, self.first.depth))
        lengths = _lengths(draft, batch, min(num_draft_tokens, self.first.depth))
        if all(lengths):
            return draft
        first_tokens = batch.draft_tokens(num_draft_tokens)
        depth = min(num_draft_tokens, self.second.depth)
        fallback = self.second.draft(batch, depth)  # overwrites the first drafter's tokens
        distributions = list(fallback.distributions)
        fallback_lengths = _lengths(fallback, batch, depth)
        for r, length in enumerate(lengths):
            if not length:
                lengths[r] = fallback_lengths[r]
                continue
            end = len(batch.rows[r].tokens)
            batch.tokens[r, end : end + length] = first_tokens[r, :length]
            for k, distribution in enumerate(distributions[:length]):
                token = first_tokens[r, k]  # without a distribution the draft is certain
                proposal = draft.distributions[k][r] if draft.distributions else one_hot(token, distribution.shape[1])
                distribution[r] = proposal.to(distribution.dtype)
        if distributions:  # a rule that reads distributions can judge no further drafts
            lengths = [min(length, len(distributions)) for length in lengths]
        return Draft(distributions, lengths)

    def copy_row(self, source: int, target: int) -> None:
        self.first.copy_row(source, target)
        self.second.copy_row(source, target)

    def reset_row(self, row: int) -> None:
        self.first.reset_row(row)
        self.second.reset_row(row)

    def extra_bytes(self, rows: int, capacity: int) -> int:
        return self.first.extra_bytes(rows, capacity) + self.second.extra_bytes(rows, capacity)

    def resize(self, rows: int, capacity: int) -> None:
        self.first.resize(rows, capacity)
        self.second.resize(rows, capacity)


def _lengths(draft: Draft, batch: DecodingBatch, num_draft_tokens: int) -> list[int]:
    return list(draft.lengths) if draft.lengths is not None else [num_draft_tokens] * len(batch.rows)
