"""Trees no larger than asked for, so that ways of drafting can be compared at the same price of verifying."""

from headway.decoding.cache import RaggedCache
from headway.decoding.drafting import Drafter, MakeDrafter
from headway.model import HeadwayModel


def at_most(drafts: int, make: MakeDrafter) -> MakeDrafter:
    """Whatever `make` makes, with trees of at most `drafts` drafts; what makes chains alone stays as it is."""

    def limited(model: HeadwayModel, cache: RaggedCache) -> Drafter:
        drafter = make(model, cache)
        if drafts_trees(drafter) and drafter.budgets[-1] > drafts:
            drafter.budgets = (*(n for n in drafter.budgets if n < drafts), drafts)
        return drafter

    return limited


def drafts_trees(drafter: Drafter) -> bool:
    """Whether it proposes more drafts than it can place after each other."""
    return drafter.budgets[-1] > drafter.depth
