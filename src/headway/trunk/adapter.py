"""Adapter to any `PreTrainedModel` with a decoder of equal layers: layers, norm, unembedding, forwards.

The trunk itself is never modified.
"""

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
from headway.trunk.masks import FULL, SLIDING, Masks, as_masks, causally_visible_keys, visible_keys

NORMS = ("norm", "final_layernorm", "final_layer_norm", "ln_f", "final_norm", "norm_f", "layer_norm", "embedding_norm")
CACHE_NAMES = ("past_key_values", "layer_past", "past_key_value")
VAR_KEYWORD = "**"
PROBE_TOKENS = 6


class StopAfterKVWrite(Exception):
    """Raised by a cache after storing a layer's keys and values, to skip the rest of a layer that only has to fill the cache."""


class HiddenStates(NamedTuple):
    """Hidden states of a forward of the trunk, (batch, seq, hidden)."""

    last: Tensor  # after the final norm: input of the trunk's unembedding
    inner: Mapping[int, Tensor] = {}  # layer index -> input of the layer
    # after the final norm, of the mask tokens after every token, or after a row's last token: (batch, seq or 1, count * hidden)
    mask_tokens: Tensor | None = None

    def map(self, function: Callable[[Tensor], Tensor]) -> "HiddenStates":
        """All hidden states, changed by `function`."""
        inner = {index: function(states) for index, states in self.inner.items()}
        return HiddenStates(function(self.last), inner, None if self.mask_tokens is None else function(self.mask_tokens))


