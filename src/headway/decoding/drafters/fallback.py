"""Two drafters as one: the second drafts only for the rows that the first has nothing for.

N-gram look-up before heads, for instance: where the text repeats itself drafts are long and free, elsewhere the heads know better.
"""

from torch import Tensor
from torch.nn.functional import one_hot

from headway.decoding.batch import DecodingBatch
from headway.decoding.draftable import DraftableModel
from headway.decoding.drafters.base import ChainDrafter, Draft, Drafter, DrafterFactory, build_drafter
from headway.decoding.drafters.limits import proposes_trees
from headway.decoding.kv_cache import RaggedKVCache
from headway.errors import ConfigError
from headway.trunk import HiddenStates


def fallback_drafter(first: DrafterFactory, second: DrafterFactory) -> DrafterFactory:
    """Makes drafters for `generate(..., drafter=fallback_drafter(ngram_drafter(shortest=2), heads_drafter("chain")))`.

    Args: first: one that may have no draft for a row; second: what drafts then. Both propose chains.
    Raises, when called: ConfigError for a drafter that proposes trees.
    """

    def make(model: DraftableModel, cache: RaggedKVCache) -> Drafter:
        return FallbackDrafter(build_drafter(first, model, cache), build_drafter(second, model, cache))

    return DrafterFactory(make)


class FallbackDrafter(ChainDrafter):
    """See `fallback_drafter`."""

    def __init__(self, first: Drafter, second: Drafter) -> None:
        super().__init__(max(first.depth, second.depth))
        for part in (first, second):
            if proposes_trees(part):
                raise ConfigError('Only drafters of chains can be combined: heads_drafter("chain"), ngram_drafter(), an assistant.')
        self.first, self.second = first, second
        self.hidden_state_layers = tuple({*first.hidden_state_layers, *second.hidden_state_layers})
        self.config_key = tuple((type(part), part.draft_sizes, part.config_key) for part in (first, second))

    def catch_up_tokens(self, batch: DecodingBatch, count: int) -> int:
        return self.first.catch_up_tokens(batch, min(count, self.first.depth)) + self.second.catch_up_tokens(
            batch, min(count, self.second.depth)
        )

    def num_mask_tokens(self, count: int, max_accepted: int) -> int:
        return max(part.num_mask_tokens(min(count, part.depth), max_accepted) for part in (self.first, self.second))

    def observe(self, hidden_states: HiddenStates, positions: Tensor, first: int = 0) -> None:
        self.first.observe(hidden_states, positions, first)
        self.second.observe(hidden_states, positions, first)

    def draft(self, batch: DecodingBatch, count: int) -> Draft:
        found = self.first.draft(batch, min(count, self.first.depth))
        lengths = _lengths(found, batch, min(count, self.first.depth))
        if all(lengths):
            return found
        kept = batch.draft_tokens(count)
        depth = min(count, self.second.depth)
        other = self.second.draft(batch, depth)
        distributions = list(other.distributions)
        others = _lengths(other, batch, depth)
        for r, length in enumerate(lengths):
            if not length:
                lengths[r] = others[r]
                continue
            end = len(batch.rows[r].tokens)
            batch.tokens[r, end : end + length] = kept[r, :length]
            for k, distribution in enumerate(distributions[:length]):
                own = found.distributions[k][r] if found.distributions else one_hot(kept[r, k], distribution.shape[1])
                distribution[r] = own.to(distribution.dtype)
        if distributions:  # a rule that judges by what was drawn from can judge no further
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


def _lengths(draft: Draft, batch: DecodingBatch, count: int) -> list[int]:
    return list(draft.lengths) if draft.lengths is not None else [count] * len(batch.rows)
