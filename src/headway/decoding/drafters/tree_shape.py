"""Shape of drafts: the numbers of drafts that a step may verify, the width of beam search, and static trees.

The most probable paths of a tree, and the best tree of a given size, are computed in `headway.ops.draft_tree`.
"""

from collections.abc import Sequence

from headway.decoding.generation_config import is_whole
from headway.errors import ConfigError
from headway.ops.draft_tree import parents_of

# Numbers of drafts of a tree. With the last committed token before them, a forward has 8, 12, 16, ... tokens per sequence:
# sizes that matrix kernels handle well.
TREE_DRAFT_SIZES = (7, 11, 15, 23, 31, 47, 63)
SMALL_CHAIN = 4  # chains up to this length may have any number of drafts
CHAIN_STEP = 4  # longer chains have 7, 11, 15, ... drafts
BEAM_WIDTH = 10  # paths that recursive heads extend at each depth, as in EAGLE-2

TreeOption = str | Sequence[Sequence[int]]  # "dynamic", "chain", or the paths of a static tree


def chain_draft_sizes(depth: int) -> tuple[int, ...]:
    """Numbers of drafts of a chain: 0 to 4, then 7, 11, ..., and `depth`."""
    small = range(min(depth, SMALL_CHAIN) + 1)
    large = range(SMALL_CHAIN + CHAIN_STEP - 1, depth, CHAIN_STEP)
    return (*small, *large, *((depth,) if depth > SMALL_CHAIN else ()))


def tree_draft_sizes(depth: int) -> tuple[int, ...]:
    """Numbers of drafts of a dynamic tree: the numbers of a chain, then larger numbers."""
    return (*chain_draft_sizes(depth), *(n for n in TREE_DRAFT_SIZES if n > depth))


def static_tree_paths(tree: Sequence[Sequence[int]]) -> list[tuple[int, ...]]:
    """Paths of a static tree, checked.

    Raises:
        ConfigError: the paths do not form a tree: in a tree, a path appears once and after the parent path.
    """
    try:
        paths = [tuple(path) for path in tree]
        if not paths or not all(is_whole(rank, 0) for path in paths for rank in path):
            raise ValueError("there is no path, or a rank in a path is not a whole number from 0 on")
        parents_of(paths)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"tree must be dynamic, chain, or paths such as [(0,), (1,), (0, 0)]: {error}.") from error
    return paths
