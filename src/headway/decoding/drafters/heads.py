"""The model's own heads as a drafter, by the way that the head family drafts."""

from collections.abc import Sequence

from headway.decoding.compiled import compiled
from headway.decoding.draftable import DraftableModel
from headway.decoding.drafters.base import Drafter, DrafterFactory
from headway.decoding.drafters.chained import ChainedDrafter
from headway.decoding.drafters.mask_tokens import MaskTokenDrafter
from headway.decoding.drafters.parallel import ParallelDrafter
from headway.decoding.drafters.recursive import RecursiveDrafter
from headway.decoding.drafters.tree_shape import static_tree_paths
from headway.decoding.kv_cache import RaggedKVCache
from headway.errors import ConfigError

# drafters by `HeadStack.drafting`; parallel heads take one more argument
RECURSIVE_DRAFTERS: dict[str, type[RecursiveDrafter]] = {
    "chained": ChainedDrafter,
    "recursive": RecursiveDrafter,
    "masked": MaskTokenDrafter,
}


def heads_drafter(tree: str | Sequence[Sequence[int]] = "dynamic", compile: bool = False) -> DrafterFactory:
    """Factory of drafters that run the model's own heads.

    Args:
        tree: shape of the drafts. `dynamic`: the most probable paths; `chain`: one path; or, for parallel heads, the paths of a
            static tree. Path (0, 2) is the draft of rank 2 of head 1, after the draft of rank 0 of head 0. Ranks count from the
            most probable token, or, if drafts are sampled, from the token sampled first.
        compile: compile parallel heads, for engines that compile.
    Raises:
        ConfigError: the paths do not form a tree; or, when the drafter is built, the model has no heads or fewer heads than the
            tree is deep.
    """
    if not isinstance(tree, str):
        tree = static_tree_paths(tree)

    def build(model: DraftableModel, cache: RaggedKVCache) -> Drafter:
        if model.heads is None:
            raise ConfigError("This model has no heads to draft with.")
        if model.heads.drafting == "parallel":
            return ParallelDrafter(model.heads, model.view, cache, tree, compiled(model) if compile else None)
        return RECURSIVE_DRAFTERS[model.heads.drafting](model.heads, model.view, cache, tree)

    return DrafterFactory(build, needs_heads=True)
