"""MTP layers that a checkpoint ships with (DeepSeek-V3, arXiv 2412.19437; GLM-4-MoE; Qwen3-Next; MiMo, arXiv 2505.07608).

They stand among the trunk's own tensors, where transformers skips them on loading and drops them on saving. Here they become
`sequential` heads, and go back under the names they came with. transformers' own conversions do what its loading of the trunk
does (experts are merged on loading and split on saving); only the names of the layers' own parts are told here.
"""

import copy
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.core_model_loading import PrefixChange, convert_and_load_state_dict_in_model, revert_weight_conversion
from transformers.modeling_utils import LoadStateDictConfig

from headway.errors import CheckpointError, UnsupportedModelError
from headway.files import INDEX, SINGLE, read_json, write_json
from headway.heads.base import HeadStack
from headway.heads.sequential import SequentialHeads
from headway.model.native_mtp.names import INPUT, MTP_TENSOR_NAMES, OUTPUT, MTPTensorNames
from headway.trunk import TrunkView
from headway.trunk.quantization import trunk_is_quantized

COUNTS = ("num_nextn_predict_layers", "num_mtp_layers", "mtp_num_hidden_layers")


@dataclass(frozen=True)
class NativeMTPCheckpoint:
    """The MTP layers that a folder holds, read when asked for."""

    folder: Path
    layout: str
    depth: int  # layers of the trunk
    files: Mapping[str, str]  # tensor -> file, of the whole checkpoint

    @property
    def naming(self) -> MTPTensorNames:
        return MTP_TENSOR_NAMES[self.layout]

    @cached_property
    def names(self) -> list[str]:
        """Of all tensors of the MTP layers."""
        return sorted(name for name in self.files if self.naming.holds(name, self.depth))

    @cached_property
    def places(self) -> dict[str, tuple[int, str]]:
        """Tensor -> head and place in it. Raises UnsupportedModelError for one that has no place in the heads."""
        found = {name: self.naming.place(name, self.depth) for name in self.names}
        if lost := [name for name, place in found.items() if place is None]:
            raise UnsupportedModelError(f"Headway does not know what {lost[0]} is among the MTP layers in {self.folder}.")
        return {name: place for name, place in found.items() if place is not None}

    @cached_property
    def count(self) -> int:
        return max(k for k, _ in self.places.values()) + 1

    def read(self, names: list[str]) -> Iterator[tuple[str, Tensor]]:
        """The tensors of that name. Raises CheckpointError where a file is missing or damaged."""
        for file in sorted({self.files[name] for name in names}):
            with _opened(self.folder / file) as tensors:
                for name in names:
                    if self.files[name] == file:
                        yield name, tensors.get_tensor(name)


@dataclass(frozen=True)
class Provenance:
    """What heads that came with a checkpoint keep of it, so that saving them gives what was there."""

    shipped: NativeMTPCheckpoint
    dtypes: Mapping[str, torch.dtype]  # of tensors that are stored in another type than the others
    different: frozenset[str]  # copies of embedding or unembedding that are none: kept as they are


def find_native_mtp(folder: str | Path) -> NativeMTPCheckpoint | None:
    """The MTP layers in a folder, told by their projections; None where there are none, or no folder.

    Raises: CheckpointError where config or tensor files are damaged.
    """
    if not str(folder):
        return None
    folder = Path(folder).resolve()
    if not folder.is_dir() or not (folder / "config.json").is_file():
        return None
    config = read_json(folder / "config.json")
    depth = (config.get("text_config") or config).get("num_hidden_layers")
    files = checkpoint_files(folder)
    for name, layout in MTP_TENSOR_NAMES.items():
        if depth is not None and any((layout.place(tensor, depth) or (0, ""))[1] == "eh_proj.weight" for tensor in files):
            return NativeMTPCheckpoint(folder, name, depth, files)
    return None


