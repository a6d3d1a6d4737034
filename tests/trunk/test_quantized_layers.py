"""Layers with torch's kernels multiply as torchao's layers do, and are saved in torchao's layout."""

import pytest
import torch
from torch import nn

from headway.trunk.quantization import SCHEMES, dequantized, quantize_layers
from headway.trunk.quantized_layers import (
    MAX_SEQUENTIAL_TOKENS,
    IntegerLinear,
    PackedLinear,
    WideningLinear,
    integer_kernel_is_exact,
    with_fast_kernel,
)

pytest.importorskip("torchao", reason="torchao is not installed: pip install 'headway[quantize]'")

CPU = torch.device("cpu")


def quantized(scheme: str, inputs: int = 128, outputs: int = 96, dtype: torch.dtype = torch.bfloat16) -> nn.Linear:
    """A linear layer with torchao's own kernel."""
    layers = nn.Sequential(nn.Linear(inputs, outputs).to(dtype))
    quantize_layers(layers, SCHEMES[scheme], CPU)
    return layers[0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_integer_layers_equal_torchaos_bit_for_bit(dtype: torch.dtype) -> None:
    if not integer_kernel_is_exact():
        pytest.skip("this CPU has no exact product of bytes")
    layer = quantized("int8-dynamic", 96, 64, dtype)
    states = torch.randn(3, 5, 96) * torch.logspace(-9, 3, 5)[:, None]
    states[0, 0] = 0
    with torch.no_grad():
        assert torch.equal(layer(states.to(dtype)), IntegerLinear(layer)(states.to(dtype)))


@pytest.mark.parametrize(("scheme", "kind"), [("int8", WideningLinear), ("int4", PackedLinear)])
def test_layers_with_fast_kernels_multiply_by_torchaos_weights(scheme: str, kind: type[nn.Linear]) -> None:
    layer = quantized(scheme)
    adapted = with_fast_kernel(layer)
    assert type(adapted) is kind and with_fast_kernel(adapted) is adapted
    states = torch.randn(3, MAX_SEQUENTIAL_TOKENS, 128).to(torch.bfloat16)
    wide = dequantized(nn.Sequential(layer))[0].weight.double()
    assert layer.bias is not None
    exact = states.double() @ wide.T + layer.bias.double()
    with torch.no_grad():
        for rows in (states, states[:1], states[0, :1]):  # above the limit, at the limit, one token
            found = adapted(rows)
            assert found.dtype == torch.bfloat16 and found.shape == (*rows.shape[:-1], 96)
        # a bfloat16 has 8 binary digits: the product is rounded once, the sum with the bias once more
        bound = 2.0**-7 * (states.double().abs() @ wide.abs().T + layer.bias.double().abs()) + 1e-6
        assert ((adapted(states).double() - exact).abs() <= bound).all()
        together = adapted(states[0, :MAX_SEQUENTIAL_TOKENS])
        for few in (1, 2, 5, 16):  # batch-invariant: bits do not depend on the number of tokens
            assert torch.equal(adapted(states[0, :few]), together[:few])


def test_packed_weights_are_saved_in_torchaos_plain_layout_and_load_unchanged() -> None:
    from torchao.quantization import Int4Tensor

    packed = with_fast_kernel(quantized("int4"))
    weight = packed.weight
    wide = dequantized(nn.Sequential(with_fast_kernel(quantized("int4"))))[0].weight
    assert wide.shape == weight.shape
    plain = packed.state_dict()["weight"]
    assert type(plain) is Int4Tensor and plain.qdata.shape == (96, 64) and plain.scale.shape == plain.zero_point.shape == (2, 96)
    # plain layout: two values from -8 in a byte, the first in the lower half; weight = value * scale + zero point of the group
    byte = plain.qdata.to(torch.int64) & 0xFF
    numbers = torch.stack([byte & 15, byte >> 4], dim=-1).flatten(1)
    numbers = torch.where(numbers > 7, numbers - 16, numbers)
    groups = torch.arange(128) // 64
    expected = numbers * plain.scale.double().T[:, groups] + plain.zero_point.double().T[:, groups]
    found = torch._weight_int4pack_mm_for_cpu(torch.eye(128, dtype=torch.bfloat16), weight.qdata, 64, weight.scale_and_zero).T
    assert torch.allclose(found.double(), expected, rtol=2.0**-7, atol=1e-6)
    layer = nn.Linear(128, 96, device="meta")
    layer.weight, layer.bias = nn.Parameter(plain, requires_grad=False), packed.bias
    again = with_fast_kernel(layer).weight
    assert torch.equal(again.qdata, weight.qdata) and torch.equal(again.scale_and_zero, weight.scale_and_zero)
