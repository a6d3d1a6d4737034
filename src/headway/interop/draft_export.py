"""Writing of heads into a folder without a trunk, with every tensor accounted for."""

import dataclasses
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from headway.errors import ConfigError, UnsupportedModelError
from headway.files import replacing_folder, write_json
from headway.heads import HeadStack
from headway.interop.draft_checkpoint import TRUNK_NAME
from headway.interop.headers import SINGLE, headers
from headway.interop.recognition import RECORD
from headway.interop.report import ConversionReport, TensorOutcome
from headway.model import HeadwayModel
from headway.trunk.quantization import trunk_is_quantized


def require_heads(model: HeadwayModel, family: str, format_: str) -> HeadStack:
    """The model's heads.

    Raises:
        UnsupportedModelError: the model has no heads, heads of another family, or quantised heads.
    """
    heads = model.heads
    if heads is None or heads.family != family:
        actual = "no heads" if heads is None else f"{heads.family} heads"
        raise UnsupportedModelError(f"The {format_} format holds {family} heads, and this model has {actual}.")
    if trunk_is_quantized(model.trunk):
        raise UnsupportedModelError("A quantised model cannot be exported: export the one it was made from.")
    return heads


def check_options(options: Mapping[str, Any], format_: str, known: Iterable[str] = ()) -> None:
    """Raise ConfigError for an option that the format does not have."""
    if unknown := sorted(set(options) - set(known)):
        known_names = f"; it has: {', '.join(sorted(known))}" if known else ""
        raise ConfigError(f"The {format_} format has no option {', '.join(unknown)}{known_names}.")


def trunk_reference(model: HeadwayModel) -> dict[str, str]:
    """Config entry with the trunk's name; empty for a trunk without a name."""
    name = model.trunk.config.name_or_path
    return {TRUNK_NAME: name} if name else {}


def metadata(heads: HeadStack, reduced: bool = True) -> dict[str, Any]:
    """Config entry with the heads' own config, without the size of a draft vocabulary if the format has no reduced vocabulary."""
    options = {name: value for name, value in heads.config.options.items() if reduced or name != "draft_vocabulary"}
    return {RECORD: dataclasses.asdict(dataclasses.replace(heads.config, options=options))}


def write_draft_checkpoint(
    folder: Path, config: Mapping[str, Any], tensors: Mapping[str, Tensor], outcomes: Iterable[TensorOutcome]
) -> ConversionReport:
    """Write `config.json` and `model.safetensors`, completely or not at all.

    Args:
        folder: a new or empty folder.
        config: content of `config.json`.
        tensors: by name on disk.
        outcomes: one per tensor of the source.
    Raises:
        ConfigError: the folder holds files.
        CheckpointError: outcomes and written tensors disagree.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigError(f"{folder} exists, and its files could be replaced: name a new folder.")
    outcomes = list(outcomes)
    with replacing_folder(folder) as temporary:
        contiguous = {name: t.detach().cpu().clone(memory_format=torch.contiguous_format) for name, t in tensors.items()}
        save_file(contiguous, temporary / SINGLE, metadata={"format": "pt"})
        write_json(temporary / "config.json", config)
        return ConversionReport.from_outcomes([outcome.name for outcome in outcomes], outcomes, headers(temporary), folder)
