"""Quantised trunks through torchao: smaller weights to read, or integers to multiply.

A scheme quantises the linear layers of trunk and heads. Embedding and unembedding keep full precision: often both are a single
tensor, the unembedding chooses the tokens, and the losses of all heads need the weight. The quantised trunk is the new reference
and verifies all drafts.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.utils import is_torchao_available

from headway.errors import ConfigError, UnsupportedModelError
from headway.trunk.attention import SDPA_FLOAT64
from headway.trunk.quantized_layers import with_fast_kernel

GROUP = 64  # weights that share an int4 scale
SCALES = "a scale for each output and token"
NO_TORCHAO = "Quantisation needs torchao, which is not installed: pip install 'headway[quantize]'."


@dataclass(frozen=True)
class Scheme:
    """Storage and product of weights, and of activations in the dynamic schemes."""

    about: str
    config: Callable[[torch.device], Any]  # torchao's configuration for a device
    unsupported_reason: Callable[[torch.device, torch.dtype], str | None] = lambda device, dtype: None  # None if the scheme runs
    accepts_layer: Callable[[nn.Linear], bool] = lambda layer: True  # by the sizes of the layer
    saved_config: Callable[[torch.device], Any] | None = None  # torchao's configuration on disk, if not `config`


def quantize(trunk: PreTrainedModel, heads: nn.Module | None, scheme: str) -> None:
    """Quantise the linear layers of trunk and heads in place.

    Raises:
        ConfigError: the scheme is unknown or does not run on the trunk's device and dtype, torchao is missing, or the trunk is
            quantised already.
        UnsupportedModelError: the trunk has no linear layers (GPT-2 has convolutions).
    """
    if scheme not in SCHEMES:
        raise ConfigError(f"There is no quantisation scheme {scheme!r}; there are: {', '.join(SCHEMES)}.")
    if reason := unsupported_reason(scheme, trunk.device, trunk.dtype):
        raise ConfigError(f"The scheme {scheme} does not run here: {reason}.")
    if trunk_is_quantized(trunk):
        raise ConfigError("This model is quantised already; quantise the one it was made from.")
    unembedding = trunk.get_output_embeddings()
    if not any(SCHEMES[scheme].accepts_layer(layer) for layer in _linears(trunk, unembedding)):
        raise UnsupportedModelError(f"{type(trunk).__name__} has no linear layers that could be quantised.")
    from transformers import TorchAoConfig
    from transformers.quantizers.auto import AutoHfQuantizer

    for module in (trunk, heads):
        if module is not None:
            quantize_layers(module, SCHEMES[scheme], trunk.device, unembedding)
    # transformers attaches the same quantizer to a model quantised while loading; save_pretrained needs the quantizer
    saved = (SCHEMES[scheme].saved_config or SCHEMES[scheme].config)(trunk.device)
    quantizer: Any = AutoHfQuantizer.from_config(TorchAoConfig(saved), pre_quantized=False)
    trunk.hf_quantizer = quantizer
    quantizer.postprocess_model(trunk)
    replace_with_fast_kernels(trunk, heads)


def quantize_layers(module: nn.Module, scheme: Scheme, device: torch.device, excluded: nn.Module | None = None) -> None:
    """Quantise the linear layers inside `module` that the scheme accepts, except `excluded`."""
    from torchao.quantization import quantize_

    def chosen(layer: nn.Module, _: str) -> bool:
        return isinstance(layer, nn.Linear) and layer is not excluded and scheme.accepts_layer(layer)

    quantize_(module, scheme.config(device), filter_fn=chosen)


def unsupported_reason(scheme: str, device: torch.device, dtype: torch.dtype) -> str | None:
    """Reason why a scheme does not run on a device with a dtype; None if the scheme runs. Raises ConfigError without torchao."""
    if not is_torchao_available():
        raise ConfigError(NO_TORCHAO)
    return SCHEMES[scheme].unsupported_reason(device, dtype)


def replace_with_fast_kernels(trunk: PreTrainedModel, heads: nn.Module | None) -> None:
    """Replace quantised layers by faster equivalents, and make the output of quantised activations batch-invariant."""
    for module in (trunk, heads):
        for parent, name, layer in _children(module) if module is not None else ():
            setattr(parent, name, with_fast_kernel(layer))
    quantizes_activations = any(getattr(layer.weight, "act_quant_kwargs", None) is not None for layer in _linears(trunk))
    if quantizes_activations and trunk.device.type == "cpu" and trunk.config.get_text_config()._attn_implementation == "sdpa":
        trunk.set_attn_implementation(SDPA_FLOAT64)


def trunk_is_quantized(trunk: PreTrainedModel) -> bool:
    return getattr(trunk.config, "quantization_config", None) is not None


def is_quantized(value: Tensor) -> bool:
    """True for a tensor of torchao."""
    return type(value).__module__.partition(".")[0] == "torchao"


def dequantized(module: nn.Module) -> nn.Module:
    """`module` with full-precision linear layers in place of quantised layers, for training or to initialise heads."""
    for parent, name, layer in _children(module):
        if is_quantized(layer.weight):
            plain = nn.Linear(layer.in_features, layer.out_features, layer.bias is not None, device="meta")
            plain.weight = nn.Parameter(_dense(layer.weight))
            plain.bias = layer.bias
            setattr(parent, name, plain)
    return module


def stored_bytes(module: nn.Module) -> int:
    """Bytes of the parameters in memory; a shared parameter counts once."""
    return sum(sum(part.nbytes for part in parts(value).values()) for value in module.parameters())


def parts(value: Tensor) -> dict[str, Tensor]:
    """Plain tensors inside a quantised tensor, by name; a plain tensor under the name ``."""
    if not is_quantized(value):
        return {"": value.detach()}
    inner: Any = value
    names = [*inner.tensor_data_names, *getattr(inner, "optional_tensor_data_names", [])]
    return {name: getattr(inner, name) for name in names if getattr(inner, name) is not None}


def to_safetensors(tensors: dict[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and metadata for a safetensors file; quantised tensors in torchao's own layout."""
    if not any(is_quantized(value) for value in tensors.values()):
        return tensors, {}
    from torchao.prototype.safetensors.safetensors_support import flatten_tensor_state_dict

    plain = {name: value if is_quantized(value) else value.detach() for name, value in tensors.items()}
    return flatten_tensor_state_dict(plain)


