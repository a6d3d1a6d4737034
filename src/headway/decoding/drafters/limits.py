"""Trees no larger than asked for, so that ways of drafting can be compared at the same price of verifying."""

from headway.decoding.draftable import DraftableModel
from headway.decoding.drafters.base import Drafter, DrafterFactory, build_drafter
from headway.decoding.drafters.parallel import ParallelDrafter
from headway.decoding.generation_config import is_whole
from headway.decoding.kv_cache import RaggedKVCache
from headway.errors import ConfigError


def limit_draft_tokens(drafts: int, make: DrafterFactory) -> DrafterFactory:
    """Whatever `make` makes, with trees of at most `drafts` drafts; what makes chains alone stays as it is.

    Of a fixed tree its first drafts stay.
    Raises: ConfigError where `drafts` is no number of drafts.
    """
    if not is_whole(drafts, 0):
        raise ConfigError(f"at_most needs a number of drafts, 0 or more, got {drafts!r}.")

    def limited(model: DraftableModel, cache: RaggedKVCache) -> Drafter:
        drafter = build_drafter(make, model, cache)
        if proposes_trees(drafter) and drafter.draft_sizes[-1] > drafts:
            if isinstance(drafter, ParallelDrafter) and drafter.paths:
                drafter.fix(drafter.paths[:drafts])
            else:
                drafter.draft_sizes = (*(n for n in drafter.draft_sizes if n < drafts), drafts)
        return drafter

    return DrafterFactory(limited)


def proposes_trees(drafter: Drafter) -> bool:
    """Whether drafts of it may stand beside each other."""
    if isinstance(drafter, ParallelDrafter) and drafter.paths:
        return drafter.parents != list(range(len(drafter.paths)))
    return drafter.draft_sizes[-1] > drafter.depth