@dataclass(frozen=True)
class TrunkView:
    """Read-only view of a `PreTrainedModel` with a decoder of equal layers.

    Raises: UnsupportedModelError, from the properties, if the model has no decoder, layers, norm or unembedding that Headway finds.
    """

    model: PreTrainedModel

    @cached_property
    def config(self) -> Any:
        return self.model.config.get_text_config()

    @property
    def context(self) -> int | None:
        """Context length of the model in tokens; None if the config has no limit."""
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
        """A parameter of the dtype of the trunk's computations. Cached: a search takes longer than building a mask."""
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
        """Attention type of every layer, for a trunk that mixes types and takes a dict of masks; None for a uniform trunk."""
        return getattr(self.config, "layer_types", None)

    @property
    def maskable(self) -> bool:
        """True if masks alone decide attention; false for linear attention and recurrent layers."""
        return set(self.layer_types or ()) <= {FULL, SLIDING}

    @property
    def sliding_window(self) -> int | None:
        return getattr(self.config, "sliding_window", None)

    @cached_property
    @torch.no_grad()
    def takes_masks(self) -> bool:
        """True if 4-D masks and positions keep the documents of a row apart, tried out on a row of two documents.

        False for trunks that build masks of their own from a 2-D mask, as BLOOM and Falcon with alibi do, and for recurrent trunks.
        """
        ids = torch.arange(1, PROBE_TOKENS + 1, device=self.model.device).view(2, -1) % self.config.vocab_size
        positions = torch.arange(PROBE_TOKENS // 2, device=ids.device).expand_as(ids)
        segments = torch.arange(2, device=ids.device)[:, None].expand_as(ids)
        row = [column.reshape(1, -1) for column in (ids, positions, segments)]
        with eval_mode(self.model):
            apart = self.run(ids, positions, None).last.float()
            try:
                together = self.run(row[0], row[1], self.masks(row[1], row[1], row[2], row[2])).last.float().view_as(apart)
            except Exception:  # layers of any model: XLM's raise an AssertionError, Beam's a KeyError
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
        """A forward of the trunk without the unembedding.

        Args:
            inputs: token ids, (batch, seq), or embeddings, (batch, seq, hidden).
            position_ids: (batch, seq); None: positions from 0.
            masks: from `masks` or `causal_masks`.
            cache: earlier keys and values; also stores the new keys and values.
            hidden_state_layers: layers with inputs to return in `HiddenStates.inner`.
            hidden_states: dict of an enclosing `capture_hidden_states`, in place of `hidden_state_layers`.
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
        """Within, the yielded dict holds the latest input of the layers, by layer index.

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
        """`position_embeddings` of the last layer for (batch, seq) positions; None for a trunk without rotary positions."""
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
        """Output of `layer`, a copy of the trunk's last layer, (batch, seq, hidden).

        Args:
            layer: the layer to run.
            hidden: input, (batch, seq, hidden).
            position_ids: (batch, seq).
            masks: from `masks` or `causal_masks`.
            cache: earlier keys and values; also stores the new keys and values.
            rotary: result of `rotary` for the same positions, if several layers share the result.
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
        """Masks (batch, 1, queries, keys), or a dict of masks by layer type; arguments as of `masks.visible_keys`.

        Masks are boolean for sdpa, and added to the scores for eager attention.

        Raises: UnsupportedModelError for layers that masks cannot describe.
        """
        visible, near = visible_keys(
            query_positions, key_positions, query_segments, key_segments, allowed, prefix, self.sliding_window
        )
        return self._as_masks(visible, near)

    def causal_masks(self, positions: Tensor, kv_length: int, contiguous_start: int | None = None) -> Masks:
        """Masks of queries over the first slots of a cache; a key's slot is the key's position.

        Args:
            positions: of the queries, (batch, queries), negative for padding.
            kv_length: number of keys.
            contiguous_start: position of the first query, if the queries of all rows have consecutive positions from here on
                (padding aside). The result is None if the trunk's own causal attention is right.
        """
        queries, start = positions.shape[1], contiguous_start
        at_end = start is not None and (queries == 1 or start == 0) and start + queries == kv_length
        if at_end and self.plain_causal(kv_length, GQA_PACKED.values()):
            return None
        return self._as_masks(*causally_visible_keys(positions, kv_length, self.sliding_window))

    def _as_masks(self, visible: Tensor, near: Tensor) -> Tensor | dict[str, Tensor]:
        additive = None if self.config._attn_implementation in BOOLEAN_MASKS else self._parameter.dtype
        return as_masks(visible, near, self.layer_types, additive, type(self.model).__name__)

    def plain_causal(self, length: int, implementations: Collection[str] = BOOLEAN_MASKS) -> bool:
        """True if attention without a mask is causal over `length` tokens: no sliding window is shorter."""
        window = self.sliding_window
        return self.config._attn_implementation in implementations and (window is None or window >= length)


class ForwardContext(NamedTuple):
    """Trunk, positions, masks and cache for the layers of heads.

    Args:
        view: trunk with embedding, rotary positions and norm.
        position_ids: (batch, seq).
        masks: from `TrunkView.masks` or `TrunkView.causal_masks`.
        cache: earlier keys and values; also stores the new keys and values.
    """

    view: TrunkView
    position_ids: Tensor
    masks: Masks = None
    cache: Any = None

    def rotary(self, hidden: Tensor) -> Any:
        """`position_embeddings` of the trunk's last layer; None for a trunk without rotary positions."""
        return self.view.rotary(hidden, self.position_ids)

    def run_layer(self, layer: nn.Module, hidden: Tensor, rotary: Any = None) -> Tensor:
        """`TrunkView.run_layer` in this context."""
        return self.view.run_layer(layer, hidden, self.position_ids, self.masks, self.cache, rotary)


def num_embeddings(trunk: PreTrainedModel) -> int:
    """Number of tokens that the trunk embeds: valid token ids are smaller."""
    return getattr(trunk.get_input_embeddings(), "num_embeddings", None) or trunk.config.get_text_config().vocab_size


class HasModules(Protocol):
    def modules(self) -> Iterator[nn.Module]: ...


@contextmanager
def eval_mode(model: HasModules) -> Iterator[None]:
    """Within, all modules are in evaluation mode; modules in training mode return to training mode at the end."""
    training = [module for module in model.modules() if module.training]
    for module in training:
        module.training = False
    try:
        yield
    finally:
        for module in training:
            module.training = True


@torch.compiler.assume_constant_result
def _accepts_argument(module: nn.Module, name: str) -> bool:
    """True if the module's forward has a parameter `name`, or any keyword for `VAR_KEYWORD`."""
    return name in _parameters_of(getattr(module.forward, "__func__", module.forward))


@functools.cache
def _parameters_of(function: Callable[..., Any]) -> frozenset[str]:
    parameters = inspect.signature(function).parameters
    var_keyword = any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters.values())
    return frozenset(parameters) | ({VAR_KEYWORD} if var_keyword else set())
