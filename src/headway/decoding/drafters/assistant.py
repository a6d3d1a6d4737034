"""A smaller model drafts, token by token (Leviathan et al. 2022, arXiv 2211.17192, section 2; Chen et al. 2023,
arXiv 2302.01318, algorithm 2).

It reads the same rows with a ragged cache of its own. The slots of rejected drafts are overwritten, as in the trunk's cache.
"""

import weakref
from collections.abc import Iterable

import torch
from torch import Tensor
from transformers import PreTrainedModel

from headway.decoding.batch import DecodingBatch
from headway.decoding.batch_sampler import sample_draft_token
from headway.decoding.draftable import DraftableModel
from headway.decoding.drafters.base import ChainDrafter, Draft, Drafter, DrafterFactory
from headway.decoding.exactness import exactness_issue
from headway.decoding.generation_config import is_whole, position_limit
from headway.decoding.kv_cache import RaggedKVCache, slot_bytes
from headway.errors import ConfigError
from headway.trunk import HiddenStates, TrunkView
from headway.trunk.attention import use_decode_attention

CHUNK = 512  # tokens of a prompt that one forward of the assistant reads at most


def assistant_drafter(assistant: PreTrainedModel | DraftableModel, depth: int = 4) -> DrafterFactory:
    """Makes drafters for `generate(..., drafter=assistant_drafter(assistant))`.

    Args:
        assistant: in eval mode, on the trunk's device, with the trunk's vocabulary; of a `DraftableModel`, its trunk.
        depth: most tokens drafted at once; each costs a forward of the assistant.
    Raises: ConfigError where it is no model or the depth is below 1; the drafter that is made, where it does not fit the trunk.
    """
    trunk = getattr(assistant, "trunk", assistant)
    if not isinstance(trunk, PreTrainedModel):
        raise ConfigError(f"An assistant is a loaded model, got {trunk!r}: AutoModelForCausalLM.from_pretrained(...) loads one.")
    if not is_whole(depth, 1):
        raise ConfigError(f"An assistant needs a depth of at least 1, got {depth!r}.")

    def make(model: DraftableModel, cache: RaggedKVCache) -> Drafter:
        _check_fits(trunk, model)
        return AssistantDrafter(trunk, depth, cache.rows, cache.capacity)

    return DrafterFactory(make)


def _check_fits(assistant: PreTrainedModel, model: DraftableModel) -> None:
    """Raises ConfigError where the assistant cannot draft for this model."""
    theirs, ours = (view.unembedding.weight.shape[0] for view in (TrunkView(assistant), model.view))
    if theirs != ours:
        raise ConfigError(f"The assistant chooses among {theirs} tokens and the model among {ours}: they must be the same.")
    if assistant.device != model.device:
        raise ConfigError(f"The assistant is on {assistant.device} and the model on {model.device}; move one to the other.")
    if assistant.training:
        raise ConfigError("The assistant is in training mode; call assistant.eval() first.")
    if reason := exactness_issue(assistant):
        raise ConfigError(f"{type(assistant).__name__} cannot be an assistant: in ragged batches it is not exact ({reason}).")


class AssistantDrafter(ChainDrafter):
    """The assistant, its cache, and how much of each row it has read."""

    def __init__(self, assistant: PreTrainedModel, depth: int, rows: int, capacity: int) -> None:
        super().__init__(depth)
        self.view = TrunkView(assistant)
        self.config_key = (depth, weakref.ref(assistant))
        self.longest = position_limit(assistant)  # it has no drafts for what lies beyond
        self.cache = RaggedKVCache(rows, capacity, sum(slot_bytes(self.view)))
        self.read = [0] * rows  # settled tokens that its cache holds

    def observe(self, hidden_states: HiddenStates, positions: Tensor, first: int = 0) -> None:
        """What the trunk computes is not read."""

    def draft(self, batch: DecodingBatch, count: int) -> Draft:
        lengths = batch.lengths
        room = self.cache.capacity if self.longest is None else min(self.longest, self.cache.capacity)
        available = [max(0, min(count, room + 1 - length)) for length in lengths]
        self._read_prompts(batch, room)
        unread = max(length - read for length, read in zip(lengths, self.read, strict=False))
        newest = batch.ends - 1
        positions = newest + torch.arange(1 - unread, 1, device=batch.device)  # a row with fewer unread reads some again
        distributions = []
        for k in range(max(available)):
            states = self._run(batch, torch.where(positions < room, positions, -1), min(max(lengths) + k, room))
            found = sample_draft_token(batch, k, self.view.unembedding.logits(states[:, -1]))
            if found is not None:
                distributions.append(found)
            positions = newest + k + 1
        self.read[: len(lengths)] = lengths
        return Draft(distributions, available)

    def unread(self, batch: DecodingBatch, count: int) -> Iterable[int]:
        return (length - read for length, read in zip(batch.lengths, self.read, strict=False))

    def _read_prompts(self, batch: DecodingBatch, room: int) -> None:
        """Read long unread parts, but for the newest token, from the first row that has one on: newcomers stand last."""
        lengths = batch.lengths
        first = next((r for r, n in enumerate(lengths) if n - self.read[r] > self.depth + 1), len(lengths))
        if first == len(lengths):
            return
        newcomers = DecodingBatch(batch.tokens[first:], batch.rows[first:])
        ends = torch.tensor([min(length - 1, room) for length in newcomers.lengths], device=batch.device)[:, None]
        end = int(ends.max())
        for done in range(min(self.read[first : len(lengths)]), end, CHUNK):
            positions = torch.arange(done, min(done + CHUNK, end), device=batch.device)
            self._run(newcomers, torch.where(positions < ends, positions, -1), min(done + CHUNK, end), first)
        self.read[first : len(lengths)] = [length - 1 for length in newcomers.lengths]

    def _run(self, batch: DecodingBatch, positions: Tensor, visible: int, first: int = 0) -> Tensor:
        """States (rows, n, hidden) of the tokens at (rows, n) positions, negative for padding; rows from `first` on."""
        self.cache.set_write_slots(positions, visible, first)
        with use_decode_attention(self.view.config):
            masks = self.view.causal_masks(positions, visible)
            return self.view.run(batch.tokens_at(positions), positions.clamp(min=0), masks, self.cache).last

    def copy_row(self, source: int, target: int) -> None:
        self.cache.copy_row(source, target)
        self.read[target] = self.read[source]

    def reset_row(self, row: int) -> None:
        self.read[row] = 0

    def extra_bytes(self, rows: int, capacity: int) -> int:
        return self.cache.extra_bytes(rows, capacity)

    def resize(self, rows: int, capacity: int) -> None:
        self.cache.resize(rows, capacity)
        self.read += [0] * (rows - len(self.read))
