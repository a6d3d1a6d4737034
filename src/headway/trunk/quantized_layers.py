"""Linear layers for torchao's weights on a CPU, with kernels of torch.

On a CPU torchao's own product is missing for some weights, and slower than full precision for the rest.
"""

import functools
from typing import Any

import torch
from torch import Tensor, nn

# torch's kernel for int8 weights handles tokens sequentially; with more tokens, bfloat16 copies of the weights are faster
MAX_SEQUENTIAL_TOKENS = 24


def with_fast_kernel(layer: nn.Linear) -> nn.Linear:
    """An equivalent, faster layer with the same weight; `layer` itself if there is none."""
    weight: Any = layer.weight
    if weight.device.type != "cpu" or isinstance(layer, IntegerLinear | WideningLinear | PackedLinear):
        return layer
    kind = type(weight).__name__
    if kind in ("Int4Tensor", "Int4OpaqueTensor"):
        plain = weight.act_pre_scale is None and getattr(weight, "act_mapping_type", None) is None
        return PackedLinear(layer) if plain else layer
    if kind != "Int8Tensor" or weight.act_pre_scale is not None:
        return layer
    settings = weight.act_quant_kwargs
    if settings is None:
        return WideningLinear(layer) if weight.dtype == torch.bfloat16 and weight.scale.numel() == layer.out_features else layer
    per_token = type(settings.granularity).__name__ == "PerRow" and settings.mapping_type.name == "SYMMETRIC"
    rescaled = weight.act_quant_scale is not None or settings.reduce_range
    return IntegerLinear(layer) if per_token and not rescaled and integer_kernel_is_exact() else layer


class _Replacement(nn.Linear):
    """Base class with weight and bias of the replaced layer."""

    def __init__(self, layer: nn.Linear, weight: Any = None) -> None:
        super().__init__(layer.in_features, layer.out_features, bias=False, device="meta")
        self.weight = layer.weight if weight is None else nn.Parameter(weight, requires_grad=False)
        self.bias = layer.bias

    def finished(self, products: Tensor, input: Tensor) -> Tensor:
        """`products`, (tokens, out), plus bias, in the dtype and the dimensions of `input`."""
        if self.bias is not None:
            products = products + self.bias
        return products.to(input.dtype).reshape(*input.shape[:-1], self.out_features)


class WideningLinear(_Replacement):
    """int8 weights and bfloat16 activations: y = (x @ q_w.T) * s_w + bias, with a scale s_w for every output.

    torchao copies the weights to bfloat16 in every call, slower than a bfloat16 layer. torch's kernel converts weights while
    reading, and handles tokens sequentially. Beyond `MAX_SEQUENTIAL_TOKENS` tokens torchao's product is faster.
    """

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__(layer)
        weight: Any = layer.weight
        self.register_buffer("scale", weight.scale.flatten().to(weight.dtype), persistent=False)  # (out,)

    def forward(self, input: Tensor) -> Tensor:
        """(..., in) -> (..., out)."""
        rows = input.reshape(-1, self.in_features)
        if input.device.type != "cpu" or len(rows) > MAX_SEQUENTIAL_TOKENS or input.dtype != torch.bfloat16:
            return super().forward(input)
        weight: Any = self.weight
        scale: Any = self.scale
        found = torch._weight_int8pack_mm(rows.contiguous(), weight.qdata, scale)
        return self.finished(found, input)


