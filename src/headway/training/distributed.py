"""FSDP2 on any device, and functions of tensors that may be shards.

accelerate switches FSDP on for accelerators only (`AcceleratorState` never sets `DistributedType.FSDP` on `MULTI_CPU`). Headway
therefore shards the model with torch's own `fully_shard`.
"""

from collections.abc import Iterator

import torch
from torch import Tensor, distributed, nn
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from headway.training.step import TrainingStep


def shard(step: TrainingStep) -> None:
    """Shard every layer of the trunk and of the heads, then all other parameters. Needs a process group."""
    kinds = {type(layer) for layer in step.model.view.layers}
    for module in list(step.modules()):
        if type(module) in kinds:
            fully_shard(module)
    fully_shard(step)


def gather(step: nn.Module) -> None:
    """Gather all parameters from their shards, for saving. Every process has to call; training cannot continue afterwards."""
    for module in step.modules():
        if isinstance(module, FSDPModule):
            module.reshard()
    gathered: dict[nn.Parameter, nn.Parameter] = {}  # tied parameters stay tied
    for module in step.modules():
        for name, parameter in module.named_parameters(recurse=False):
            if isinstance(parameter, DTensor):
                if parameter not in gathered:
                    gathered[parameter] = nn.Parameter(full_tensor(parameter.detach()), parameter.requires_grad)
                setattr(module, name, gathered[parameter])


def full_tensor(value: Tensor) -> Tensor:
    """Full tensor of a shard. Every process has to call."""
    return value.full_tensor() if isinstance(value, DTensor) else value


def shard_like(value: Tensor, parameter: Tensor) -> Tensor:
    """Shard of a full tensor, distributed as the parameter; the full tensor for a parameter without shards."""
    if isinstance(parameter, DTensor) and not isinstance(value, DTensor) and value.shape == parameter.shape:
        return distribute_tensor(value.to(parameter.device), parameter.device_mesh, parameter.placements)
    return value


def trainable_parameters(step: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    """Names and parameters that require a gradient, tied parameters once."""
    return ((name, parameter) for name, parameter in step.named_parameters() if parameter.requires_grad)


def barrier() -> None:
    """Wait for all processes."""
    if distributed.is_initialized():
        distributed.barrier()


def sum_over_processes(values: Tensor) -> Tensor:
    """Sum over all processes."""
    if distributed.is_initialized() and distributed.get_world_size() > 1:
        values = values.clone()
        distributed.all_reduce(values)
    return values


@torch.no_grad()
def copy_into(parameter: Tensor, value: Tensor) -> None:
    """Copy a full tensor into a parameter, sharded or not."""
    parameter.copy_(shard_like(value, parameter))
