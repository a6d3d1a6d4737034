"""Drafts of a smaller model, token by token (Leviathan et al. 2022, arXiv 2211.17192, section 2; Chen et al. 2023, arXiv
2302.01318, algorithm 2).

The assistant processes the same sequences as the trunk, with a separate ragged cache. Cache slots of rejected drafts are
overwritten, as in the trunk's cache.
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
from headway.trunk import TrunkView
from headway.trunk.attention import use_decode_attention

MAX_PREFILL_TOKENS = 512  # tokens of a prompt per forward of the assistant


def assistant_drafter(assistant: PreTrainedModel | DraftableModel, depth: int = 4) -> DrafterFactory:
    """Factory for `generate(..., drafter=assistant_drafter(assistant))`.

    Args:
        assistant: model in eval mode, on the trunk's device, with the trunk's vocabulary; of a `DraftableModel`, the trunk is used.
        depth: maximum number of drafts per step; a draft costs a forward of the assistant.
    Raises:
        ConfigError: `assistant` is not a model, or the depth is below 1; or, when the drafter is built, the assistant does not fit
            the trunk.
    """
    trunk = getattr(assistant, "trunk", assistant)
    if not isinstance(trunk, PreTrainedModel):
        raise ConfigError(f"An assistant is a loaded model, got {trunk!r}: AutoModelForCausalLM.from_pretrained(...) loads one.")
    if not is_whole(depth, 1):
        raise ConfigError(f"An assistant needs a depth of at least 1, got {depth!r}.")

    def build(model: DraftableModel, cache: RaggedKVCache) -> Drafter:
        _check_fits(trunk, model)
        return AssistantDrafter(trunk, depth, cache.rows, cache.capacity)

    return DrafterFactory(build)


def _check_fits(assistant: PreTrainedModel, model: DraftableModel) -> None:
    """Raise ConfigError if the assistant cannot draft for this model."""
    assistant_vocab, vocab = (view.unembedding.weight.shape[0] for view in (TrunkView(assistant), model.view))
    if assistant_vocab != vocab:
        raise ConfigError(
            f"The assistant chooses among {assistant_vocab} tokens and the model among {vocab}: they must be the same."
        )
    if assistant.device != model.device:
        raise ConfigError(f"The assistant is on {assistant.device} and the model on {model.device}; move one to the other.")
    if assistant.training:
        raise ConfigError("The assistant is in training mode; call assistant.eval() first.")
    if reason := exactness_issue(assistant):
        raise ConfigError(f"{type(assistant).__name__} cannot be an assistant: in ragged batches it is not exact ({reason}).")


class AssistantDrafter(ChainDrafter):
    """The assistant with a ragged cache, and the number of committed tokens per sequence that the cache holds."""

    def __init__(self, assistant: PreTrainedModel, depth: int, rows: int, capacity: int) -> None:
        super().__init__(depth)
        self.view = TrunkView(assistant)
        self.config_key = (depth, weakref.ref(assistant))
        self.position_limit = position_limit(assistant)  # the assistant has no drafts beyond this position
        self.cache = RaggedKVCache(rows, capacity, sum(slot_bytes(self.view)))
        self.processed_lengths = [0] * rows

    def draft(self, batch: DecodingBatch, num_draft_tokens: int) -> Draft:
        lengths = batch.lengths
        capacity = self.cache.capacity if self.position_limit is None else min(self.position_limit, self.cache.capacity)
        available = [max(0, min(num_draft_tokens, capacity + 1 - length)) for length in lengths]
        self._prefill(batch, capacity)
        unprocessed = max(length - done for length, done in zip(lengths, self.processed_lengths, strict=False))
        newest = batch.ends - 1
        # sequences with fewer unprocessed tokens process some tokens again
        positions = newest + torch.arange(1 - unprocessed, 1, device=batch.device)
        distributions = []
        for k in range(max(available)):
            kv_length = min(max(lengths) + k, capacity)
            states = self._run(batch, torch.where(positions < capacity, positions, -1), kv_length)
            distribution = sample_draft_token(batch, k, self.view.unembedding.logits(states[:, -1]))
            if distribution is not None:
                distributions.append(distribution)
            positions = newest + k + 1
        self.processed_lengths[: len(lengths)] = lengths
        return Draft(distributions, available)

    def unprocessed(self, batch: DecodingBatch, num_draft_tokens: int) -> Iterable[int]:
        return (length - done for length, done in zip(batch.lengths, self.processed_lengths, strict=False))

    def _prefill(self, batch: DecodingBatch, capacity: int) -> None:
        """Process new prompts except the newest token, in all rows from the first new prompt on (new sequences are last)."""
        lengths = batch.lengths
        long = (r for r, length in enumerate(lengths) if length - self.processed_lengths[r] > self.depth + 1)
        first = next(long, len(lengths))
        if first == len(lengths):
            return
        new = DecodingBatch(batch.tokens[first:], batch.rows[first:])
        ends = torch.tensor([min(length - 1, capacity) for length in new.lengths], device=batch.device)[:, None]
        end = int(ends.max())
        for start in range(min(self.processed_lengths[first : len(lengths)]), end, MAX_PREFILL_TOKENS):
            positions = torch.arange(start, min(start + MAX_PREFILL_TOKENS, end), device=batch.device)
            self._run(new, torch.where(positions < ends, positions, -1), min(start + MAX_PREFILL_TOKENS, end), first)
        self.processed_lengths[first : len(lengths)] = [length - 1 for length in new.lengths]

    def _run(self, batch: DecodingBatch, positions: Tensor, kv_length: int, first: int = 0) -> Tensor:
        """Hidden states, (rows, n, hidden), of the tokens at `positions`, (rows, n), negative for padding; from row `first` on."""
        self.cache.set_write_slots(positions, kv_length, first)
        with use_decode_attention(self.view.config):
            masks = self.view.causal_masks(positions, kv_length)
            return self.view.run(batch.tokens_at(positions), positions.clamp(min=0), masks, self.cache).last

    def copy_row(self, source: int, target: int) -> None:
        self.cache.copy_row(source, target)
        self.processed_lengths[target] = self.processed_lengths[source]

    def reset_row(self, row: int) -> None:
        self.processed_lengths[row] = 0

    def extra_bytes(self, rows: int, capacity: int) -> int:
        return self.cache.extra_bytes(rows, capacity)

    def resize(self, rows: int, capacity: int) -> None:
        self.cache.resize(rows, capacity)
        self.processed_lengths += [0] * (rows - len(self.processed_lengths))
