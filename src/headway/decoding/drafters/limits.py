"""Trees with at most a given number of drafts, to compare drafters at an equal cost of verification."""

from headway.decoding.draftable import DraftableModel
from headway.decoding.drafters.base import Drafter, DrafterFactory, build_drafter
from headway.decoding.drafters.parallel import ParallelDrafter
from headway.decoding.generation_config import is_whole
from headway.decoding.kv_cache import RaggedKVCache
from headway.errors import ConfigError


def limit_draft_tokens(drafts: int, factory: DrafterFactory) -> DrafterFactory:
    """Factory of the same drafters with trees of at most `drafts` drafts; chains are not limited.

    A static tree is cut after the first `drafts` paths.

    Raises:
        ConfigError: `drafts` is not a whole number from 0 on.
    """
    if not is_whole(drafts, 0):
        raise ConfigError(f"limit_draft_tokens needs a number of drafts, 0 or more, got {drafts!r}.")

    def build(model: DraftableModel, cache: RaggedKVCache) -> Drafter:
        drafter = build_drafter(factory, model, cache)
        if proposes_trees(drafter) and drafter.draft_sizes[-1] > drafts:
            if isinstance(drafter, ParallelDrafter) and drafter.paths:
                drafter.set_static_tree(drafter.paths[:drafts])
            else:
                drafter.draft_sizes = (*(n for n in drafter.draft_sizes if n < drafts), drafts)
        return drafter

    return DrafterFactory(build)


def proposes_trees(drafter: Drafter) -> bool:
    """True if drafts of the drafter can be siblings."""
    if isinstance(drafter, ParallelDrafter) and drafter.paths:
        return drafter.parents != list(range(len(drafter.paths)))
    return drafter.draft_sizes[-1] > drafter.depth
