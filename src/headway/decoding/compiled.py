"""Forwards of fixed shapes through torch.compile. A small model otherwise spends its time between kernels rather than in kernels.

Rows are padded to the rows of the cache, tokens per row to a few sizes, and keys to multiples of `KV_BLOCK`. The number of keys is
the only dynamic size of a compiled forward. Prompts, and the last rows of a large batch, run eagerly.
"""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor
from torch._dynamo.exc import TorchDynamoException
from torch.nn.functional import pad

from headway.decoding.draftable import DraftableModel
from headway.decoding.kv_cache import Buffers, RaggedKVCache, round_up_to_block
from headway.errors import ConfigError, UnsupportedModelError
from headway.trunk import ForwardContext, HiddenStates, Masks

TOKENS = (1, 4, 8, 16)  # per row in a step: the last committed token and the drafts
FORMS = 64  # maximum number of compiled forms of one function

_compiled: WeakKeyDictionary[DraftableModel, "Compiled"] = WeakKeyDictionary()


def compiled(model: DraftableModel) -> "Compiled":
    """The model's compiled forwards, kept as long as the model lives."""
    if model not in _compiled:
        _compiled[model] = Compiled(model)
    return _compiled[model]


def worthwhile(slots: Tensor, cache: RaggedKVCache) -> bool:
    """True if a compiled form covers slots (rows, tokens), and row padding does not double the work."""
    rows, tokens = slots.shape
    return tokens <= TOKENS[-1] and 2 * rows > cache.rows


def compiled_draft_sizes(draft_sizes: Sequence[int]) -> tuple[int, ...]:
    """Draft sizes that fill a compiled forward, and the largest size if a compiled forward covers it."""
    return tuple(n for n in draft_sizes if n + 1 in TOKENS or n == draft_sizes[-1] < TOKENS[-1])


