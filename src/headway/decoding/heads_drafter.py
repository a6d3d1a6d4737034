"""The model's own heads as a drafter, whichever way their family drafts."""

from collections.abc import Sequence

from headway.decoding.cache import RaggedCache
from headway.decoding.chained_drafts import ChainedDrafter
from headway.decoding.compiled import compiled
from headway.decoding.drafting import Drafter, MakeDrafter
from headway.decoding.mask_drafts import MaskDrafter
from headway.decoding.parallel_drafts import ParallelDrafter
from headway.decoding.recursive_drafts import RecursiveDrafter
from headway.errors import ConfigError
from headway.model import HeadwayModel


def heads_drafter(tree: str | Sequence[Sequence[int]] = "dynamic", compile: bool = False) -> MakeDrafter:
    """The model's own heads.

    Args:
        tree: how they propose: `dynamic`, the likeliest paths; `chain`, one path; or, of parallel heads, paths to the drafts
            of a fixed tree: (0, 2) is the third likeliest of head 1 after the likeliest of head 0, or, where drafts are
            drawn, the one drawn then.
        compile: compile parallel heads, for engines that compile.
    Raises, when called: ConfigError if the model has no heads, or the tree is deeper than they are many.
    """

    def make(model: HeadwayModel, cache: RaggedCache) -> Drafter:
        if model.heads is None:
            raise ConfigError("This model has no heads to draft with.")
        if model.heads.drafting == "chained":
            return ChainedDrafter(model.heads, model.view, cache, tree)
        if model.heads.drafting == "recursive":
            return RecursiveDrafter(model.heads, model.view, cache, tree)
        if model.heads.drafting == "masked":
            return MaskDrafter(model.heads, model.view, cache, tree)
        return ParallelDrafter(model.heads, model.view, cache, tree, compiled(model) if compile else None)

    return make
