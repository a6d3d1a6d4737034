"""Which quantisation pays: this machine's roofline (Williams et al. 2009), and the trunk's own layers timed under each scheme.

A forward takes at least the time to read its weights and the time to multiply by them, whichever is longer. The roofline says
which of the two bounds a trunk at a batch, the timings what the kernels at hand make of it; the choice follows the timings.
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

from headway.trunk.quantization import SCHEMES, quantize_layers, stored_bytes, why_not
from headway.trunk.quantized_layers import adapt_layer

MARGIN = 0.9  # a scheme must take less than this share of the time as it is: quantising costs quality, noise must not decide
STREAMED = 2**28  # bytes of layers timed one after the other at most; few would stay in the caches, as they do not in a forward
SECONDS = 0.05  # each timing takes at least so long
ROUNDS = 3


@dataclass(frozen=True)
class Roofline:
    """What the device does at best."""

    bandwidth: float  # bytes a second
    compute: float  # operations a second in the model's dtype, a multiplication and an addition counting two
    integer: float | None  # the same for int8; None where there is no such kernel


@dataclass(frozen=True)
class Choice:
    """`scheme` is "none" where nothing wins; `why` says it in a few plain sentences."""

    scheme: str
    why: str
    times: dict[str, float]  # seconds for the same layers, by scheme that runs here, "none" among them
    roofline: Roofline


@torch.inference_mode()
def choose(trunk: PreTrainedModel, tokens: int) -> Choice:
    """The fastest scheme for forwards over `tokens` tokens, rows times tokens a row. Raises ConfigError without torchao."""
    device, dtype, kept = trunk.device, trunk.dtype, trunk.get_output_embeddings()
    layers = [layer for layer in trunk.modules() if isinstance(layer, nn.Linear) and layer is not kept]
    refused = {scheme: reason for scheme in SCHEMES if (reason := why_not(scheme, device, dtype))}
    roofline = measure(device, dtype)
    if not layers:
        return Choice("none", "none: this model has no linear layers that could be quantised.", {}, roofline)
    total = sum(stored_bytes(layer) for layer in layers)
    ends = itertools.accumulate(stored_bytes(layer) for layer in layers)
    sample = [layer for layer, end in zip(layers, ends, strict=True) if end <= STREAMED] or layers[:1]
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
    """Time a sum over 64 MiB and square products of 1024."""
    size = 1024
    a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    operations = 2 * size**3
    integer = None
    try:
        unsigned = torch.ones(size, size, dtype=torch.uint8 if device.type == "cpu" else torch.int8, device=device)
        signed = torch.ones(size, size, dtype=torch.int8, device=device)
        integer = operations / _seconds({"": [lambda: torch._int_mm(unsigned, signed.t())]}, device)[""]
    except RuntimeError:  # no such kernel on this device
        pass
    compute = operations / _seconds({"": [lambda: a @ b]}, device)[""]
    return Roofline(memory_bandwidth(device, dtype, 2**26), compute, integer)


def memory_bandwidth(device: torch.device, dtype: torch.dtype, size: int) -> float:
    """Bytes a second at which a sum reads a tensor of `size` bytes."""
    block = torch.ones(size // dtype.itemsize, device=device, dtype=dtype)
    return block.nbytes / _seconds({"": [block.sum]}, device)[""]


def _time_schemes(layers: Sequence[nn.Linear], tokens: int, schemes: Sequence[str]) -> dict[str, float]:
    """Seconds for all `layers` over (tokens, in) states, by scheme, "none" among them."""
    device, dtype = layers[0].weight.device, layers[0].weight.dtype
    widths = {layer.in_features for layer in layers}
    states = {width: torch.randn(tokens, width, device=device).to(dtype) for width in widths}
    calls: dict[str, list[Callable[[], Any]]] = {}
    for scheme in ("none", *schemes):
        copies = nn.ModuleList(copy.deepcopy(layer) for layer in layers)
        if scheme != "none":
            quantize_layers(copies, SCHEMES[scheme], device)
        calls[scheme] = [_call(adapt_layer(each), states[each.in_features]) for each in copies if isinstance(each, nn.Linear)]
    return _seconds(calls, device)


def _call(layer: nn.Module, states: Tensor) -> Callable[[], Any]:
    return lambda: layer(states)


def _seconds(calls: dict[str, list[Callable[[], Any]]], device: torch.device) -> dict[str, float]:
    """Seconds for each list of calls: the fastest of some rounds, in which they take turns, repeated until long enough to time."""

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
        repeats[name] = max(1, round(SECONDS / max(timed(name, 1), 1e-9)))
    rounds = [{name: timed(name, repeats[name]) / repeats[name] for name in calls} for _ in range(ROUNDS)]
    return {name: min(each[name] for each in rounds) for name in calls}