class Compiled:
    """Compiled forwards of a trunk and of parallel heads. `fresh` is set by a compilation, and reset by the engine.

    Raises:
        UnsupportedModelError: for a trunk without `output_hidden_states`.
        ConfigError: from all methods, if compilation fails, for example without a C++ compiler.
    """

    def __init__(self, model: DraftableModel) -> None:
        # no reference to the model itself: that would keep it alive here for ever
        self.view, self.heads = model.view, model.heads
        self.hidden_state_layers = self.heads.hidden_state_layers if self.heads is not None else ()
        _ = self.view.config, self.view.decoder, self.view.norm  # compilers cannot look for them
        self.layers = len(self.view.layers)
        self._check_states()
        self.fresh = False
        self._seen: set[tuple[int, ...]] = set()
        self._sure: frozenset[tuple[int, ...]] = frozenset()  # forms, keys and capacities seen since `forget`
        self._trunk = torch.compile(self._run_trunk)
        self._heads = torch.compile(self._run_heads)

    def forget(self) -> None:
        """Check all guards again in the next step: the model may have changed."""
        self._sure = frozenset()

    def trunk(
        self, cache: RaggedKVCache, input_ids: Tensor, positions: Tensor, slots: Tensor, visible: int, masks: Masks = None
    ) -> HiddenStates:
        """One pass over the trunk.

        Args:
            input_ids, positions, slots: (rows, seq); negative positions and slots are padding.
            visible: number of cache slots that attention reads.
            masks: attention masks of a tree; the masks of a chain follow from the positions.
        """
        rows, tokens = slots.shape
        more = (0, next(n for n in TOKENS if n >= tokens) - tokens, 0, cache.rows - rows)
        keys = round_up_to_block(visible)
        positions, slots = pad(positions, more, value=-1), pad(slots, more, value=-1)
        masks = self.view.causal_masks(positions, keys) if masks is None else self._padded(masks, more, keys)
        buffers = {layer: pair for layer, pair in cache.buffers.items() if layer < self.layers}
        found = self._call(self._trunk, buffers, pad(input_ids, more), positions, slots, masks)
        return found.map(lambda states: states[:rows, :tokens])

    def newest(self, cache: RaggedKVCache, hidden: Tensor, input_ids: Tensor, positions: Tensor, count: int) -> list[Tensor]:
        """Hidden states of the first `count` attending parallel heads; tokens (rows, 1), hidden states (rows, 1, hidden)."""
        rows = positions.shape[0]
        more = (0, 0, 0, cache.rows - rows)
        keys = round_up_to_block(int(positions.max()) + 1)
        positions, input_ids, hidden = pad(positions, more, value=-1), pad(input_ids, more), pad(hidden, (0, 0, *more))
        masks = self.view.causal_masks(positions, keys)
        buffers = {layer: pair for layer, pair in cache.buffers.items() if layer >= self.layers}
        assert self.heads is not None
        if len(buffers) < count:  # what a compiled forward allocates is lost
            cache.set_write_slots(positions, keys)
            context = ForwardContext(self.view, positions.clamp(min=0), masks, cache)
            found = self.heads.states(hidden, input_ids, context, count)
        else:
            found = self._call(self._heads, buffers, input_ids, positions, positions, masks, hidden, count)
        return [states[:rows] for states in found]

    def _check_states(self) -> None:
        """Check that `output_hidden_states` returns the tensors of our forward hooks; compiled trunks cannot use hooks.

        (This first call also installs transformers' own capture.)
        """
        input_ids = torch.zeros(1, 2, dtype=torch.long, device=self.view.model.device)
        with torch.no_grad():
            states = self.view.decoder(input_ids=input_ids, output_hidden_states=True).hidden_states
            hidden_states = self.view.run(input_ids, None, None, hidden_state_layers=self.hidden_state_layers)
        if not all(torch.equal(states[index], inner) for index, inner in hidden_states.inner.items()):
            raise UnsupportedModelError(
                f"{type(self.view.model).__name__} does not show what its heads read; decode without compile."
            )

    def _call(
        self,
        function: Callable[..., Any],
        buffers: Buffers,
        input_ids: Tensor,
        positions: Tensor,
        slots: Tensor,
        masks: Masks,
        *rest: Any,
    ) -> Any:
        form = (id(function), *input_ids.shape, len(buffers), *(n for n in rest if isinstance(n, int)))
        if form not in self._seen:
            self._seen.add(form)
            self.fresh = True
            # of masks (rows, 1, tokens, keys) and buffers (rows, heads, slots, width) one size stays open
            for tensor in (input_ids, positions, slots, *(part for part in rest if isinstance(part, Tensor))):
                torch._dynamo.mark_static(tensor)
            each = masks.values() if isinstance(masks, dict) else [masks] if masks is not None else []
            for tensor, left in (*((mask, 3) for mask in each), *((buffer, 2) for pair in buffers.values() for buffer in pair)):
                torch._dynamo.mark_static(tensor, [n for n in range(4) if n != left])
                torch._dynamo.maybe_mark_dynamic(tensor, left)
        # that nothing else has changed takes as long to find out as some layers do; see `forget`
        known = (*form, _keys(masks), *(keys.shape[2] for keys, _ in buffers.values()))
        sure, self._sure = known in self._sure, self._sure | {known}
        try:
            return self._guarded(sure, function, buffers, input_ids, positions, slots, masks, *rest)
        except RuntimeError:
            if not sure:
                raise
        self.fresh = True  # it did have to be compiled
        return self._guarded(False, function, buffers, input_ids, positions, slots, masks, *rest)

    def _guarded(self, sure: bool, function: Callable[..., Any], *args: Any) -> Any:
        """Call a compiled function; if `sure` of the compiled form, without guard checks.

        Raises:
            RuntimeError: if `sure`, and no compiled form fits.
        """
        unguarded = torch.compiler.set_stance("default", skip_guard_eval_unsafe=True) if sure else nullcontext()
        with torch._dynamo.config.patch(recompile_limit=FORMS, accumulated_recompile_limit=4 * FORMS), unguarded:
            try:
                return function(*args)
            except TorchDynamoException as error:
                reason = str(error).strip().splitlines()[0]
                raise ConfigError(f"This model cannot be compiled here ({reason}). Decode without compile.") from error

    def _run_trunk(self, buffers: Buffers, input_ids: Tensor, positions: Tensor, slots: Tensor, masks: Masks) -> HiddenStates:
        output = self.view.decoder(
            input_ids=input_ids,
            position_ids=positions.clamp(min=0),
            attention_mask=masks,
            past_key_values=RaggedKVCache.from_buffers(buffers, slots, _keys(masks)),
            use_cache=True,
            output_hidden_states=bool(self.hidden_state_layers),
        )
        return HiddenStates(output.last_hidden_state, {index: output.hidden_states[index] for index in self.hidden_state_layers})

    def _run_heads(
        self, buffers: Buffers, input_ids: Tensor, positions: Tensor, slots: Tensor, masks: Masks, hidden: Tensor, count: int
    ) -> list[Tensor]:
        assert self.heads is not None
        cache = RaggedKVCache.from_buffers(buffers, slots, _keys(masks))
        return self.heads.states(hidden, input_ids, ForwardContext(self.view, positions.clamp(min=0), masks, cache), count)

    def _padded(self, masks: Masks, more: tuple[int, ...], keys: int) -> Masks:
        if isinstance(masks, dict):
            return {kind: self._wider(mask, more, keys) for kind, mask in masks.items()}
        assert masks is not None
        return self._wider(masks, more, keys)

    def _wider(self, mask: Tensor, more: tuple[int, ...], keys: int) -> Tensor:
        lowest = torch.finfo(mask.dtype).min
        return pad(mask, (0, keys - mask.shape[3], *more[:2], 0, 0, *more[2:]), value=lowest)


def _keys(masks: Masks) -> int:
    mask = next(iter(masks.values())) if isinstance(masks, dict) else masks
    assert mask is not None
    return mask.shape[3]
