"""The model's own heads as a drafter, whichever way their family drafts."""

from collections.abc import Sequence

from headway.decoding.compiled import compiled
from headway.decoding.draftable import DraftableModel
from headway.decoding.drafters.base import Drafter, DrafterFactory
from headway.decoding.drafters.chained import ChainedDrafter
from headway.decoding.drafters.mask_tokens import MaskDrafter
from headway.decoding.drafters.parallel import ParallelDrafter
from headway.decoding.drafters.recursive import RecursiveDrafter
from headway.decoding.generation_config import is_whole
from headway.decoding.kv_cache import RaggedKVCache
from headway.errors import ConfigError
from headway.ops.draft_tree import parents_of


def heads_drafter(tree: str | Sequence[Sequence[int]] = "dynamic", compile: bool = False) -> DrafterFactory:
    """The model's own heads.

    Args:
        tree: how they propose: `dynamic`, the likeliest paths; `chain`, one path; or, of parallel heads, paths to the drafts
            of a fixed tree: (0, 2) is the third likeliest of head 1 after the likeliest of head 0, or, where drafts are
            drawn, the one drawn then.
        compile: compile parallel heads, for engines that compile.
    Raises: ConfigError for paths that make no tree; when called, if the model has no heads, or fewer than the tree is deep.
    """
    if not isinstance(tree, str):
        tree = _paths(tree)

    def make(model: DraftableModel, cache: RaggedKVCache) -> Drafter:
        if model.heads is None:
            raise ConfigError("This model has no heads to draft with.")
        if model.heads.drafting == "chained":
            return ChainedDrafter(model.heads, model.view, cache, tree)
        if model.heads.drafting == "recursive":
            return RecursiveDrafter(model.heads, model.view, cache, tree)
        if model.heads.drafting == "masked":
            return MaskDrafter(model.heads, model.view, cache, tree)
        return ParallelDrafter(model.heads, model.view, cache, tree, compiled(model) if compile else None)

    return DrafterFactory(make, needs_heads=True)


def _paths(tree: Sequence[Sequence[int]]) -> list[tuple[int, ...]]:
    """Raises ConfigError where these paths are not to the drafts of a tree, each once and after what it follows."""
    try:
        paths = [tuple(path) for path in tree]
        if not paths or not all(is_whole(rank, 0) for path in paths for rank in path):
            raise ValueError("there is no path, or a rank in one is not a whole number from 0 on")
        parents_of(paths)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"tree must be dynamic, chain, or paths such as [(0,), (1,), (0, 0)]: {error}.") from error
    return paths
