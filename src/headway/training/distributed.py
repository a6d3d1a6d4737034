"""FSDP2 on any device, and tensors that may be shards.

accelerate turns FSDP on for GPUs and their like only (`AcceleratorState` never sets `DistributedType.FSDP` on
`MULTI_CPU`), so the model is sharded here, with torch's own `fully_shard`.
"""

from collections.abc import Iterator

import torch
from torch import Tensor, distributed, nn
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from headway.training.step import TrainingStep


def shard(step: TrainingStep) -> None:
    """Shard every layer of the trunk and of the heads, then the rest; needs a process group."""
    kinds = {type(layer) for layer in step.model.view.layers}
    for module in list(step.modules()):
        if type(module) in kinds:
            fully_shard(module)
    fully_shard(step)


def gather(step: nn.Module) -> None:
    """Make all parameters whole, for saving; every process has to ask. A sharded model cannot train on after it."""
    for module in step.modules():
        if isinstance(module, FSDPModule):
            module.reshard()
    found: dict[nn.Parameter, nn.Parameter] = {}  # tied ones stay tied
    for module in step.modules():
        for name, parameter in module.named_parameters(recurse=False):
            if isinstance(parameter, DTensor):
                if parameter not in found:
                    found[parameter] = nn.Parameter(whole(parameter.detach()), parameter.requires_grad)
                setattr(module, name, found[parameter])


def whole(value: Tensor) -> Tensor:
    """The whole tensor of a shard; every process has to ask."""
    return value.full_tensor() if isinstance(value, DTensor) else value


def like(value: Tensor, parameter: Tensor) -> Tensor:
    """A whole tensor as a shard, where that parameter is one."""
    if isinstance(parameter, DTensor) and not isinstance(value, DTensor) and value.shape == parameter.shape:
        return distribute_tensor(value.to(parameter.device), parameter.device_mesh, parameter.placements)
    return value


def trained(step: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    """Parameters that learn, tied ones once."""
    return ((name, parameter) for name, parameter in step.named_parameters() if parameter.requires_grad)


def barrier() -> None:
    if distributed.is_initialized():
        distributed.barrier()


def summed(values: Tensor) -> Tensor:
    """Sum over all processes."""
    if distributed.is_initialized() and distributed.get_world_size() > 1:
        values = values.clone()
        distributed.all_reduce(values)
    return values


@torch.no_grad()
def fill(parameter: Tensor, value: Tensor) -> None:
    """Copy a whole tensor into a parameter or a shard of one."""
    parameter.copy_(like(value, parameter))
