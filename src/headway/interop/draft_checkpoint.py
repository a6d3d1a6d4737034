"""`DraftCheckpoint`: a folder with heads and no trunk, read with every tensor accounted for."""

import dataclasses
import warnings
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from headway.errors import CheckpointError, ConfigError
from headway.heads import HeadsConfig, HeadStack
from headway.interop.headers import Header, config_of, headers
from headway.interop.recognition import RECORD
from headway.interop.report import ConversionReport, TensorOutcome
from headway.model import HeadwayModel, load_trunk

TRUNK_NAME = "base_model_name_or_path"


@dataclass(frozen=True)
class DraftCheckpoint:
    """Settings and tensor headers of a folder; `read` loads tensors."""

    folder: Path
    config: Mapping[str, Any]
    headers: Mapping[str, Header]

    @classmethod
    def open(cls, folder: Path) -> "DraftCheckpoint":
        """Read settings and headers.

        Raises:
            CheckpointError: the folder is missing, empty or damaged, or holds weights as pickle files alone.
        """
        tensors = headers(folder)
        if not tensors:
            raise CheckpointError(f"{folder} holds no tensors: there is no safetensors file in it.")
        return cls(folder, config_of(folder), tensors)

    def read(self, names: Collection[str] | None = None) -> dict[str, Tensor]:
        """Tensors by name; default: all."""
        names = self.headers if names is None else names
        tensors: dict[str, Tensor] = {}
        for file in sorted({self.headers[name].file for name in names}):
            with safe_open(self.folder / file, framework="pt") as opened:
                tensors |= {name: opened.get_tensor(name) for name in names if self.headers[name].file == file}
        return tensors

    def read_metadata(self, family: str) -> HeadsConfig | None:
        """Heads' config that an export of Headway wrote (`headway.interop.draft_export.metadata`); None without a valid config."""
        try:
            config = HeadsConfig(**self.config.get(RECORD, {}))
        except TypeError:
            return None
        valid = isinstance(config.options, dict) and isinstance(config.training, dict) and isinstance(config.count, int)
        return config if valid and config.family == family and config.count > 0 else None

    def load_trunk(self, trunk: str | None, declared: Any) -> HeadwayModel:
        """Model for the heads, without heads.

        Args:
            trunk: folder or hub id that the user names.
            declared: trunk that the checkpoint names, used if a local folder.
        Raises:
            ConfigError: neither names a usable trunk.
            CheckpointError: the trunk cannot be loaded.
        """
        if trunk is None and not (isinstance(declared, str) and declared and Path(declared).is_dir()):
            hint = f": the heads were made for {declared!r}" if declared else ""
            raise ConfigError(f"{self.folder} holds heads without a trunk. Name the trunk with --trunk{hint}.")
        return HeadwayModel(load_trunk(trunk or str(declared)), None)

    def account_for(
        self,
        own_names: Mapping[str, Collection[str]],
        reasons: Mapping[str, str],
        expected: Collection[str] = (),
        names: Collection[str] = (),
    ) -> None:
        """Check that every tensor was read or left out for a reason, and warn of tensors left out.

        Args:
            own_names: name on disk -> names in the heads.
            reasons: name on disk -> reason for leaving the tensor out.
            expected: names on disk left out without a warning.
            names: names on disk to account for; default: all of the folder.
        Raises:
            CheckpointError: a tensor is neither read nor left out for a reason.
        """
        names = names or self.headers
        outcomes = [
            TensorOutcome(name, tuple(own_names.get(name, ())), "" if own_names.get(name) else reasons.get(name, ""))
            for name in names
        ]
        present = {name for several in own_names.values() for name in several}
        report = ConversionReport.from_outcomes(names, outcomes, present, self.folder)
        for name, reason in report.left_out.items():
            if name not in expected:
                warnings.warn(f"{self.folder}: {name} is left out: {reason}.", UserWarning, stacklevel=4)

    def attach(
        self,
        model: HeadwayModel,
        heads: HeadStack,
        tensors: Mapping[str, Tensor],
        defaults: Mapping[str, Any],
        optional: Collection[str] = (),
    ) -> HeadwayModel:
        """Fill the heads and attach them to the model.

        Args:
            model: the model without heads.
            heads: heads with the options of the checkpoint.
            tensors: by the heads' own names.
            defaults: default options of the family.
            optional: own names of tensors that may be missing and keep their initial value.
        Raises:
            CheckpointError: a tensor is missing, unknown to the heads, or of another shape.
        """
        own = heads.checkpoint_tensors()
        for name, tensor in tensors.items():
            if name not in own:
                raise CheckpointError(f"{self.folder}: {name} has no place in {heads.family} heads on this trunk.")
            if tensor.shape != own[name].shape:
                raise CheckpointError(
                    f"{self.folder}: {name} is {_size(tensor)} there, and {_size(own[name])} in {heads.family} heads on this "
                    "trunk. Name the trunk that the heads were made for."
                )
        if missing := sorted(set(own) - set(tensors) - set(optional)):
            raise CheckpointError(f"{self.folder}: {missing[0]} is missing, which {heads.family} heads need.")
        _warn_of_rounding(tensors, own, self.folder)
        with torch.no_grad():
            for name, tensor in tensors.items():
                own[name].copy_(tensor)
        heads.config = _restored(heads.config, self.read_metadata(heads.family), defaults)
        return HeadwayModel(model.trunk, heads.train(model.training))


def check_tokens(ids: Tensor, vocabulary: int, source: str) -> Tensor:
    """Token ids of a reduced vocabulary as int64.

    Raises:
        CheckpointError: the ids are no vector of whole numbers, repeat a token, or lie outside the trunk's vocabulary.
    """
    if ids.dim() != 1 or ids.is_floating_point():
        raise CheckpointError(f"{source} must be a vector of whole numbers, and is {_size(ids)} of {ids.dtype}.")
    if len(ids) and (int(ids.min()) < 0 or int(ids.max()) >= vocabulary):
        raise CheckpointError(f"{source} names tokens {int(ids.min())} to {int(ids.max())}, and the trunk has {vocabulary}.")
    if len(ids.unique()) != len(ids):
        raise CheckpointError(f"{source} names a token twice.")
    return ids.long()


def equal_tensors(stored: Tensor, tensor: Tensor) -> bool:
    """True if both tensors are equal in the device and data type of the second."""
    return stored.shape == tensor.shape and torch.equal(stored.to(tensor.device, tensor.dtype), tensor)


def _restored(config: HeadsConfig, recorded: HeadsConfig | None, defaults: Mapping[str, Any]) -> HeadsConfig:
    """The recorded config if it describes the same heads, with training record and options left to their defaults."""
    both = [dataclasses.replace(c, options={**defaults, **c.options}, training={}) for c in (recorded, config) if c]
    return recorded if recorded and both[0] == both[1] else config


def _warn_of_rounding(tensors: Mapping[str, Tensor], own: Mapping[str, Tensor], folder: Path) -> None:
    pairs = {(tensor.dtype, own[name].dtype) for name, tensor in tensors.items() if tensor.is_floating_point()}
    lossy = sorted(f"{a} to {b}".replace("torch.", "") for a, b in pairs if torch.promote_types(a, b) != b)
    if lossy:
        warnings.warn(f"{folder}: heads take the data type of their trunk: {', '.join(lossy)}.", UserWarning, stacklevel=5)


def _size(tensor: Tensor) -> str:
    return " x ".join(map(str, tensor.shape)) or "one number"
