"""MTP layers saved among a trunk's tensors, under the names of the original checkpoint."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor
from transformers import PreTrainedModel
from transformers.core_model_loading import revert_weight_conversion

from headway.errors import CheckpointError
from headway.files import read_json, write_json
from headway.heads.sequential import SequentialHeads
from headway.model.checkpoint_files import checkpoint_files
from headway.model.native_mtp.checkpoint import NativeMTPCheckpoint, Provenance
from headway.model.native_mtp.names import INPUT, OUTPUT, MTPTensorNames
from headway.model.native_mtp.read import copied_weight


def mtp_tensors(heads: SequentialHeads, trunk: PreTrainedModel, naming: MTPTensorNames, depth: int) -> dict[str, dict[str, Tensor]]:
    """Name in the heads -> {name on disk: tensor}; several tensors if the trunk's checkpoints split merged experts.

    Args:
        heads: heads with a layer for every depth.
        trunk: model with the conversions of the layer's kind.
        naming: names on disk.
        depth: number of layers of the trunk.
    """
    found: dict[str, dict[str, Tensor]] = {}
    for name, tensor in heads.state_dict().items():
        if not name.startswith("layers."):
            continue
        _, k, inner = name.split(".", 2)
        if naming.hidden_first and inner == "eh_proj.weight":
            tensor = tensor.roll(tensor.shape[1] // 2, 1)
        on_disk = naming.to_checkpoint_name(int(k), inner, depth)
        split = revert_weight_conversion(trunk, {on_disk: tensor.detach().cpu()})
        found[name] = {part: value.clone(memory_format=torch.contiguous_format) for part, value in split.items()}
    return found


def save_with_native_mtp(trunk: PreTrainedModel, native: NativeMTPCheckpoint, provenance: Provenance | None, folder: Path) -> None:
    """Write the trunk, the MTP layers and all further tensors of `native` into `folder`.

    Args:
        trunk: the trunk as trained now.
        native: checkpoint that the trunk came from.
        provenance: heads read from `native`, written as trained now; None: MTP layers are copied from `native`.
        folder: empty folder to fill.
    Raises: CheckpointError if the folder of `native` is gone, or a tensor would be lost.
    """
    state = dict(trunk.state_dict())
    for name, kept in trunk.all_tied_weights_keys.items():
        if name in state and kept in state and state[name].data_ptr() == state[kept].data_ptr():
            if native.files.keys() & revert_weight_conversion(trunk, {name: state[name]}).keys():
                state[name] = state[name].clone()  # the checkpoint holds both
            else:
                del state[name]
    of_trunk = revert_weight_conversion(trunk, state)  # under the names of the checkpoint
    extra = {} if provenance is None else dict(_head_tensors(trunk, provenance))
    extra |= dict(native.read(sorted(set(native.files) - set(extra) - set(of_trunk))))
    # the names are final: transformers would also rename tensors outside the trunk (an encoder of images)
    trunk.save_pretrained(folder, state_dict=of_trunk | extra, save_original_format=False)
    if lost := sorted(set(native.files) - set(checkpoint_files(folder))):
        raise CheckpointError(f"{', '.join(lost[:3])} of {native.folder} would be lost on saving.")
    _keep_settings(native.folder, folder)


def _head_tensors(trunk: PreTrainedModel, provenance: Provenance) -> Iterator[tuple[str, Tensor]]:
    """Name on disk and tensor of all MTP layers and of tied copies, in the dtypes of the checkpoint."""
    native = provenance.checkpoint
    tensors: dict[str, Tensor] = {}
    for parts in mtp_tensors(provenance.heads, trunk, native.naming, native.depth).values():
        tensors |= parts
    for name, (_, inner) in native.tensor_map.items():
        if inner in (INPUT, OUTPUT) and name not in provenance.untied_copies:
            tensors[name] = copied_weight(trunk, inner).detach().cpu().clone()
    for name, tensor in tensors.items():
        yield name, tensor.to(provenance.dtypes.get(name, tensor.dtype))


def _keep_settings(source: Path, folder: Path) -> None:
    """Copy config entries outside the trunk's own, and the files that the config names. Headway never runs the code."""
    before, now = read_json(source / "config.json"), read_json(folder / "config.json")
    if "text_config" in before and "text_config" not in now:  # the trunk is the text part of a larger model
        now.pop("architectures", None)
        write_json(folder / "config.json", before | {"text_config": before["text_config"] | now})
    for file in source.glob("*processor_config.json"):
        shutil.copyfile(file, folder / file.name)
    for target in (before.get("auto_map") or {}).values():
        for reference in target if isinstance(target, list) else [target]:
            if reference and (file := source / f"{reference.split('.')[0]}.py").is_file():
                shutil.copyfile(file, folder / file.name)
