"""Low-rank adapters (LoRA, Hu et al. 2021, arXiv 2106.09685, section 4.1) on a trunk's linear layers, for a part of the tokens.

Adapters are forward hooks inside a `with` block. Outside the block the trunk is unmodified; libraries that replace layers, such as
peft, cannot promise that.
"""

import functools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.pytorch_utils import Conv1D

from headway.trunk import TrunkView


class LowRank(nn.Module):
    """x -> B A x, with B = 0 at first. Parameters and not layers, because nn.Linear layers are quantised."""

    def __init__(self, layer: nn.Module, rank: int, dtype: torch.dtype) -> None:
        super().__init__()
        inputs, outputs = widths(layer)
        device = next(layer.parameters()).device
        self.lora_A = nn.Parameter(torch.empty(rank, inputs, device=device, dtype=dtype))
        self.lora_B = nn.Parameter(torch.zeros(outputs, rank, device=device, dtype=dtype))
        nn.init.kaiming_uniform_(self.lora_A, a=math.sqrt(5))

    def forward(self, x: Tensor) -> Tensor:
        """(..., in) -> (..., out)."""
        return F.linear(F.linear(x, self.lora_A), self.lora_B)


class Adapters(nn.ModuleList):
    """Low-rank matrices of every adapted linear layer, by layer of the decoder and name.

    Args:
        layers: linear layers to adapt, by name, for each layer of the decoder.
        rank: rank of the matrices.
        scale: factor of the adapters' output.
        dtype: data type of the matrices.
    """

    def __init__(self, layers: Sequence[Mapping[str, nn.Module]], rank: int, scale: float, dtype: torch.dtype) -> None:
        super().__init__(
            nn.ModuleDict({name.replace(".", "-"): LowRank(layer, rank, dtype) for name, layer in named.items()})
            for named in layers
        )
        self.scale = scale

    @contextmanager
    def active(self, view: TrunkView, start: int) -> Iterator[None]:
        """Block in which adapters act on tokens from `start` on; outputs of earlier tokens are bit-identical to the trunk's own."""
        with ExitStack() as stack:
            for layer, pairs in zip(view.layers, self, strict=True):
                assert isinstance(pairs, nn.ModuleDict)
                if getattr(layer, "gradient_checkpointing", False) and layer.training:
                    # the layer runs again in the backward pass, after the end of this block
                    hooked = functools.partial(self._hooked, layer, pairs, start)
                    plain: Any = layer._gradient_checkpointing_func
                    stack.callback(setattr, layer, "_gradient_checkpointing_func", plain)
                    setattr(layer, "_gradient_checkpointing_func", _within(hooked, plain))  # noqa: B010
                else:
                    stack.enter_context(self._hooked(layer, pairs, start))
            yield

    @contextmanager
    def _hooked(self, layer: nn.Module, pairs: nn.ModuleDict, start: int) -> Iterator[None]:
        def add(pair: nn.Module, _layer: nn.Module, args: tuple[Tensor], output: Tensor) -> Tensor:
            return torch.cat([output[:, :start], output[:, start:] + self.scale * pair(args[0][:, start:])], dim=1)

        with ExitStack() as stack:
            for name, pair in pairs.items():
                linear = layer.get_submodule(name.replace("-", "."))
                stack.callback(linear.register_forward_hook(functools.partial(add, pair)).remove)
            yield


def widths(layer: nn.Module) -> tuple[int, int]:
    """Inputs and outputs of a linear layer."""
    if isinstance(layer, Conv1D):
        return layer.weight.shape[0], layer.weight.shape[1]
    assert isinstance(layer, nn.Linear)
    return layer.in_features, layer.out_features


@contextmanager
def record_linear_layers(view: TrunkView) -> Iterator[list[dict[str, nn.Module]]]:
    """Block that records, per layer of the decoder, the linear layers with an input for every token, (batch, seq, width).

    Experts have inputs sorted by expert, without the token order, and are not recorded.
    """
    layers: list[dict[str, nn.Module]] = [{} for _ in view.layers]

    def keep(index: int, name: str, layer: nn.Module, args: tuple[Any, ...], _output: Any) -> None:
        if args and args[0].dim() == 3:
            layers[index][name] = layer

    with ExitStack() as stack:
        for index, layer in enumerate(view.layers):
            for name, module in layer.named_modules():
                if isinstance(module, nn.Linear | Conv1D):
                    stack.callback(module.register_forward_hook(functools.partial(keep, index, name)).remove)
        yield layers


def _within(context: Callable[[], Any], checkpoint: Callable[..., Any]) -> Callable[..., Any]:
    """`checkpoint` with `context` entered for every run of the function, the run of the backward pass included."""

    def run(function: Callable[..., Any], *args: Any) -> Any:
        def inside(*args: Any) -> Any:
            with context():
                return function(*args)

        return checkpoint(inside, *args)

    return run
