"""What Headway knows about a trunk: its layers, its norm, its unembedding, its masks. Nothing is ever hung on it."""

import functools
import inspect
import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn
from transformers import Cache, PreTrainedModel

from headway.errors import UnsupportedModelError
from headway.ops import Unembedding
from headway.trunk.attention import BOOLEAN_MASKS, GQA_PACKED

NORMS = ("norm", "final_layernorm", "final_layer_norm", "ln_f", "final_norm", "norm_f", "layer_norm", "embedding_norm")
CACHE_NAMES = ("past_key_values", "layer_past", "past_key_value")
VAR_KEYWORD = "**"
PROBE = 6  # tokens
MASKED = ("full_attention", "sliding_attention")  # kinds of layers that masks are made for
Masks = Tensor | dict[str, Tensor] | None


class StopAfterKVWrite(Exception):
    """Raised by a cache once it has a layer's keys and values, where nothing else is wanted of the layer: it need not run on."""


class HiddenStates(NamedTuple):
    """States of one pass over the trunk, each (batch, seq, hidden)."""

    last: Tensor  # after the final norm: what the trunk's own unembedding reads
    inner: Mapping[int, Tensor] = {}  # what enters some of the layers, by their index
    # of the mask tokens behind each, or behind the last of each row, (batch, seq or 1, masks * hidden), after the final norm
    mask_tokens: Tensor | None = None

    def each(self, function: Callable[[Tensor], Tensor]) -> "HiddenStates":
        inner = {index: function(states) for index, states in self.inner.items()}
        return HiddenStates(function(self.last), inner, None if self.mask_tokens is None else function(self.mask_tokens))


