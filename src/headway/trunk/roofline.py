"""Choice of a quantisation scheme: the machine's roofline (Williams et al. 2009), and timings of the trunk's own layers.

A forward takes at least the time to read the weights and at least the time of the products. The roofline names the longer time as
the bound. The timings show the speed of the actual kernels; the choice follows the timings.
"""

import copy
import itertools
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from headway.trunk.quantization import SCHEMES, quantize_layers, stored_bytes, unsupported_reason
from headway.trunk.quantized_layers import with_fast_kernel

MARGIN = 0.9  # time of a scheme relative to no scheme, at most: quantisation costs quality, and noise must not decide
MAX_TIMED_BYTES = 2**28  # of layers timed in a row; a few layers would stay in the caches, unlike in a forward
MIN_SECONDS = 0.05  # duration of a timing
REPEATS = 3


@dataclass(frozen=True)
class Roofline:
    """Best speed of a device."""

    bandwidth: float  # bytes a second
    compute: float  # operations a second in the model's dtype; a multiplication and an addition are two operations
    integer: float | None  # operations a second in int8; None without an int8 kernel


@dataclass(frozen=True)
class Choice:
    """Fastest scheme, with the measurements."""

    scheme: str  # "none" if no scheme is faster by `MARGIN`
    why: str  # the reason in a few sentences
    times: dict[str, float]  # scheme -> seconds for the same layers, "none" included
    roofline: Roofline


@torch.inference_mode()
def choose(trunk: PreTrainedModel, tokens: int) -> Choice:
    """Fastest scheme for forwards over `tokens` tokens, batch size times tokens a sequence. Raises ConfigError without torchao."""
    device, dtype, unembedding = trunk.device, trunk.dtype, trunk.get_output_embeddings()
    layers = [layer for layer in trunk.modules() if isinstance(layer, nn.Linear) and layer is not unembedding]
    refused = {scheme: reason for scheme in SCHEMES if (reason := unsupported_reason(scheme, device, dtype))}
    roofline = measure(device, dtype)
    if not layers:
        return Choice("none", "none: this model has no linear layers that could be quantised.", {}, roofline)
    total = sum(stored_bytes(layer) for layer in layers)
    ends = itertools.accumulate(stored_bytes(layer) for layer in layers)
    sample = [layer for layer, end in zip(layers, ends, strict=True) if end <= MAX_TIMED_BYTES] or layers[:1]
    times = _time_schemes(sample, tokens, [scheme for scheme in SCHEMES if scheme not in refused])
    best = min(times, key=times.__getitem__)
    scheme = best if times[best] < MARGIN * times["none"] else "none"
    operations = 2 * tokens * sum(layer.weight.numel() for layer in layers)
    reading, computing = total / roofline.bandwidth, operations / roofline.compute
    bound = "reading the weights" if reading > computing else "computing"
    integer = "" if roofline.integer is None else f", {roofline.integer / 1e9:.0f} billion in int8"
    ratios = ", ".join(f"{name} {value / times['none']:.2f}" for name, value in times.items())
    why = (
        f"{scheme}: a forward over {tokens} tokens reads {total / 1e6:.1f} MB of layers ({1e3 * reading:.2f} ms at "
        f"{roofline.bandwidth / 1e9:.1f} GB/s) and computes {operations / 1e6:.1f} million operations ({1e3 * computing:.2f} ms "
        f"at {roofline.compute / 1e9:.0f} billion/s{integer}), so {bound} bounds it. Its layers, timed: {ratios}."
    )
    why += "".join(f" {name}: {reason}." for name, reason in refused.items())
    return Choice(scheme, why, times, roofline)


@torch.inference_mode()
def measure(device: torch.device, dtype: torch.dtype) -> Roofline:
    """Roofline of a device: timings of a sum over 64 MiB and of square products of size 1024."""
    size = 1024
    a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    operations = 2 * size**3
    integer = None
    try:
        unsigned = torch.ones(size, size, dtype=torch.uint8 if device.type == "cpu" else torch.int8, device=device)
        signed = torch.ones(size, size, dtype=torch.int8, device=device)
        integer = operations / _seconds({"": [lambda: torch._int_mm(unsigned, signed.t())]}, device)[""]
    except RuntimeError:  # this device has no int8 kernel
        pass
    compute = operations / _seconds({"": [lambda: a @ b]}, device)[""]
    return Roofline(memory_bandwidth(device, dtype, 2**26), compute, integer)


def memory_bandwidth(device: torch.device, dtype: torch.dtype, size: int) -> float:
    """Bytes a second of a sum over a tensor of `size` bytes."""
    block = torch.ones(size // dtype.itemsize, device=device, dtype=dtype)
    return block.nbytes / _seconds({"": [block.sum]}, device)[""]


def _time_schemes(layers: Sequence[nn.Linear], tokens: int, schemes: Sequence[str]) -> dict[str, float]:
    """Scheme -> seconds for all `layers` over (tokens, in) states, "none" included."""
    device, dtype = layers[0].weight.device, layers[0].weight.dtype
    widths = {layer.in_features for layer in layers}
    states = {width: torch.randn(tokens, width, device=device).to(dtype) for width in widths}
    calls: dict[str, list[Callable[[], Any]]] = {}
    for scheme in ("none", *schemes):
        copies = nn.ModuleList(copy.deepcopy(layer) for layer in layers)
        if scheme != "none":
            quantize_layers(copies, SCHEMES[scheme], device)
        calls[scheme] = [_call(with_fast_kernel(each), states[each.in_features]) for each in copies if isinstance(each, nn.Linear)]
    return _seconds(calls, device)


def _call(layer: nn.Module, states: Tensor) -> Callable[[], Any]:
    return lambda: layer(states)


def _seconds(calls: dict[str, list[Callable[[], Any]]], device: torch.device) -> dict[str, float]:
    """Name -> seconds for a list of calls, the fastest of `REPEATS` interleaved timings of `MIN_SECONDS`."""

    def timed(name: str, repeats: int) -> float:
        start = time.perf_counter()
        for _ in range(repeats):
            for call in calls[name]:
                call()
        if device.type != "cpu":
            torch.accelerator.synchronize(device)
        return time.perf_counter() - start

    repeats = {}
    for name in calls:
        timed(name, 1)  # warm-up
        repeats[name] = max(1, round(MIN_SECONDS / max(timed(name, 1), 1e-9)))
    timings = [{name: timed(name, repeats[name]) / repeats[name] for name in calls} for _ in range(REPEATS)]
    return {name: min(timing[name] for timing in timings) for name in calls}