class PackedLinear(_Replacement):
    """int4 weights and bfloat16 activations: y = x @ (q_w * s_w + z_w).T + bias, by groups of inputs.

    In memory the weights have the layout of torch's kernel, specific to the CPU. On disk the weights are torchao's `Int4Tensor`,
    readable on any machine: two values of q_w a byte, scales and zero points (groups, out).
    """

    def __init__(self, layer: nn.Linear) -> None:
        weight: Any = layer.weight
        super().__init__(layer, _packed(weight) if type(weight).__name__ == "Int4Tensor" else weight)

    def forward(self, input: Tensor) -> Tensor:
        """(..., in) -> (..., out)."""
        weight: Any = self.weight
        rows = input.reshape(-1, self.in_features).to(weight.dtype).contiguous()
        found = torch._weight_int4pack_mm_for_cpu(rows, weight.qdata, weight.block_size[1], weight.scale_and_zero)
        return self.finished(found, input)

    def _save_to_state_dict(self, destination: dict[str, Any], prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        destination[prefix + "weight"] = _unpacked(self.weight)


class IntegerLinear(_Replacement):
    """int8 weights and int8 activations on a CPU with integer dot products.

    y = (q_x @ q_w.T) * s_x * s_w + bias, q_x = round(x / s_x), with a scale s_x for every token and s_w for every output. The
    kernel takes unsigned activations: 128 is added to q_x, and 128 * (row sum of q_w) is subtracted from the product. torchao
    computes the row sums in every call, at a higher cost than the product. This layer computes the row sums once. The integers
    and the floats are the same as torchao's.
    """

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__(layer)
        weight: Any = layer.weight
        self.register_buffer("excess", 128 * weight.qdata.sum(1, dtype=torch.int32), persistent=False)  # (out,)

    def forward(self, input: Tensor) -> Tensor:
        """(..., in) -> (..., out)."""
        if input.device.type != "cpu":
            return super().forward(input)
        weight: Any = self.weight
        excess: Any = self.excess
        rows = input.reshape(-1, self.in_features)
        scale = rows.abs().amax(1, keepdim=True).div_(127.5).clamp_(min=torch.finfo(torch.float32).eps)  # (rows, 1)
        scale = scale.float()
        shifted = (rows * (1.0 / scale)).round_().clamp_(-128, 127).add_(128).to(torch.uint8)
        product = torch._int_mm(shifted, weight.qdata.t()).sub_(excess)  # (rows, out) int32, exact
        found = (product.to(scale.dtype) * scale).to(input.dtype) * weight.scale.flatten()
        return self.finished(found, input)


@functools.cache
def integer_kernel_is_exact() -> bool:
    """True if the product of unsigned and signed bytes is exact for extreme values; CPUs without VNNI may saturate."""
    unsigned, signed = torch.full((2, 64), 255, dtype=torch.uint8), torch.full((8, 64), -128, dtype=torch.int8)
    try:
        return bool((torch._int_mm(unsigned, signed.t()) == -255 * 128 * 64).all())
    except RuntimeError:  # this build of torch lacks the kernel
        return False


def _packed(weight: Any) -> Any:
    """torchao's `Int4Tensor` as torchao's `Int4OpaqueTensor`, packed for the kernel of this CPU."""
    from torchao.prototype.quantization.int4 import Int4OpaqueTensor

    # kernel: values from 0; plain layout: two values from -8 in a byte, the first value in the lower half
    pairs = torch.stack([weight.qdata << 4 >> 4, weight.qdata >> 4], dim=-1)  # (out, in / 2, 2), the sign carried along
    packed = torch._convert_weight_to_int4pack_for_cpu(pairs.flatten(1).to(torch.int32) + 8, 1)
    scale_and_zero = torch.stack([weight.scale, weight.zero_point], dim=-1).contiguous()
    return Int4OpaqueTensor(packed, scale_and_zero, list(weight.block_size), weight.shape)


def _unpacked(weight: Any) -> Any:
    """Inverse of `_packed`."""
    from torchao.quantization import Int4Tensor

    # the packed layout depends on the CPU; the kernel's product with the identity, with all scales 1, gives the exact values
    scale, zero_point = (each.contiguous() for each in weight.scale_and_zero.unbind(-1))
    ones = torch.stack([torch.ones_like(scale), torch.zeros_like(scale)], dim=-1)
    identity = torch.eye(weight.shape[1], dtype=scale.dtype)
    numbers = torch._weight_int4pack_mm_for_cpu(identity, weight.qdata, weight.block_size[1], ones).T.to(torch.int8)  # (out, in)
    pairs = (numbers[:, ::2] & 0xF) | (numbers[:, 1::2] << 4)
    return Int4Tensor(pairs.contiguous(), scale, zero_point, list(weight.block_size), weight.shape)