@dataclass(frozen=True)
class TrunkView:
    """A read-only look at a `PreTrainedModel` with a decoder of equal layers.

    Raises UnsupportedModelError, from its properties, where the model has no such layers, norm or unembedding.
    """

    model: PreTrainedModel

    @cached_property
    def config(self) -> Any:
        return self.model.config.get_text_config()

    @property
    def context(self) -> int | None:
        """How many tokens the model was made to read; None where it says nothing about it."""
        return getattr(self.config, "max_position_embeddings", None)

    @cached_property
    def decoder(self) -> nn.Module:
        decoder = self.model.get_decoder()
        if decoder is None or decoder is self.model:
            decoder = getattr(self.model, self.model.base_model_prefix, None)
        if decoder is None:
            raise UnsupportedModelError(f"{type(self.model).__name__} has no decoder that Headway can find.")
        return decoder

    @cached_property
    def layers(self) -> nn.ModuleList:
        count = self.config.num_hidden_layers
        for module in self.decoder.children():
            if isinstance(module, nn.ModuleList) and len(module) == count:
                return module
        raise UnsupportedModelError(f"{type(self.decoder).__name__} has no list of {count} layers that Headway can find.")

    @cached_property
    def norm(self) -> nn.Module:
        for name in NORMS:
            if isinstance(module := getattr(self.decoder, name, None), nn.Module):
                return module
        raise UnsupportedModelError(f"{type(self.decoder).__name__} has no final norm among {', '.join(NORMS)}.")

    @cached_property
    def _parameter(self) -> nn.Parameter:
        """Of the dtype that the trunk computes in: to look for it each time takes longer than to make a mask."""
        return next(parameter for parameter in self.model.parameters() if parameter.is_floating_point())

    @property
    def unembedding(self) -> Unembedding:
        head = self.model.get_output_embeddings()
        if head is None:
            raise UnsupportedModelError(f"{type(self.model).__name__} has no unembedding: is it a causal language model?")
        config = self.config
        scale = getattr(config, "logit_scale", None) or 1.0
        scale /= getattr(config, "logits_scaling", None) or 1.0
        softcap = getattr(config, "final_logit_softcapping", None)
        return Unembedding(head.weight, getattr(head, "bias", None), scale, softcap)

    @property
    def layer_types(self) -> list[str] | None:
        """The kind of attention of each layer, where the trunk mixes kinds and takes a dict of masks."""
        return getattr(self.config, "layer_types", None)

    @property
    def maskable(self) -> bool:
        """Whether masks alone say what a token sees: not so in linear-attention and other recurrent layers."""
        return set(self.layer_types or ()) <= set(MASKED)

    @cached_property
    @torch.no_grad()
    def takes_masks(self) -> bool:
        """True if 4-D masks and positions keep the documents of a row apart, tried out on a row of two documents.

        False for trunks that build masks of their own from a 2-D mask, as BLOOM and Falcon with alibi do, and for recurrent trunks.
        """
        ids = torch.arange(1, PROBE + 1, device=self.model.device).view(2, -1) % self.config.vocab_size
        positions = torch.arange(PROBE // 2, device=ids.device).expand_as(ids)
        segments = torch.arange(2, device=ids.device)[:, None].expand_as(ids)
        row = [each.reshape(1, -1) for each in (ids, positions, segments)]
        with eval_mode(self.model):
            apart = self.run(ids, positions, None).last.float()
            try:
                together = self.run(row[0], row[1], self.masks(row[1], row[1], row[2], row[2])).last.float().view_as(apart)
            except (UnsupportedModelError, TypeError, ValueError, IndexError, RuntimeError):
                return False
        return bool((together - apart).norm() <= 0.02 * apart.norm())

    def run(
        self,
        inputs: Tensor,
        position_ids: Tensor | None,
        masks: Masks,
        cache: Cache | None = None,
        hidden_state_layers: Sequence[int] = (),
        hidden_states: Mapping[int, Tensor] | None = None,
    ) -> HiddenStates:
        """One pass over the trunk without its unembedding; `inputs` are tokens (batch, seq) or embeddings (batch, seq, hidden).

        taps: the layers whose input is kept.
        tapped: where it is kept already, within `capture_hidden_states`.
        """
        with nullcontext(hidden_states) if hidden_states is not None else self.capture_hidden_states(hidden_state_layers) as inner:
            output = self.decoder(
                **{"inputs_embeds" if inputs.is_floating_point() else "input_ids": inputs},
                position_ids=position_ids,
                attention_mask=masks,
                past_key_values=cache,
                use_cache=cache is not None,
            )
        return HiddenStates(output.last_hidden_state, dict(inner))

    @contextmanager
    def capture_hidden_states(self, hidden_state_layers: Sequence[int]) -> Iterator[Mapping[int, Tensor]]:
        """Within, the yielded dict holds the latest input of each of these layers, by layer index.

        Only forwards of the calling thread count: another thread may use the same model at the same time.
        """
        hidden_states: dict[int, Tensor] = {}
        owner = threading.get_ident()

        # a thread may call a hook in the moment between registration of the hook and of `with_kwargs`: without kwargs
        def keep(index: int, _module: nn.Module, args: tuple, kwargs: Mapping[str, Any] | None = None) -> None:
            if threading.get_ident() == owner:
                hidden_states[index] = args[0] if args or kwargs is None else kwargs["hidden_states"]

        with ExitStack() as stack:
            for index in hidden_state_layers:
                hook = functools.partial(keep, index)
                stack.callback(self.layers[index].register_forward_pre_hook(hook, with_kwargs=True).remove)
            yield hidden_states

    def rotary(self, hidden: Tensor, position_ids: Tensor) -> Any:
        """What the last layer takes as `position_embeddings`, for (batch, seq) positions; None where positions enter otherwise."""
        rotary = getattr(self.decoder, "rotary_emb", None)
        if rotary is None:
            return None
        kinds = self.layer_types
        if kinds and _accepts_argument(rotary, "layer_type"):
            return rotary(hidden, position_ids, kinds[-1])
        return rotary(hidden, position_ids)

    def run_layer(
        self, layer: nn.Module, hidden: Tensor, position_ids: Tensor, masks: Masks, cache: Any = None, rotary: Any = None
    ) -> Tensor:
        """Run `layer`, a copy of the trunk's last one, over `hidden` (batch, seq, hidden).

        rotary: what `rotary` gave for these positions, where several layers share it.
        """
        kind = self.layer_types[-1] if self.layer_types else None
        kwargs: dict[str, Any] = {
            "attention_mask": masks[kind] if isinstance(masks, dict) and kind else masks,
            "position_ids": position_ids,
            "use_cache": cache is not None,
            "position_embeddings": self.rotary(hidden, position_ids) if rotary is None else rotary,
            next((name for name in CACHE_NAMES if _accepts_argument(layer, name)), CACHE_NAMES[0]): cache,
        }
        if kwargs["position_embeddings"] is None:
            del kwargs["position_embeddings"]
        if not _accepts_argument(layer, VAR_KEYWORD):
            kwargs = {name: value for name, value in kwargs.items() if _accepts_argument(layer, name)}
        output = layer(hidden, **kwargs)
        return output[0] if isinstance(output, tuple) else output

    def masks(
        self,
        query_positions: Tensor,
        key_positions: Tensor,
        query_segments: Tensor | None = None,
        key_segments: Tensor | None = None,
        allowed: Tensor | None = None,
        prefix: Tensor | None = None,
    ) -> Tensor | dict[str, Tensor]:
        """4-D masks from positions: a query sees the keys of its own segment at or before its own position.

        Args:
            query_positions: (batch, queries); key_positions: (batch, keys), -1 for a key nobody may see.
            query_segments, key_segments: same shapes; without them every row is one segment.
            allowed: (batch, queries, keys), bool; what is false there stays unseen.
            prefix: (batch, seq), bool, where queries and keys are the same tokens: those of a prefix see each other both ways.
        Returns: (batch, 1, queries, keys), or a dict of them by layer type. Boolean for sdpa, added for eager attention.
        """
        distance = query_positions[:, :, None] - key_positions[:, None, :]  # (batch, queries, keys)
        seen = distance >= 0
        if prefix is not None:
            seen |= prefix[:, :, None] & prefix[:, None, :]
        seen &= key_positions[:, None, :] >= 0
        if query_segments is not None and key_segments is not None:
            seen &= query_segments[:, :, None] == key_segments[:, None, :]
        if allowed is not None:
            seen &= allowed
        window = getattr(self.config, "sliding_window", None)
        if window is None:
            return self._by_type(found := _sighted(seen), found)
        return self._by_type(_sighted(seen), _sighted(seen & (distance.abs() < window)))

    def causal_masks(self, positions: Tensor, visible: int, start: int | None = None) -> Masks:
        """Masks of queries at (batch, queries) positions, negative for padding; `visible` keys whose slots are their positions.

        start: where all rows are at this position and those after it, padding aside; spares masks that say nothing.
        """
        queries = positions.shape[1]
        ending = start is not None and (queries == 1 or start == 0) and start + queries == visible
        if ending and self.plain_causal(visible, GQA_PACKED.values()):
            return None
        # as `masks` of those keys, in a fraction of its steps: this is asked for each round. Padding looks at the first key
        at, keys = positions.clamp(min=0)[..., None], torch.arange(visible, device=positions.device)
        seen = keys <= at
        window = getattr(self.config, "sliding_window", None)
        return self._by_type(seen, seen if window is None else seen & (keys > at - window))

    def _by_type(self, seen: Tensor, near: Tensor) -> Tensor | dict[str, Tensor]:
        """Masks of what may be seen, (batch, queries, keys), in all and within the window."""
        if not (kinds := self.layer_types):
            return self._as_mask(near)
        by_type = dict(zip(MASKED, (seen, near), strict=True))
        if unknown := set(kinds) - set(by_type):
            raise UnsupportedModelError(
                f"{type(self.model).__name__} has layers of type {', '.join(sorted(unknown))}, which cannot be masked."
            )
        return {kind: self._as_mask(by_type[kind]) for kind in sorted(set(kinds))}

    def _as_mask(self, seen: Tensor) -> Tensor:
        seen = seen.unsqueeze(1)
        if self.config._attn_implementation in BOOLEAN_MASKS:
            return seen
        dtype = self._parameter.dtype
        return torch.where(seen, 0.0, torch.finfo(dtype).min).to(dtype)

    def plain_causal(self, length: int, implementations: Collection[str] = BOOLEAN_MASKS) -> bool:
        """Whether no mask at all means the right one: attention causal of itself, and no window shorter than the sequence."""
        window = getattr(self.config, "sliding_window", None)
        return self.config._attn_implementation in implementations and (window is None or window >= length)


class ForwardContext(NamedTuple):
    """Where the tokens stand that layers of heads run over, what they may look at, and the trunk that lends its parts.

    position_ids: (batch, seq). masks: as `TrunkView.masks` makes them. cache: holds earlier tokens' keys and takes those of these.
    """

    view: TrunkView
    position_ids: Tensor
    masks: Masks = None
    cache: Any = None

    def rotary(self, hidden: Tensor) -> Any:
        """What the last layer of the trunk takes as `position_embeddings`; None where positions enter otherwise."""
        return self.view.rotary(hidden, self.position_ids)

    def run_layer(self, layer: nn.Module, hidden: Tensor, rotary: Any = None) -> Tensor:
        """As `TrunkView.run_layer`."""
        return self.view.run_layer(layer, hidden, self.position_ids, self.masks, self.cache, rotary)


def num_embeddings(trunk: PreTrainedModel) -> int:
    """Number of tokens that the trunk embeds: valid token ids are smaller."""
    return getattr(trunk.get_input_embeddings(), "num_embeddings", None) or trunk.config.get_text_config().vocab_size


class HasModules(Protocol):
    def modules(self) -> Iterator[nn.Module]: ...


@contextmanager
def eval_mode(model: HasModules) -> Iterator[None]:
    """Without dropout and the like; modules that were training train on afterwards, and no others."""
    training = [module for module in model.modules() if module.training]
    for module in training:
        module.training = False
    try:
        yield
    finally:
        for module in training:
            module.training = True


def _sighted(seen: Tensor) -> Tensor:
    """A query that sees nothing (padding) would turn into NaN: it looks at the first key, and nobody looks at it."""
    first = torch.arange(seen.shape[-1], device=seen.device) == 0
    return seen | (~seen.any(-1, keepdim=True) & first)


@torch.compiler.assume_constant_result
def _accepts_argument(module: nn.Module, name: str) -> bool:
    """Whether the module's forward takes an argument of that name; or any, for ANYTHING."""
    return name in _parameters_of(getattr(module.forward, "__func__", module.forward))


@functools.cache
def _parameters_of(function: Callable[..., Any]) -> frozenset[str]:
    found = inspect.signature(function).parameters
    anything = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in found.values())
    return frozenset(found) | ({VAR_KEYWORD} if anything else set())
