"""Heads in a folder of their own, without their trunk: how one is read and written with every tensor accounted for."""

import dataclasses
import warnings
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from headway.errors import CheckpointError, ConfigError, UnsupportedModelError
from headway.files import replacing_folder, write_json
from headway.heads import HeadsConfig, HeadStack
from headway.interop.headers import SINGLE, Header, config_of, headers
from headway.interop.recognition import RECORD
from headway.interop.report import ConversionReport, TensorOutcome
from headway.model import HeadwayModel, load_trunk
from headway.trunk.quantization import trunk_is_quantized

MADE_FOR = "base_model_name_or_path"


@dataclass(frozen=True)
class Draft:
    """What a folder holds; `read` loads tensors."""

    folder: Path
    config: Mapping[str, Any]
    headers: Mapping[str, Header]

    @classmethod
    def of(cls, folder: Path) -> "Draft":
        """Raises: CheckpointError where there is no folder, nothing in it, something damaged, or a pickle."""
        found = headers(folder)
        if not found:
            raise CheckpointError(f"{folder} holds no tensors: there is no safetensors file in it.")
        return cls(folder, config_of(folder), found)

    def read(self, names: Collection[str] | None = None) -> dict[str, Tensor]:
        """The tensors of these names, default: all."""
        names = self.headers if names is None else names
        tensors: dict[str, Tensor] = {}
        for file in sorted({self.headers[name].file for name in names}):
            with safe_open(self.folder / file, framework="pt") as opened:
                tensors |= {name: opened.get_tensor(name) for name in names if self.headers[name].file == file}
        return tensors


def heads_of(model: HeadwayModel, family: str, format_: str) -> HeadStack:
    """The model's heads. Raises UnsupportedModelError where there are none, or of another family, or quantised ones."""
    heads = model.heads
    if heads is None or heads.family != family:
        found = "none" if heads is None else f"{heads.family} ones"
        raise UnsupportedModelError(f"The {format_} format is for heads of the family {family}, and this model has {found}.")
    if trunk_is_quantized(model.trunk):
        raise UnsupportedModelError("A quantised model cannot be exported: export the one it was made from.")
    return heads


def refuse_options(options: Mapping[str, Any], format_: str, known: Iterable[str] = ()) -> None:
    """Raise ConfigError for an option that a format does not have."""
    if unknown := sorted(set(options) - set(known)):
        there_are = f"; it has: {', '.join(sorted(known))}" if known else ""
        raise ConfigError(f"The {format_} format has no option {', '.join(unknown)}{there_are}.")


def made_for(model: HeadwayModel) -> dict[str, str]:
    """The trunk's name as configs have it, if it has one."""
    name = model.trunk.config.name_or_path
    return {MADE_FOR: name} if name else {}


def record_of(heads: HeadStack, reduced: bool = True) -> dict[str, Any]:
    """The heads' own config, without the size of a vocabulary that is not reduced there."""
    options = {name: value for name, value in heads.config.options.items() if reduced or name != "draft_vocabulary"}
    return {RECORD: dataclasses.asdict(dataclasses.replace(heads.config, options=options))}


def recorded(draft: Draft, family: str) -> HeadsConfig | None:
    """What `record_of` wrote there, if it did, and it is whole."""
    try:
        found = HeadsConfig(**draft.config.get(RECORD, {}))
    except TypeError:
        return None
    sound = isinstance(found.options, dict) and isinstance(found.training, dict) and isinstance(found.count, int)
    return found if sound and found.family == family and found.count > 0 else None


