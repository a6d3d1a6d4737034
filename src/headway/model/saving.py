"""A model saved as an ordinary checkpoint; the new folder is reopened and checked before replacing an older folder."""

import dataclasses
import re
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.core_model_loading import revert_weight_conversion

from headway.errors import CheckpointError
from headway.files import model_files, read_json, replacing_folder
from headway.heads import TENSORS_FILE, HeadStack, read_config
from headway.model.checkpoint_files import checkpoint_files, opened
from headway.model.native_mtp.checkpoint import NativeMTPCheckpoint, Provenance
from headway.model.native_mtp.write import save_with_native_mtp
from headway.trunk.quantization import trunk_is_quantized


def save_model(
    trunk: PreTrainedModel,
    heads: HeadStack | None,
    native: NativeMTPCheckpoint | None,
    provenance: Provenance | None,
    folder: str | Path,
    training: dict[str, Any] | None,
) -> None:
    """Write trunk and heads into `folder`, and delete weights, indices, adapters and heads of an earlier save.

    Args:
        trunk: saved by transformers.
        heads: saved in `headway.json` and `headway.safetensors`; with `provenance`, among the trunk's tensors.
        native: MTP layers of the checkpoint that the trunk came from.
        provenance: of `heads`, if `heads` are the MTP layers of `native`.
        folder: further files in an existing folder stay.
        training: record of the training run, for `headway.json`.
    Raises: CheckpointError if the folder of MTP layers to copy is gone, if the trunk carries an adapter, or if the written
        files are not complete.
    """
    check_no_adapter(trunk)
    if heads is None or heads.draft_tokens is not None:  # MTP layers of a checkpoint have no reduced vocabulary
        provenance = None
    if native is not None and trunk_is_quantized(trunk):  # MTP layers belong to the trunk before quantisation
        if provenance is None:
            warnings.warn(f"The MTP layers in {native.folder} are not kept beside a quantised trunk.", stacklevel=3)
        native = provenance = None
    with replacing_folder(folder, model_files) as temporary:
        if native is not None:
            save_with_native_mtp(trunk, native, provenance, temporary)
        else:
            # transformers 5.23 cannot revert conversions for a quantised checkpoint; quantised names are unconverted
            trunk.save_pretrained(temporary, save_original_format=not trunk_is_quantized(trunk))
        if heads is not None and provenance is None:
            if training is not None:
                heads.config = dataclasses.replace(heads.config, training=training)
            heads.write_files(temporary)
        if problem := _problem(temporary, trunk, heads if provenance is None else None):
            raise CheckpointError(f"The model cannot be saved in {folder}: {problem}.")


def check_no_adapter(trunk: nn.Module) -> None:
    """Raise CheckpointError for a trunk with adapter layers: transformers would save the adapter alone."""
    if any(hasattr(module, "base_layer") for module in trunk.modules()):
        raise CheckpointError(
            f"This {type(trunk).__name__} carries an adapter. Merge the adapter first: PeftModel.merge_and_unload(), or load the "
            "folder with HeadwayModel.from_pretrained."
        )


def _problem(folder: Path, trunk: PreTrainedModel, heads: HeadStack | None) -> str | None:
    """First defect of a saved folder, by config and tensor headers; None for a complete folder."""
    try:
        if "model_type" not in read_json(folder / "config.json"):
            return "config.json has no model_type"
        shapes = _stored_shapes(folder, checkpoint_files(folder))
        if trunk_is_quantized(trunk):  # torchao stores a weight in several tensors under the module's name
            owners = {name.rpartition(".")[0] for name in shapes}
            missing = [name for name in _state(trunk) if name.rpartition(".")[0] not in owners]
        else:
            expected = revert_weight_conversion(trunk, _state(trunk))
            missing = [name for name, tensor in expected.items() if shapes.get(name) != tuple(tensor.shape)]
        if missing:
            return f"{missing[0]} is missing or has another shape in the written files"
        if heads is not None:
            read_config(folder)
            with opened(folder / TENSORS_FILE) as tensors:
                present = set(tensors.keys())
            lost = [name for name in heads.checkpoint_names().values() if name not in present and not _in_parts(name, present)]
            if lost:
                return f"{lost[0]} is missing in {TENSORS_FILE}"
    except CheckpointError as error:
        return str(error).removesuffix(".")
    return None


def _state(trunk: PreTrainedModel) -> dict[str, torch.Tensor]:
    """Trunk tensors that a checkpoint has to hold, without values: a tied tensor is stored once."""
    skipped = [re.compile(pattern) for pattern in trunk._keys_to_ignore_on_save or ()]
    return {
        name: torch.empty(tensor.shape, dtype=tensor.dtype, device="meta")
        for name, tensor in trunk.state_dict().items()
        if name not in trunk.all_tied_weights_keys and not any(pattern.search(name) for pattern in skipped)
    }


def _stored_shapes(folder: Path, files: dict[str, str]) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {}
    for file in sorted(set(files.values())):
        with opened(folder / file) as tensors:
            shapes |= {name: tuple(tensors.get_slice(name).get_shape()) for name in tensors.keys()}  # noqa: SIM118
    return {name: shape for name, shape in shapes.items() if name in files}


def _in_parts(name: str, present: set[str]) -> bool:
    """True if torchao has stored the tensor `name` as several tensors."""
    owner, _, last = name.rpartition(".")
    return any(stored.startswith(f"{owner}._{last}_") for stored in present)
