"""Trees no larger than asked for, so that ways of drafting can be compared at the same price of verifying."""

from headway.decoding.arguments import is_whole
from headway.decoding.cache import RaggedCache
from headway.decoding.drafting import Drafter, MakeDrafter, made
from headway.decoding.parallel_drafts import ParallelDrafter
from headway.errors import ConfigError
from headway.model import HeadwayModel


def at_most(drafts: int, make: MakeDrafter) -> MakeDrafter:
    """Whatever `make` makes, with trees of at most `drafts` drafts; what makes chains alone stays as it is.

    Of a fixed tree its first drafts stay.
    Raises: ConfigError where `drafts` is no number of drafts.
    """
    if not is_whole(drafts, 0):
        raise ConfigError(f"at_most needs a number of drafts, 0 or more, got {drafts!r}.")

    def limited(model: HeadwayModel, cache: RaggedCache) -> Drafter:
        drafter = made(make, model, cache)
        if drafts_trees(drafter) and drafter.budgets[-1] > drafts:
            if isinstance(drafter, ParallelDrafter) and drafter.paths:
                drafter.fix(drafter.paths[:drafts])
            else:
                drafter.budgets = (*(n for n in drafter.budgets if n < drafts), drafts)
        return drafter

    return limited


def drafts_trees(drafter: Drafter) -> bool:
    """Whether drafts of it may stand beside each other."""
    if isinstance(drafter, ParallelDrafter) and drafter.paths:
        return drafter.parents != list(range(len(drafter.paths)))
    return drafter.budgets[-1] > drafter.depth
