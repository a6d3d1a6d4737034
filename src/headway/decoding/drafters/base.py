"""Interface of drafters: `Drafter` proposes tokens, `Draft` is the proposal, `DrafterFactory` builds a drafter for a model."""

from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from headway.decoding.batch import DecodingBatch
from headway.decoding.draftable import DraftableModel
from headway.decoding.drafters.tree_shape import chain_draft_sizes
from headway.decoding.kv_cache import RaggedKVCache
from headway.errors import ConfigError
from headway.trunk import HiddenStates


@dataclass(frozen=True)
class Draft:
    """Drafts of all sequences: a chain per sequence, or a tree. The tokens are in the batch, after the committed tokens.

    Args:
        distributions: for a chain, the distribution that draft k was sampled from, (rows, vocab) per k; empty if no acceptance rule
            needs distributions. For a sampled tree, the distributions that `proposal_index` refers to.
        lengths: number of drafts per sequence; None: as many as requested.
        parents: for a tree, the parent node of every draft, (rows, drafts); node 0 is the last committed token, drafts count
            from 1. Siblings have different tokens.
        proposal_index: for a sampled tree, the index of the distribution for the children of every node.
    """

    distributions: list[Tensor]
    lengths: list[int] | None = None
    parents: Tensor | None = None
    proposal_index: Sequence[int] = ()


class Drafter(Protocol):
    """Proposer of tokens after the committed tokens of every sequence; the state of a sequence is kept by row of the batch.

    Attributes:
        depth: maximum number of consecutive drafts.
        draft_sizes: numbers of drafts to choose from, ascending from 0.
        hidden_state_layers: trunk layers with inputs that `observe` reads.
        config_key: configuration key. Timing statistics are shared only between drafters with the same class and key.
    """

    depth: int
    draft_sizes: tuple[int, ...]
    hidden_state_layers: tuple[int, ...]
    config_key: Hashable

    def max_draft_tokens(self, max_accepted: int) -> int:
        """Largest useful number of drafts if at most `max_accepted` drafts can be accepted; at least 1."""

    def catch_up_tokens(self, batch: DecodingBatch, num_draft_tokens: int) -> int:
        """Extra tokens that the drafter must process before drafting, compared with consecutive steps with drafts."""

    def num_mask_tokens(self, num_draft_tokens: int, max_accepted: int) -> int:
        """Number of mask tokens to append after every token of this step.

        Args:
            num_draft_tokens: maximum number of consecutive drafts of the step.
            max_accepted: maximum number of drafts that can be accepted.
        """

    def observe(self, hidden_states: HiddenStates, positions: Tensor, first: int = 0) -> None:
        """Receive the trunk's hidden states of a step.

        Args:
            hidden_states: of rows `first`, `first + 1`, ..., (rows, seq, hidden).
            positions: positions of the tokens, (rows, seq); -1 for padding and for rejected drafts.
            first: first row.
        """

    def draft(self, batch: DecodingBatch, num_draft_tokens: int) -> Draft:
        """Write at most `num_draft_tokens` drafts per sequence into the batch; a number from `draft_sizes`."""

    def copy_row(self, source: int, target: int) -> None:
        """Copy the state of row `source` to row `target`; both rows may continue."""

    def reset_row(self, row: int) -> None:
        """Forget the sequence of a row; a new sequence starts there."""

    def extra_bytes(self, rows: int, capacity: int) -> int:
        """Bytes that `resize` with equal arguments would allocate."""

    def resize(self, rows: int, capacity: int) -> None:
        """Allocate for this number of rows and of tokens per row; never fewer than in use."""


@dataclass(frozen=True)
class DrafterFactory:
    """Builder of a drafter: the result of `ngram_drafter()`, and the value of `generate(..., drafter=)`.

    A class and not a plain function, to find a forgotten call, `drafter=ngram_drafter`, at once.

    Args:
        build: maps the model and the trunk's cache to a drafter.
        needs_heads: the drafter reads the model's heads.
    """

    build: Callable[[DraftableModel, RaggedKVCache], Drafter]
    needs_heads: bool = False


def build_drafter(factory: DrafterFactory, model: DraftableModel, cache: RaggedKVCache) -> Drafter:
    """The factory's drafter for this model and cache.

    Raises:
        ConfigError: `factory` is not a `DrafterFactory`, for example a function that was not called.
    """
    if isinstance(factory, DrafterFactory):
        return factory.build(model, cache)
    if callable(factory) and (name := getattr(factory, "__name__", "")):
        raise ConfigError(
            f"drafter={name} is not called yet: give {name}(...). A function of your own that builds a drafter from (model, cache) "
            f"is given as DrafterFactory({name})."
        )
    got = repr(factory) if isinstance(factory, str) else f"a {type(factory).__name__}"
    raise ConfigError(f"drafter must be a factory such as ngram_drafter() or assistant_drafter(model), got {got}.")


class ChainDrafter:
    """Base of drafters that propose chains. A drafter without state adds `draft` alone."""

    def __init__(self, depth: int) -> None:
        self.depth = depth
        self.hidden_state_layers: tuple[int, ...] = ()
        self.config_key: Hashable = ()
        self.draft_sizes = chain_draft_sizes(depth)

    def max_draft_tokens(self, max_accepted: int) -> int:
        return min(max_accepted, self.depth)

    def catch_up_tokens(self, batch: DecodingBatch, num_draft_tokens: int) -> int:
        # up to depth + 1 tokens are new in every step: the accepted drafts and the bonus token
        return sum(n for n in self.unprocessed(batch, num_draft_tokens) if n > self.depth + 1) if num_draft_tokens else 0

    def num_mask_tokens(self, num_draft_tokens: int, max_accepted: int) -> int:
        return 0

    def extra_bytes(self, rows: int, capacity: int) -> int:
        return 0

    def observe(self, hidden_states: HiddenStates, positions: Tensor, first: int = 0) -> None:
        """Ignore the hidden states."""

    def copy_row(self, source: int, target: int) -> None:
        """Copy nothing: there is no state."""

    def reset_row(self, row: int) -> None:
        """Forget nothing: there is no state."""

    def resize(self, rows: int, capacity: int) -> None:
        """Allocate nothing: there is no state."""

    def unprocessed(self, batch: DecodingBatch, num_draft_tokens: int) -> Iterable[int]:
        """Number of committed tokens per sequence that the drafter has not processed; empty for drafters that process no tokens."""
        return ()