def load_native_mtp(view: TrunkView, shipped: NativeMTPCheckpoint) -> SequentialHeads:
    """The layers as heads.

    Raises: CheckpointError where tensors are missing or of another shape; UnsupportedModelError where the layers are of another
        kind than the trunk's last one.
    """
    if trunk_is_quantized(view.model):
        raise UnsupportedModelError(f"The MTP layers in {shipped.folder} are quantised, and heads made of such are not known.")
    places, layout = shipped.places, shipped.naming
    said = {getattr(view.config, name, None) for name in COUNTS} - {None, 0}
    if said and shipped.count not in said:
        raise CheckpointError(
            f"{shipped.folder} holds {shipped.count} MTP layers, but its config speaks of {said.pop()}: it is not whole."
        )
    if shipped.count > 1 and not layout.several:
        raise UnsupportedModelError(f"{shipped.folder}: {shipped.count} MTP layers share one projection, and heads do not.")
    heads = SequentialHeads.from_trunk(view, shipped.count, {})
    holder = _Holder(view.config, heads.layers)
    tensors: dict[str, Tensor] = {}
    dtypes: dict[str, torch.dtype] = {}
    different = set()
    for name, tensor in shipped.read(shipped.names):
        k, inner = places[name]
        if inner in (INPUT, OUTPUT):
            if not _equal(tensor, _copied(view.model, inner)):
                different.add(name)
            continue
        dtypes[name] = tensor.dtype
        if layout.hidden_first and inner == "eh_proj.weight":
            tensor = tensor.roll(tensor.shape[1] // 2, 1)
        tensors[f"layers.{k}.{inner}"] = tensor
    conversions: list[Any] = getattr(view.model, "_weight_conversions", None) or get_model_conversion_mapping(view.model)
    conversions = [conversion for conversion in conversions if not isinstance(conversion, PrefixChange)]
    found, _ = convert_and_load_state_dict_in_model(
        holder, tensors, LoadStateDictConfig(weight_mapping=conversions, device_map={"": str(view.model.device)})
    )
    _complain(shipped, found)
    usual = Counter(dtypes.values()).most_common(1)[0][0]
    heads.requires_grad_(True)
    heads.origin = Provenance(shipped, {name: dtype for name, dtype in dtypes.items() if dtype != usual}, frozenset(different))
    return heads


def native_source(heads: HeadStack | None) -> NativeMTPCheckpoint | None:
    """Where these heads stand in a checkpoint among the trunk's tensors, if they do; a reduced vocabulary has no place there."""
    origin = heads.origin if isinstance(heads, SequentialHeads) and heads.draft_tokens is None else None
    return None if origin is None else origin.shipped


def named_tensors(
    heads: SequentialHeads, trunk: PreTrainedModel, layout: MTPTensorNames, depth: int
) -> dict[str, dict[str, Tensor]]:
    """Own name -> {name on disk: tensor}: several where the trunk's checkpoints split what transformers merges."""
    found: dict[str, dict[str, Tensor]] = {}
    for name, tensor in heads.state_dict().items():
        if not name.startswith("layers."):
            continue
        _, k, inner = name.split(".", 2)
        if layout.hidden_first and inner == "eh_proj.weight":
            tensor = tensor.roll(tensor.shape[1] // 2, 1)
        on_disk = layout.name(int(k), inner, depth)
        split = revert_weight_conversion(trunk, {on_disk: tensor.detach().cpu()})
        found[name] = {part: value.clone(memory_format=torch.contiguous_format) for part, value in split.items()}
    return found


def save_with(trunk: PreTrainedModel, heads: HeadStack | None, shipped: NativeMTPCheckpoint, folder: Path) -> None:
    """Write the trunk into `folder` with everything that stood beside it in `shipped`: its MTP layers, as `heads` have them if
    they came from there and else as they were, and what else transformers does not keep.

    Raises: CheckpointError where the folder that they came from is gone, or a tensor would be lost.
    """
    state = dict(trunk.state_dict())
    for name, kept in trunk.all_tied_weights_keys.items():
        if name in state and kept in state and state[name].data_ptr() == state[kept].data_ptr():
            if shipped.files.keys() & revert_weight_conversion(trunk, {name: state[name]}).keys():
                state[name] = state[name].clone()  # the checkpoint holds both
            else:
                del state[name]
    whole = revert_weight_conversion(trunk, state)  # under the names of the checkpoint
    extra: dict[str, Tensor] = {}
    if isinstance(heads, SequentialHeads) and heads.origin is not None and native_source(heads) is shipped:
        for parts in named_tensors(heads, trunk, shipped.naming, shipped.depth).values():
            extra |= parts
        for name, (_, inner) in shipped.places.items():
            if inner in (INPUT, OUTPUT) and name not in heads.origin.different:
                extra[name] = _copied(trunk, inner).detach().cpu().clone()
        extra |= {name: extra[name].to(dtype) for name, dtype in heads.origin.dtypes.items() if name in extra}
    extra |= dict(shipped.read(sorted(set(shipped.files) - set(extra) - set(whole))))
    # names are as they shall be: what belongs to no trunk (an encoder of images) would be renamed with it
    trunk.save_pretrained(folder, state_dict=whole | extra, save_original_format=False)
    if lost := sorted(set(shipped.files) - set(checkpoint_files(folder))):
        raise CheckpointError(f"{', '.join(lost[:3])} of {shipped.folder} would be lost on saving.")
    _keep_settings(shipped.folder, folder)


def _keep_settings(source: Path, folder: Path) -> None:
    """What a config says beside the trunk's own, and the files that it names. The code among these Headway never runs."""
    before, now = read_json(source / "config.json"), read_json(folder / "config.json")
    if "text_config" in before and "text_config" not in now:  # the trunk is the part of a larger model that reads text
        now.pop("architectures", None)
        write_json(folder / "config.json", before | {"text_config": before["text_config"] | now})
    for file in source.glob("*processor_config.json"):
        shutil.copyfile(file, folder / file.name)
    for target in (before.get("auto_map") or {}).values():
        for one in target if isinstance(target, list) else [target]:
            if one and (file := source / f"{one.split('.')[0]}.py").is_file():
                shutil.copyfile(file, folder / file.name)


def _complain(shipped: NativeMTPCheckpoint, found: Any) -> None:
    """Raise where loading left something open."""
    if found.unexpected_keys:
        kind = f"of another kind than the trunk's last layer, which has no {min(found.unexpected_keys)}"
        raise UnsupportedModelError(f"The MTP layers in {shipped.folder} are {kind}.")
    for names, what in (
        (found.missing_keys, "missing"),
        (found.mismatched_keys, "of another shape than this trunk needs"),
        (found.conversion_errors, "not to be converted"),
    ):
        if names:
            named = ", ".join(sorted(str(name[0] if isinstance(name, tuple) else name) for name in names)[:3])
            raise CheckpointError(f"{shipped.folder}: of its MTP layers, {named} is {what}. Fetch the checkpoint again.")


class _Holder(PreTrainedModel):
    """Layers as transformers' loading wants them: inside one of its models."""

    _supports_sdpa = _supports_flex_attn = _supports_flash_attn = True

    def __init__(self, config: Any, layers: nn.ModuleList) -> None:
        super().__init__(copy.deepcopy(config))
        self.layers = layers

    @classmethod
    def _can_set_attn_implementation(cls) -> bool:
        return True

    @classmethod
    def _can_set_experts_implementation(cls) -> bool:
        return True


def _copied(trunk: PreTrainedModel, which: str) -> Tensor:
    found: Any = trunk.get_input_embeddings() if which == INPUT else trunk.get_output_embeddings()
    return found.weight


def _equal(stored: Tensor, ours: Tensor) -> bool:
    return stored.shape == ours.shape and torch.equal(stored.to(ours.device, ours.dtype), ours)


def checkpoint_files(folder: Path) -> dict[str, str]:
    """Tensor -> file, of a model in safetensors; transformers prefers the single file too."""
    if (folder / SINGLE).is_file():
        with _opened(folder / SINGLE) as tensors:
            return dict.fromkeys(tensors.keys(), SINGLE)
    return dict(read_json(folder / INDEX).get("weight_map", {})) if (folder / INDEX).is_file() else {}


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    try:
        with safe_open(path, framework="pt") as tensors:
            yield tensors
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}. Fetch the checkpoint again.") from error