def from_safetensors(tensors: dict[str, Tensor], metadata: dict[str, str]) -> dict[str, Tensor]:
    """Inverse of `to_safetensors`. Raises ConfigError if the tensors are quantised and torchao is missing."""
    if "tensor_names" not in metadata:
        return tensors
    if not is_torchao_available():
        raise ConfigError(NO_TORCHAO)
    from torchao.prototype.safetensors.safetensors_support import unflatten_tensor_state_dict

    return unflatten_tensor_state_dict(tensors, metadata)[0]


def _dense(weight: Any) -> Tensor:
    if "dequantize" in vars(type(weight)):
        return weight.dequantize()
    identity = torch.eye(weight.shape[1], dtype=weight.dtype, device=weight.device)  # torchao's packed int4 can only multiply
    return nn.functional.linear(identity, weight).T.contiguous()


def _children(module: nn.Module) -> list[tuple[nn.Module, str, nn.Linear]]:
    """(parent, name in the parent, layer) for all linear layers inside `module`."""
    return [
        (parent, name, child)
        for parent in module.modules()
        for name, child in parent.named_children()
        if isinstance(child, nn.Linear)
    ]


def _linears(module: nn.Module, excluded: nn.Module | None = None) -> list[nn.Linear]:
    return [layer for layer in module.modules() if isinstance(layer, nn.Linear) and layer is not excluded]


# torchao's recommended inductor settings would lower the precision of all float32 products in the process


def _int8(device: torch.device) -> Any:
    from torchao.quantization import Int8WeightOnlyConfig

    return Int8WeightOnlyConfig(set_inductor_config=False)


def _int4(device: torch.device) -> Any:
    from torchao.quantization import Int4WeightOnlyConfig

    if device.type == "cpu":
        from torchao.prototype.quantization.int4 import PrototypeInt4WeightOnlyConfig

        return PrototypeInt4WeightOnlyConfig(group_size=GROUP, set_inductor_config=False)
    return Int4WeightOnlyConfig(group_size=GROUP, int4_packing_format="tile_packed_to_4d", set_inductor_config=False)


def _int8_dynamic(device: torch.device) -> Any:
    from torchao.quantization import Int8DynamicActivationInt8WeightConfig
    from torchao.utils import should_reduce_range

    return Int8DynamicActivationInt8WeightConfig(reduce_range=should_reduce_range(device), set_inductor_config=False)


def _fp8_dynamic(device: torch.device) -> Any:
    from torchao.quantization import Float8DynamicActivationFloat8WeightConfig, PerRow

    return Float8DynamicActivationFloat8WeightConfig(granularity=PerRow(), set_inductor_config=False)


def _int4_saved(device: torch.device) -> Any:
    """torchao's plain layout: weights packed for the present CPU could not be loaded on a different CPU."""
    from torchao.quantization import Int4WeightOnlyConfig

    return Int4WeightOnlyConfig(group_size=GROUP, set_inductor_config=False) if device.type == "cpu" else _int4(device)


def _accepts_int4(layer: nn.Linear) -> bool:
    return layer.in_features % GROUP == 0 and layer.out_features % 16 == 0


def _int4_unsupported(device: torch.device, dtype: torch.dtype) -> str | None:
    if device.type not in ("cpu", "cuda"):
        return f"torchao has int4 kernels for CPUs and CUDA devices, none for {device.type}"
    return None if dtype == torch.bfloat16 else f"the int4 kernel takes bfloat16 activations, and this model's are {_name(dtype)}"


def _int8_dynamic_unsupported(device: torch.device, dtype: torch.dtype) -> str | None:
    return None if device.type in ("cpu", "cuda") else f"there is no int8 product on {device.type}"


def _fp8_unsupported(device: torch.device, dtype: torch.dtype) -> str | None:
    if device.type != "cuda" or torch.cuda.get_device_capability(device) < (8, 9):
        return "fp8 products need a CUDA device of compute capability 8.9 or more"
    return None if dtype == torch.bfloat16 else f"scales by row need bfloat16 weights, and this model's are {_name(dtype)}"


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


SCHEMES = {
    "int8": Scheme("int8 weights, a scale for each output", _int8),
    "int4": Scheme(f"int4 weights, a scale for each {GROUP}", _int4, _int4_unsupported, _accepts_int4, _int4_saved),
    "int8-dynamic": Scheme(f"int8 weights and activations, {SCALES}", _int8_dynamic, _int8_dynamic_unsupported),
    "fp8-dynamic": Scheme(f"fp8 weights and activations, {SCALES}", _fp8_dynamic, _fp8_unsupported),
}