def write_draft(
    folder: Path, config: Mapping[str, Any], tensors: Mapping[str, Tensor], fates: Iterable[TensorOutcome]
) -> ConversionReport:
    """Write `config.json` and `model.safetensors`, whole or not at all.

    Args: fates: of the tensors that there were, all of them.
    Raises: ConfigError where the folder holds something already, CheckpointError where the books do not close.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigError(f"{folder} is there already, and may hold what these files would replace: name a new folder.")
    fates = list(fates)
    with replacing_folder(folder) as temporary:
        found = {name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format) for name, tensor in tensors.items()}
        save_file(found, temporary / SINGLE, metadata={"format": "pt"})
        write_json(temporary / "config.json", config)
        return ConversionReport.of([fate.name for fate in fates], fates, headers(temporary), folder)


def trunk_for(draft: Draft, trunk: str | None, said: Any) -> HeadwayModel:
    """The model that heads go onto, without them yet.

    Args: trunk: what the user names; said: what the folder says they were made for, used where it is a folder here.
    Raises: ConfigError where neither is of use, CheckpointError where it cannot be loaded.
    """
    if trunk is None and not (isinstance(said, str) and said and Path(said).is_dir()):
        wanted = f": they were made for {said!r}" if said else ""
        raise ConfigError(f"{draft.folder} holds heads alone. Name the model that they go onto with --trunk{wanted}.")
    return HeadwayModel(load_trunk(trunk or str(said)), None)


def attach(
    model: HeadwayModel,
    heads: HeadStack,
    tensors: Mapping[str, Tensor],
    draft: Draft,
    defaults: Mapping[str, Any],
    optional: Collection[str] = (),
) -> HeadwayModel:
    """Fill the heads, and put them onto the model.

    Args: tensors: by the heads' own names; optional: of what may be missing, and stays as it is; defaults: of the family's options.
    Raises: CheckpointError for a tensor that is missing, that they do not have, or that they have in another shape.
    """
    kept = heads.checkpoint_tensors()
    for name, tensor in tensors.items():
        if name not in kept:
            raise CheckpointError(f"{draft.folder}: {name} has no place in {heads.family} heads on this trunk.")
        if tensor.shape != kept[name].shape:
            raise CheckpointError(
                f"{draft.folder}: {name} is {_size(tensor)} there, and {_size(kept[name])} in {heads.family} heads on this trunk. "
                "Name the trunk that they were made for."
            )
    if missing := sorted(set(kept) - set(tensors) - set(optional)):
        raise CheckpointError(f"{draft.folder}: {missing[0]} is missing, which {heads.family} heads need.")
    _warn_of_rounding(tensors, kept, draft.folder)
    with torch.no_grad():
        for name, tensor in tensors.items():
            kept[name].copy_(tensor)
    heads.config = _remembered(heads.config, recorded(draft, heads.family), defaults)
    return HeadwayModel(model.trunk, heads.train(model.training))


def settle(
    draft: Draft,
    own: Mapping[str, Collection[str]],
    reasons: Mapping[str, str],
    quiet: Collection[str] = (),
    all_: Collection[str] = (),
) -> None:
    """Close the books on what was read, and warn of what was left out.

    Args: own: name on disk -> names here; reasons: name on disk -> why it was left out; quiet: of those, what nobody misses;
        all_: names on disk, default: all of the folder.
    Raises: CheckpointError where a tensor is neither read nor left out for a reason.
    """
    names = all_ or draft.headers
    fates = [TensorOutcome(name, tuple(own.get(name, ())), "" if own.get(name) else reasons.get(name, "")) for name in names]
    account = ConversionReport.of(names, fates, {one for several in own.values() for one in several}, draft.folder)
    for name, reason in account.left_out.items():
        if name not in quiet:
            warnings.warn(f"{draft.folder}: {name} is left out: {reason}.", UserWarning, stacklevel=4)


def _remembered(config: HeadsConfig, record: HeadsConfig | None, defaults: Mapping[str, Any]) -> HeadsConfig:
    """`config` as the record has it, where that speaks of the same heads: with how they were trained, and options left to their
    defaults where they were."""
    both = [dataclasses.replace(one, options={**defaults, **one.options}, training={}) for one in (record, config) if one]
    return record if record and both[0] == both[1] else config


def _warn_of_rounding(tensors: Mapping[str, Tensor], kept: Mapping[str, Tensor], folder: Path) -> None:
    pairs = {(tensor.dtype, kept[name].dtype) for name, tensor in tensors.items() if tensor.is_floating_point()}
    lossy = sorted(f"{a} to {b}".replace("torch.", "") for a, b in pairs if torch.promote_types(a, b) != b)
    if lossy:
        warnings.warn(f"{folder}: heads take the type of their trunk: {', '.join(lossy)}.", UserWarning, stacklevel=5)


def tokens_of(ids: Tensor, vocabulary: int, where: str) -> Tensor:
    """Checked tokens of a reduced vocabulary. Raises CheckpointError where one is none of the trunk's, or there twice."""
    if ids.dim() != 1 or ids.is_floating_point():
        raise CheckpointError(f"{where} must be a row of whole numbers, and is {_size(ids)} of {ids.dtype}.")
    if len(ids) and (int(ids.min()) < 0 or int(ids.max()) >= vocabulary):
        raise CheckpointError(f"{where} speaks of tokens {int(ids.min())} to {int(ids.max())}, and the trunk has {vocabulary}.")
    if len(ids.unique()) != len(ids):
        raise CheckpointError(f"{where} names a token twice.")
    return ids.long()


def same(stored: Tensor, ours: Tensor) -> bool:
    return stored.shape == ours.shape and torch.equal(stored.to(ours.device, ours.dtype), ours)


def _size(tensor: Tensor) -> str:
    return " x ".join(map(str, tensor.shape)) or "one number"
