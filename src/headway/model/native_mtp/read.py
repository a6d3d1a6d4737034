"""MTP layers of a checkpoint as `sequential` heads.

transformers' own conversions apply to MTP tensors as to the trunk's (experts are merged on loading). Only norms, projection and
copies of the embeddings need the names of `names.py`.
"""

import copy
from collections import Counter
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.core_model_loading import PrefixChange, convert_and_load_state_dict_in_model
from transformers.modeling_utils import LoadStateDictConfig

from headway.errors import CheckpointError, UnsupportedModelError
from headway.heads.sequential import SequentialHeads
from headway.model.native_mtp.checkpoint import NativeMTPCheckpoint, Provenance
from headway.model.native_mtp.layer_config import declared_counts
from headway.model.native_mtp.names import INPUT, OUTPUT
from headway.trunk import TrunkView
from headway.trunk.quantization import trunk_is_quantized


def load_native_mtp(view: TrunkView, native: NativeMTPCheckpoint) -> Provenance:
    """Heads with the weights of the checkpoint's MTP layers.

    Raises:
        CheckpointError: tensors are missing or of another shape.
        UnsupportedModelError: the layers are of another kind than the trunk's last layer, or quantised.
    """
    if trunk_is_quantized(view.model):
        raise UnsupportedModelError(f"The MTP layers in {native.folder} are quantised, and quantised MTP layers cannot be heads.")
    tensor_map, naming = native.tensor_map, native.naming
    declared = declared_counts(view.config)
    if declared and native.count not in declared:
        raise CheckpointError(
            f"{native.folder} holds {native.count} MTP layers, but its config declares {declared.pop()}: it is not complete."
        )
    if native.count > 1 and not naming.several:
        raise UnsupportedModelError(f"{native.folder}: {native.count} MTP layers share one projection, and heads do not.")
    heads = SequentialHeads.from_trunk(view, native.count, {})
    holder = _Holder(view.config, heads.layers)
    tensors: dict[str, Tensor] = {}
    dtypes: dict[str, torch.dtype] = {}
    untied_copies = set()
    for name, tensor in native.read(native.names):
        k, inner = tensor_map[name]
        if inner in (INPUT, OUTPUT):
            if not _equal(tensor, copied_weight(view.model, inner)):
                untied_copies.add(name)
            continue
        dtypes[name] = tensor.dtype
        if naming.hidden_first and inner == "eh_proj.weight":
            tensor = tensor.roll(tensor.shape[1] // 2, 1)
        tensors[f"layers.{k}.{inner}"] = tensor
    conversions: list[Any] = getattr(view.model, "_weight_conversions", None) or get_model_conversion_mapping(view.model)
    conversions = [conversion for conversion in conversions if not isinstance(conversion, PrefixChange)]
    result, _ = convert_and_load_state_dict_in_model(
        holder, tensors, LoadStateDictConfig(weight_mapping=conversions, device_map={"": str(view.model.device)})
    )
    _check_complete(native, result)
    usual = Counter(dtypes.values()).most_common(1)[0][0]
    heads.requires_grad_(True)
    unusual = {name: dtype for name, dtype in dtypes.items() if dtype != usual}
    return Provenance(native, heads, unusual, frozenset(untied_copies))


def copied_weight(trunk: PreTrainedModel, which: str) -> Tensor:
    """The trunk's embedding for INPUT, the unembedding for OUTPUT, (vocab, hidden)."""
    module: Any = trunk.get_input_embeddings() if which == INPUT else trunk.get_output_embeddings()
    return module.weight


def _check_complete(native: NativeMTPCheckpoint, result: Any) -> None:
    """Raise an error if transformers' loading reports a problem."""
    if result.unexpected_keys:
        kind = f"of another kind than the trunk's last layer, which has no {min(result.unexpected_keys)}"
        raise UnsupportedModelError(f"The MTP layers in {native.folder} are {kind}.")
    for names, problem in (
        (result.missing_keys, "missing"),
        (result.mismatched_keys, "of another shape than this trunk needs"),
        (result.conversion_errors, "not convertible"),
    ):
        if names:
            named = ", ".join(sorted(str(name[0] if isinstance(name, tuple) else name) for name in names)[:3])
            raise CheckpointError(f"{native.folder}: of its MTP layers, {named} is {problem}. Fetch the checkpoint again.")


class _Holder(PreTrainedModel):
    """A transformers model around the layers, as transformers' loading requires."""

    _supports_sdpa = _supports_flex_attn = _supports_flash_attn = True

    def __init__(self, config: Any, layers: nn.ModuleList) -> None:
        super().__init__(copy.deepcopy(config))
        self.layers = layers

    @classmethod
    def _can_set_attn_implementation(cls) -> bool:
        return True

    @classmethod
    def _can_set_experts_implementation(cls) -> bool:
        return True


def _equal(stored: Tensor, ours: Tensor) -> bool:
    return stored.shape == ours.shape and torch.equal(stored.to(ours.device, ours.dtype), ours)
